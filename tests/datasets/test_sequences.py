"""Losses counted from sequence numbers: exact for one publisher, never invented for anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lehrling.datasets.sequences import SequenceCounter, dropped

MS = 1_000_000


def numbers(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


@given(st.integers(0, 10**12), st.lists(st.booleans(), max_size=300))
def test_every_number_left_out_between_first_and_last_is_lost(first: int, arrives: list[bool]) -> None:
    kept = [first, *(first + 1 + k for k, there in enumerate(arrives) if there)]
    assert dropped(numbers(*kept)) == kept[-1] - kept[0] + 1 - len(kept)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=200))
def test_messages_that_overtake_each_other_are_not_lost(delays: list[float]) -> None:
    order = [0, *sorted(range(1, len(delays) + 1), key=lambda k: k + delays[k - 1])]
    assert dropped(numbers(*order)) == 0


@pytest.mark.parametrize(
    "values",
    [
        (1000, 1001, 1002, 0, 1, 2),
        (0, 1, 2, 3, 0, 1, 2, 3),
        (5000, 10, 5001, 11, 5002, 12),
        (10, 5000, 11, 5001, 12, 5002),
        (100, 103, 101, 104, 102, 105, 103, 106),
        (3, 3, 4),
        (-1, -1),
        (4, -1, 5),
        (),
    ],
)
def test_numbers_of_no_single_publisher_that_ran_through_give_unknown(values: tuple[int, ...]) -> None:
    assert dropped(numbers(*values)) == -1


def test_a_leap_that_the_time_cannot_hold_is_another_publisher_and_no_loss() -> None:
    times = np.arange(100, dtype=np.int64) * 10 * MS
    taken_over = numbers(*range(50), *range(9000, 9050))
    assert dropped(taken_over) == 8950
    assert dropped(taken_over, times) == -1
    silent = times + np.where(np.arange(100) >= 50, 3_000 * MS, 0)
    lost = numbers(*range(50), *range(350, 400))
    assert dropped(lost, silent) == 300
    assert dropped(lost, np.zeros(100, np.int64), silent) == 300


def test_a_number_that_comes_late_is_taken_off_again() -> None:
    counter = SequenceCounter()
    assert [counter.take(n) for n in (7, 8, 11, 9, 12)] == ["next", "next", "lost", "late", "next"]
    assert (counter.missing, counter.broken) == (1, False)


def test_a_count_begins_anew_after_a_restart_and_stays_marked() -> None:
    counter = SequenceCounter()
    assert [counter.take(n) for n in (100, 101, 1, 2, 4)] == ["next", "next", "broken", "next", "lost"]
    assert (counter.missing, counter.broken) == (1, True)
