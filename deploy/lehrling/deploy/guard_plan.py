"""Plans: places on the path tick by tick, each a step and a braking curve to rest, and the check of their positions."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lehrling.deploy.guard_axes import Axes

FloatArray = NDArray[np.float64]
HISTORY = 3
STOP_S_MAX = 1.5
TICKS_MAX, PREPARED = 4096, 256
TOLERANCE = 1e-9


class Kind(NamedTuple):
    """A kind of plan: how much longer than the shortest it brakes, and its share of what differs from the plan in force."""

    longer: float
    share: float


class Step(NamedTuple):
    """A step along the path, in spans per tick.

    Attributes:
        rate, gain: after it; the gain is the change of the rate.
        change, gain_max: what braking is drawn for: limits of the gain's change and of the gain.
    """

    rate: float
    gain: float
    change: float
    gain_max: float


class PlanCheck:
    """Checks that positions keep velocity, acceleration and jerk by finite differences; keeps its arrays.

    Attributes:
        ticks_max: length of the longest plan.
    """

    def __init__(self, axes: Axes, period_s: float) -> None:
        limits = (axes.velocity * period_s, axes.acceleration * period_s**2, axes.jerk * period_s**3)
        self._allowed = np.stack(limits)[:, None] * (1 - TOLERANCE)
        self.ticks_max = max(64, math.ceil(STOP_S_MAX / period_s))
        self._rows = np.zeros((self.ticks_max + 2 * HISTORY, len(axes)))
        self._differences = np.zeros((3, *self._rows.shape))
        for ticks in range(1, min(self.ticks_max, PREPARED)):
            _braking(ticks)

    def within(self, history: FloatArray, q: FloatArray) -> bool:
        """Whether positions (n, D) keep the limits, after those of the last ticks (3, D) and before rest in their last."""
        n = len(q) + 2 * HISTORY
        rows, d = self._rows[:n], self._differences[:, : n - 1]
        rows[:HISTORY], rows[HISTORY:-HISTORY], rows[-HISTORY:] = history, q, q[-1]
        np.subtract(rows[1:], rows[:-1], out=d[0])
        np.subtract(d[0, 1:], d[0, :-1], out=d[1, 1:])
        np.subtract(d[1, 2:], d[1, 1:-1], out=d[2, 2:])
        new = d[:, HISTORY - 1 :]
        np.abs(new, out=new)
        return not (new > self._allowed).any()


def braked(step: Step, s: float, end: float, longer: float, ticks_max: int) -> FloatArray:
    """Return places (n,) of a plan that makes a step from `s` and then brakes to rest; none if that takes too long."""
    ticks = math.ceil(longer * _braking_ticks(step))
    if ticks >= ticks_max:
        return np.empty(0)
    way, gain_way = _braking(ticks)
    places = np.empty(ticks + 1)
    places[0] = 0.0
    places[1:] = step.rate * way + step.gain * gain_way
    places += s + step.rate
    return np.asarray(np.minimum(np.maximum.accumulate(places), end))


def mixed(slow: FloatArray, fast: FloatArray, share: float, s: float) -> FloatArray:
    """Return a plan between two others: 0 is the slow one, which may be over and rest in `s`, 1 the fast one."""
    size = max(len(slow), len(fast))
    begun = _padded(slow, size, s)
    return np.asarray(begun + share * (_padded(fast, size, s) - begun))


def _padded(places: FloatArray, size: int, s: float) -> FloatArray:
    out = np.full(size, places[-1] if len(places) else s)
    out[: len(places)] = places
    return out


def _braking_ticks(step: Step) -> int:
    """Return in how many ticks the rate can go to zero."""
    rate, gain, change = step.rate, step.gain, step.change
    rise = 4 * max(gain, 0.0)
    ticks = max(1.6 * rate / step.gain_max, (rise + math.sqrt(rise * rise + 24 * change * rate)) / (2 * change))
    if gain < 0:
        ticks = min(ticks, 3 * rate / -gain)
    return max(1, math.ceil(min(ticks, TICKS_MAX)))


@lru_cache(maxsize=TICKS_MAX)
def _braking(ticks: int) -> tuple[FloatArray, FloatArray]:
    """Return the ways (ticks,) that a unit rate and a unit gain make on a cubic from them to rest."""
    t = np.arange(1, ticks + 1) / ticks
    return np.cumsum(2 * t**3 - 3 * t**2 + 1), np.cumsum(ticks * (t**3 - 2 * t**2 + t))
