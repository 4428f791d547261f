"""The two images of the PLC handshake and what passes between them: what a PLC writes, what it reads, what the robot is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from lehrling.deploy.runtime import Phase, Result

U16, U32 = 1 << 16, 1 << 32
Facts = Mapping[str, str | float | bool | None]


class Command(IntEnum):
    """What a PLC asks for; it acts once, when the sequence number changes."""

    NONE = 0
    LOAD = 1
    START = 2
    STOP = 3
    RESET = 4
    ACK = 5


class Mode(IntEnum):
    """OperationalModeEnumeration of OPC 40010-1."""

    OTHER = 0
    MANUAL_REDUCED_SPEED = 1
    MANUAL_HIGH_SPEED = 2
    AUTOMATIC = 3
    AUTOMATIC_EXTERNAL = 4


class Refusal(IntEnum):
    """Why the command that `ack_seq` names was not carried out; `NONE`: it was."""

    NONE = 0
    UNKNOWN_COMMAND = 1
    NO_HEARTBEAT = 2
    FAULT = 3
    NOT_READY = 4
    NOT_ENABLED = 5
    NO_SPEED = 6
    START_NOT_LOW = 7
    RECIPE_UNKNOWN = 8
    RECIPE_LOCKED = 9
    LATCHED = 10
    NOT_PERMITTED = 11


STATES: Mapping[Phase, int] = {phase: number for number, phase in enumerate(Phase)}
"""Numbers that a PLC gets: 0 offline, 1 idle, 2 loading, 3 ready, 4 executing, 5 stopping, 6 fault."""
RESULTS: Mapping[Result, int] = {result: number for number, result in enumerate(Result)}
"""Numbers that a PLC gets: 0 none, 1 success, 2 failure, 3 timeout, 4 aborted."""


@dataclass(frozen=True, slots=True)
class Commands:
    """What the PLC says, as last seen.

    Attributes:
        heartbeat: u16, one more at every cycle of the PLC.
        seq: u32, changed with every command, after the command's other fields.
        command: one of `Command`; any other number is refused.
        speed_pct: 0 to 100; anything else counts as 0.
        enable: permission to move.
        fault_ack: a rising edge acknowledges errors whose cause is gone.
        mode: one of `Mode`, as the robot's controller reports it to the PLC.
        emergency_stop, protective_stop: mirrored, for information; while one is set nothing may move either.
    """

    heartbeat: int = 0
    seq: int = 0
    command: int = Command.NONE
    recipe: int = 0
    speed_pct: int = 0
    enable: bool = False
    fault_ack: bool = False
    mode: int = Mode.OTHER
    emergency_stop: bool = False
    protective_stop: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """What the PLC reads.

    Attributes:
        heartbeat: u16, one more at every step of the handshake.
        ack_seq: the last command that was handled.
        refusal: whether that command was carried out, else why not.
        linked: whether the PLC's heartbeat is seen to go on.
        state: see `STATES`.
        done: a cycle ended; until `ACK`.
        error: until a rising `fault_ack` finds the cause gone.
        error_code: of the first error that is not acknowledged; see `runtime.FAULTS`.
        error_text: one sentence for people.
        cycle: the cycle that executes, or the last.
        result: of the last cycle; see `RESULTS`.
        model_hash: hexadecimal.
    """

    heartbeat: int = 0
    ack_seq: int = 0
    refusal: Refusal = Refusal.NONE
    linked: bool = False
    state: Phase = Phase.OFFLINE
    ready: bool = False
    busy: bool = False
    done: bool = False
    error: bool = False
    error_code: int = 0
    error_text: str = ""
    recipe: int = 0
    cycle: int = 0
    result: Result = Result.NONE
    model_hash: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """Ask for a recipe."""

    recipe: int


@dataclass(frozen=True, slots=True)
class Start:
    """Ask for a cycle."""

    cycle: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask for rest."""

    cause: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Ask for the end of a fault."""


@dataclass(frozen=True, slots=True)
class SetSpeed:
    """Set the speed override, 0 to 1."""

    share: float


@dataclass(frozen=True, slots=True)
class SetEnabled:
    """Give or take the permission to move."""

    enabled: bool


Request = Load | Start | Stop | Reset | SetSpeed | SetEnabled


@dataclass(frozen=True, slots=True)
class Event:
    """Something for the audit."""

    kind: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Answer:
    """What one step of the handshake comes to: the status image, requests in the order to make them, and events."""

    status: Status
    requests: tuple[Request, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class RecipeLimits:
    """What the handshake has to know of a recipe."""

    cycle_max_ns: int = 60_000_000_000
    speed_max: float = 1.0


@dataclass(frozen=True)
class HandshakeOptions:
    """How strict the handshake is.

    Attributes:
        recipes: those that may be loaded.
        modes: in which the robot may move.
        heartbeat_timeout_ns: the robot is stopped when the PLC's heartbeat did not change for longer.
        link_beats: changes of the heartbeat in a row before the PLC counts as there.
        debounce_ns: a permission counts once it has held for so long; its loss counts at once, and ends a cycle when it
            has not come back after three times as long.
        answer_ns: the runtime has to take up a request within.
        renew_ns: permission to move and speed are given anew after.
    """

    recipes: Mapping[int, RecipeLimits] = field(default_factory=dict)
    modes: frozenset[int] = frozenset({Mode.AUTOMATIC, Mode.AUTOMATIC_EXTERNAL})
    heartbeat_timeout_ns: int = 500_000_000
    link_beats: int = 3
    debounce_ns: int = 50_000_000
    answer_ns: int = 5_000_000_000
    renew_ns: int = 50_000_000
