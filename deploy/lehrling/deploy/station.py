"""What driving a robot begins with, from the command line or as a node: its station, its guard's limits, signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lehrling.datasets.embodiment import Embodiment, load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import storage_error
from lehrling.deploy.guard_limits import GuardConfig, load_guard_config
from lehrling.deploy.ros_drive import ros


def latch_path(embodiment: Embodiment) -> Path:
    """Return where a robot's latched stop is kept if its guard configuration names no file."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    place = embodiment.binding.namespace.strip("/").replace("/", "-")
    return state / "lehrling" / f"{embodiment.name}{f'-{place}' if place else ''}.latch.json"


def guard_config(path: Path | None, embodiment: Embodiment) -> GuardConfig:
    """Return the guard's configuration of a file, or the default one, with a file for its latched stop.

    Raises:
        InputError: the file is no guard configuration.
        StorageError: the folder for the latched stop cannot be made.
    """
    config = load_guard_config(path) if path is not None else GuardConfig()
    latch = config.latch_path or latch_path(embodiment)
    try:
        latch.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, latch.parent) from error
    return config.model_copy(update={"latch_path": latch})


def station(embodiment: str, namespace: str | None) -> Embodiment:
    """Return a station's robot, under another namespace where one is given.

    Raises:
        InputError: there is no such embodiment.
    """
    found = load_embodiment(embodiment)
    if namespace is None:
        return found
    return found.model_copy(update={"binding": found.binding.model_copy(update={"namespace": namespace})})


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT, SIGTERM and a lost terminal into a wish to end, so that the robot comes to rest first; not under nohup."""
    wanted: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    before = {number: signal.signal(number, lambda got, _frame: wanted.append(got)) for number in numbers}
    try:
        yield lambda: bool(wanted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_parameters(name: str, defaults: Mapping[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Return a node's ROS parameters, as a launch file or `--ros-args` gives them.

    Raises:
        InputError: one is of another type, or ROS 2 cannot be used here.
    """
    from rclpy.exceptions import InvalidParameterTypeException

    with ros(name, arguments) as (node, _executor):
        try:
            return {key: node.declare_parameter(key, default).value for key, default in defaults.items()}
        except InvalidParameterTypeException as error:
            raise InputError(
                f"A parameter of {name} has another type than expected ({error}); put quotes around a text that looks like a "
                "number."
            ) from error
