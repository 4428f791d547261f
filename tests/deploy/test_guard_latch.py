"""The latched stop survives whatever ends the process; only an operator clears it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from guard_checks import arm_axes

from lehrling.datasets.errors import InputError, LockedError, StorageError
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_events import Cause, State
from lehrling.deploy.guard_latch import Latch, clear_latch, read_latch
from lehrling.deploy.guard_limits import GuardConfig

KILLED = """
import os, signal, sys
from pathlib import Path
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axis
from lehrling.deploy.guard_limits import GuardConfig
guard = Guard(GuardConfig(latch_path=Path(sys.argv[1])), (Axis("joint1", low=-1, high=1),))
guard.stop(0, "the gate was opened")
os.kill(os.getpid(), signal.SIGKILL)
"""


def guard_at(path: Path) -> Guard:
    return Guard(GuardConfig(latch_path=path), arm_axes(2))


def test_a_restart_does_not_clear_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "latch.json"
    with guard_at(path) as guard:
        guard.stop(1, "the gate was opened")
    for _ in range(3):
        with guard_at(path) as guard:
            assert guard.latch.cause == Cause.REQUEST
            assert guard.latch.text == "the gate was opened"
            assert guard.step(2).state is State.STOPPED
            assert guard.submit(3, [0.0, 0.0]).cause is Cause.LATCHED


def test_a_process_killed_in_the_tick_of_the_stop_leaves_it_latched(tmp_path: Path) -> None:
    path = tmp_path / "latch.json"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    with guard_at(path) as guard:
        assert guard.latch.text == "the gate was opened"


def test_the_file_is_whole_and_says_who_cleared_it_when(tmp_path: Path) -> None:
    path = tmp_path / "latch.json"
    with guard_at(path) as guard:
        guard.stop(1)
        assert guard.reset(2, "  Kim Park ")
        assert guard.latch.reset_by.startswith("Kim Park at 20")
    state = json.loads(path.read_text())
    assert state["cause"] == ""
    assert state["reset_by"].startswith("Kim Park at 20")
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".partial"] == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cause": ""}', "\x00\xff", "x" * 100_000])
def test_a_latch_file_that_cannot_be_read_counts_as_latched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "latch.json"
    path.write_text(content, encoding="latin-1")
    assert read_latch(path).latched
    with guard_at(path) as guard:
        assert guard.step(1).state is State.STOPPED


def test_the_first_cause_stays(tmp_path: Path) -> None:
    with guard_at(tmp_path / "latch.json") as guard:
        guard.stop(1, "first")
        guard.stop(2, "second")
        assert guard.latch.text == "first"


def test_one_robot_has_one_guard(tmp_path: Path) -> None:
    path = tmp_path / "latch.json"
    with guard_at(path), pytest.raises(LockedError, match="Another guard commands the robot"):
        guard_at(path)
    guard_at(path).close()


def test_a_directory_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="latch"):
        guard_at(tmp_path / "absent" / "latch.json")


def test_a_full_or_broken_disk_does_not_unlatch_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "latch.json"
    path.parent.mkdir()
    latch = Latch(path)
    for entry in path.parent.iterdir():
        entry.unlink()
    path.parent.rmdir()
    latch.engage("workspace", "outside")
    assert latch.latched
    assert "latch.json failed" in latch.failure
    with pytest.raises(StorageError):
        latch.clear("Kim")
    assert latch.latched


def test_a_stop_that_cannot_be_stored_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "latch.json"
    path.parent.mkdir()
    guard = guard_at(path)
    for entry in path.parent.iterdir():
        entry.unlink()
    path.parent.rmdir()
    guard.stop(1)
    events = guard.step(2).events
    assert Cause.STORAGE in [event.cause for event in events]
    assert guard.step(3).state is State.STOPPED


def test_a_local_operator_can_clear_the_file_while_no_guard_runs(tmp_path: Path) -> None:
    path = tmp_path / "latch.json"
    with guard_at(path) as guard:
        guard.stop(1, "the gate was opened")
        with pytest.raises(LockedError):
            clear_latch(path, "Kim")
    assert clear_latch(path, "Kim").text == "the gate was opened"
    with guard_at(path) as guard:
        assert not guard.latch.latched
    with pytest.raises(InputError, match="no latch file"):
        clear_latch(tmp_path / "other.json", "Kim")
