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


def test_asynchronously_the_old_chunk_is_played_until_the_new_one_is_there() -> None:
    runner = ChunkRunner(8, 4, "async")
    assert runner.ask() is not None
    runner.push(chunk(0), started_at=0)
    played = [runner.next()[0] for _ in range(4)]
    ask = runner.ask()
    assert ask is not None
    assert (ask.step, ask.delay, ask.tail[:, 0].tolist()) == (4, 0, [4, 5, 6, 7])
    assert runner.ask() is None
    played += [runner.next()[0] for _ in range(2)]
    assert runner.push(chunk(100), started_at=4)
    played += [runner.next()[0] for _ in range(2)]
    assert played == [0, 1, 2, 3, 4, 5, 102, 103]
    again = runner.ask()
    assert again is not None
    assert again.delay == 2


def test_synchronously_there_is_nothing_ahead_of_what_is_to_be_executed() -> None:
    runner = ChunkRunner(8, 3)
    assert runner.ahead().shape == (0, 0)
    runner.push(chunk(0))
    assert runner.ahead()[:, 0].tolist() == [0, 1, 2]
    runner.advance(3)
    assert runner.ahead().shape == (0, 2)


def test_a_chunk_that_was_asked_for_before_the_one_that_is_played_is_dropped() -> None:
    runner = ChunkRunner(8, 4, "async")
    runner.push(chunk(0))
    runner.advance(4)
    runner.push(chunk(100), started_at=4)
    assert not runner.push(chunk(200), started_at=2)
    assert runner.late == 1
    assert runner.next()[0] == 100


def test_an_answer_that_never_comes_may_be_given_up() -> None:
    runner = ChunkRunner(8, 4, "async")
    assert runner.ask() is not None
    assert not runner.needs_chunk()
    runner.give_up()
    assert runner.ask() is not None


@given(st.integers(1, 8), st.floats(-5, 5), st.integers(0, 3))
def test_the_jump_to_a_new_chunk_is_faded_out(fade: int, offset: float, delay: int) -> None:
    runner = ChunkRunner(8, 4, "async", fade=fade)
    runner.push(chunk(0))
    runner.advance(4 + delay)
    runner.push(chunk(4) + np.float32(offset), started_at=4)
    ahead = runner.ahead()[:, 0]
    assert ahead[0] == pytest.approx(4 + delay, abs=1e-5)
    np.testing.assert_allclose(ahead[fade:], np.arange(4 + delay, 12)[fade:] + offset, atol=1e-5)
    steps = np.diff(ahead) - 1
    assert np.abs(steps).max(initial=0) <= abs(offset) / fade + 1e-4


def test_more_steps_than_a_chunk_has_are_not_faded() -> None:
    with pytest.raises(InputError, match="fade over 0 to the chunk length 8 steps, got 9"):
        ChunkRunner(8, 4, "async", fade=9)
