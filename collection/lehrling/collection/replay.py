"""Replay without ROS: an episode's actions through the guard, its other streams on a schedule that does not drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lehrling.collection.replay_messages import Skipped, Timed, replay_messages, replayable
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.episode import Episode, EpisodeStream
from lehrling.datasets.errors import ContractError, InputError
from lehrling.deploy.guard_events import Cause, Command
from lehrling.deploy.guard_layout import Layout
from lehrling.deploy.guard_link import GuardLink, Outgoing

FloatArray = NDArray[np.float64]
AHEAD_S, BATCH, GAP_MAX_S = 0.6, 25, 30.0
WAIT_NS = 10_000_000_000
SPEED_MIN, SPEED_MAX = 0.05, 5.0
TROUBLE = frozenset(Cause) - {
    Cause.SCALED,
    Cause.CLAMPED,
    Cause.STEP,
    Cause.RESYNC,
    Cause.IDLE,
    Cause.ACTION,
    Cause.STALL,
}
"""Causes that hold or stop a replay."""


@dataclass(frozen=True)
class Track:
    """What an episode commanded, as targets of a layout's axes.

    Attributes:
        at_s: (n,) after the first.
        targets: (n, D).
        zero_ns: receive time of the first.
    """

    at_s: FloatArray
    targets: FloatArray
    zero_ns: int

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return float(self.at_s[-1])


def read_track(episode: Episode, layout: Layout) -> Track:
    """Read an episode's action streams as targets, at the times of the densest stream.

    Poses, joints and grippers between two rows of a slower stream are interpolated, velocities held.

    Raises:
        ContractError: the robot's contract is another than the episode's.
        InputError: an action stream has fewer than two rows, or a pause longer than 30 s.
    """
    if difference := episode.contract.difference(layout.embodiment.contract):
        raise ContractError(f"Episode {episode.id} cannot be replayed on {layout.embodiment.name!r}. {difference}")
    streams = {part.stream.name: episode.stream(part.stream.name) for part in layout.parts}
    for name, rows in streams.items():
        if len(rows) < 2:
            raise InputError(f"Expected at least two commands of {name!r} in episode {episode.id}, got {len(rows)}.")
    densest = max(streams.values(), key=len)
    stamps = np.unique(densest.stamp_ns)
    columns = {name: _at(rows, stamps, held=rows.stream.kind == "twist") for name, rows in streams.items()}
    layout.refer({name: rows[0] for name, rows in columns.items()})
    targets = np.array([layout.vector({name: rows[k] for name, rows in columns.items()}) for k in range(len(stamps))])
    at_s = (stamps - stamps[0]) / 1e9
    pause = float(np.diff(at_s).max())
    if pause > GAP_MAX_S:
        raise InputError(
            f"Episode {episode.id} has a pause of {pause:.0f} s between commands; at most {GAP_MAX_S:g} s."
        )
    return Track(at_s, targets, int(densest.received_ns.min()))


def _at(rows: EpisodeStream, stamps: NDArray[np.int64], *, held: bool) -> FloatArray:
    """Return a stream's rows at stamps (n,): the last before, or between the neighbours."""
    order = np.argsort(rows.stamp_ns, kind="stable")
    own, values = rows.stamp_ns[order], _filled(rows)[order]
    place = np.clip(np.searchsorted(own, stamps, side="right") - 1, 0, len(own) - 1)
    if held:
        return np.asarray(values[place])
    after = np.minimum(place + 1, len(own) - 1)
    span = np.maximum(own[after] - own[place], 1)
    share = np.clip((stamps - own[place]) / span, 0, 1)[:, None]
    mixed = values[place] + share * (values[after] - values[place])
    if rows.stream.kind == "pose":
        mixed[:, 3:] /= np.maximum(np.linalg.norm(mixed[:, 3:], axis=1, keepdims=True), 1e-9)
    return np.asarray(mixed)


