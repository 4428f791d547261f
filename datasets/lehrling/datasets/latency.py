"""Latencies calibrated from what was recorded: how late streams came, and by how much cameras lag behind the joints they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg

from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.quality_signals import (
    CORRELATION_MIN,
    GRID_NS,
    JOINT_KINDS,
    LAG_MAX_S,
    FloatArray,
    offsets,
    on_grid,
    peak,
    rows_of,
)

if TYPE_CHECKING:
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.episode import Episode, EpisodeStream

Progress = Callable[[int, int], None]
ROUND_MS = 5
EXPLAINED_MIN = 0.85
"""Below it the joints hardly explain the pictures' change, and the best lag is chance."""
FRAMES_MIN, HEIGHT = 8, 60


@dataclass(frozen=True)
class StreamLatency:
    """How late a stream's messages came, receipt minus stamp, over all episodes [ms].

    Attributes:
        declared_ms: what the binding says.
        suggested_ms: for `latency_ms` of a view's field, so that 99 of 100 rows are there in time: rounded up to 5 ms.
    """

    p50_ms: float
    p99_ms: float
    declared_ms: float
    suggested_ms: float


@dataclass(frozen=True)
class Lag:
    """By how much one thing comes after another, by their movement.

    Attributes:
        lag_ms: positive: `later` moves so long after `earlier` by its own stamps.
        spread_ms: half the distance between the quartiles over the episodes.
        correlation: median over the episodes, or of all together for cameras.
        episodes: that moved enough to tell.
    """

    earlier: str
    later: str
    lag_ms: float
    spread_ms: float
    correlation: float
    episodes: int


@dataclass(frozen=True)
class Calibration:
    """What was found; `to_json` is the report."""

    streams: dict[str, StreamLatency]
    lags: tuple[Lag, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "streams": {name: asdict(found) for name, found in self.streams.items()},
            "lags": [asdict(lag) for lag in self.lags],
        }


def calibrate(dataset: Dataset, progress: Progress | None = None) -> Calibration:
    """Calibrate from all sealed episodes.

    Raises:
        InputError: there are none.
        DamageError: a picture does not decode.
    """
    episodes = dataset.episodes()
    if not episodes:
        raise InputError(f"Expected sealed episodes to calibrate from in {dataset.root}, got none.")
    commands: dict[tuple[str, str], list[tuple[float, float]]] = {}
    cameras: dict[tuple[str, str], list[tuple[FloatArray, FloatArray]]] = {}
    for done, episode in enumerate(episodes, start=1):
        for offset in offsets(episode):
            if offset.correlation >= CORRELATION_MIN:
                commands.setdefault((offset.action, offset.state), []).append((offset.lag_ms, offset.correlation))
        for camera, joints, pair in _camera_pairs(episode):
            cameras.setdefault((joints, camera), []).append(pair)
        if progress is not None:
            progress(done, len(episodes))
    lags = [_over_episodes(names, found) for names, found in commands.items()]
    lags += [lag for names, pairs in cameras.items() if (lag := _camera_lag(names, pairs)) is not None]
    return Calibration(_stream_latencies(episodes), tuple(lags))


def _stream_latencies(episodes: Sequence[Episode]) -> dict[str, StreamLatency]:
    found: dict[str, list[tuple[float, float]]] = {}
    declared: dict[str, float] = {}
    for episode in episodes:
        for name, timing in episode.record.timing.items():
            if timing.latency_p50_ms is not None and timing.latency_p99_ms is not None and timing.count:
                found.setdefault(name, []).append((timing.latency_p50_ms, timing.latency_p99_ms))
                declared[name] = max(source.latency_ms for source in episode.binding.sources[name])
    latencies = {}
    for name, pairs in found.items():
        middle, late = (np.array(column) for column in zip(*pairs, strict=True))
        p99 = float(np.max(late))
        suggested = float(np.ceil(max(p99, 0.0) / ROUND_MS) * ROUND_MS)
        latencies[name] = StreamLatency(round(float(np.median(middle)), 3), round(p99, 3), declared[name], suggested)
    return latencies


def _over_episodes(names: tuple[str, str], found: Sequence[tuple[float, float]]) -> Lag:
    lags, correlations = (np.array(column) for column in zip(*found, strict=True))
    low, middle, high = np.percentile(lags, (25, 50, 75))
    spread = round(float(high - low) / 2, 3)
    return Lag(*names, round(float(middle), 3), spread, round(float(np.median(correlations)), 4), len(found))


