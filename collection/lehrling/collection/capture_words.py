"""What the recorder and its capture processes say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lehrling.datasets.journal import FLUSH_S

LAG_PROMISED_MS = 50.0
"""Above this the promise of what a kill can cost does not hold (docs/recording.md)."""


@dataclass(frozen=True)
class CaptureConfig:
    """What a capture process is to do.

    Attributes:
        embodiment: as JSON data.
        topics: those that it subscribes to, by the embodiment's names.
        loop: how messages are taken, see `take_loop`.
    """

    name: str
    embodiment: dict[str, Any]
    topics: tuple[str, ...]
    parent: int
    sim_time: bool = False
    queue_bytes: int = 256 << 20
    flush_s: float = FLUSH_S
    fsync_s: float = 1.0
    loop: Literal["auto", "waitset", "executor"] = "auto"


@dataclass(frozen=True)
class Begin:
    """An episode begins, in its journal's directory; latched messages are written first."""

    directory: Path


@dataclass(frozen=True)
class End:
    """The episode ends with what was received, or on this computer published, until then.

    Attributes:
        keep: False where it is to be thrown away.
    """

    directory: Path
    monotonic_ns: int
    realtime_ns: int
    keep: bool = True


@dataclass(frozen=True)
class Quit:
    """The process ends."""


@dataclass(frozen=True)
class Ready:
    """The process has subscribed."""

    name: str


@dataclass(frozen=True)
class Failed:
    """The process cannot go on."""

    name: str
    text: str


@dataclass(frozen=True)
class Stop:
    """Why an episode cannot go on: two or three words, and a sentence."""

    cause: str
    text: str


@dataclass(frozen=True)
class TopicFacts:
    """A topic's figures, as told live and in the episode.

    Attributes:
        rate_hz: over the last seconds; `wanted_hz` None where the embodiment names none.
        latency_ms: newest receipt minus stamp; None without a stamp.
        age_s: since the newest message; None before the first.
        written: in this episode's journal.
        lost_queue, lost_middleware: in this episode; None where the middleware does not tell.
        publishers: that can be heard.
        problem: why publishers are not heard, as a sentence; empty where all is well.
    """

    wanted_hz: float | None
    rate_hz: float
    latency_ms: float | None
    age_s: float | None
    written: int
    lost_queue: int
    lost_middleware: int | None
    publishers: int
    qos: str
    problem: str = ""


@dataclass(frozen=True)
class Status:
    """What a capture process tells several times a second.

    Attributes:
        lag_ms: age of the oldest message that a kill would cost: it waits in the queue, or for the journal's next flush.
        findings: that are new or have ended, as JSON data.
    """

    name: str
    recording: bool
    lag_ms: float
    queue_bytes: int
    topics: dict[str, TopicFacts] = field(default_factory=dict)
    findings: tuple[dict[str, Any], ...] = ()
    stop: Stop | None = None


@dataclass(frozen=True)
class Begun:
    """An episode has begun: what is received from here on is in it."""

    name: str
    directory: Path


@dataclass(frozen=True)
class Late:
    """The lag is above what the promise allows; told at once, since a kill may come before the next status."""

    name: str
    lag_ms: float


@dataclass(frozen=True)
class Ended:
    """A part of an episode's journal is closed.

    Attributes:
        directory: which episode's; an answer may come when another has begun.
        counts: messages written per topic.
        passed_over: messages after the one that stopped the episode, which were not taken.
        lag_max_ms: the largest lag, see `Status`.
    """

    name: str
    directory: Path
    counts: dict[str, int]
    lost_queue: dict[str, int]
    lost_middleware: dict[str, int | None]
    lag_max_ms: float
    findings: tuple[dict[str, Any], ...] = ()
    stop: Stop | None = None
    passed_over: int = 0


Word = Begin | End | Quit
Answer = Ready | Failed | Begun | Status | Late | Ended
