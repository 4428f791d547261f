"""What stamps and receipts tell of a sender's clock, and how well, for delays that jitter in many ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lehrling.datasets.clock_fit import ClockFit, fit_clock, floor_step, lower_line

START_NS = 1_700_000_000_000_000_000
SHAPES = ("exponential", "uniform", "gamma", "lognormal", "gauss")


def jitter_ms(shape: str, scale_ms: float, count: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    if shape == "exponential":
        return rng.exponential(scale_ms, count)
    if shape == "uniform":
        return rng.uniform(0, 2 * scale_ms, count)
    if shape == "gamma":
        return rng.gamma(4, scale_ms / 4, count)
    if shape == "lognormal":
        return scale_ms * rng.lognormal(0, 1, count)
    return np.abs(4 * scale_ms + rng.normal(0, scale_ms, count))


def fit(
    shape: str, scale_ms: float, *, rate_hz: float = 30, seconds: float = 60, ppm: float = 80, seed: int = 0
) -> ClockFit:
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    stamp = START_NS + np.round((times * (1 + ppm * 1e-6) + 0.037) * 1e9).astype(np.int64)
    late = 2.0 + jitter_ms(shape, scale_ms, len(times), seed)
    found = fit_clock(stamp, START_NS + np.round((times + late / 1e3) * 1e9).astype(np.int64))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("shape", "bound_ppm"),
    [("exponential", 1.0), ("uniform", 3.0), ("lognormal", 5.0), ("gamma", 5.0), ("gauss", 10.0)],
)
def test_a_minute_at_30_hz_with_2_ms_of_jitter_gives_drift_this_well(shape: str, bound_ppm: float) -> None:
    """Within 5 ppm where delays have a floor; twice that where early messages are rare (gauss)."""
    errors = [abs((fit(shape, 2.0, seed=seed).drift_ppm or 0.0) - 80) for seed in range(10)]
    assert max(errors) < bound_ppm


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_told_holds_the_true_error_nearly_always(shape: str) -> None:
    fits = [fit(shape, 4.0, seconds=20, seed=seed) for seed in range(20)]
    covered = [abs((f.drift_ppm or 0.0) - 80) <= (f.drift_error_ppm or 0.0) for f in fits]
    assert np.mean(covered) >= 0.75


@pytest.mark.parametrize("shape", SHAPES)
def test_the_floor_is_the_shortest_delay_less_the_clocks_lead(shape: str) -> None:
    shortest = 8.0 - 3.5 * 2.0 if shape == "gauss" else 0.0
    assert fit(shape, 2.0).floor_ms == pytest.approx(2.0 + shortest - 37.0, abs=2.0)


def test_more_jitter_does_not_move_the_floor() -> None:
    floors = [fit("exponential", scale).floor_ms for scale in (0.1, 1.0, 10.0, 40.0)]
    assert max(floors) - min(floors) < 0.3


def test_stamps_from_the_future_do_not_carry_the_line_away() -> None:
    times = np.arange(1800) / 30
    stamp = START_NS + np.round(times * 1e9).astype(np.int64)
    received = stamp + np.round((30 + jitter_ms("exponential", 3.0, 1800, 1)) * 1e6).astype(np.int64)
    stamp[[200, 900, 1790]] += 400_000_000
    found = fit_clock(stamp, received)
    assert found is not None
    assert found.step_ms == 0
    assert found.floor_ms == pytest.approx(30, abs=0.5)
    assert found.drift_ppm == pytest.approx(0, abs=5)


@pytest.mark.parametrize("count", [1, 15])
def test_too_few_rows_give_a_floor_and_no_drift(count: int) -> None:
    stamp = START_NS + np.arange(count) * 100_000_000
    assert fit_clock(stamp, stamp + 5_000_000) == ClockFit(5.0, None, None, 0.0)
    assert fit_clock(stamp[:0], stamp[:0]) is None


def test_a_simulators_clock_far_from_the_receivers_is_fitted_to_the_nanosecond() -> None:
    stamp = np.arange(3000, dtype=np.int64) * 10_000_000
    found = fit_clock(stamp, stamp * 2 + START_NS)
    assert found is not None
    assert found.floor_ms == START_NS / 1e6
    assert found.drift_ppm == pytest.approx(-500_000, abs=0.1)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=60), st.floats(-50, 50))
@settings(max_examples=60, deadline=None)
def test_the_line_is_below_all_points_and_no_line_below_them_is_closer(values: list[float], tilt: float) -> None:
    x = np.arange(len(values), dtype=np.float64)
    y = np.array(values)
    floor, slope = lower_line(x, y)
    assert (y - (floor + slope * x)).min() > -1e-6
    other = slope + tilt
    below = (y - other * x).min()
    assert (y - floor - slope * x).sum() <= (y - below - other * x).sum() + 1e-6


@given(st.floats(-1e3, 1e3), st.integers(12, 40))
def test_a_ramp_is_never_a_step(total: float, count: int) -> None:
    assert floor_step(np.arange(count, dtype=np.float64) * (total / count)) == 0.0


@given(st.floats(10, 1e3), st.integers(3, 20), st.integers(9, 20))
def test_a_step_between_flat_floors_is_found_exactly(leap: float, before: int, after: int) -> None:
    assert floor_step(np.array([0.0] * before + [-leap] * after)) == -leap
