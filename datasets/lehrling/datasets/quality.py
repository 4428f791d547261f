"""Quality gates: figures of every episode and of the dataset, and what lies beyond its limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.quality_images import Pictures, look_at
from lehrling.datasets.quality_limits import Gate, QualityLimits
from lehrling.datasets.quality_signals import (
    CORRELATION_MIN,
    JOINT_KINDS,
    Offset,
    idle_share,
    jerk_p99,
    offsets,
    rows_of,
    saturation_share,
)

if TYPE_CHECKING:
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.embodiment import Stream
    from lehrling.datasets.episode import Episode
    from lehrling.datasets.manifest import EpisodeRecord

Progress = Callable[[int, int], None]
MAD_TO_SIGMA = 1.4826
DURATION_SIGMA_MIN = 0.05
"""Durations within 5 % of each other are alike, however alike the others are."""
OUTLIERS_FROM = 5
"""Of fewer episodes of a task nobody can tell which is unusual."""


@dataclass(frozen=True)
class Finding:
    """A figure beyond its gate.

    Attributes:
        where: the stream, or empty for the whole episode or dataset.
        told: a sentence.
    """

    gate: str
    level: str
    where: str
    value: float
    limit: float
    told: str


@dataclass(frozen=True)
class CameraFigures:
    """Of one camera's pictures: shares that are black and blurred; median brightness (of 255) and sharpness."""

    looked_at: int
    black_share: float
    blurred_share: float
    brightness: float
    sharpness: float


@dataclass(frozen=True)
class EpisodeQuality:
    """An episode's figures and what is beyond a limit.

    Attributes:
        jerk: per joint stream, of its jerkiest element, over that of the median episode.
        damage: why it could not be judged; empty if it was.
    """

    id: str
    task: str
    outcome: str
    duration_s: float
    gap_periods: dict[str, float]
    dropped_share: dict[str, float]
    freeze_s: dict[str, float]
    saturation_share: dict[str, float]
    jerk: dict[str, float]
    idle_share: float
    offsets: tuple[Offset, ...]
    cameras: dict[str, CameraFigures]
    duration_deviations: float
    findings: tuple[Finding, ...]
    damage: str = ""

    @property
    def refused(self) -> bool:
        """Whether it should not be trained on."""
        return bool(self.damage) or any(finding.level == "refuse" for finding in self.findings)


@dataclass(frozen=True)
class DatasetQuality:
    """The dataset's quality.

    Attributes:
        counts: how many episodes have each task, outcome and instruction.
        findings: of the dataset as a whole.
    """

    limits: QualityLimits
    episodes: tuple[EpisodeQuality, ...]
    counts: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "limits": self.limits.model_dump(mode="json"),
            "episodes": {
                e.id: {k: v for k, v in asdict(e).items() if k != "id"} | {"refused": e.refused} for e in self.episodes
            },
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass
class _Measured:
    """An episode's figures before they are compared with the others'."""

    record: EpisodeRecord
    saturation: dict[str, float] = field(default_factory=dict)
    jerk: dict[str, float] = field(default_factory=dict)
    idle: float = 0.0
    offsets: list[Offset] = field(default_factory=list)
    pictures: dict[str, Pictures] = field(default_factory=dict)
    periods_s: dict[str, float] = field(default_factory=dict)
    damage: str = ""


