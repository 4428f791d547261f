from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.align import (
    NO_AGE,
    NO_ROW,
    Rule,
    align_index,
    align_values,
    drop_index,
    first_complete_ns,
    linear,
    nearest_index,
    previous_index,
)
from lehrling.datasets.errors import InputError
from lehrling.datasets.rotations import slerp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

MS = 1_000_000


@dataclass(frozen=True)
class Row:
    stamp: int
    received: int
    number: int


small = st.integers(min_value=-40, max_value=60)
rows_strategy = st.lists(st.tuples(small, small), max_size=12).map(
    lambda pairs: [Row(stamp, received, number) for number, (stamp, received) in enumerate(pairs)]
)
times = st.lists(st.integers(min_value=-60, max_value=80), max_size=12)
latency = st.integers(min_value=0, max_value=15)
delay = st.integers(min_value=0, max_value=15)
limit = st.none() | st.integers(min_value=0, max_value=30)
property_test = settings(max_examples=400, deadline=None)


def ints(numbers: list[int]) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def stamps(rows: list[Row]) -> NDArray[np.int64]:
    return ints([row.stamp for row in rows])


def receipts(rows: list[Row]) -> NDArray[np.int64]:
    return ints([row.received for row in rows])


def slow_previous(rows: list[Row], at: int, latency_ns: int) -> int:
    usable = [row for row in rows if row.stamp <= at and row.received <= at + latency_ns]
    return max(usable, key=lambda row: (row.stamp, row.received, row.number)).number if usable else NO_ROW


def arrived_in_order(rows: list[Row]) -> list[Row]:
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: row.received):
        if all(row.stamp > other.stamp for other in kept):
            kept.append(row)
    return kept


def usable_line(rows: list[Row], at: int, latency_ns: int, causal: bool) -> list[Row]:
    if not causal:
        return sorted(rows, key=lambda row: row.stamp)
    return [row for row in arrived_in_order(rows) if row.received <= at + latency_ns]


def slow_nearest(rows: list[Row], at: int, latency_ns: int, delay_ns: int, causal: bool) -> int:
    line = usable_line(rows, at, latency_ns, causal)
    wanted = at - delay_ns
    before = [row for row in line if row.stamp <= wanted]
    after = [row for row in line if row.stamp > wanted]
    if before and (not after or wanted - before[-1].stamp <= after[0].stamp - wanted):
        return before[-1].number
    return after[0].number if after else NO_ROW


def slow_linear(rows: list[Row], at: int, latency_ns: int, delay_ns: int, causal: bool) -> tuple[float, int]:
    line = usable_line(rows, at, latency_ns, causal)
    wanted = at - delay_ns
    before = [row for row in line if row.stamp <= wanted]
    after = [row for row in line if row.stamp > wanted]
    if before and before[-1].stamp == wanted:
        return float(before[-1].number), before[-1].stamp
    if not before or not after:
        return math.nan, 0
    low, high = before[-1], after[0]
    weight = (wanted - low.stamp) / (high.stamp - low.stamp)
    return low.number + (high.number - low.number) * weight, low.stamp


@property_test
@given(rows_strategy, times, latency, limit)
def test_previous_equals_the_obvious_search(
    rows: list[Row], at: list[int], latency_ns: int, max_age: int | None
) -> None:
    found = previous_index(stamps(rows), receipts(rows), ints(at), latency_ns, max_age)
    expected = [slow_previous(rows, t, latency_ns) for t in at]
    assert found.row.tolist() == expected
    ages = [NO_AGE if n == NO_ROW else t - rows[n].stamp for t, n in zip(at, expected, strict=True)]
    assert found.age_ns.tolist() == ages
    assert found.valid.tolist() == [age != NO_AGE and (max_age is None or abs(age) <= max_age) for age in ages]


@property_test
@given(rows_strategy, times, latency, delay, st.booleans())
def test_nearest_equals_the_obvious_search(
    rows: list[Row], at: list[int], latency_ns: int, delay_ns: int, causal: bool
) -> None:
    received = receipts(rows) if causal else None
    found = nearest_index(stamps(rows), ints(at), received_ns=received, latency_ns=latency_ns, delay_ns=delay_ns)
    assert found.row.tolist() == [slow_nearest(rows, t, latency_ns, delay_ns, causal) for t in at]


