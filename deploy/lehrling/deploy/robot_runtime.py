"""A robot's runtime in a process of its own: a cell asks over a pipe, and a cell that dies leaves a robot at rest."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from lehrling.datasets.errors import InputError, LehrlingError, StorageError
from lehrling.deploy.cell_config import CellConfig
from lehrling.deploy.cycle import Recipe
from lehrling.deploy.policy_drive import Tell
from lehrling.deploy.run_config import RunConfig, parse_run_config
from lehrling.deploy.runtime import Phase, RuntimeState

STATE_NS, BEGIN_S, REST_S = 20_000_000, 120.0, 5.0


@dataclass(frozen=True)
class _Audit:
    number: int
    kind: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class _Written:
    number: int
    problem: str


@dataclass(frozen=True)
class _Word:
    name: str
    value: Any = None


class ProcessRuntime:
    """The cell's end; `Runtime` of a robot in another process. Records for the audit are written here.

    Attributes:
        said: told sentences for whoever looks on.
    """

    def __init__(
        self,
        config: RunConfig,
        recipes: Mapping[int, Recipe],
        write: Tell,
        said: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Start the process; return once it has the policy server and the robot's topics.

        Raises:
            InputError: it cannot run: no policy server, another contract, no ROS 2.
        """
        self.said, self._write = said, write
        context = mp.get_context("spawn")
        self._connection, its = context.Pipe()
        self._send_lock, self._state = threading.Lock(), RuntimeState()
        self._gone, self._begun, self._problem = threading.Event(), threading.Event(), ""
        self._process = context.Process(target=_serve, args=(its, config, dict(recipes)), name="lehrling-robot")
        self._process.start()
        its.close()
        # At exit multiprocessing waits for its children, and this one waits for the pipe to close.
        Finalize(self, self._connection.close, exitpriority=10)
        self._reader = threading.Thread(target=self._read, name="robot-runtime", daemon=True)
        self._reader.start()
        if not self._begun.wait(BEGIN_S) or self._problem:
            self.close()
            raise InputError(self._problem or f"The robot's runtime did not begin within {BEGIN_S:g} s.")

    def _read(self) -> None:
        try:
            while True:
                self._take(self._connection.recv())
        except (EOFError, OSError, TypeError):  # TypeError: closed by the other thread in the middle of it
            self._gone.set()
            self._problem = self._problem or "The robot's runtime ended before it began."
            self._begun.set()

    def _take(self, item: object) -> None:
        if isinstance(item, RuntimeState):
            self._state = item
        elif isinstance(item, _Audit):
            self._send(_Written(item.number, self._audit(item)))
        elif isinstance(item, _Word) and item.name == "say":
            self.said(item.value)
        elif isinstance(item, _Word) and item.name == "begun":
            self._problem = item.value
            self._begun.set()

    def _audit(self, item: _Audit) -> str:
        try:
            self._write(item.kind, item.facts)
        except StorageError as error:
            return str(error)
        return ""

    def _send(self, item: object) -> None:
        try:
            with self._send_lock:
                self._connection.send(item)
        except (OSError, ValueError):
            self._gone.set()

    def load(self, recipe: int) -> None:
        """Make a recipe the one that the next cycle executes."""
        self._send(_Word("load", recipe))

    def start(self, cycle: int) -> None:
        """Begin a cycle of the recipe that is loaded."""
        self._send(_Word("start", cycle))

    def stop(self, cause: str) -> None:
        """Bring the robot to rest; a cycle that executes ends as aborted."""
        self._send(_Word("stop", cause))

    def reset(self, operator: str) -> None:
        """End a fault, once its cause is gone."""
        self._send(_Word("reset", operator))

    def set_speed(self, share: float) -> None:
        """Set the speed override, 0 to 1."""
        self._send(_Word("speed", share))

    def set_enabled(self, enabled: bool) -> None:
        """Give or take the permission to move; to be given anew at least every 0.2 s."""
        self._send(_Word("enable", enabled))

    def state(self) -> RuntimeState:
        """Return what the runtime does now."""
        if self._gone.is_set():
            fault = "The robot's runtime has ended; start the cell anew."
            return replace(self._state, phase=Phase.FAULT, fault=fault, fault_code=8)
        return self._state

    def close(self) -> None:
        """Bring the robot to rest and end the process."""
        self._send(_Word("quit"))
        self._process.join(REST_S + 10)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._connection.close()


