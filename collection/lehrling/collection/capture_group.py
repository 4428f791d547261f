"""The capture processes of a recorder, as one."""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_process import capture_main
from lehrling.collection.capture_words import (
    Answer,
    Begin,
    Begun,
    CaptureConfig,
    End,
    Ended,
    Failed,
    Late,
    Quit,
    Status,
    Stop,
)
from lehrling.collection.capture_writer import REPAIR_S
from lehrling.datasets.embodiment import IMAGE_KINDS, Embodiment
from lehrling.datasets.errors import LehrlingError
from lehrling.datasets.journal import FLUSH_S
from lehrling.datasets.processes import out_of_reach

START_S, BEGIN_S, END_S, QUIT_S = 60.0, 2.0, 30.0, 10.0
SILENT_S = 1.0
"""A process tells its status five times a second; one that has not for longer lags by as much."""
LATE_SHOWN_S = 1.0
"""A lag that was told is shown so long, however short it was: whoever watches looks a few times a second."""
Loop = Literal["auto", "waitset", "executor"]


@dataclass(frozen=True)
class CaptureOptions:
    """How messages are captured.

    Attributes:
        processes: capture processes; cameras are shared out among them, numerics stay together in the first.
    """

    processes: int = 1
    sim_time: bool = False
    queue_bytes: int = 256 << 20
    flush_s: float = FLUSH_S
    fsync_s: float = 1.0
    loop: Loop = "auto"


@dataclass(frozen=True)
class CaptureReport:
    """An episode's capture, all processes together.

    Attributes:
        losses: sentences on what is known to be missing.
        facts: JSON data for the manifest.
    """

    counts: dict[str, int]
    stop: Stop | None
    losses: tuple[str, ...]
    facts: dict[str, Any]


