"""What a guard says: causes, states, events, answers and commands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

EVENTS_MAX = 256


class Cause(StrEnum):
    """Why the guard changed, refused, held or stopped something."""

    SHAPE = "shape"
    NOT_FINITE = "not finite"
    CLAMPED = "clamped to the range"
    CLAMPS = "too many clamps"
    STEP = "step capped"
    SCALED = "slowed down"
    WORKSPACE = "workspace"
    COLLISION = "self-collision"
    OBSERVATION = "stale observation"
    FOLLOWING = "following error"
    ACTION = "stale action"
    LATE = "late chunk"
    CLIENT = "client gone"
    REQUEST = "protective stop request"
    LATCHED = "latched stop"
    RESET = "reset by operator"
    STORAGE = "latch file"
    DEADMAN = "not enabled"
    OVERRIDE = "speed override"
    FIRST_MOVE = "first move"
    CONTRACT = "contract"
    CLOCK = "clock went backwards"
    STALL = "control loop stalled"
    QUEUE = "queue full"
    IDLE = "let go"
    RESYNC = "taken over from the measured position"


class State(StrEnum):
    """What the guard is doing.

    `waiting`: nothing may move and nothing is to be published. `moving`: a path is driven along. `holding`: engaged,
    slowing down to or at rest. `stopping`: slowing down for a stop. `stopped`: a stop is latched.
    """

    WAITING = "waiting"
    MOVING = "moving"
    HOLDING = "holding"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, for the caller's log."""

    now_ns: int
    cause: Cause
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether what was asked for is taken; if not, why."""

    accepted: bool
    cause: Cause | None = None
    text: str = ""

    def __bool__(self) -> bool:
        return self.accepted


@dataclass(frozen=True, slots=True)
class Command:
    """What to send to the robot in this tick.

    Attributes:
        position, velocity: (D,) in the axes' units; velocity is the finite difference of what was emitted. Of an axis of
            velocities, `velocity` is the command.
        publish: whether to send it; otherwise it only repeats the last one.
        cause: of holding, stopping or being stopped.
        events: since the last command that carried events.
        pending: targets not yet reached.
        override: 0 to 1.
    """

    now_ns: int
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    state: State
    cause: Cause | None
    publish: bool
    pending: int
    override: float
    events: tuple[Event, ...] = ()


@dataclass
class EventLog:
    """Counts every event and keeps the latest for the next command.

    Attributes:
        counts: every event since the start, also those beyond the `EVENTS_MAX` that one command carries.
    """

    counts: Counter[Cause] = field(default_factory=Counter)
    _pending: list[Event] = field(default_factory=list)

    def add(self, now_ns: int, cause: Cause, text: str, count: int = 1) -> None:
        """Note an event that stands for `count` of its kind."""
        self.counts[cause] += count
        if len(self._pending) < EVENTS_MAX:
            self._pending.append(Event(now_ns, cause, text))

    def take(self) -> tuple[Event, ...]:
        """Return the events since the last call."""
        if not self._pending:
            return ()
        events, self._pending = tuple(self._pending), []
        return events
