"""Between a guard and the robot's topics, without ROS: observations in, commands out, both as CDR bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment, Source, Stream
from lehrling.datasets.errors import LehrlingError
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_events import Command
from lehrling.deploy.guard_layout import Layout, Part, guard_for
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_messages import Motion, commandable, encode

FloatArray = NDArray[np.float64]
OTHER_CLOCK_NS = 10_000_000_000


@dataclass(frozen=True)
class Outgoing:
    """A message to publish."""

    topic: str
    type: str
    cdr: bytes


@dataclass
class StampClock:
    """Brings the stamps of one topic onto the monotonic clock.

    A stamp within ten seconds of the wall clock is taken as one of it, so that a message that comes late looks as old as it
    is. Any other is of a clock of its own, such as simulation time: there a message counts from when it came, if its stamp
    is newer than the last.
    """

    last_ns: int | None = None

    def monotonic(self, stamp_ns: int, now_ns: int, wall_ns: int) -> int | None:
        """Return the stamp as monotonic time, or None if it is no newer than the last."""
        if self.last_ns is not None and stamp_ns <= self.last_ns and self.last_ns - stamp_ns < OTHER_CLOCK_NS:
            return None
        self.last_ns = stamp_ns
        return now_ns - (wall_ns - stamp_ns) if abs(wall_ns - stamp_ns) < OTHER_CLOCK_NS else now_ns


@dataclass
class _Feed:
    """An observed stream as one topic feeds it."""

    stream: Stream
    source: Source
    clock: StampClock
    stamp_ns: int | None = None


class GuardLink:
    """A guard with its layout, and the topics on both sides.

    Attributes:
        heard: topics to subscribe to -> message type.
        told: topics to publish on -> message type.
        refused: why the last observation could not be used; empty if it could.
    """

    def __init__(self, guard: Guard, layout: Layout) -> None:
        """Find the topics.

        Raises:
            InputError: an action stream is bound to a message type that cannot carry its commands.
        """
        self.guard, self.layout = guard, layout
        embodiment = layout.embodiment
        self._sources = embodiment.binding.sources
        self._prefix = f"/{name}" if (name := embodiment.binding.namespace.strip("/")) else ""
        self._feeds = self._observed(embodiment)
        self._cameras = self._watched(embodiment)
        self._latest = {name: np.full(embodiment.contract.stream(name).shape, np.nan) for name in layout.observed}
        self._every = {
            source.topic: max(1, round(guard.config.rate_hz / source.rate_hz)) if source.rate_hz else 1
            for part in layout.parts
            for source in self._sources[part.stream.name]
        }
        for part in layout.parts:
            commandable(part.stream, self._sources[part.stream.name])
        self._ticks, self._led = 0, False
        self.refused = ""

    @classmethod
    def of(
        cls,
        embodiment: Embodiment,
        config: GuardConfig | None = None,
        *,
        streams: Sequence[str] | None = None,
        cameras: Sequence[str] = (),
    ) -> Self:
        """Return a link with a guard of its own; `guard_for` says what the arguments mean."""
        return cls(*guard_for(embodiment, config, streams=streams, cameras=cameras))

    def _observed(self, embodiment: Embodiment) -> dict[str, list[_Feed]]:
        feeds: dict[str, list[_Feed]] = {}
        for name in self.layout.observed:
            for source in self._sources[name]:
                feed = _Feed(embodiment.contract.stream(name), source, StampClock())
                feeds.setdefault(self.full(source.topic), []).append(feed)
        return feeds

    def _watched(self, embodiment: Embodiment) -> dict[str, tuple[str, StampClock]]:
        wanted = set(self.guard.config.sources) - {"joints"}
        cameras = [camera.name for camera in embodiment.contract.cameras if camera.name in wanted]
        return {self.full(s.topic): (name, StampClock()) for name in cameras for s in self._sources[name]}

    def full(self, topic: str) -> str:
        """Return a topic's full name, in the robot's namespace."""
        return self._prefix + topic

    @property
    def heard(self) -> dict[str, str]:
        """Topics to subscribe to -> message type."""
        binding = self.layout.embodiment.binding
        return {
            self.full(t): kind for t, kind in binding.topics.items() if self.full(t) in {*self._feeds, *self._cameras}
        }

    @property
    def told(self) -> dict[str, str]:
        """Topics to publish on -> message type."""
        parts = self.layout.parts
        return {self.full(s.topic): s.type for part in parts for s in self._sources[part.stream.name]}

    @property
    def latest(self) -> dict[str, FloatArray]:
        """The newest rows of the observed streams, NaN where nothing has told; not to be changed."""
        return self._latest

    def topics_of(self, stream: str) -> list[str]:
        """Return the full names of an action stream's topics."""
        return [self.full(source.topic) for source in self._sources[stream]]

    def hear(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> bool:
        """Take a message; return whether it tells the guard anything new.

        Args:
            topic: full name.
            cdr: the message.
            now_ns: monotonic time of its receipt.
            wall_ns: wall-clock time of its receipt.
        """
        try:
            if topic in self._cameras:
                return self._hear_camera(topic, cdr, now_ns, wall_ns)
            new = [self._hear_feed(feed, cdr, now_ns, wall_ns) for feed in self._feeds.get(topic, ())]
        except (LehrlingError, struct.error) as error:
            self.refused = str(error)
            return False
        self.refused = ""
        return any(new) and self._observe(now_ns)

    def _hear_camera(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> bool:
        name, clock = self._cameras[topic]
        stamp_ns = clock.monotonic(messages.header_stamp(cdr), now_ns, wall_ns)
        return stamp_ns is not None and self.guard.saw(now_ns, name, stamp_ns)

    def _hear_feed(self, feed: _Feed, cdr: bytes, now_ns: int, wall_ns: int) -> bool:
        message = messages.decode(cdr, feed.source.type)
        stamp = messages.stamp_of(message)
        stamp_ns = now_ns if stamp is None else feed.clock.monotonic(stamp, now_ns, wall_ns)
        joints = self.layout.embodiment.contract.joint_names
        row, mask = messages.numeric_row(message, feed.source, feed.stream, joints)
        if stamp_ns is None or not mask.any():
            return False
        self._latest[feed.stream.name][mask] = row[mask]
        feed.stamp_ns = stamp_ns
        return True

    def _observe(self, now_ns: int) -> bool:
        """Tell the guard where the robot is, once every topic has told; as old as the oldest of them."""
        stamps = [feed.stamp_ns for feeds in self._feeds.values() for feed in feeds]
        if any(stamp is None for stamp in stamps):
            return False
        oldest = min(stamp for stamp in stamps if stamp is not None)
        return self.guard.observe(now_ns, self.layout.measured(self._latest), oldest)

    def step(self, now_ns: int, wall_ns: int) -> tuple[Command, list[Outgoing]]:
        """Let the guard make its step; return the command and the messages to publish.

        A topic with a `rate_hz` below the control rate gets every n-th command, and always the one with which the guard lets
        go of the robot: the last position, velocity zero.
        """
        command = self.guard.step(now_ns)
        letting_go = self._led and not self.guard.engaged
        self._led = self.guard.engaged
        if not command.publish and not letting_go:
            return command, []
        due = [topic for topic, every in self._every.items() if letting_go or self._ticks % every == 0]
        self._ticks += 1
        return command, list(self._outgoing(command, due, wall_ns, still=letting_go))

    def _outgoing(self, command: Command, due: Sequence[str], stamp_ns: int, *, still: bool) -> Iterator[Outgoing]:
        rows = self.layout.rows(command)
        for part in self.layout.parts:
            for source in self._sources[part.stream.name]:
                if source.topic in due:
                    motion = self._motion(part, rows[part.stream.name], command, stamp_ns, source.topic, still=still)
                    yield Outgoing(self.full(source.topic), source.type, encode(motion, part.stream, source))

    def _motion(
        self, part: Part, row: FloatArray, command: Command, stamp_ns: int, topic: str, *, still: bool
    ) -> Motion:
        velocity = command.velocity[part.place]
        if part.form == "normalised":
            velocity = np.empty(0)
        if still:
            velocity = np.zeros_like(velocity)
            row = np.zeros_like(row) if part.form == "twist" else row
        return Motion(row, velocity, stamp_ns, self._every[topic] * self.guard.config.period_ns)
