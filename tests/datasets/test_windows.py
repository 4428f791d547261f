from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.errors import InputError
from lehrling.datasets.windows import (
    chunk_indices,
    usable_rows,
)


@dataclass(frozen=True)
class Part:
    start: int
    stop: int


TWO = [Part(0, 3), Part(3, 8)]


def test_a_chunk_runs_on_from_its_row_and_repeats_the_last_row_of_the_episode() -> None:
    chunks = chunk_indices(TWO, [0, 2, 6], 3)
    assert chunks.index.tolist() == [[0, 1, 2], [2, 2, 2], [6, 7, 7]]
    assert chunks.is_pad.tolist() == [[False] * 3, [False, True, True], [False, False, True]]


def test_a_history_ends_at_its_row_and_repeats_the_first_row_of_the_episode() -> None:
    chunks = chunk_indices(TWO, [4], 3, step=2, first=-4)
    assert chunks.index.tolist() == [[3, 3, 4]]
    assert chunks.is_pad.tolist() == [[True, True, False]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 9))
def test_no_chunk_leaves_its_episode(lengths: list[int], horizon: int) -> None:
    stops = np.cumsum(lengths)
    parts = [Part(int(stop) - n, int(stop)) for stop, n in zip(stops, lengths, strict=True)]
    owner = np.repeat(np.arange(len(parts)), lengths)
    chunks = chunk_indices(parts, np.arange(int(stops[-1])), horizon)
    assert (owner[chunks.index] == owner[:, None]).all()
    assert (~chunks.is_pad).sum() == sum(min(horizon, n - k) for n in lengths for k in range(n))


def test_a_row_outside_every_episode_is_refused() -> None:
    with pytest.raises(InputError, match="got row 5"):
        chunk_indices([Part(0, 3), Part(6, 8)], [1, 5], 2)
    with pytest.raises(InputError, match="got row 0"):
        chunk_indices([], [0], 2)


def test_overlapping_episodes_are_refused() -> None:
    with pytest.raises(InputError, match="do not overlap"):
        chunk_indices([Part(0, 3), Part(2, 8)], [1], 2)


def test_a_horizon_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="got 0 and 1"):
        chunk_indices(TWO, [1], 0)


def test_training_starts_only_from_rows_whose_chunk_is_valid() -> None:
    valid = np.array([True, True, True, True, True, False, True, True])
    assert usable_rows(TWO, valid, 2).tolist() == [0, 1, 2, 3, 6, 7]
    assert usable_rows(TWO, valid, 2, drop_padded=True).tolist() == [0, 1, 3, 6]
