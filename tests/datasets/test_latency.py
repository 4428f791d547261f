from __future__ import annotations

import json
from pathlib import Path

import pytest
from flawed import Flaw, add

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.latency import calibrate


@pytest.mark.parametrize("late_ms", [-60.0, 0.0, 90.0])
def test_a_cameras_lag_behind_the_joints_it_shows_is_found(tmp_path: Path, late_ms: float) -> None:
    for number in range(2):
        add(tmp_path / "d.zarr", f"e{number}", Flaw(seconds=6 + number, follows=True, camera_late_ms=late_ms))
    found = calibrate(Dataset.open(tmp_path / "d.zarr"))
    lags = {(lag.earlier, lag.later): lag for lag in found.lags}
    camera = lags["joint_position", "front"]
    assert camera.lag_ms == pytest.approx(late_ms, abs=12)
    assert camera.episodes == 2
    assert ("joint_position", "wrist") not in lags


def test_streams_are_told_with_what_is_declared_and_what_a_view_should_allow(tmp_path: Path) -> None:
    add(tmp_path / "d.zarr", "one", Flaw(lag_ms=140))
    found = calibrate(Dataset.open(tmp_path / "d.zarr"))
    front = found.streams["front"]
    assert front.p50_ms == pytest.approx(30, abs=0.5)
    assert front.declared_ms == 30
    assert front.suggested_ms == 30
    assert found.streams["joint_position"].suggested_ms == 5
    command = next(lag for lag in found.lags if lag.earlier == "tcp_command")
    assert command.lag_ms == pytest.approx(140, abs=3)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["lags"][0]["earlier"] == "tcp_command"


def test_without_episodes_there_is_nothing_to_calibrate_from(tmp_path: Path) -> None:
    Dataset.open_for_writing(tmp_path / "d.zarr", create=True).close()
    with pytest.raises(InputError, match="Expected sealed episodes to calibrate from"):
        calibrate(Dataset.open(tmp_path / "d.zarr"))