def make_runtime(
    config: CellConfig, where: Path, write: Tell, said: Callable[[str], None] = lambda _text: None
) -> ProcessRuntime:
    """Return the runtime of a cell's robot, whose configuration is the file `where`.

    Raises:
        InputError: the part `runtime` is wrong, or the robot's process cannot run.
    """
    robot = parse_run_config(config.runtime, where)
    recipes = {
        number: Recipe(
            number,
            recipe.name,
            recipe.instruction,
            recipe.adapter or recipe.name,
            recipe.cycle_max_s,
            robot.mode,
            robot.execute,
        )
        for number, recipe in config.recipes.items()
    }
    return ProcessRuntime(robot, recipes, write, said)


class _Station:
    """The robot's end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told = self._written = 0
        self._problem = ""
        self.quitting, self._next_ns = False, 0

    def send(self, item: object) -> None:
        """Send; a cell that is gone is noticed where words are read."""
        try:
            self._connection.send(item)
        except OSError:
            self.quitting = True

    def say(self, text: str) -> None:
        """Tell a sentence."""
        self.send(_Word("say", text))

    def tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Have a record written."""
        if self._problem:
            raise StorageError(self._problem)
        self._told += 1
        self.send(_Audit(self._told, kind, dict(facts)))

    def settled(self) -> bool:
        """Return whether all records are written.

        Raises:
            StorageError: one could not be.
        """
        if self._problem:
            raise StorageError(self._problem)
        return self._written == self._told

    def words(self) -> list[_Word]:
        """Return what the cell said; that it is gone counts as `quit`."""
        found: list[_Word] = []
        try:
            while self._connection.poll():
                item = self._connection.recv()
                if isinstance(item, _Written):
                    self._written, self._problem = item.number, self._problem or item.problem
                elif isinstance(item, _Word):
                    found.append(item)
        except (EOFError, OSError):
            found.append(_Word("quit"))
        return found

    def show(self, state: RuntimeState, now_ns: int) -> None:
        """Tell the state, 50 times a second."""
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + STATE_NS
            self.send(state)


def _serve(connection: Connection, config: RunConfig, recipes: Mapping[int, Recipe]) -> None:
    """Run the robot's loop until the cell says quit or is gone."""
    from lehrling.deploy.robot_loop import RobotLoop
    from lehrling.deploy.ros_drive import ros

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    station = _Station(connection)
    try:
        with (
            RobotLoop(config, recipes, station.tell, station.settled, station.say) as loop,
            ros(f"lehrling_robot_{os.getpid()}") as (node, executor),
        ):
            station.send(_Word("begun", ""))

            def step(now_ns: int) -> bool:
                for word in station.words():
                    _obey(loop, recipes, word, now_ns, station)
                if station.quitting:
                    loop.drive.stop("The cell ended.")
                station.show(loop.drive.state, now_ns)
                return not station.quitting

            loop.run(node, executor, step)
            jitter = loop.jitter
            station.say(f"control ticks: {jitter.ticks}, off by p99 {jitter.p99_ms} ms, at most {jitter.max_ms} ms")
    except LehrlingError as error:
        station.send(_Word("begun", str(error)))
    time.sleep(0.05)
    connection.close()


def _obey(loop: Any, recipes: Mapping[int, Recipe], word: _Word, now_ns: int, station: _Station) -> None:
    """Do what the cell asked for; what cannot be done is told as a fault, since nobody waits for an answer."""
    drive = loop.drive
    try:
        match word.name:
            case "load":
                if word.value not in recipes:
                    drive.fail(1, f"There is no recipe {word.value}; there are {', '.join(map(str, recipes))}.")
                    return
                drive.load(recipes[word.value])
            case "start":
                drive.start(word.value, now_ns)
            case "stop":
                drive.stop(word.value)
            case "reset":
                drive.reset(word.value)
            case "speed":
                drive.set_speed(word.value, now_ns)
            case "enable":
                drive.set_enabled(word.value, now_ns)
            case "quit":
                station.quitting = True
    except InputError as error:
        drive.fail(99, str(error))
