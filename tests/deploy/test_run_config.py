"""What a robot is told: paths, and a key that never goes unencrypted to another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehrling.datasets.errors import InputError
from lehrling.deploy.run_config import parse_run_config


@pytest.mark.parametrize("server", ["ws://192.168.10.9:8000", "ws://plant", "ws://[2001:db8::1]:8000/"])
def test_a_key_does_not_go_in_the_clear_to_another_machine(server: str) -> None:
    with pytest.raises(InputError, match=r"Expected wss:// for a server on another machine, got ws://") as caught:
        parse_run_config({"embodiment": "arm6", "server": server, "key_file": "key"}, Path("cell.yaml"))
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("server", ["ws://127.0.0.1:8000", "ws://localhost", "ws://[::1]:8000", "wss://plant:8000"])
def test_a_key_goes_to_this_machine_or_encrypted(server: str, tmp_path: Path) -> None:
    config = parse_run_config({"embodiment": "arm6", "server": server, "key_file": "key"}, tmp_path / "cell.yaml")
    assert (config.server, config.key_file) == (server, tmp_path / "key")


def test_a_server_without_keys_may_be_reached_as_it_is() -> None:
    assert parse_run_config({"embodiment": "arm6", "server": "ws://plant:8000"}, Path("x")).key_file is None
