"""Robot processes that a cell's end is tried with, in place of `robot_runtime._serve`: no ROS, no robot."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from lehrling.deploy.cycle import Recipe
from lehrling.deploy.robot_runtime import _Station
from lehrling.deploy.run_config import RunConfig
from lehrling.deploy.runtime import Phase, RuntimeState
from lehrling.deploy.runtime_pipe import Word

EXECUTING = RuntimeState(Phase.EXECUTING, 1, 1, model_hash="m")


def _wait(connection: Connection) -> None:
    """Stay until the cell is gone or says quit."""
    try:
        while connection.recv() != Word("quit"):
            pass
    except EOFError:
        pass


def hangs(connection: Connection, _config: RunConfig, _recipes: Mapping[int, Recipe]) -> None:
    """Begin, tell of a cycle, and hang."""
    connection.send(Word("begun", ""))
    connection.send(EXECUTING)
    os.kill(os.getpid(), signal.SIGSTOP)


def starts_slowly(connection: Connection, _config: RunConfig, _recipes: Mapping[int, Recipe]) -> None:
    """Begin, and tell no state yet."""
    connection.send(Word("begun", ""))
    _wait(connection)


def begins_late(connection: Connection, config: RunConfig, recipes: Mapping[int, Recipe]) -> None:
    """Begin once a policy server has come."""
    time.sleep(0.8)
    starts_slowly(connection, config, recipes)


def runs(connection: Connection, config: RunConfig, _recipes: Mapping[int, Recipe]) -> None:
    """Make control ticks as `_serve` does, with a record and a sentence; note in `config.traces` how late the latest was [s]."""
    station = _Station(connection)
    station.send(Word("begun", ""))
    station.tell("guard", {"cause": "clamped"})
    assert config.traces is not None
    latest, before = 0.0, time.monotonic()
    while not station.quitting:
        time.sleep(0.005)
        now = time.monotonic()
        latest, before = max(latest, now - before), now
        station.say("a sentence " * 10)
        station.quitting = any(word.name == "quit" for word in station.words())
        written = "settled" if station.settled() else "waiting"
        station.show(RuntimeState(Phase.READY, 1, 1, model_hash=written), time.monotonic_ns())
    Path(config.traces).write_text(str(latest))
    station.close()
