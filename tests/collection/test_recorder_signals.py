"""Whatever ends a recorder or one of its processes: what was recorded is saved, or repaired at the next opening."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from record_runs import RecordRun, robot_file
from recordings import jpeg
from ros_publishers import Publishers, own_domain, publishers
from ros_rig import COMPRESSED, STATE, front, timed
from watching import alive, until

from lehrling.datasets.dataset import Dataset

pytest.importorskip("rclpy")
PROMISED_S, TRANSPORT_S = 0.1, 0.25
"""The promise itself is the kill matrix's matter; here the way through the middleware of a busy machine is in it."""
Start = Callable[..., RecordRun]


@pytest.fixture(scope="module")
def robot() -> Iterator[Publishers]:
    own_domain()
    with publishers() as made:
        made.open("joints", "/joint_states", STATE)
        made.open("front", "/front/compressed", COMPRESSED)
        made.pump("joints", timed, 100)
        made.pump("front", front, 10)
        yield made


@pytest.fixture
def start(robot: Publishers, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a recorder of joints and a camera."""
    runs: list[RecordRun] = []
    file = robot_file(tmp_path / "robot.json", ("position",), ("front",))

    def begin(*arguments: str, terminal: bool = False) -> RecordRun:
        runs.append(RecordRun(tmp_path / "d.zarr", file, *arguments, terminal=terminal))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


@contextmanager
def timed_kill(robot: Publishers, pid: int) -> Iterator[tuple[float, int]]:
    """Kill a process without warning; give when, and how many joint states had been sent long enough before."""
    killed_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    yield killed_s, robot.pumped_by("joints", killed_s - PROMISED_S - TRANSPORT_S)


def check_numbers(value: NDArray[np.float64], killed: tuple[float, int], lagged: bool) -> None:
    """No number is missing, and none that was published long enough before the kill."""
    killed_s, sent = killed
    numbers, published = value[:, 0], value[:, 1]
    np.testing.assert_array_equal(np.diff(numbers), 1)
    assert sent > 20
    if not lagged:
        assert numbers[-1] >= sent - 1
    assert published[-1] <= killed_s + TRANSPORT_S


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_all_its_processes_saves_and_seals_the_running_episode(start: Start, number: int) -> None:
    run = start("--autostart", "--json")
    run.journal()
    time.sleep(1)
    os.killpg(run.process.pid, number)
    code, report = run.end()
    assert code == 0
    (name,) = report["sealed"]
    found = run.dataset().records[name]
    assert (found.status, found.stop_cause) == ("sealed", f"stopped by {signal.Signals(number).name}")
    assert found.losses == ()
    assert found.lengths["position"] >= 80
    assert "Traceback" not in run.told
    Dataset.open_for_writing(run.root).close()


def test_keys_in_a_terminal_begin_and_save_and_a_lost_terminal_saves_too(start: Start) -> None:
    run = start(terminal=True)
    until(lambda: re.search(r"/joint_states[^\n]*m\d+\.\d", run.told) and re.search(r"/front[^\n]*m\d+\.\d", run.told))
    run.press("\x1a\x13 ")
    first = run.journal(1).name
    run.press("\x1b[D")
    time.sleep(0.8)
    run.press("f")
    until(lambda: "saved" in run.told)
    assert "failure, operator" in run.told
    run.press(" ")
    second = run.journal(2).name
    time.sleep(0.5)
    run.hang_up()
    code, _ = run.end()
    records = run.dataset().records
    assert (records[first].outcome, records[first].stop_cause) == ("failure", "operator")
    assert (records[second].status, records[second].stop_cause) == ("sealed", "stopped by SIGHUP")
    assert code == 0


def test_a_recorder_that_is_killed_takes_its_processes_along_and_the_next_opening_repairs(
    start: Start, robot: Publishers
) -> None:
    run = start("--autostart", "--processes", "2")
    name = run.journal().name
    time.sleep(1.5)
    captures = run.captures()
    assert len(captures) >= 2
    with timed_kill(robot, run.process.pid) as killed:
        until(lambda: not any(alive(pid) for pid in captures), 2)
    run.process.wait()
    reading = Dataset.open(run.root)
    assert (reading.unfinished(), reading.episodes()) == ([name], [])
    with Dataset.open_for_writing(run.root) as dataset:
        found = dataset.records[name]
        assert (found.status, found.outcome, found.stop_cause) == ("sealed", "unknown", "interrupted")
        episode = dataset.episode(name)
        check_numbers(episode.stream("position").value, killed, "lags" in run.told)
        camera = episode.stream("front")
        first = next(k for k in range(10_000) if jpeg(k) == camera.encoded(0))
        assert [camera.encoded(k) for k in range(len(camera))] == [jpeg(first + k) for k in range(len(camera))]
        assert dataset.verify().whole


HEARD_BYTES = 64 << 10
"""Of a journal that holds some hundred messages: the new process has found its publishers."""


def test_a_capture_process_that_is_killed_ends_the_episode_by_name_and_the_next_one_is_whole(
    start: Start, robot: Publishers
) -> None:
    run = start("--autostart", "--processes", "2", "--json")
    first = run.journal(1).name
    time.sleep(1.5)
    with timed_kill(robot, run.captures()[0]) as killed:
        until(lambda: "started again" in run.told)
    journal = run.journal(2)
    second = journal.name
    until(lambda: sum(path.stat().st_size for path in journal.glob("numeric-*.mcap")) > HEARD_BYTES)
    run.process.terminate()
    code, report = run.end()
    assert (code, report["sealed"]) == (3, [first, second])
    found, after = (run.dataset().records[name] for name in (first, second))
    assert (found.stop_cause, found.outcome) == ("capture process ended", "unknown")
    assert any("the capture process of /joint_states ended (exit -9)" in loss for loss in found.losses)
    check_numbers(run.dataset().episode(first).stream("position").value, killed, "lags" in run.told)
    assert found.lengths["front"] >= 10
    assert (after.stop_cause, after.losses) == ("stopped by SIGTERM", ())
    assert after.lengths["position"] >= 50
    assert after.lengths["front"] >= 5
