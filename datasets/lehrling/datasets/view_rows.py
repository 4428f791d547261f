"""Rows of a view from the streams of an episode, or from those of a running robot: the same code for both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lehrling.datasets.align import align_index, align_values, first_complete_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lehrling.datasets.align import Rule
    from lehrling.datasets.view_layout import Columns, Layout

_SECOND_NS = 1_000_000_000
ROWS_MAX = 2_000_000
"""Of an episode: two days at 10 Hz. One stamp of another year would ask for billions."""


class Timed(Protocol):
    """When a stream's rows were stamped and received, (N,) int64 each, in order of receipt."""

    @property
    def stamp_ns(self) -> NDArray[np.int64]:
        """Return the stamps."""
        ...

    @property
    def received_ns(self) -> NDArray[np.int64]:
        """Return the receive times."""
        ...


@dataclass(frozen=True)
class NumericRows:
    """A stream's rows: value (N, D) float64, NaN where a partial message gave nothing."""

    stamp_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Streams:
    """Where rows come from: functions that give a numeric stream, or a camera's times, by name."""

    numeric: Callable[[str], NumericRows]
    camera: Callable[[str], Timed]


@dataclass(frozen=True)
class Observed:
    """Observations at T times.

    Attributes:
        state: (T, S) float32, NaN where nothing had come.
        frames: per camera (T,) int64, the frame shown, -1 for none.
        age_ns: (T, F) int64 per state field, then camera.
        valid: (T, F) bool.
    """

    state: NDArray[np.float32]
    frames: dict[str, NDArray[np.int64]]
    age_ns: NDArray[np.int64]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class EpisodeRows:
    """One episode's rows in a view.

    Attributes:
        stamp_ns: (n,) times on the view's clock.
        state: (n, S) float32; action: (n, A) float32, relative to nothing but, for `delta`, the row before.
        frames: per camera (n,) int64, the episode's frame shown.
        age_ns: (n, F) int64 in the order of `Layout.sources`; valid: (n,) bool, all sources together.
        reason: why there are no rows; empty if there are.
    """

    stamp_ns: NDArray[np.int64]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    frames: dict[str, NDArray[np.int64]]
    age_ns: NDArray[np.int64]
    valid: NDArray[np.bool_]
    reason: str = ""


def observe(streams: Streams, layout: Layout, at_ns: NDArray[np.int64]) -> Observed:
    """Return the observations at T times, causally aligned."""
    values, ages, valids, frames = [], [], [], {}
    for part in layout.state:
        aligned = align_values(*_picked(streams, part), at_ns, part.rule)
        values.append(aligned.value)
        ages.append(aligned.age_ns)
        valids.append(aligned.valid)
    for camera in layout.spec.cameras:
        times = streams.camera(camera)
        found = align_index(times.stamp_ns, times.received_ns, at_ns, layout.spec.image_rule)
        frames[camera] = found.row
        ages.append(found.age_ns)
        valids.append(found.valid)
    state = _beside(values, len(at_ns)).astype(np.float32)
    return Observed(state, frames, np.stack(ages, axis=1), np.stack(valids, axis=1))


def episode_rows(streams: Streams, layout: Layout) -> EpisodeRows:
    """Return an episode's rows, from the first time all observations are valid to the last action."""
    start, lacking = _start(streams, layout)
    stop = _stop(streams, layout)
    if start is None or stop is None or stop < start:
        return _nothing(layout, lacking or "no action came after the first complete observation")
    count = math.ceil((stop - start) * layout.spec.rate_hz / _SECOND_NS) + 1  # one more than fits, as times are rounded
    if count > ROWS_MAX:
        days = (stop - start) / 86_400e9
        return _nothing(
            layout, f"its stamps span {days:.3g} days, more than {ROWS_MAX} rows; trim it to what was recorded"
        )
    at = start + np.rint(np.arange(count) * (_SECOND_NS / layout.spec.rate_hz)).astype(np.int64)
    at = at[at <= stop]
    seen = observe(streams, layout, at)
    complete = seen.valid.all(axis=1)
    if not complete.any():
        worst = layout.sources[int(np.argmin(seen.valid.sum(axis=0)))]
        return _nothing(layout, f"at no time were all observations recent enough, least often {worst}")
    first = int(np.argmax(complete))
    seen = Observed(
        seen.state[first:],
        {camera: rows[first:] for camera, rows in seen.frames.items()},
        seen.age_ns[first:],
        seen.valid[first:],
    )
    return _with_actions(streams, layout, at[first:], seen)


def _with_actions(streams: Streams, layout: Layout, at: NDArray[np.int64], seen: Observed) -> EpisodeRows:
    values, ages, valids = [], [seen.age_ns], [seen.valid]
    for part in layout.action:
        aligned = align_values(*_picked(streams, part), at, part.rule)
        value, valid = aligned.value, aligned.valid
        if part.field.representation == "delta":
            value, valid = _delta(value, valid)
        values.append(value)
        ages.append(aligned.age_ns[:, None])
        valids.append(valid[:, None])
    action = _beside(values, len(at)).astype(np.float32)
    age_ns = np.concatenate(ages, axis=1)
    every: NDArray[np.bool_] = np.concatenate(valids, axis=1)
    return EpisodeRows(at, seen.state, action, seen.frames, age_ns, np.asarray(every.all(axis=1)))


def _delta(value: NDArray[np.float64], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the change since the row before; the first row has none and is not valid."""
    change = np.full_like(value, np.nan)
    change[1:] = np.diff(value, axis=0)
    return change, valid & np.concatenate([[False], valid[:-1]])


def _start(streams: Streams, layout: Layout) -> tuple[int | None, str]:
    """Return when every observation has come for the first time, and which never did."""
    firsts = [first_complete_ns(*_picked(streams, part), part.rule) for part in layout.state]
    firsts += [_first_frame(streams.camera(camera), layout.spec.image_rule) for camera in layout.spec.cameras]
    for source, first in zip(layout.sources[: layout.observed], firsts, strict=True):
        if first is None:
            return None, f"{source} never came, or not all of it"
    return max(first for first in firsts if first is not None), ""


def _first_frame(times: Timed, rule: Rule) -> int | None:
    return first_complete_ns(times.stamp_ns, times.received_ns, np.zeros((len(times.stamp_ns), 1)), rule)


def _stop(streams: Streams, layout: Layout) -> int | None:
    lasts = [_picked(streams, part)[0] for part in layout.action]
    return max((int(stamps.max()) for stamps in lasts if len(stamps)), default=None)


def _picked(streams: Streams, part: Columns) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    rows = streams.numeric(part.stream)
    return rows.stamp_ns, rows.received_ns, rows.value[:, part.picks]


def _beside(values: list[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    return np.concatenate([np.empty((rows, 0)), *values], axis=1)


def _nothing(layout: Layout, reason: str) -> EpisodeRows:
    states, actions = len(layout.state_names), len(layout.action_names)
    none = np.empty(0, np.int64)
    return EpisodeRows(
        none,
        np.empty((0, states), np.float32),
        np.empty((0, actions), np.float32),
        dict.fromkeys(layout.spec.cameras, none),
        np.empty((0, len(layout.sources)), np.int64),
        np.empty(0, np.bool_),
        reason,
    )
