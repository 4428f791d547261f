"""A robot's runtime in a process of its own: a cell asks over a pipe, and a cell that dies leaves a robot at rest."""

from __future__ import annotations

import math
import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from lehrling.deploy.runtime_pipe import WAITING_MAX, Audit, Sender, Word, Worker, Written

STATE_NS, BEGIN_S, REST_S = 20_000_000, 120.0, 5.0
SILENT_S = 0.5
"""A robot's process whose last state is older counts as lost."""


class ProcessRuntime:
    """The cell's end; `Runtime` of a robot in another process. Records for the audit are written here.

    Neither a disk that hangs nor a robot's process that does holds a caller up.
    """

    def __init__(
        self,
        config: RunConfig,
        recipes: Mapping[int, Recipe],
        write: Tell,
        said: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Start the process; return once it has the policy server and the robot's topics.

        Args:
            config: of the robot.
            recipes: by number.
            write: the audit.
            said: told sentences for whoever looks on.

        Raises:
            InputError: it cannot run: no policy server, another contract, no ROS 2.
        """
        self._write = write
        context = mp.get_context("spawn")
        self._connection, its = context.Pipe()
        self._sender, self._records, self._texts = Sender(self._connection), Worker(self._audit), Worker(said)
        self._seen = RuntimeState(), math.inf
        self._gone, self._begun, self._problem = threading.Event(), threading.Event(), ""
        self._process = context.Process(target=_serve, args=(its, config, dict(recipes)), name="lehrling-robot")
        self._process.start()
        its.close()
        # At exit multiprocessing waits for its children, and this one waits for the pipe to close.
        Finalize(self, self._connection.close, exitpriority=10)
        self._reader = threading.Thread(target=self._read, name="robot-runtime", daemon=True)
        self._reader.start()
        begin_s = max(BEGIN_S, config.connect_s + 30)
        if not self._begun.wait(begin_s) or self._problem:
            self.close()
            raise InputError(self._problem or f"The robot's runtime did not begin within {begin_s:g} s.")

    def _read(self) -> None:
        while True:
            try:
                item = self._connection.recv()
            except (EOFError, OSError, TypeError):  # TypeError: closed by the other thread in the middle of it
                break
            self._take(item)
        self._gone.set()
        self._problem = self._problem or "The robot's runtime ended before it began."
        self._begun.set()

    def _take(self, item: object) -> None:
        if isinstance(item, RuntimeState):
            self._seen = item, time.monotonic()
        elif isinstance(item, Audit):
            if not self._records.put(item):
                self._sender.send(Written(item.number, f"The audit is {WAITING_MAX} records behind; look at its disk."))
        elif isinstance(item, Word) and item.name == "say":
            self._texts.put(item.value)
        elif isinstance(item, Word) and item.name == "begun":
            self._problem = item.value
            self._begun.set()

    def _audit(self, item: Audit) -> None:
        problem = ""
        try:
            self._write(item.kind, item.facts)
        except StorageError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 (whatever it is, the robot is told)
            problem = f"The audit cannot be written: {type(error).__name__}: {error}"
        self._sender.send(Written(item.number, problem))

    def load(self, recipe: int) -> None:
        """Make a recipe the one that the next cycle executes."""
        self._sender.send(Word("load", recipe))

    def start(self, cycle: int) -> None:
        """Begin a cycle of the recipe that is loaded."""
        self._sender.send(Word("start", cycle))

    def stop(self, cause: str) -> None:
        """Bring the robot to rest; a cycle that executes ends as aborted."""
        self._sender.send(Word("stop", cause))

    def reset(self, operator: str) -> None:
        """End a fault, once its cause is gone."""
        self._sender.send(Word("reset", operator))

    def set_speed(self, share: float) -> None:
        """Set the speed override, 0 to 1."""
        self._sender.send(Word("speed", share))

    def set_enabled(self, enabled: bool) -> None:
        """Give or take the permission to move; to be given anew at least every 0.2 s."""
        self._sender.send(Word("enable", enabled))

    def state(self) -> RuntimeState:
        """Return what the runtime does now."""
        state, seen_s = self._seen
        fault = ""
        if self._gone.is_set() or self._sender.gone:
            fault = "The robot's runtime has ended; start the cell anew."
        elif time.monotonic() - seen_s > SILENT_S:
            fault = f"The robot's runtime has said nothing for {SILENT_S:g} s."
        return replace(state, phase=Phase.FAULT, fault=fault, fault_code=8) if fault else state

    def close(self) -> None:
        """Bring the robot to rest and end the process, by force where it does not; then write what it still told."""
        self._sender.send(Word("quit"))
        self._process.join(REST_S + 10)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._reader.join(REST_S)
        self._records.close(REST_S)
        self._texts.close(1.0)
        self._sender.close(REST_S)
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
        self._connection, self._sender = connection, Sender(connection)
        self._told = self._written = 0
        self._problem = ""
        self.quitting, self._next_ns = False, 0

    def send(self, item: object) -> None:
        """Send; a cell that is gone is noticed where words are read."""
        self._sender.send(item)

    def say(self, text: str) -> None:
        """Tell a sentence."""
        self.send(Word("say", text))

    def tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Have a record written."""
        if self._problem:
            raise StorageError(self._problem)
        self._told += 1
        self.send(Audit(self._told, kind, dict(facts)))

    def settled(self) -> bool:
        """Return whether all records are written.

        Raises:
            StorageError: one could not be.
        """
        if self._problem:
            raise StorageError(self._problem)
        return self._written == self._told

    def words(self) -> list[Word]:
        """Return what the cell said; that it is gone counts as `quit`."""
        found: list[Word] = []
        try:
            while self._connection.poll():
                item = self._connection.recv()
                if isinstance(item, Written):
                    self._written, self._problem = item.number, self._problem or item.problem
                elif isinstance(item, Word):
                    found.append(item)
        except (EOFError, OSError):
            found.append(Word("quit"))
        return [*found, Word("quit")] if self._sender.gone else found

    def show(self, state: RuntimeState, now_ns: int) -> None:
        """Tell the state, 50 times a second."""
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + STATE_NS
            self._sender.show(state)

    def close(self) -> None:
        """Send what waits, if the cell still reads."""
        self._sender.close(1.0)
        self._connection.close()


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
            station.send(Word("begun", ""))

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
        station.send(Word("begun", str(error)))
    finally:
        station.close()


def _obey(loop: Any, recipes: Mapping[int, Recipe], word: Word, now_ns: int, station: _Station) -> None:
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