def dataset_quality(
    dataset: Dataset,
    limits: QualityLimits | None = None,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> DatasetQuality:
    """Judge the sealed episodes of a dataset, or those of `names`; comparisons are among these.

    Raises:
        InputError: there are none.
    """
    wanted = limits or QualityLimits()
    chosen = [e for e in dataset.episodes() if names is None or e.id in names]
    if not chosen:
        raise InputError(f"Expected sealed episodes to judge in {dataset.root}, got none.")
    measured = []
    for done, episode in enumerate(chosen, start=1):
        measured.append(_measure(episode, wanted))
        if progress is not None:
            progress(done, len(chosen))
    usual = _Usual(measured)
    counts = {
        "task": Counter(m.record.task for m in measured),
        "outcome": Counter(m.record.outcome for m in measured),
        "instruction": Counter(m.record.instruction for m in measured),
    }
    told = tuple(_imbalance(wanted.imbalance, what, found) for what, found in counts.items() if what != "outcome")
    return DatasetQuality(
        wanted,
        tuple(_judge(m, wanted, usual) for m in measured),
        {what: dict(found.most_common()) for what, found in counts.items()},
        tuple(finding for finding in told if finding is not None),
    )


def _measure(episode: Episode, limits: QualityLimits) -> _Measured:
    found = _Measured(episode.record)
    try:
        _measure_streams(episode, limits, found)
        for camera in episode.contract.cameras:
            if episode.stream(camera.name).stream.kind == "colour_image" and len(episode.stream(camera.name)):
                found.pictures[camera.name] = look_at(episode.stream(camera.name), limits.frames_per_camera)
        found.offsets = offsets(episode)
    except DamageError as error:
        found.damage = str(error)
    return found


def _measure_streams(episode: Episode, limits: QualityLimits, found: _Measured) -> None:
    sources = episode.binding.sources
    found.periods_s = {
        name: 1 / rate for name, used in sources.items() if (rate := sum(source.rate_hz or 0.0 for source in used))
    }
    idle = []
    for stream in episode.contract.streams:
        if stream.role == "action" or stream.kind not in (*JOINT_KINDS, "pose") or not len(episode.stream(stream.name)):
            continue
        stamp, value = rows_of(episode.stream(stream.name))
        idle.append(idle_share(stamp, value[:, :3] if stream.kind == "pose" else value, limits.idle_speed))
        if stream.kind in JOINT_KINDS:
            low, high = _range(episode, stream)
            found.saturation[stream.name] = saturation_share(value, low, high, limits.saturation_margin)
            found.jerk[stream.name] = float(jerk_p99(stamp, value).max(initial=0.0))
    found.idle = min(idle, default=0.0)


def _range(episode: Episode, stream: Stream) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the elements' ranges; grippers and hands have none, whose ends are where they work."""
    groups = episode.contract.groups
    hands = {name for group, names in groups.items() if "gripper" in group or "hand" in group for name in names}
    given = {name: ends for name, ends in episode.binding.limits.position.items() if name not in hands}
    pairs = [given.get(name, (-np.inf, np.inf)) for name in stream.names] or [(-np.inf, np.inf)]
    return np.array([low for low, _ in pairs]), np.array([high for _, high in pairs])


class _Usual:
    """What is usual among the episodes: sharpness per camera, jerk per stream, durations per task."""

    def __init__(self, measured: Sequence[_Measured]) -> None:
        self.sharpness: dict[str, float] = {}
        for camera in {name for m in measured for name in m.pictures}:
            medians = [float(np.median(m.pictures[camera].sharpness)) for m in measured if camera in m.pictures]
            self.sharpness[camera] = float(np.median(medians))
        self.jerk = {
            name: float(np.median([m.jerk[name] for m in measured if name in m.jerk]))
            for name in {name for m in measured for name in m.jerk}
        }
        self._durations: dict[str, np.ndarray[Any, Any]] = {}
        for task in {m.record.task for m in measured}:
            durations = [m.record.duration_s for m in measured if m.record.task == task and m.record.duration_s > 0]
            self._durations[task] = np.log(durations)

    def deviations(self, record: EpisodeRecord) -> float:
        """Return by how many robust standard deviations an episode's duration is from its task's median."""
        known = self._durations[record.task]
        if len(known) < OUTLIERS_FROM or record.duration_s <= 0:
            return 0.0
        middle = float(np.median(known))
        sigma = max(MAD_TO_SIGMA * float(np.median(np.abs(known - middle))), DURATION_SIGMA_MIN)
        return abs(float(np.log(record.duration_s)) - middle) / sigma


def _judge(found: _Measured, limits: QualityLimits, usual: _Usual) -> EpisodeQuality:
    record = found.record
    jerk = {n: v / usual.jerk[n] if usual.jerk[n] else 0.0 for n, v in found.jerk.items()}
    periods = {n: _periods(t.max_gap_ms, found.periods_s.get(n)) for n, t in record.timing.items()}
    dropped = {
        n: t.dropped / (t.dropped + t.count) for n, t in record.timing.items() if t.dropped > 0 and t.dropped + t.count
    }
    frozen = {
        n: t.max_freeze_frames * found.periods_s.get(n, 0.0) for n, t in record.timing.items() if t.max_freeze_frames
    }
    cameras = {n: _camera(p, limits, usual.sharpness[n]) for n, p in found.pictures.items()}
    late = {f"{o.action} → {o.state}": abs(o.lag_ms) for o in found.offsets if o.correlation >= CORRELATION_MIN}
    deviations = usual.deviations(record)
    beyond = _Beyond(limits)
    beyond.each("gap_periods", periods, "{where} was silent for {value:.0f} periods")
    beyond.each("dropped_share", dropped, "{where} lost {value:.1%} of its messages")
    beyond.each("freeze_s", frozen, "{where} showed the same picture for {value:.1f} s")
    beyond.each(
        "saturation_share", found.saturation, "{where} was at the end of a joint's range in {value:.0%} of its rows"
    )
    beyond.each("jerk", jerk, "{where} is {value:.1f} times as jerky as in the median episode")
    beyond.each("idle_share", {"": found.idle}, "nothing moved for {value:.0%} of the time")
    beyond.each("offset_ms", late, "{where}: the state is {value:.0f} ms off its command")
    beyond.each(
        "black_share", {n: c.black_share for n, c in cameras.items()}, "{where} is black in {value:.0%} of its pictures"
    )
    beyond.each(
        "blurred_share",
        {n: c.blurred_share for n, c in cameras.items()},
        "{where} is blurred in {value:.0%} of its pictures",
    )
    beyond.each("duration_deviations", {"": deviations}, f"{record.duration_s:.1f} s is unusual for this task")
    return EpisodeQuality(
        record.id, record.task, record.outcome, record.duration_s, periods, dropped, frozen, found.saturation, jerk,
        found.idle, tuple(found.offsets), cameras, round(deviations, 3), tuple(beyond.findings), found.damage,
    )  # fmt: skip


def _periods(gap_ms: float | None, period_s: float | None) -> float:
    return gap_ms / 1e3 / period_s if gap_ms and period_s else 0.0


def _camera(found: Pictures, limits: QualityLimits, usual_sharpness: float) -> CameraFigures:
    black = found.brightness < limits.black_level
    blurred = ~black & (found.sharpness < limits.blurred_of_median * usual_sharpness)
    return CameraFigures(
        len(found.number),
        float(black.mean()),
        float(blurred.mean()),
        round(float(np.median(found.brightness)), 2),
        round(float(np.median(found.sharpness)), 5),
    )


class _Beyond:
    """Collects what is beyond a gate."""

    def __init__(self, limits: QualityLimits) -> None:
        self._gates, self.findings = dict(limits.gates()), list[Finding]()

    def each(self, gate: str, values: dict[str, float], told: str) -> None:
        """Compare the values of streams with a gate; `told` is the sentence."""
        chosen = self._gates[gate]
        for where, value in values.items():
            if chosen.level != "off" and value > chosen.limit:
                sentence = told.format(where=where, value=value)
                self.findings.append(Finding(gate, chosen.level, where, round(value, 4), chosen.limit, sentence))


def _imbalance(gate: Gate, what: str, counts: Counter[str]) -> Finding | None:
    if gate.level == "off" or len(counts) < 2:
        return None
    (most, often), (least, rarely) = counts.most_common()[0], counts.most_common()[-1]
    ratio = often / rarely
    if ratio <= gate.limit:
        return None
    told = f"{what} {most!r} comes {ratio:.1f} times as often as {least!r} ({often} and {rarely} episodes)"
    return Finding("imbalance", gate.level, what, round(ratio, 3), gate.limit, told)