@property_test
@given(rows_strategy, times, latency, delay, st.booleans())
def test_linear_equals_the_obvious_interpolation(
    rows: list[Row], at: list[int], latency_ns: int, delay_ns: int, causal: bool
) -> None:
    value = np.arange(len(rows), dtype=np.float64)[:, None]
    received = receipts(rows) if causal else None
    found = linear(stamps(rows), value, ints(at), received_ns=received, latency_ns=latency_ns, delay_ns=delay_ns)
    for t, got, age, valid in zip(at, found.value[:, 0], found.age_ns, found.valid, strict=True):
        expected, stamp = slow_linear(rows, t, latency_ns, delay_ns, causal)
        assert valid == (not math.isnan(expected))
        if valid:
            assert got == pytest.approx(expected)
            assert age == t - stamp
        else:
            assert math.isnan(got)


@property_test
@given(rows_strategy, times, st.integers(0, 12))
def test_nothing_is_interpolated_over_a_gap_beyond_the_limit(rows: list[Row], at: list[int], gap: int) -> None:
    value = np.arange(len(rows), dtype=np.float64)[:, None]
    whole = linear(stamps(rows), value, ints(at))
    found = linear(stamps(rows), value, ints(at), max_gap_ns=gap)
    ordered = sorted(row.stamp for row in rows)
    for t, got, valid, before in zip(at, found.value[:, 0], found.valid, whole.valid, strict=True):
        low = max((stamp for stamp in ordered if stamp <= t), default=None)
        high = low if low == t else min((stamp for stamp in ordered if stamp > t), default=None)
        within = low is not None and high is not None and high - low <= gap
        assert valid == (before and within)
        assert valid != math.isnan(got)


def turn(axis: FloatArray, angle: float) -> FloatArray:
    """Return the quaternion of a turn."""
    return np.concatenate([axis / np.linalg.norm(axis) * math.sin(angle / 2), [math.cos(angle / 2)]])


axes = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array).filter(lambda a: float(np.linalg.norm(a)) > 0.1)


