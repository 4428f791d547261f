from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.errors import InputError
from lehrling.datasets.statistics import (
    STD_FLOOR,
    column_statistics,
    scale,
    standardise,
    unscale,
    unstandardise,
)


def test_statistics_are_those_of_all_valid_rows() -> None:
    value = np.array([[0, 10], [1, 20], [2, 30], [99, 99]], np.float32)
    got = column_statistics(value, np.array([True, True, True, False]))
    assert got["mean"].tolist() == [1, 20]
    assert got["std"] == pytest.approx([np.sqrt(2 / 3), np.sqrt(200 / 3)])
    assert got["min"].tolist() == [0, 10]
    assert got["max"].tolist() == [2, 30]
    assert got["q01"] == pytest.approx([0.02, 10.2])
    assert got["q99"] == pytest.approx([1.98, 29.8])
    assert got["count"].tolist() == [3]


def test_quantiles_of_episodes_around_their_own_set_points_span_all_of_them() -> None:
    centres = np.linspace(-1, 1, 50)
    value = (centres[:, None] + np.random.default_rng(0).normal(0, 0.01, (50, 200))).reshape(-1, 1)
    got = column_statistics(value.astype(np.float32), np.ones(10_000, np.bool_))
    assert got["q01"][0] < -0.98
    assert got["q99"][0] > 0.98
    outside = np.mean((value < got["q01"]) | (value > got["q99"]))
    assert outside == pytest.approx(0.02, abs=0.001)


def test_a_constant_column_has_the_floor_and_normalises_to_zero() -> None:
    value = np.full((10, 2), [0.0, 1000.0], np.float32)
    got = column_statistics(value, np.ones(10, np.bool_))
    assert got["std"] == pytest.approx([STD_FLOOR, 1e-2])
    assert standardise(value, got).tolist() == [[0.0, 0.0]] * 10
    assert scale(value, got).tolist() == [[0.0, 0.0]] * 10


def test_no_valid_row_is_refused() -> None:
    with pytest.raises(InputError, match="at least one valid row, got none of 3"):
        column_statistics(np.zeros((3, 2), np.float32), np.zeros(3, np.bool_))


def test_a_number_that_is_not_finite_is_refused() -> None:
    value = np.array([[0, 1], [0, np.nan]], np.float32)
    with pytest.raises(InputError, match="others in column 1"):
        column_statistics(value, np.ones(2, np.bool_))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=30))
def test_normalising_can_be_undone(numbers: list[float]) -> None:
    value = np.array(numbers, np.float32)[:, None]
    got = column_statistics(value, np.ones(len(value), np.bool_))
    np.testing.assert_allclose(unstandardise(standardise(value, got), got), value, atol=1e-4)
    np.testing.assert_allclose(unscale(scale(value, got), got), value, atol=1e-4)


def test_scaling_puts_the_quantiles_at_minus_one_and_one() -> None:
    value = np.arange(101, dtype=np.float32)[:, None]
    got = column_statistics(value, np.ones(101, np.bool_))
    assert scale(np.array([[1], [50], [99]], np.float32), got).ravel().tolist() == [-1, 0, 1]
