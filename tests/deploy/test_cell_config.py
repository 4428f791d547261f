"""A cell's configuration: read whole, refused in one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lehrling.datasets.errors import InputError
from lehrling.deploy.cell_config import read_cell_config
from lehrling.deploy.handshake_image import Mode, RecipeLimits

RECIPES: dict[Any, Any] = {1: {"name": "gears", "instruction": "Put the gears into the box."}}


def written(tmp_path: Path, **parts: Any) -> Path:
    path = tmp_path / "cell.yaml"
    path.write_text(yaml.safe_dump({"recipes": RECIPES} | parts))
    return path


def test_a_short_file_gets_sensible_defaults_and_its_own_folder(tmp_path: Path) -> None:
    config = read_cell_config(written(tmp_path))
    assert config.opcua.host == "127.0.0.1"
    assert config.opcua.key == tmp_path / "pki" / "cell.pem"
    assert config.audit == tmp_path / "audit.jsonl"
    assert (config.mqtt, config.s7, config.recipes[1].adapter) == (None, None, None)


def test_the_handshake_is_told_in_nanoseconds_and_shares(tmp_path: Path) -> None:
    recipes = {7: RECIPES[1] | {"cycle_max_s": 2.5, "speed_max_pct": 40}}
    told = {"heartbeat_timeout_ms": 300, "debounce_ms": 10, "modes": ["AUTOMATIC"]}
    options = read_cell_config(written(tmp_path, recipes=recipes, handshake=told)).handshake_options()
    assert options.recipes == {7: RecipeLimits(2_500_000_000, 0.4)}
    assert (options.heartbeat_timeout_ns, options.debounce_ns) == (300_000_000, 10_000_000)
    assert options.modes == {Mode.AUTOMATIC}


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"robots": {}}, "'robots' is not a key of a cell configuration; expected name, recipes, handshake"),
        ({"opcua": {"anonymous": True}}, "'opcua.anonymous' is not a key of a cell configuration; expected host, port"),
        ({"recipes": {}}, "recipes"),
        ({"recipes": {0: RECIPES[1]}}, "recipes.0"),
        ({"recipes": {70000: RECIPES[1]}}, "recipes.70000"),
        ({"recipes": {1: {"name": "gears"}}}, "recipes.1.instruction: Field required"),
        ({"recipes": {1: RECIPES[1] | {"adapter": "../x"}}}, "recipes.1.adapter"),
        ({"recipes": {1: RECIPES[1] | {"cycle_max_s": float("nan")}}}, "cycle_max_s"),
        ({"handshake": {"modes": ["TURBO"]}}, "handshake.modes"),
        (
            {"handshake": {"heartbeat_timeout_ms": 50}},
            "expected heartbeat_timeout_ms of at least 3 x cycle_ms (60), got 50",
        ),
        ({"handshake": {"commands_from": "s7"}}, "handshake.commands_from is s7, which needs the part s7"),
        ({"s7": {"host": "10.0.0.5", "db": 40}}, "s7.unauthenticated: Field required"),
        ({"robot": {"axes": [{"name": "a"}, {"name": "a"}]}}, "robot.axes: expected every axis once"),
        ({"mqtt": {"topic": "cell/#"}}, "mqtt.topic"),
        ({"mqtt": {"host": "broker.example", "password_file": "p"}}, "a password would travel in the clear"),
        ({"opcua": {"trusted": "nowhere"}}, "expected a folder of client certificates"),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_expected(tmp_path: Path, parts: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as refused:
        read_cell_config(written(tmp_path, **parts))
    text = str(refused.value)
    assert problem in text
    assert str(tmp_path / "cell.yaml") in text
    assert "\n" not in text


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_cell_config(tmp_path / "none.yaml")
