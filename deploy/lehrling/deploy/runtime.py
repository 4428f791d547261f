"""What a cell asks of what moves the robot, and what it is told: the seam between PLC and policy. No torch, no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Phase(StrEnum):
    """What the runtime does.

    `offline` until it hears the robot, `idle` without a recipe, `loading` one, `ready` to start, `executing` a cycle,
    `stopping` the motion, `fault` until it is reset.
    """

    OFFLINE = "offline"
    IDLE = "idle"
    LOADING = "loading"
    READY = "ready"
    EXECUTING = "executing"
    STOPPING = "stopping"
    FAULT = "fault"


class Result(StrEnum):
    """How the last cycle ended: the robot came to rest after it in every case."""

    NONE = "none"
    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Axis:
    """An axis as measured: rad and rad/s, or m and m/s."""

    position: float
    velocity: float


@dataclass(frozen=True)
class RuntimeState:
    """What the runtime says of itself.

    Attributes:
        recipe: the one that is loaded or being loaded; 0 for none.
        cycle: the one that executes, or the last; 0 before the first.
        result: of the last cycle that ended.
        fault: one sentence; empty where there is none.
        fault_code: 0 where there is none; see `FAULTS`.
        latched: whether a stop is latched, which only a reset at the robot ends.
        speed: the override in effect, 0 to 1.
        model_hash: of the adapter that acts, hexadecimal; empty without a recipe.
        axes: by joint name.
    """

    phase: Phase = Phase.OFFLINE
    recipe: int = 0
    cycle: int = 0
    result: Result = Result.NONE
    fault: str = ""
    fault_code: int = 0
    latched: bool = False
    speed: float = 0.0
    model_hash: str = ""
    axes: Mapping[str, Axis] = field(default_factory=dict)


FAULTS: Mapping[int, str] = {
    1: "recipe unknown",
    2: "policy server lost",
    3: "observation stale or missing",
    4: "refused by the guard",
    5: "stop latched",
    6: "heartbeat of the PLC lost",
    7: "audit cannot be written",
    8: "robot controller lost",
    9: "contract differs",
    99: "other",
}
"""Error codes that a PLC gets."""


class Runtime(Protocol):
    """What executes recipes on a robot. No call waits: `state` tells what came of it."""

    def load(self, recipe: int) -> None:
        """Make a recipe the one that the next cycle executes."""
        ...

    def start(self, cycle: int) -> None:
        """Begin a cycle of the recipe that is loaded."""
        ...

    def stop(self, cause: str) -> None:
        """Bring the robot to rest; a cycle that executes ends as aborted."""
        ...

    def reset(self, operator: str) -> None:
        """End a fault, once its cause is gone."""
        ...

    def set_speed(self, share: float) -> None:
        """Set the speed override, 0 to 1: it scales time, not targets."""
        ...

    def set_enabled(self, enabled: bool) -> None:
        """Give or take the permission to move; to be given anew at least every 0.2 s."""
        ...

    def state(self) -> RuntimeState:
        """Return what the runtime does now."""
        ...

    def close(self) -> None:
        """Bring the robot to rest and let go of it."""
        ...
