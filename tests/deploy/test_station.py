"""What driving a robot begins with: signals, and a folder for its latched stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import ARM6

from lehrling.datasets.errors import StorageError
from lehrling.deploy.station import guard_config, signals


@pytest.fixture(autouse=True)
def hangup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("before", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_lost_terminal_ends_a_drive_but_not_under_nohup(before: signal.Handlers, ends: bool) -> None:
    signal.signal(signal.SIGHUP, before)
    with signals() as stopped:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stopped() is ends
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_to_end(number: signal.Signals) -> None:
    with signals() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="file/lehrling failed: Not a directory"):
        guard_config(None, ARM6)
