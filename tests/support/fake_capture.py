"""A capture that needs no ROS: it writes what `recordings` writes, at the moment an episode ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recordings import ARM6, write_rows

from lehrling.collection.capture_group import CaptureReport
from lehrling.collection.capture_words import Status, Stop, TopicFacts
from lehrling.datasets.journal import JournalPart


def facts(age_s: float | None = 0.0, problem: str = "") -> TopicFacts:
    return TopicFacts(100.0, 100.0, 1.0, age_s, 0, 0, 0, 1, "reliable, volatile", problem)


@dataclass
class FakeCapture:
    """Does what a test tells it to.

    Attributes:
        told: what the session told, in order.
        then: called when an episode ends, before its files are closed.
    """

    stopped: Stop | None = None
    lag_ms: float = 1.0
    why_not: str = ""
    ended: list[str] = field(default_factory=list)
    losses: tuple[str, ...] = ()
    seconds: float = 0.1
    told: list[str] = field(default_factory=list)
    topics: dict[str, TopicFacts] = field(default_factory=lambda: {topic: facts() for topic in ARM6.binding.topics})
    then: Callable[[Path], Any] | None = None
    part: JournalPart | None = None

    def begin(self, directory: Path) -> None:
        self.part = JournalPart(directory, ARM6)
        self.told.append("begin")

    def end(self, *, keep: bool = True) -> CaptureReport:
        self.told.append("end" if keep else "end without keeping")
        assert self.part is not None
        if not keep:
            self.part.abandon()
            return CaptureReport({}, None, (), {})
        write_rows(self.part, self.seconds)
        if self.then is not None:
            self.then(self.part.directory)
        stopped, self.stopped = self.stopped, None
        return CaptureReport(self.part.finish(), stopped, self.losses, {"lag_max_ms": self.lag_ms})

    def poll(self, timeout_s: float = 0.0) -> list[Status]:
        assert timeout_s >= 0
        return [Status("fake", self.part is not None, self.lag_ms, 0, self.topics)]

    def stop(self) -> Stop | None:
        return self.stopped

    def unready(self) -> str:
        return self.why_not

    def revive(self) -> list[str]:
        ended, self.ended = self.ended, []
        return ended
