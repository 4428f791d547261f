"""A column's range is its quantiles, and its extremes where it moves only seldom."""

from __future__ import annotations

import numpy as np
import pytest

from lehrling.datasets.statistics import column_statistics
from lehrling.training.normalise import Normaliser


def test_a_seldom_event_is_normalised_by_its_extremes_and_other_columns_by_quantiles() -> None:
    values = np.zeros((10_000, 4), np.float32)
    values[:, 0] = np.random.default_rng(0).normal(size=10_000)
    values[:50, 1] = 1.0
    values[:50, 2] = 1e-3
    statistics = column_statistics(values, np.ones(10_000, np.bool_))
    found = Normaliser.from_statistics(statistics)
    plain = Normaliser.from_bounds(statistics["q01"], statistics["q99"])
    assert [found.scale[place] for place in (0, 2, 3)] == [plain.scale[place] for place in (0, 2, 3)]
    assert [found.offset[place] for place in (0, 2, 3)] == [plain.offset[place] for place in (0, 2, 3)]
    assert (found.offset[1], found.scale[1]) == pytest.approx((0.5, 0.5))
    assert np.abs(found.forward(values[:1])).max() < 4
    assert np.abs(plain.forward(values[:1])).max() > 900