def _camera_pairs(episode: Episode) -> list[tuple[str, str, tuple[FloatArray, FloatArray]]]:
    """Return per camera how fast the joints moved and how much the picture changed, on one grid."""
    joints = next((s for s in episode.contract.streams if s.kind in JOINT_KINDS and s.role == "observation"), None)
    if joints is None or len(episode.stream(joints.name)) < FRAMES_MIN:
        return []
    stamp, value = rows_of(episode.stream(joints.name))
    found = []
    for camera in episode.contract.cameras:
        stream = episode.stream(camera.name)
        if stream.stream.kind != "colour_image" or len(stream) < FRAMES_MIN:
            continue
        when, change = _changes(stream)
        start, stop = max(int(when[0]), int(stamp[0])), min(int(when[-1]), int(stamp[-1]))
        if stop - start < 20 * GRID_NS:
            continue
        # a picture's change is the movement since the picture before: compared with joints over the same time
        period = int(np.median(np.diff(when)))
        moved = np.abs(
            on_grid(stamp, value, start + period // 2, stop + period // 2)
            - on_grid(stamp, value, start - period // 2, stop - period // 2)
        )
        changed = on_grid(when, change[:, None], start, stop)[:, 0]
        found.append((camera.name, joints.name, (np.nan_to_num(moved[: len(changed)]), np.nan_to_num(changed))))
    return found


def _changes(camera: EpisodeStream) -> tuple[np.ndarray[Any, np.dtype[np.int64]], FloatArray]:
    """Return the times half-way between pictures and the mean change of brightness there."""
    order = np.argsort(camera.stamp_ns, kind="stable")
    stamps = np.asarray(camera.stamp_ns, np.int64)[order]
    changes, last = [], _small(camera, int(order[0]))
    for number in order[1:]:
        now = _small(camera, int(number))
        changes.append(float(np.abs(now - last).mean()))
        last = now
    return stamps[:-1] + np.diff(stamps) // 2, np.array(changes)


def _small(camera: EpisodeStream, number: int) -> FloatArray:
    try:
        jpeg = camera.encoded(number)
        grey = simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, min_height=HEIGHT, min_width=1, min_factor=1)
    except ValueError as error:
        raise DamageError(f"Picture {number} of {camera.stream.name!r} does not decode: {error}.") from error
    return np.asarray(grey[..., 0], np.float64)


def _camera_lag(names: tuple[str, str], pairs: Sequence[tuple[FloatArray, FloatArray]]) -> Lag | None:
    """Return the lag at which movement of the joints, each by its own weight, explains the pictures' change best.

    Over all episodes together: how much a joint shows depends on the pose, and one episode has few poses.
    """
    most = round(LAG_MAX_S * 1e9 / GRID_NS / 2)
    used = [
        (moved, changed) for moved, changed in pairs if len(changed) > 4 * most and moved.any() and changed.std() > 0
    ]
    if not used:
        return None
    shift, score = peak(np.array([_explained(used, lag) for lag in range(-most, most + 1)]))
    if score < EXPLAINED_MIN:
        return None
    each = [peak(np.array([_explained([pair], lag) for lag in range(-most, most + 1)]))[0] for pair in used]
    low, high = np.percentile(np.array(each) * GRID_NS / 1e6, (25, 75))
    spread = round(float(high - low) / 2, 3)
    return Lag(*names, round(shift * GRID_NS / 1e6, 3), spread, round(score, 4), len(used))


def _explained(pairs: Sequence[tuple[FloatArray, FloatArray]], lag: int) -> float:
    """Return the multiple correlation of the pictures' change `lag` rows later with the joints' movements."""
    parts = [(m[: len(m) - lag], c[lag:]) if lag >= 0 else (m[-lag:], c[: len(c) + lag]) for m, c in pairs]
    moved, changed = np.concatenate([m for m, _ in parts]), np.concatenate([c for _, c in parts])
    factors = np.column_stack([moved, np.ones(len(moved))])
    weights, *_ = np.linalg.lstsq(factors, changed, rcond=None)
    spread = float(((changed - changed.mean()) ** 2).sum())
    left = float(((changed - factors @ weights) ** 2).sum())
    return float(np.sqrt(max(0.0, 1 - left / spread))) if spread > 0 else 0.0
