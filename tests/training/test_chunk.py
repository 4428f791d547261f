"""The chunk runtime plays each step once, in order, and never plays a late result as if it were fresh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.training.chunk import ChunkRunner, interpolate


def chunk(start: int, length: int = 8) -> NDArray[Any]:
    return np.arange(start, start + length, dtype=np.float32)[:, None].repeat(2, axis=1)


@given(st.integers(1, 8), st.integers(1, 40))
def test_steps_come_in_order_whatever_share_of_a_chunk_is_executed(execute: int, total: int) -> None:
    runner, asked, played = ChunkRunner(8, execute), 0, []
    for _ in range(total):
        if runner.needs_chunk():
            runner.push(chunk(runner.step))
            asked += 1
        played.append(runner.next()[0])
    assert played == list(range(total))
    assert asked == -(-total // execute)


@given(st.integers(0, 7))
def test_a_late_chunk_skips_the_steps_that_have_passed(delay: int) -> None:
    runner = ChunkRunner(8, 8)
    runner.push(chunk(0))
    for _ in range(delay):
        runner.next()
    runner.push(chunk(0) + 100, started_at=0)
    assert runner.next()[0] == 100 + delay


def test_a_chunk_wholly_in_the_past_or_from_the_future_is_refused() -> None:
    runner = ChunkRunner(4, 4)
    runner.push(chunk(0, 4))
    for _ in range(4):
        runner.next()
    for start in (0, 5):
        with pytest.raises(InputError, match="covers step 4"):
            runner.push(chunk(0, 4), started_at=start)


@pytest.mark.parametrize("bad", [np.zeros((7, 2)), np.zeros(8), np.full((8, 2), np.nan)])
def test_a_malformed_chunk_is_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="finite chunk of 8 rows"):
        ChunkRunner(8, 4).push(bad.astype(np.float32))


def test_without_a_chunk_there_is_no_next_step() -> None:
    with pytest.raises(InputError, match="No chunk covers step 0"):
        ChunkRunner(8, 4).next()


def test_executing_more_than_a_chunk_is_refused() -> None:
    with pytest.raises(InputError, match="from 1 to the chunk length 8"):
        ChunkRunner(8, 9)


@given(st.integers(1, 8))
def test_agreeing_chunks_ensemble_to_themselves(execute: int) -> None:
    runner = ChunkRunner(8, execute, "ensemble")
    for step in range(30):
        if runner.needs_chunk():
            runner.push(chunk(runner.step))
        np.testing.assert_allclose(runner.next(), [step, step], rtol=1e-6)


def test_ensembling_lies_between_disagreeing_chunks_and_nearer_the_newer() -> None:
    runner = ChunkRunner(8, 1, "ensemble")
    runner.push(np.zeros((8, 1), dtype=np.float32))
    runner.next()
    runner.push(np.ones((8, 1), dtype=np.float32))
    assert 0.5 < float(runner.next()[0]) < 1.0


@given(st.integers(1, 50))
def test_interpolation_ends_at_the_target_in_equal_parts(ratio: int) -> None:
    a, b = np.array([0.0, 1.0], np.float32), np.array([1.0, -1.0], np.float32)
    rows = interpolate(a, b, ratio)
    assert rows.shape == (ratio, 2)
    np.testing.assert_array_equal(rows[-1], b)
    np.testing.assert_allclose(np.diff(np.vstack([a, rows]), axis=0), np.tile((b - a) / ratio, (ratio, 1)), atol=1e-6)