def _filled(rows: EpisodeStream) -> FloatArray:
    """Return a stream's values with what a message left out as it was last given, or will first be.

    Raises:
        InputError: an element was never given.
    """
    values, mask = np.asarray(rows.value, dtype=np.float64), rows.mask
    if mask.all():
        return values
    if not mask.any(axis=0).all():
        name = rows.stream.names[int((~mask.any(axis=0)).argmax())]
        raise InputError(f"Element {name!r} of {rows.stream.name!r} was never commanded in this episode.")
    index = np.where(mask, np.arange(len(mask))[:, None], -1)
    last = np.maximum.accumulate(index, axis=0)
    last = np.where(last < 0, mask.argmax(axis=0), last)
    return np.asarray(np.take_along_axis(values, last, axis=0))


class Phase(Enum):
    """How far a replay is."""

    WAITING = "waiting for the robot"
    RUNNING = "running"
    DONE = "done"


class Replay:
    """Feeds a guard with an episode's actions, a little ahead, and tells when other messages are due.

    Attributes:
        phase: how far it is.
        reached: targets that were reached.
        trouble: why the guard held or stopped, last; empty if it never did.
    """

    def __init__(self, link: GuardLink, track: Track, speed: float = 1.0, others: Sequence[Timed] = ()) -> None:
        """Prepare.

        Args:
            link: to the robot.
            track: its layout is the link's.
            speed: 0.05 to 5 times the original.
            others: messages to publish as they are, in their order.

        Raises:
            InputError: the speed is out of range.
        """
        if not SPEED_MIN <= speed <= SPEED_MAX:
            raise InputError(f"Expected a speed from {SPEED_MIN:g} to {SPEED_MAX:g}, got {speed:g}.")
        self.link, self.track, self.speed = link, track, speed
        self.others, self._sent = tuple(others), 0
        self._fed, self.phase, self.trouble = 0, Phase.WAITING, ""
        self._begun_ns = self.started_ns = self.ended_ns = 0
        self._wall_ns, self._zero_ns = 0, _stamp_at_begin(self.others)
        link.guard.accept(link.layout.claim())

    @property
    def reached(self) -> int:
        """Targets that were reached."""
        return self._fed - self.link.guard.pending

    @property
    def seconds(self) -> float:
        """How long it took, or takes until now."""
        return (self.ended_ns - self.started_ns) / 1e9

    def tick(self, now_ns: int, wall_ns: int, *, enabled: bool = True) -> tuple[Command, list[Outgoing]]:
        """Make one step of the control loop; return the command and the messages to publish.

        Raises:
            InputError: the robot does not tell where it is, or the first target is far from there; nothing was sent.
        """
        guard = self.link.guard
        guard.client(now_ns)
        if enabled:
            guard.enable(now_ns)
        else:
            guard.release()
        if self.phase is Phase.WAITING:
            self._begin(now_ns, wall_ns)
        if self.phase is Phase.RUNNING:
            self._feed(now_ns)
        command, outgoing = self.link.step(now_ns, wall_ns)
        self._note(command, now_ns)
        return command, outgoing + list(self._due(now_ns))

    def halt(self, now_ns: int) -> None:
        """End early; the robot comes to rest."""
        if self.phase is not Phase.DONE:
            self.trouble = "stopped before the end"
            self.link.guard.drop()
            self._end(now_ns)

    def _begin(self, now_ns: int, wall_ns: int) -> None:
        """Start once the robot told where it is; refuse what the guard refuses."""
        guard = self.link.guard
        self._begun_ns = self._begun_ns or now_ns
        known = np.isfinite(guard.measured) | ~guard.axes.measured
        if not known.all():
            if now_ns - self._begun_ns > WAIT_NS:
                topics = ", ".join(self.link.heard)
                raise InputError(
                    f"Nothing tells where the robot is: no usable message on {topics}. {self.link.refused}"
                )
            return
        answer = guard.submit(now_ns, self.track.targets[:1], replace=True)
        if not answer:
            raise InputError(f"The replay does not start. {answer.text}")
        self._fed, self.phase = 1, Phase.RUNNING
        self.started_ns, self._wall_ns = now_ns, wall_ns

    def _feed(self, now_ns: int) -> None:
        """Append the next targets when fewer than so much time is queued."""
        guard, total = self.link.guard, len(self.track.targets)
        while self._fed < total and guard.queued_s < AHEAD_S:
            stop = min(self._fed + BATCH, total)
            seconds = np.diff(self.track.at_s[self._fed - 1 : stop]) / self.speed
            intervals = np.maximum(np.round(seconds * 1e9), 1_000_000).astype(np.int64)
            answer = guard.submit(now_ns, self.track.targets[self._fed : stop], interval_ns=intervals, replace=False)
            if not answer:
                self.trouble = guard.latch.text or answer.text
                self._end(now_ns)
                return
            self._fed = stop

    def _note(self, command: Command, now_ns: int) -> None:
        if self.phase is not Phase.RUNNING:
            return
        self.trouble = next((e.text for e in reversed(command.events) if e.cause in TROUBLE), self.trouble)
        finished = self._fed == len(self.track.targets) and command.pending == 0
        if finished and self._sent == len(self.others):
            self.trouble = ""
            self._end(now_ns)
        elif not self.link.guard.engaged:
            self._end(now_ns)

    def _end(self, now_ns: int) -> None:
        self.phase, self.ended_ns = Phase.DONE, now_ns

    def _due(self, now_ns: int) -> Iterator[Outgoing]:
        """Yield the other messages that are due, stamped as if they came now."""
        if self.phase is not Phase.RUNNING:
            return
        passed = (now_ns - self.started_ns) * self.speed
        while self._sent < len(self.others) and self.others[self._sent].at_ns <= passed:
            message = self.others[self._sent]
            stamp_ns = self._wall_ns + round((message.stamp_ns - self._zero_ns) / self.speed)
            yield Outgoing(self.link.full(message.topic), message.type, message.make(stamp_ns))
            self._sent += 1

    @property
    def complete(self) -> bool:
        """Whether all was replayed."""
        return self.phase is Phase.DONE and not self.trouble