@dataclass
class _Child:
    config: CaptureConfig
    process: Any
    connection: Connection
    status: Status | None = None
    told_s: float = 0.0
    begun: Path | None = None
    late: Late | None = None
    late_s: float = 0.0
    directory: Path | None = None
    ended: Ended | None = None
    failed: str = ""
    ready: bool = False

    def take(self, answer: Answer) -> None:
        self.told_s = time.monotonic()
        if isinstance(answer, Status):
            self.status = answer
        elif isinstance(answer, Begun):
            self.begun = answer.directory
        elif isinstance(answer, Late):
            self.late, self.late_s = answer, self.told_s
        elif isinstance(answer, Ended):
            self.ended = answer if answer.directory == self.directory else None
        elif isinstance(answer, Failed):
            self.failed = answer.text
        else:
            self.ready = True

    @property
    def dead(self) -> bool:
        return bool(self.failed) or self.process.exitcode is not None

    @property
    def reason(self) -> str:
        if self.failed:
            return self.failed.rstrip(".")
        return f"the capture process of {', '.join(self.config.topics)} ended (exit {self.process.exitcode})"

    def now(self) -> Status | None:
        """Return the newest status; of a process that says nothing, how long it has been silent is its lag."""
        if self.status is None:
            return None
        now = time.monotonic()
        lags = [self.status.lag_ms]
        if now - self.told_s >= SILENT_S:
            lags.append(round((now - self.told_s) * 1000, 1))
        if self.late is not None and now - self.late_s < LATE_SHOWN_S:
            lags.append(self.late.lag_ms)
        return replace(self.status, lag_ms=max(lags))

    def end(self) -> None:
        """End the process, if it does not by itself."""
        self.process.join(0 if self.failed else QUIT_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.connection.close()


@dataclass
class CaptureGroup:
    """Starts the processes, tells them where episodes begin and end, and gathers what they say."""

    embodiment: Embodiment
    options: CaptureOptions = field(default_factory=CaptureOptions)
    _children: list[_Child] = field(default_factory=list)
    _findings: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        """Start all processes and wait until each has subscribed.

        Raises:
            LehrlingError: one cannot; the message says why.
        """
        for number, topics in enumerate(shares(self.embodiment, self.options.processes)):
            self._children.append(_launch(self._config(f"lehrling_capture_{os.getpid()}_{number}", topics)))
        self._wait(lambda child: child.ready, START_S)
        late = [child for child in self._children if not child.ready]
        if late:
            reason = self.failure() or "it did not answer"
            self.close()
            raise LehrlingError(f"Capturing could not be started: {reason}.".replace("..", "."))

    def _config(self, name: str, topics: tuple[str, ...]) -> CaptureConfig:
        options = self.options
        return CaptureConfig(
            name,
            self.embodiment.model_dump(mode="json"),
            topics,
            os.getpid(),
            options.sim_time,
            options.queue_bytes,
            options.flush_s,
            options.fsync_s,
            options.loop,
        )

    def _wait(self, done: Any, timeout_s: float) -> None:
        """Take answers until all children are done or dead, or the time is over."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            self.poll(0.05)
            if all(done(child) or child.dead for child in self._children):
                return

    def unready(self) -> str:
        """Return why no episode can begin, or an empty string."""
        starting = [topic for child in self._children if not child.ready for topic in child.config.topics]
        return self.failure() or (f"the capture process of {', '.join(starting)} is starting" if starting else "")

    def revive(self) -> list[str]:
        """Start again what has ended, unless it never was ready; return why each ended. Only between episodes."""
        reasons = []
        for number, child in enumerate(self._children):
            if child.dead and child.ready:
                reasons.append(child.reason)
                child.failed = child.reason
                child.end()
                self._children[number] = _launch(child.config)
        return reasons

    def poll(self, timeout_s: float = 0.0) -> list[Status]:
        """Take what the processes said; return each one's newest status."""
        living = {child.connection: child for child in self._children if not child.connection.closed}
        for connection in wait(list(living), timeout_s) if living else ():
            child = living[connection]  # type: ignore[index]
            try:
                while child.connection.poll():
                    answer = child.connection.recv()
                    child.take(answer)
                    if isinstance(answer, Status):
                        self._findings += answer.findings
            except (EOFError, OSError):
                child.connection.close()
        return [status for child in self._children if (status := child.now()) is not None]

    def findings(self) -> list[dict[str, Any]]:
        """Return the findings told since the last call."""
        told, self._findings = self._findings, []
        return told

    def failure(self) -> str:
        """Return why capturing cannot go on, or an empty string."""
        return next((child.reason for child in self._children if child.dead), "")

    def stop(self) -> Stop | None:
        """Return why the episode cannot go on, or None."""
        for child in self._children:
            if child.status is not None and child.status.recording and child.status.stop is not None:
                return child.status.stop
        failed = self.failure()
        return Stop("capture process ended", f"The episode ends: {failed}.") if failed else None

    def begin(self, directory: Path) -> None:
        """Begin an episode in a journal's directory; what is published after the return is in it.

        A process that does not answer in time is not waited for: its lag tells of it, and the episode's losses.
        """
        for child in self._children:
            child.directory, child.ended = directory, None
            self._send(child, Begin(directory))
        self._wait(lambda child: child.begun == directory, BEGIN_S)

    def _send(self, child: _Child, word: Begin | End | Quit) -> None:
        try:
            child.connection.send(word)
        except OSError:
            child.connection.close()

    def end(self, *, keep: bool = True) -> CaptureReport:
        """End the episode with what was received until now; wait until every file is closed."""
        monotonic, realtime = time.monotonic_ns(), time.time_ns()
        for child in self._children:
            if child.directory is not None:
                self._send(child, End(child.directory, monotonic, realtime, keep))
        self._wait(lambda child: child.ended is not None, END_S + REPAIR_S)
        report = self._report()
        for child in self._children:
            if child.ended is None and not child.dead:
                child.failed = f"the capture process of {', '.join(child.config.topics)} did not answer for {END_S:g} s"
        return report

    def _report(self) -> CaptureReport:
        ended = [child.ended for child in self._children if child.ended is not None]
        counts = {topic: count for part in ended for topic, count in part.counts.items()}
        stop = next((part.stop for part in ended if part.stop is not None), None)
        losses = [_stopped(part) for part in ended if part.stop is not None]
        silent = [child for child in self._children if child.ended is None]
        if silent:
            reason = self.failure() or "a capture process did not answer"
            stop = stop or Stop("capture process ended", f"The episode ends: {reason}.")
            losses.append(f"{reason}; what it had not written is lost")
        queue = {topic: n for part in ended for topic, n in part.lost_queue.items()}
        middleware = {topic: n for part in ended for topic, n in part.lost_middleware.items()}
        losses += [f"{topic}: {n} messages did not fit the queue" for topic, n in queue.items() if n]
        losses += [f"{topic}: {n} messages were lost on their way here" for topic, n in middleware.items() if n]
        facts = {
            "lost_queue": queue,
            "lost_middleware": middleware,
            "lag_max_ms": max((part.lag_max_ms for part in ended), default=0.0),
            "findings": [finding for part in ended for finding in part.findings],
            "qos": {topic: f.qos for s in self.poll() for topic, f in s.topics.items()},
        }
        return CaptureReport(counts, stop, tuple(losses), facts)

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            self._send(child, Quit())
        for child in self._children:
            child.end()
        self._children = []


def _launch(config: CaptureConfig) -> _Child:
    context = mp.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=capture_main, args=(its, config), name=config.name, daemon=True)
    with out_of_reach():
        process.start()
    its.close()
    return _Child(config, process, mine, told_s=time.monotonic())


def _stopped(part: Ended) -> str:
    assert part.stop is not None
    text = part.stop.text.rstrip(".")
    return f"{text}. The episode ends there; {part.passed_over} later messages were not taken."


def shares(embodiment: Embodiment, processes: int) -> list[tuple[str, ...]]:
    """Share the topics out: numerics together, cameras in turn; never more shares than there is something to share."""
    bound = BoundTopics(embodiment)
    cameras = [t for t, feeds in bound.feeds.items() if any(stream.kind in IMAGE_KINDS for stream, _ in feeds)]
    numerics = [t for t in bound.feeds if t not in cameras]
    count = max(1, min(processes, len(cameras) + bool(numerics)))
    parts: list[list[str]] = [[] for _ in range(count)]
    parts[0] += numerics
    first = 1 if count > 1 and numerics else 0
    for number, topic in enumerate(cameras):
        parts[first + number % (count - first)].append(topic)
    return [tuple(part) for part in parts if part]
