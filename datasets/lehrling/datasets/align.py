"""Align irregular streams with a clock: one vectorised implementation, offline and live.

Every function takes the stamps of a stream's rows (and, where causality matters, when each was received) and
the times asked for, and answers row by row. Times are int64 nanoseconds. The rules:

- *usable*: a row is usable at time t if it had been received by t plus the declared latency, and, for
  `previous`, if its stamp is not after t.
- *age*: t minus the stamp of the oldest row that contributed; negative if that row is newer than t.
- *valid*: a row was found and the age's magnitude is at most `max_age_ns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.datasets.rotations import slerp

Nanoseconds = NDArray[np.int64]
Alignment = Literal["previous", "nearest", "linear", "slerp", "drop"]

INTERPOLATING: tuple[Alignment, ...] = ("linear", "slerp")
NO_ROW = -1
NO_AGE = int(np.iinfo(np.int64).max)
"""The age where no row was found."""


class AlignedIndex(NamedTuple):
    """Source rows for T times: row (T,) int64 (`NO_ROW` if none), age_ns (T,) int64, valid (T,) bool."""

    row: Nanoseconds
    age_ns: Nanoseconds
    valid: NDArray[np.bool_]


class AlignedValue(NamedTuple):
    """Values for T times: value (T, D) float64 (NaN if none), age_ns (T,) int64, valid (T,) bool."""

    value: NDArray[np.float64]
    age_ns: Nanoseconds
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """How one stream is aligned.

    Attributes:
        alignment: the policy.
        causal: whether a row counts only once it had been received; `previous` always is.
        latency_ns: how long after t the observation for t is put together.
        delay_ns: all but `previous` look at t minus this.
        max_age_ns: limit of the age; None is no limit. For `drop`, the tolerance.
        max_gap_ns: `linear` and `slerp` are valid only between rows that are stamped at most so far apart; None is no limit.
        quaternions: for `slerp`, the columns of each unit quaternion; other columns are interpolated linearly.
    """

    alignment: Alignment = "previous"
    causal: bool = True
    latency_ns: int = 0
    delay_ns: int = 0
    max_age_ns: int | None = None
    max_gap_ns: int | None = None
    quaternions: tuple[tuple[int, ...], ...] = ()


def previous_index(
    stamp_ns: Nanoseconds,
    received_ns: Nanoseconds,
    at_ns: Nanoseconds,
    latency_ns: int = 0,
    max_age_ns: int | None = None,
) -> AlignedIndex:
    """Find the newest usable row at each time: the largest stamp, and of equal stamps the one received last.

    Rows may be in any order, and may have been received in another order than stamped.
    """
    stamp, received, at = _columns(stamp_ns, received_ns, at_ns)
    if stamp.size == 0:
        return _answer(stamp, np.full(at.shape, NO_ROW), at, max_age_ns)
    usable_from = np.maximum(stamp, received - latency_ns)
    by_newness = np.lexsort((received, stamp))
    newness = np.empty_like(by_newness)
    newness[by_newness] = np.arange(stamp.size)
    by_time = np.argsort(usable_from, kind="stable")
    newest = by_newness[np.maximum.accumulate(newness[by_time])]
    known = np.searchsorted(usable_from[by_time], at, side="right")
    return _answer(stamp, np.where(known > 0, newest[known - 1], NO_ROW), at, max_age_ns)


def nearest_index(
    stamp_ns: Nanoseconds,
    at_ns: Nanoseconds,
    *,
    max_age_ns: int | None = None,
    received_ns: Nanoseconds | None = None,
    latency_ns: int = 0,
    delay_ns: int = 0,
) -> AlignedIndex:
    """Find the row stamped closest to t - `delay_ns`; of two equally close ones the earlier.

    Without `received_ns` all rows count (not causal). With it, only rows usable at t do, and a row received
    after a newer one is ignored.
    """
    line = _Line.of(stamp_ns, received_ns)
    at = np.asarray(at_ns, np.int64)
    before, after, wanted = line.neighbours(at, latency_ns, delay_ns)
    to_before = np.where(before >= 0, wanted - line.stamp_at(before), NO_AGE)
    to_after = np.where(after >= 0, line.stamp_at(after) - wanted, NO_AGE)
    chosen = np.where(to_after < to_before, after, before)
    return _answer(np.asarray(stamp_ns, np.int64), line.source(chosen), at, max_age_ns)


def drop_index(
    stamp_ns: Nanoseconds,
    at_ns: Nanoseconds,
    *,
    tolerance_ns: int = 0,
    received_ns: Nanoseconds | None = None,
    latency_ns: int = 0,
    delay_ns: int = 0,
) -> AlignedIndex:
    """Find the nearest row as `nearest_index` does, valid only within `tolerance_ns` of t - `delay_ns`."""
    found = nearest_index(
        stamp_ns, at_ns, received_ns=received_ns, latency_ns=latency_ns, delay_ns=delay_ns, max_age_ns=None
    )
    return found._replace(valid=found.valid & (np.abs(found.age_ns - delay_ns) <= tolerance_ns))


def linear(
    stamp_ns: Nanoseconds,
    value: NDArray[np.float64],
    at_ns: Nanoseconds,
    *,
    max_age_ns: int | None = None,
    received_ns: Nanoseconds | None = None,
    latency_ns: int = 0,
    delay_ns: int = 0,
    max_gap_ns: int | None = None,
    quaternions: Sequence[Sequence[int]] = (),
) -> AlignedValue:
    """Interpolate value (N, D) at t - `delay_ns`; never extrapolate.

    Causality is as in `nearest_index`. Where a neighbour lacks, or the two are stamped further apart than `max_gap_ns`, the
    value is NaN and not valid. Columns of `quaternions` turn along the shortest arc.
    """
    line = _Line.of(stamp_ns, received_ns)
    at, rows = np.asarray(at_ns, np.int64), np.asarray(value, np.float64)
    out = np.full((at.size, rows.shape[1]), np.nan)
    before, after, wanted = line.neighbours(at, latency_ns, delay_ns)
    exact = (before >= 0) & (line.stamp_at(before) == wanted)
    after = np.where(exact, before, after)
    found = (before >= 0) & (after >= 0)
    if max_gap_ns is not None:
        found &= line.stamp_at(after) - line.stamp_at(before) <= max_gap_ns
    index = np.where(found, line.source(before), NO_ROW)
    low, high = before[found], after[found]
    gap = line.stamp_at(high) - line.stamp_at(low)
    weight = np.where(gap > 0, (wanted[found] - line.stamp_at(low)) / np.maximum(gap, 1), 0.0)[:, None]
    start, end = rows[line.source(low)], rows[line.source(high)]
    mixed = np.where(weight > 0, start + (end - start) * weight, start)
    for columns in quaternions:
        turned = slerp(start[:, columns], end[:, columns], weight)
        mixed[:, columns] = np.where(weight > 0, turned, start[:, columns])
        index[np.flatnonzero(found)[np.isnan(mixed[:, columns]).any(axis=1)]] = NO_ROW
    out[found] = mixed
    _, age_ns, valid = _answer(np.asarray(stamp_ns, np.int64), index, at, max_age_ns)
    return AlignedValue(out, age_ns, valid)


def align_index(stamp_ns: Nanoseconds, received_ns: Nanoseconds, at_ns: Nanoseconds, rule: Rule) -> AlignedIndex:
    """Find source rows by `rule`, for streams whose values cannot be mixed, such as images.

    Raises:
        InputError: the rule interpolates.
    """
    received = received_ns if rule.causal else None
    if rule.alignment == "previous":
        return previous_index(stamp_ns, received_ns, at_ns, rule.latency_ns, rule.max_age_ns)
    if rule.alignment in INTERPOLATING:
        raise InputError(f"Expected an alignment that picks rows, got {rule.alignment}; use previous, nearest or drop.")
    if rule.alignment == "nearest":
        return nearest_index(
            stamp_ns,
            at_ns,
            received_ns=received,
            latency_ns=rule.latency_ns,
            delay_ns=rule.delay_ns,
            max_age_ns=rule.max_age_ns,
        )
    return drop_index(
        stamp_ns,
        at_ns,
        received_ns=received,
        latency_ns=rule.latency_ns,
        delay_ns=rule.delay_ns,
        tolerance_ns=rule.max_age_ns or 0,
    )


def align_values(
    stamp_ns: Nanoseconds,
    received_ns: Nanoseconds,
    value: NDArray[np.float64],
    at_ns: Nanoseconds,
    rule: Rule,
) -> AlignedValue:
    """Align value (N, D), where NaN marks what a partial message did not carry, by `rule`.

    Columns are aligned among the rows that carry them, so that a stream fed by partial messages is complete
    as soon as each part has arrived. The age is that of the oldest part; valid means that all parts are.
    """
    rows, at = np.asarray(value, np.float64), np.asarray(at_ns, np.int64)
    out = np.full((at.size, rows.shape[1]), np.nan)
    age, valid = np.full(at.shape, -NO_AGE), np.ones(at.shape, np.bool_)
    for columns, present in _parts(rows):
        stamp, received = stamp_ns[present], received_ns[present]
        within = replace(rule, quaternions=_among(rule.quaternions, columns))
        part = _align_part(stamp, received, rows[np.ix_(present, columns)], at, within)
        out[:, columns] = part.value
        age, valid = np.maximum(age, part.age_ns), valid & part.valid
    return AlignedValue(out, age, valid)


def first_complete_ns(
    stamp_ns: Nanoseconds, received_ns: Nanoseconds, value: NDArray[np.float64], rule: Rule
) -> int | None:
    """Return when every column of value (N, D) has been usable once; None if one never is."""
    if len(stamp_ns) == 0 or np.isnan(value).all(axis=0).any():
        return None
    delay_ns = 0 if rule.alignment == "previous" else rule.delay_ns
    usable_from = np.maximum(stamp_ns + delay_ns, received_ns - rule.latency_ns)
    return max(int(usable_from[present].min()) for _, present in _parts(value))


def _align_part(
    stamp: Nanoseconds, received: Nanoseconds, rows: NDArray[np.float64], at: Nanoseconds, rule: Rule
) -> AlignedValue:
    if rule.alignment in INTERPOLATING:
        return linear(
            stamp,
            rows,
            at,
            received_ns=received if rule.causal else None,
            latency_ns=rule.latency_ns,
            delay_ns=rule.delay_ns,
            max_age_ns=rule.max_age_ns,
            max_gap_ns=rule.max_gap_ns,
            quaternions=rule.quaternions,
        )
    index, age_ns, valid = align_index(stamp, received, at, rule)
    out = np.full((at.size, rows.shape[1]), np.nan)
    out[index >= 0] = rows[index[index >= 0]]
    return AlignedValue(out, age_ns, valid)


def _among(quaternions: tuple[tuple[int, ...], ...], columns: Nanoseconds) -> tuple[tuple[int, ...], ...]:
    """Return where among `columns` the quaternions are that lie there."""
    place = {int(column): k for k, column in enumerate(columns)}
    for columns_of_one in quaternions:
        if any(column in place for column in columns_of_one) and not all(column in place for column in columns_of_one):
            raise InputError("Expected whole quaternions to interpolate, got one of which messages carry parts.")
    return tuple(tuple(place[column] for column in one) for one in quaternions if one[0] in place)


def _parts(rows: NDArray[np.float64]) -> list[tuple[Nanoseconds, NDArray[np.bool_]]]:
    """Group columns that are present in the same rows: (columns, rows in which they are present)."""
    present = ~np.isnan(rows)
    if present.all():
        return [(np.arange(rows.shape[1]), np.ones(len(rows), np.bool_))]
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    return [(np.flatnonzero(which.ravel() == part), patterns[:, part]) for part in range(patterns.shape[1])]


@dataclass(frozen=True)
class _Line:
    """A stream's rows in stamp order; if causal, without those that came after a newer one."""

    stamp: Nanoseconds
    received: Nanoseconds | None
    rows: Nanoseconds

    @classmethod
    def of(cls, stamp_ns: Nanoseconds, received_ns: Nanoseconds | None) -> _Line:
        stamp = np.asarray(stamp_ns, np.int64)
        if received_ns is None:
            rows = np.argsort(stamp, kind="stable")
            return cls(stamp[rows], None, rows)
        received = np.asarray(received_ns, np.int64)
        rows = np.argsort(received, kind="stable")
        newest = np.maximum.accumulate(stamp[rows])
        rows = rows[np.flatnonzero(np.diff(newest, prepend=np.int64(np.iinfo(np.int64).min // 2)) > 0)]
        return cls(stamp[rows], received[rows], rows)

    def neighbours(
        self, at: Nanoseconds, latency_ns: int, delay_ns: int
    ) -> tuple[Nanoseconds, Nanoseconds, Nanoseconds]:
        """Return positions around t - delay (last at or before, first after; -1: none), and t - delay."""
        wanted = at - delay_ns
        usable = (
            np.full(at.shape, self.stamp.size)
            if self.received is None
            else np.searchsorted(self.received, at + latency_ns, side="right")
        )
        split = np.searchsorted(self.stamp, wanted, side="right")
        return np.minimum(split, usable) - 1, np.where(split < usable, split, NO_ROW), wanted

    def stamp_at(self, position: Nanoseconds) -> Nanoseconds:
        return self.stamp[position] if self.stamp.size else np.zeros_like(position)

    def source(self, position: Nanoseconds) -> Nanoseconds:
        return np.where(position >= 0, self.rows[position], NO_ROW) if self.rows.size else np.full_like(position, -1)


def _columns(
    stamp_ns: Nanoseconds, received_ns: Nanoseconds, at_ns: Nanoseconds
) -> tuple[Nanoseconds, Nanoseconds, Nanoseconds]:
    stamp, received = np.asarray(stamp_ns, np.int64), np.asarray(received_ns, np.int64)
    if stamp.shape != received.shape or stamp.ndim != 1:
        raise InputError(
            f"Expected one stamp and one receive time per row, got shapes {stamp.shape} and {received.shape}."
        )
    return stamp, received, np.asarray(at_ns, np.int64)


def _answer(stamp: Nanoseconds, index: Nanoseconds, at: Nanoseconds, max_age_ns: int | None) -> AlignedIndex:
    found = index >= 0
    age = np.full(at.shape, NO_AGE)
    age[found] = at[found] - stamp[index[found]]
    valid = found if max_age_ns is None else found & (np.abs(age) <= max_age_ns)
    return AlignedIndex(index.astype(np.int64), age, valid)
