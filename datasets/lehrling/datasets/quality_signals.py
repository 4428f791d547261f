"""Figures of an episode's numbers: saturation, jerk, idle time, and by how much the state follows its command."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.align import linear
from lehrling.datasets.embodiment import Stream
from lehrling.datasets.episode import Episode, EpisodeStream

FloatArray = NDArray[np.float64]
Times = NDArray[np.int64]
GRID_NS, GRID_ROWS_MAX = 10_000_000, 200_000
LAG_MAX_S = 1.0
CORRELATION_MIN = 0.5
"""Below it a lag means nothing: the one does not follow the other."""
JOINT_KINDS = ("joint_position",)


@dataclass(frozen=True)
class Offset:
    """By how much a state lags behind its command.

    Attributes:
        lag_ms: positive where the state comes later.
        correlation: of their speeds at that lag, 0 to 1.
    """

    action: str
    state: str
    lag_ms: float
    correlation: float


def rows_of(stream: EpisodeStream) -> tuple[Times, FloatArray]:
    """Return stamps (N,) and values (N, D) of a stream's rows in stamp order, NaN where a message gave nothing."""
    value = np.asarray(stream.value, np.float64).reshape(len(stream), -1)
    given = np.asarray(stream.mask, np.bool_).reshape(len(stream), -1)
    stamp = np.asarray(stream.stamp_ns, np.int64)
    order = np.argsort(stamp, kind="stable")
    return stamp[order], np.where(given, value, np.nan)[order]


def on_grid(stamp_ns: Times, value: FloatArray, start_ns: int, stop_ns: int, step_ns: int = GRID_NS) -> FloatArray:
    """Return value (T, D) interpolated every `step_ns` from start to stop, NaN outside what was recorded."""
    at = np.arange(start_ns, min(stop_ns, start_ns + (GRID_ROWS_MAX - 1) * step_ns) + 1, step_ns, dtype=np.int64)
    columns = []
    for column in value.T:
        known = ~np.isnan(column)
        columns.append(linear(stamp_ns[known], column[known, None], at).value[:, 0])
    return np.stack(columns, axis=1) if columns else np.empty((len(at), 0))


def saturation_share(value: FloatArray, low: FloatArray, high: FloatArray, margin: float) -> float:
    """Return the share of rows (N, D) in which an element is within `margin` of its range's width to the range's end."""
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any() or not len(value):
        return 0.0
    room = margin * (high - low)[known]
    at_end = (value[:, known] <= low[known] + room) | (value[:, known] >= high[known] - room)
    return float(at_end.any(axis=1).mean())


def idle_share(stamp_ns: Times, value: FloatArray, speed: float) -> float:
    """Return the share of the time in which no element of value (N, D) changes faster than `speed` per second.

    Change is taken over 0.2 s, so that sensor noise is no movement.
    """
    if len(stamp_ns) < 2:
        return 1.0
    step = 5 * GRID_NS
    grid = on_grid(stamp_ns, value, int(stamp_ns[0]), int(stamp_ns[-1]), step)
    over = 4
    if len(grid) <= over:
        return 1.0
    moved = np.abs(grid[over:] - grid[:-over]) / (over * step / 1e9)
    return float((np.nanmax(np.nan_to_num(moved), axis=1) <= speed).mean())


def jerk_p99(stamp_ns: Times, value: FloatArray) -> FloatArray:
    """Return the 99th percentile of |third derivative| per element (D,), on a smoothed 100 Hz grid."""
    if len(stamp_ns) < 8:
        return np.zeros(value.shape[1])
    grid = on_grid(stamp_ns, value, int(stamp_ns[0]), int(stamp_ns[-1]))
    window = np.hanning(11)
    window /= window.sum()
    found = np.zeros(value.shape[1])
    for place, column in enumerate(grid.T):
        known = column[np.isfinite(column)]
        if len(known) > 20:
            smooth = np.convolve(known, window, mode="valid")
            found[place] = np.percentile(np.abs(np.diff(smooth, 3)), 99) / (GRID_NS / 1e9) ** 3
    return found


def offsets(episode: Episode) -> list[Offset]:
    """Return by how much each state lags behind the command of the same kind and elements."""
    streams = [stream for stream in episode.contract.streams if stream.shape]
    found = []
    for action in (stream for stream in streams if stream.role == "action"):
        for state in (stream for stream in streams if stream.role == "observation"):
            if shared := _shared(action, state):
                offset = _offset(episode, action, state, shared)
                found += [offset] if offset is not None else []
    return found


def _shared(action: Stream, state: Stream) -> list[tuple[int, int]]:
    """Return the elements (of the action, of the state) that mean the same."""
    if action.kind != state.kind or len(action.shape) != 1 or action.unit != state.unit:
        return []
    if not action.names and not state.names:
        return [(k, k) for k in range(action.shape[0])] if action.shape == state.shape else []
    return [(k, state.names.index(name)) for k, name in enumerate(action.names) if name in state.names]


def _offset(episode: Episode, action: Stream, state: Stream, shared: list[tuple[int, int]]) -> Offset | None:
    (at, asked), (when, was) = rows_of(episode.stream(action.name)), rows_of(episode.stream(state.name))
    if len(at) < 8 or len(when) < 8:
        return None
    start, stop = max(int(at[0]), int(when[0])), min(int(at[-1]), int(when[-1]))
    if stop - start < 4 * GRID_NS * 10:
        return None
    first, second = (k for k in zip(*shared, strict=True))
    lag = lag_of(on_grid(at, asked[:, first], start, stop), on_grid(when, was[:, second], start, stop))
    return None if lag is None else Offset(action.name, state.name, round(lag[0], 3), round(lag[1], 4))


def lag_of(command: FloatArray, answer: FloatArray, step_ns: int = GRID_NS) -> tuple[float, float] | None:
    """Return by how many ms `answer` (T, D) comes after `command` (T, D), and the correlation there; None without movement.

    The lag that fits the speeds best, within `LAG_MAX_S`, refined between grid points by a parabola.
    """
    a, b = _speed(command), _speed(answer)
    most = min(round(LAG_MAX_S * 1e9 / step_ns), len(a) // 2)
    if most < 2 or not a.any() or not b.any():
        return None
    shift, score = peak(lag_scores(a, b, most))
    return shift * step_ns / 1e6, max(0.0, score)


def lag_scores(a: FloatArray, b: FloatArray, most: int) -> FloatArray:
    """Return the correlations of a (T, D) with b (T, D) from `most` rows earlier to `most` rows later, (2 * most + 1,)."""
    return np.array([_score(a, b, lag) for lag in range(-most, most + 1)])


def peak(scores: FloatArray) -> tuple[float, float]:
    """Return where the highest of `lag_scores` is, in rows, refined between rows by a parabola, and its height."""
    best = int(np.argmax(scores))
    shift = float(best - len(scores) // 2)
    if 0 < best < len(scores) - 1:
        left, middle, right = scores[best - 1 : best + 2]
        bend = left - 2 * middle + right
        shift += 0.5 * float(left - right) / float(bend) if bend < 0 else 0.0
    return shift, float(scores[best])


def _speed(value: FloatArray) -> FloatArray:
    change = np.nan_to_num(np.diff(value, axis=0))
    window = np.hanning(9)
    return np.stack([np.convolve(column, window / window.sum(), mode="same") for column in change.T], axis=1)


def _score(a: FloatArray, b: FloatArray, lag: int) -> float:
    """Return the correlation of a with b `lag` rows later, over all columns."""
    x, y = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[: len(b) + lag])
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / norm) if norm > 0 else 0.0
