"""A recording session: phases, what the operator says, and how episodes end. Knows neither ROS nor keyboards."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_group import CaptureReport
from lehrling.collection.capture_words import LAG_PROMISED_MS, Status, Stop, TopicFacts
from lehrling.collection.sealing import Sealing
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import ContractError, InputError, LehrlingError, StorageError
from lehrling.datasets.journal import EpisodeMeta, Outcome, begin_journal, end_journal
from lehrling.datasets.manifest import EpisodeRecord

GIB = 1 << 30
RETRY_S = 2.0
"""After an episode could not begin by itself, until it is tried again."""


class Phase(StrEnum):
    """Where a session stands."""

    IDLE = "idle"
    WARM_UP = "warm-up"
    RECORDING = "recording"
    RESET = "reset"
    DONE = "done"


class Capture(Protocol):
    """What a session needs of capturing."""

    def begin(self, directory: Path) -> None:
        """Begin an episode."""
        ...

    def end(self, *, keep: bool = True) -> CaptureReport:
        """End it; everything is in files."""
        ...

    def poll(self, timeout_s: float = 0.0) -> list[Status]:
        """Return the newest status of each process."""
        ...

    def stop(self) -> Stop | None:
        """Return why the episode cannot go on."""
        ...

    def unready(self) -> str:
        """Return why no episode can begin, or an empty string."""
        ...

    def revive(self) -> list[str]:
        """Start again what has ended; return why each ended. Only between episodes."""
        ...


@dataclass(frozen=True)
class Said:
    """Something that the operator should hear.

    Attributes:
        cue: a few words that may be spoken; empty where nothing is.
        loud: whether something is wrong.
    """

    text: str
    cue: str = ""
    loud: bool = False


@dataclass
class Plan:
    """What the next episode shows; may change between episodes."""

    task: str
    instruction: str
    operator: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionOptions:
    """How a session runs.

    Attributes:
        episodes: to be sealed in this session; None records until stopped.
        limit_s: an episode ends by itself after this; None leaves it to the operator.
        autostart: begin by itself, after warm-up and after each reset.
        min_free_bytes: no episode begins, and one ends, below this.
        allow_missing: begin even where a topic of an observation or action was never heard.
        facts: of the host, stored with each episode.
    """

    episodes: int | None = None
    warmup_s: float = 0.0
    reset_s: float = 0.0
    limit_s: float | None = None
    limit_outcome: Outcome = "unknown"
    autostart: bool = False
    min_free_bytes: int = 2 * GIB
    allow_missing: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Running:
    """The episode that is being recorded."""

    meta: EpisodeMeta
    directory: Path
    began_s: float
    outcome: Outcome | None = None
    lagged: bool = False


def episode_name(robot: str) -> str:
    """Return an id that tells robot and time, and is new."""
    return f"{robot}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def check_contract(dataset: Dataset, embodiment: Embodiment) -> None:
    """Refuse to mix contracts of one robot in a dataset.

    Raises:
        ContractError: the message says what differs.
    """
    for episode in dataset.episodes():
        record = episode.record
        if record.robot == embodiment.name and record.contract_hash != embodiment.contract_hash:
            raise ContractError(
                f"{dataset.root} has episodes of {embodiment.name} under another contract. "
                f"{episode.contract.difference(embodiment.contract)} Record into a new dataset, or correct the embodiment."
            )


class Session:
    """Begins, ends and seals episodes as the operator, the limits and the capture say."""

    def __init__(
        self,
        dataset: Dataset,
        embodiment: Embodiment,
        capture: Capture,
        plan: Plan,
        options: SessionOptions | None = None,
        choose: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take a dataset that is open for writing; `choose` is called before each episode and may change the plan.

        Raises:
            ContractError: it has this robot's episodes under another contract.
        """
        check_contract(dataset, embodiment)
        self.dataset, self.embodiment, self.plan = dataset, embodiment, plan
        self.options = options or SessionOptions()
        self._capture, self._clock, self._sealing = capture, clock, Sealing(dataset)
        self._choose = choose
        self._said: list[Said] = []
        self._running: _Running | None = None
        self._pending: set[str] = set()
        self._refused = ""
        self._since = clock()
        self.phase = Phase.IDLE
        self.sealed: list[EpisodeRecord] = []
        self.failed: list[str] = []
        if self.options.autostart:
            self._enter(Phase.WARM_UP)

    def prepare(self) -> None:
        """Load what sealing needs, so that the first episode is sealed as fast as the others."""
        self._sealing.prepare()

    def _enter(self, phase: Phase) -> None:
        self.phase, self._since = phase, self._clock()

    def _say(self, text: str, cue: str = "", *, loud: bool = False) -> None:
        self._said.append(Said(text, cue, loud))

    def said(self) -> list[Said]:
        """Return what is to be told since the last call."""
        told, self._said = self._said, []
        return told

    @property
    def elapsed_s(self) -> float:
        """Seconds in this phase."""
        return self._clock() - self._since

    @property
    def sealing(self) -> int:
        """Episodes that are being sealed."""
        return len(self._pending)

    @property
    def free_bytes(self) -> int:
        """What is left on the dataset's disk; nothing, where it is gone."""
        try:
            return shutil.disk_usage(self.dataset.root).free
        except OSError:
            return 0

    def missing(self) -> list[str]:
        """Return topics of observations that were never heard, and of actions that nobody is there to publish."""
        bound, heard = BoundTopics(self.embodiment), self._topics()
        return [t for t in bound.feeds if bound.needed(t) and not self._there(bound, t, heard.get(t))]

    @staticmethod
    def _there(bound: BoundTopics, topic: str, facts: TopicFacts | None) -> bool:
        """Whether a topic is ready; commands come only once somebody moves the robot, which may be after the start."""
        if facts is None or facts.age_s is not None:
            return facts is not None
        return facts.publishers > 0 and all(stream.role != "observation" for stream, _ in bound.feeds[topic])

    def _topics(self) -> dict[str, TopicFacts]:
        return {topic: facts for status in self._capture.poll() for topic, facts in status.topics.items()}

    def start(self) -> str:
        """Begin an episode and return its id.

        Raises:
            InputError: one is running, the session is done, capturing is not ready, or a needed topic was never heard.
            StorageError: too little space.
        """
        self._check_phase()
        self._check_space()
        self._check_capture()
        if self._choose is not None:
            self._choose()
        meta = self._meta()
        directory = begin_journal(self.dataset.root, meta, self.embodiment)
        self._capture.begin(directory)
        self._running = _Running(meta, directory, self._clock())
        self._enter(Phase.RECORDING)
        number = len(self.sealed) + self.sealing + 1
        self._say(f"recording {meta.id}: {meta.instruction or meta.task}", f"recording episode {number}")
        return meta.id

    def _check_phase(self) -> None:
        if self._running is not None:
            raise InputError(f"Episode {self._running.meta.id} is being recorded already; save or discard it first.")
        if self.phase is Phase.DONE:
            raise InputError("The session is done; start the recorder again with --more to record further episodes.")
        if self._pending_enough():
            raise InputError(
                f"All {self.options.episodes} episodes are recorded, {self.sealing} of them are being sealed."
            )

    def _check_capture(self) -> None:
        if reason := self._capture.unready():
            raise InputError(f"No episode can begin now: {reason}.")
        missing = [] if self.options.allow_missing else self.missing()
        if missing:
            topics = self._topics()
            problem = next((topics[t].problem for t in missing if t in topics and topics[t].problem), "")
            hint = "check drivers and names (`lehrling doctor`), or allow topics to be missing"
            raise InputError(f"Nothing was heard yet on {', '.join(missing)}: {(problem or hint).rstrip('.')}.")

    def _meta(self) -> EpisodeMeta:
        plan = self.plan
        return EpisodeMeta(
            episode_name(self.embodiment.name),
            plan.task,
            plan.instruction,
            self.embodiment.name,
            "robot",
            operator=plan.operator,
            details=dict(plan.details),
        )

    def _check_space(self) -> None:
        free = self.free_bytes
        if free < self.options.min_free_bytes:
            raise StorageError(
                f"{self.dataset.root} has {free / GIB:.1f} GiB left, less than the {self.options.min_free_bytes / GIB:.1f} GiB "
                "that recording keeps free; free some space, or lower --min-free."
            )

    def save(self, outcome: Outcome | None = None, cause: str = "operator") -> str:
        """End the episode and have it sealed; return its id.

        Raises:
            InputError: none is running.
        """
        running = self._end_running()
        self._after()
        name, report = running.meta.id, self._capture.end()
        stopped = report.stop
        verdict: Outcome = outcome or running.outcome or "unknown"
        if stopped is not None:
            verdict, cause = running.outcome or "unknown", stopped.cause
        for loss in report.losses:
            self._say(f"{name}: {loss}", loud=True)
        try:
            facts = {**self.options.facts, **report.facts}
            end_journal(running.directory, verdict, cause, report.counts, report.losses, facts)
        except StorageError as error:
            self._fail(f"{name} ({cause}) is kept as a journal, which the next opening of the dataset seals: {error}")
            return name
        self._pending.add(name)
        self._sealing.seal(name)
        self._say(f"saved {name} ({verdict}, {cause})", "saved" if stopped is None else "stopped")
        return name

    def _fail(self, text: str) -> None:
        self.failed.append(text)
        self._say(text, "problem", loud=True)

    def discard(self, reason: str = "discarded by the operator") -> str:
        """End the episode and throw it away; return its id.

        Raises:
            InputError: none is running.
        """
        running = self._end_running()
        self._after()
        self._capture.end(keep=False)
        self._sealing.discard(running.meta.id, reason)
        self._say(f"discarded {running.meta.id}", "discarded")
        return running.meta.id

    def _end_running(self) -> _Running:
        running, self._running = self._running, None
        if running is None:
            raise InputError(f"No episode is being recorded (the session is in {self.phase}); start one first.")
        return running

    def _after(self) -> None:
        self._enter(Phase.RESET if self.options.reset_s > 0 or self.options.autostart else Phase.IDLE)

    def label(self, outcome: Outcome) -> str:
        """Mark the running episode; return its id.

        Raises:
            InputError: none is running.
        """
        if self._running is None:
            raise InputError("No episode is being recorded; `lehrling edit label` changes those that are sealed.")
        self._running.outcome = outcome
        self._say(f"marked {self._running.meta.id} as {outcome}", outcome)
        return self._running.meta.id

    def tick(self, *, begin: bool = True) -> None:
        """Look at limits, disk, capture and sealing; to be called several times a second.

        Without `begin` no episode begins by itself.
        """
        statuses = self._capture.poll()
        self._collect()
        if self._running is not None:
            self._tell_lag(self._running, max((status.lag_ms for status in statuses), default=0.0))
            self._tick_recording(self._running)
        elif self.phase is not Phase.DONE:
            self._tick_between(begin=begin)

    def _tell_lag(self, running: _Running, lag_ms: float) -> None:
        if lag_ms > LAG_PROMISED_MS and not running.lagged:
            running.lagged = True
            self._say(
                f"{running.meta.id}: the journal lags {lag_ms:.0f} ms behind, more than {LAG_PROMISED_MS:g}; a kill could cost "
                "as much. Record fewer or compressed images, or use more capture processes.",
                loud=True,
            )

    def _tick_recording(self, running: _Running) -> None:
        options = self.options
        if (stop := self._capture.stop()) is not None:
            self._say(stop.text, "problem", loud=True)
            self.save(cause=stop.cause)
        elif options.limit_s is not None and self._clock() - running.began_s >= options.limit_s:
            self.save(running.outcome or options.limit_outcome, "time limit")
        elif self.free_bytes < options.min_free_bytes:
            self._say(f"{self.dataset.root}: the disk is almost full; the episode ends here.", "disk full", loud=True)
            self.save(cause="disk almost full")

    def _tick_between(self, *, begin: bool) -> None:
        for reason in self._capture.revive():
            self._say(f"{reason}; it is started again".capitalize() + ".", "problem", loud=True)
        if self._enough():
            self._enter(Phase.DONE)
            self._say(f"done: {len(self.sealed)} episodes sealed", "done")
        elif begin and self.phase in (Phase.WARM_UP, Phase.RESET) and self.elapsed_s >= self._pause_s():
            self._go_on()

    def _pause_s(self) -> float:
        """Return how long warm-up or reset last; longer where an episode could not begin."""
        pause_s = self.options.warmup_s if self.phase is Phase.WARM_UP else self.options.reset_s
        return max(pause_s, RETRY_S) if self._refused else pause_s

    def _go_on(self) -> None:
        """Begin the next episode, or wait for the operator; what hinders is told once."""
        if not self.options.autostart:
            self._enter(Phase.IDLE)
        elif not self._pending_enough():
            try:
                self.start()
                self._refused = ""
            except LehrlingError as error:
                if str(error) != self._refused:
                    self._say(str(error), loud=True)
                self._refused = str(error)
                self._enter(self.phase)

    def _pending_enough(self) -> bool:
        return self.options.episodes is not None and len(self.sealed) + self.sealing >= self.options.episodes

    def _enough(self) -> bool:
        return self.options.episodes is not None and len(self.sealed) >= self.options.episodes and not self.sealing

    def _collect(self) -> None:
        for name, result in self._sealing.results():
            self._pending.discard(name)
            if isinstance(result, LehrlingError):
                self._fail(str(result))
            elif result.status == "sealed":
                self.sealed.append(result)
                self._say(f"sealed {name} ({result.duration_s:.1f} s, {result.bytes / 1e6:.1f} MB)")
            elif result.status == "quarantined":
                self._fail(f"quarantined {name}: {result.reason}")

    def close(self, cause: str = "recorder stopped") -> None:
        """End the session: a running episode is saved, everything is sealed."""
        try:
            if self._running is not None:
                self.save(cause=cause)
        finally:
            self._sealing.close()
            self._collect()
            self._enter(Phase.DONE)
