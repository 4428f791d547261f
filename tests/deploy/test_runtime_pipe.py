"""Neither end of a cell's pipe waits for the other: hung processes, disks and terminals."""

from __future__ import annotations

import multiprocessing as mp
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import runtime_children
from runtime_children import EXECUTING
from watching import until

from lehrling.deploy import robot_runtime, runtime_pipe
from lehrling.deploy.robot_runtime import ProcessRuntime, _Station
from lehrling.deploy.run_config import RunConfig
from lehrling.deploy.runtime import Phase
from lehrling.deploy.runtime_pipe import Sender, Word

type Began = Callable[..., ProcessRuntime]


def nothing(*_told: Any) -> None:
    """Take what is told."""


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Start a runtime on a made-up robot's process; whatever is left of it is killed."""
    made: list[ProcessRuntime] = []

    def begun(child: str, write: Any = nothing, said: Any = nothing) -> ProcessRuntime:
        monkeypatch.setattr(robot_runtime, "_serve", getattr(runtime_children, child))
        config = RunConfig(embodiment="arm6", traces=tmp_path / "late")
        made.append(ProcessRuntime(config, {}, write, said))
        return made[-1]

    yield begun
    for each in made:
        each._process.kill()
        each._process.join()


def test_a_robots_process_that_hangs_is_told_as_lost(begin: Began) -> None:
    runtime = begin("hangs")
    until(lambda: runtime.state().phase is Phase.FAULT, 10)
    state = runtime.state()
    assert (state.fault_code, state.fault) == (8, "The robot's runtime has said nothing for 0.5 s.")
    assert (state.cycle, state.model_hash) == (EXECUTING.cycle, EXECUTING.model_hash)


def test_a_robots_process_that_still_starts_is_not(begin: Began) -> None:
    runtime = begin("starts_slowly")
    time.sleep(robot_runtime.SILENT_S + 0.3)
    assert runtime.state().phase is Phase.OFFLINE
    runtime.close()


def test_a_robots_process_may_wait_for_its_policy_server(begin: Began, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot_runtime, "BEGIN_S", 0.1)
    begin("begins_late").close()


def test_whoever_asks_a_hung_process_does_not_wait_and_closing_kills_it(
    begin: Began, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robot_runtime, "REST_S", -9.0)
    runtime = begin("hangs")
    until(lambda: runtime.state() == EXECUTING, 10)
    done = threading.Event()

    def ask() -> None:
        for _ in range(2 * runtime_pipe.WAITING_MAX):
            runtime.set_enabled(True)
        assert runtime.state().fault == "The robot's runtime has ended; start the cell anew."
        runtime.close()
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    assert done.wait(20)
    assert runtime._process.exitcode == -signal.SIGKILL


def test_a_disk_that_hangs_neither_stops_the_robots_loop_nor_what_it_tells(begin: Began, tmp_path: Path) -> None:
    hung, told = threading.Event(), list[tuple[str, Mapping[str, Any]]]()

    def write(kind: str, facts: Mapping[str, Any]) -> None:
        hung.wait()
        told.append((kind, facts))

    runtime = begin("runs", write)
    for _ in range(40):
        time.sleep(0.05)
        state = runtime.state()
        assert state.phase in (Phase.OFFLINE, Phase.READY)
    assert state.model_hash == "waiting"
    hung.set()
    until(lambda: runtime.state().model_hash == "settled", 10)
    runtime.close()
    assert told == [("guard", {"cause": "clamped"})]
    assert float((tmp_path / "late").read_text()) < 1.5


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), EOFError(), ValueError("x")])
def test_whoever_looks_on_and_fails_does_not_end_a_robot(begin: Began, error: Exception) -> None:
    said: list[str] = []

    def fail(text: str) -> None:
        said.append(text)
        raise error

    runtime = begin("runs", said=fail)
    until(lambda: len(said) > 20, 10)
    assert runtime.state().phase is Phase.READY
    runtime.close()


def test_an_audit_that_fails_by_any_error_is_told_to_the_robot() -> None:
    its, mine = mp.Pipe()
    runtime = ProcessRuntime.__new__(ProcessRuntime)
    runtime._sender = Sender(its)

    def fail(kind: str, _facts: Mapping[str, Any]) -> None:
        raise ValueError(kind)

    runtime._write = fail
    runtime._audit(runtime_pipe.Audit(3, "start", {}))
    assert mine.recv() == runtime_pipe.Written(3, "The audit cannot be written: ValueError: start")


def test_a_cell_that_does_not_read_holds_no_control_tick_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_pipe, "WAITING_MAX", 500)
    its, mine = mp.Pipe()
    station = _Station(its)
    began = time.monotonic()
    for number in range(2000):
        station.say("a sentence " * 100)
        station.show(EXECUTING, number * robot_runtime.STATE_NS)
    assert time.monotonic() - began < 5
    assert station.words() == [Word("quit")]
    mine.close()
    station.close()


def test_states_are_not_heaped_up_and_words_keep_their_order() -> None:
    its, mine = mp.Pipe()
    sender = Sender(its)
    sender.send("x" * (1 << 20))  # fills the pipe
    for number in range(100):
        sender.show(number)
        sender.send(str(number))
    got: list[object] = []
    while len(got) < 102:
        got.append(mine.recv())
    assert got[1:101] == [str(number) for number in range(100)]
    assert got[101] == 99
    sender.close(1)