def _stamp_at_begin(messages: Sequence[Timed]) -> int:
    """Return what a stamp of the moment of the first command would be: what came before it is stamped earlier."""
    after = next((message for message in messages if message.at_ns > 0), messages[-1] if messages else None)
    return after.stamp_ns - after.at_ns if after is not None else 0


@dataclass(frozen=True)
class Plan:
    """What a replay will do.

    Attributes:
        actions: streams through the guard.
        others: streams published as they are.
        skipped: streams that cannot be, with the reason.
    """

    episode: str
    actions: tuple[str, ...]
    others: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    track: Track
    messages: tuple[Timed, ...]


def plan_replay(episode: Episode, layout: Layout, *, all_streams: bool) -> Plan:
    """Read what is to be replayed.

    Raises:
        ContractError: the robot's contract is another than the episode's.
        InputError: the episode has no actions that can be replayed.
    """
    actions = tuple(part.stream.name for part in layout.parts)
    wanted = [name for name in episode.streams if name not in actions] if all_streams else []
    others, skipped = replayable(episode, wanted)
    track = read_track(episode, layout)
    messages = tuple(replay_messages(episode, others, track.zero_ns)) if others else ()
    return Plan(episode.id, actions, tuple(others), tuple(skipped), track, messages)


def station_of(episode: Episode, given: Embodiment | None, namespace: str | None) -> Embodiment:
    """Return the robot to replay on: the one given, or that of the episode, in a namespace if one is given."""
    embodiment = given or episode.embodiment
    if namespace is None:
        return embodiment
    binding = embodiment.binding.model_copy(update={"namespace": namespace})
    return embodiment.model_copy(update={"binding": binding})