@property_test
@given(axes, st.floats(-3.0, 3.0), st.floats(0, 1), st.booleans(), axes, st.floats(-3, 3))
def test_slerp_turns_evenly_along_the_shortest_arc(
    axis: FloatArray, angle: float, weight: float, negated: bool, first_axis: FloatArray, first_angle: float
) -> None:
    start = turn(first_axis, first_angle)
    part, whole = product(turn(axis, weight * angle), start), product(turn(axis, angle), start)
    found = slerp(start[None] * 2.5, -whole[None] if negated else whole[None], np.array([weight]))[0]
    assert np.linalg.norm(found) == pytest.approx(1)
    assert abs(float(found @ part)) == pytest.approx(1, abs=1e-9)


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the quaternion of turning by b, then by a (Hamilton's product)."""
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.concatenate([vector, [a[3] * b[3] - a[:3] @ b[:3]]])


def test_poses_are_interpolated_position_by_line_and_orientation_by_arc() -> None:
    quarter = turn(np.array([0, 0, 1.0]), math.pi / 2)
    poses = np.array([[0, 0, 0, 0, 0, 0, 1.0], [2, 4, 0, *quarter]])
    rule = Rule("slerp", causal=False, quaternions=((3, 4, 5, 6),))
    found = align_values(ints([0, 100]), ints([0, 100]), poses, ints([0, 50, 100]), rule)
    np.testing.assert_array_equal(found.value[[0, 2]], poses)
    np.testing.assert_allclose(found.value[1], [1, 2, 0, *turn(np.array([0, 0, 1.0]), math.pi / 4)])
    assert found.valid.all()


def test_an_orientation_without_length_is_not_valid() -> None:
    poses = np.array([[0, 0, 0, 0], [0, 0, 0, 1.0], [0, 0, 0, 1.0]])
    rule = Rule("slerp", causal=False, quaternions=((0, 1, 2, 3),))
    found = align_values(ints([0, 10, 20]), ints([0, 10, 20]), poses, ints([5, 15]), rule)
    assert found.valid.tolist() == [False, True]


def test_a_quaternion_of_which_messages_carry_parts_is_refused() -> None:
    poses = np.array([[0, 0, 0, np.nan], [0, 0, 0, 1.0]])
    with pytest.raises(InputError, match="Expected whole quaternions"):
        align_values(ints([0, 10]), ints([0, 10]), poses, ints([5]), Rule("slerp", quaternions=((0, 1, 2, 3),)))


@property_test
@given(rows_strategy, times, latency, st.integers(0, 10))
def test_drop_keeps_only_rows_within_the_tolerance(
    rows: list[Row], at: list[int], latency_ns: int, tolerance: int
) -> None:
    found = drop_index(
        stamps(rows), ints(at), received_ns=receipts(rows), latency_ns=latency_ns, tolerance_ns=tolerance
    )
    for t, valid in zip(at, found.valid, strict=True):
        number = slow_nearest(rows, t, latency_ns, 0, True)
        assert valid == (number != NO_ROW and abs(t - rows[number].stamp) <= tolerance)


@property_test
@given(
    rows_strategy,
    st.integers(-60, 80),
    latency,
    st.sampled_from(["previous", "nearest", "linear", "drop"]),
    delay,
)
def test_rows_received_later_never_change_a_causal_answer(
    rows: list[Row], at: int, latency_ns: int, alignment: str, delay_ns: int
) -> None:
    rule = Rule(alignment, True, latency_ns, delay_ns, 20)  # type: ignore[arg-type]
    known = [row for row in rows if row.received <= at + latency_ns]

    def answer(some: list[Row]) -> tuple[list[float], list[int], list[bool]]:
        value = np.array([[row.stamp * 1.5 + row.number] for row in some]).reshape(len(some), 1)
        got = align_values(stamps(some), receipts(some), value, ints([at]), rule)
        return np.nan_to_num(got.value, nan=-999.0).ravel().tolist(), got.age_ns.tolist(), got.valid.tolist()

    assert answer(rows) == answer(known)


def test_a_row_counts_from_its_receipt_not_from_its_stamp() -> None:
    stamp, received = ints([0, 100]), ints([30, 130])
    assert previous_index(stamp, received, ints([29, 30, 110, 129, 130]), 0).row.tolist() == [
        -1,
        0,
        0,
        0,
        1,
    ]


def test_a_declared_latency_admits_rows_received_that_much_later() -> None:
    stamp, received = ints([0, 100]), ints([30, 130])
    assert previous_index(stamp, received, ints([0, 99, 100]), 30).row.tolist() == [0, 0, 1]


def test_a_late_row_never_replaces_a_newer_one() -> None:
    stamp, received = ints([0, 20, 10]), ints([1, 21, 35])
    assert previous_index(stamp, received, ints([34, 35, 90]), 0).row.tolist() == [1, 1, 1]


def test_of_equal_stamps_the_last_received_wins() -> None:
    assert previous_index(ints([5, 5]), ints([6, 7]), ints([6, 7]), 0).row.tolist() == [0, 1]


def test_an_empty_stream_answers_that_there_is_no_row() -> None:
    none = ints([])
    found = previous_index(none, none, ints([0, 1]), 0)
    assert found.row.tolist() == [NO_ROW, NO_ROW]
    assert found.age_ns.tolist() == [NO_AGE, NO_AGE]
    assert not found.valid.any()
    assert not linear(none, np.empty((0, 3)), ints([0])).valid.any()
    assert nearest_index(none, ints([4])).row.tolist() == [NO_ROW]


def test_parts_of_a_stream_are_each_held_until_their_next_message() -> None:
    nan = math.nan
    value = np.array([[1.0, nan], [nan, 10.0], [2.0, nan], [nan, 20.0]])
    stamp = ints([0, 10, 20, 30])
    got = align_values(stamp, stamp, value, ints([0, 10, 25, 30]), Rule(max_age_ns=15))
    assert got.valid.tolist() == [False, True, True, True]
    assert got.value[1:].tolist() == [[1.0, 10.0], [2.0, 10.0], [2.0, 20.0]]
    assert got.age_ns[1:].tolist() == [10, 15, 10]


def test_a_column_that_never_came_makes_no_row_valid() -> None:
    value = np.array([[1.0, math.nan]])
    got = align_values(ints([0]), ints([0]), value, ints([0, 5]), Rule())
    assert not got.valid.any()


def test_images_are_not_interpolated() -> None:
    with pytest.raises(InputError, match="picks rows, got linear"):
        align_index(ints([0]), ints([0]), ints([0]), Rule("linear"))


def test_stamps_and_receipts_must_pair_up() -> None:
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(1,\)"):
        previous_index(ints([0, 1]), ints([0]), ints([0]), 0)


def test_a_stream_is_complete_once_every_part_was_received_and_is_due() -> None:
    one = np.zeros((1, 1))
    assert first_complete_ns(ints([5 * MS]), ints([9 * MS]), one, Rule(latency_ns=MS)) == 8 * MS
    assert first_complete_ns(ints([5 * MS]), ints([9 * MS]), one, Rule("linear", delay_ns=6 * MS)) == 11 * MS
    parts = np.array([[1.0, math.nan], [1.0, math.nan], [math.nan, 2.0]])
    assert first_complete_ns(ints([1, 2, 3]), ints([1, 2, 7]), parts, Rule()) == 7
    assert first_complete_ns(ints([1, 2]), ints([1, 2]), parts[:2], Rule()) is None
    assert first_complete_ns(ints([]), ints([]), np.empty((0, 2)), Rule()) is None
