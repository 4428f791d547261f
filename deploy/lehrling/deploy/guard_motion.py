"""Motion along the path in time: every step is the head of a plan, checked as a whole, that comes to rest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lehrling.deploy.guard_ahead import Ahead
from lehrling.deploy.guard_axes import Axes
from lehrling.deploy.guard_curve import curve
from lehrling.deploy.guard_path import TAIL, Path
from lehrling.deploy.guard_plan import HISTORY, Kind, PlanCheck, Step, braked, mixed

FloatArray = NDArray[np.float64]
KINDS = (Kind(1.0, 1.0), Kind(1.7, 1.0), Kind(1.7, 0.4))
"""Of plans, the fastest first: the last is a mixture with the plan in force."""
FASTEST_AGAIN = 12
"""Ticks after which the fastest is tried again."""
EASE = 0.9
"""Share of jerk and acceleration that a plan is drawn for; the check is against the whole."""
TINY = 1e-12
CATCH_UP_AHEAD_S = 0.1
"""Only with so much path left: else the robot would run into its end and stutter."""
SAMPLES_MAX, SCALE_MIN = 4096, 1e-4
_NO_PLACES: FloatArray = np.empty(0)


class Motion:
    """Drives along a path so that velocity, acceleration and jerk of what is emitted keep their limits.

    `s` is the place on the path, `rate` its change per tick, `gain` the change of the rate. In every tick a faster plan
    is drawn: one step that brings the rate nearer to what is wanted, then a braking curve to rest. If its positions,
    with the last three that were emitted, keep every limit by finite differences, it becomes the plan in force; if not,
    the plan in force goes on, and in the next tick one that brakes more softly, or is nearer to it, is tried. So what
    is emitted was checked together with its stop, the path is never left, and a stop needs no computation: the plan in
    force is played out.

    Attributes:
        slowed: whether the last tick had to stay behind the rate that was wanted.
        lag_s: by how much the path is behind its nominal times, for whatever reason.
        debt_s: the part of it that limits cost; it is paid back by driving up to `catch_up` faster.
    """

    def __init__(self, axes: Axes, period_s: float, blend: FloatArray, catch_up: float = 0.0) -> None:
        """Stand at 0.

        Args:
            axes: with their limits.
            period_s: of the ticks.
            blend: (D,) how far the path may stay away from a target on a sharp turn.
            catch_up: share of the nominal rate by which it may be exceeded.
        """
        self.axes, self.period_s, self._blend, self._catch_up = axes, period_s, blend, catch_up
        self.path = Path(len(axes))
        self._ahead, self._check = Ahead(self.path, axes), PlanCheck(axes, period_s)
        self.restart(np.zeros(len(axes)))

    def restart(self, position: FloatArray) -> None:
        """Stand at `position` (D,), at rest since ever."""
        self.history = np.repeat(position[None], HISTORY, axis=0)
        self._still = HISTORY
        self.settle()

    def settle(self) -> None:
        """Forget the path; stand where the last command is."""
        self.path.restart(self.history[-1])
        self.s, self.slowed = 1.0, False
        self.lag_s = self.debt_s = 0.0
        self._ahead.measure(0)
        self._forget_plan()

    def pause(self) -> None:
        """Stand on the path where the last command is, at rest since a while."""
        self.history[:] = self.history[-1]
        self._still = HISTORY
        self._forget_plan()

    def _forget_plan(self) -> None:
        self.rate, self.gain, self._scale, self._at = 0.0, 0.0, 1.0, 0
        self._first = self._since = 0
        self._plan_s: FloatArray = _NO_PLACES
        self._plan_q: FloatArray = self.history[:0]

    @property
    def position(self) -> FloatArray:
        """The last emitted position (D,)."""
        position: FloatArray = self.history[-1]
        return position

    @property
    def velocity(self) -> FloatArray:
        """The last emitted velocity (D,), by finite difference."""
        velocity: FloatArray = (self.history[-1] - self.history[-2]) / self.period_s
        return velocity

    @property
    def at_rest(self) -> bool:
        """Whether the plan in force is played out and so many equal positions were emitted that the past is forgotten."""
        return self._still >= HISTORY

    @property
    def done(self) -> bool:
        """Whether the end of the path is reached."""
        return self.s >= self.path.end

    @property
    def horizon(self) -> float:
        """The farthest s that is promised."""
        return float(self._plan_s[-1]) if len(self._plan_s) else self.s

    @property
    def promised(self) -> FloatArray:
        """The last point (D,) of the path that is promised."""
        if self.at_rest:
            return self.position
        point: FloatArray = self.path.points[self.path.committed(self.horizon) - 1]
        return point

    def splice(self, *, replace: bool) -> int:
        """Make room and return how many points stay when targets are appended, or replace what is not promised yet."""
        if self.at_rest and (replace or self.done):
            self.settle()
        drop = self.path.shift(self.s)
        if drop:
            self.s -= drop
            self._plan_s = self._plan_s - drop
            self._ahead.shift(drop)
        promised = self.path.committed(self.horizon)
        return promised if replace else max(promised, self.path.count - TAIL)

    def extend(self, keep: int, targets: FloatArray, seconds: FloatArray) -> bool:
        """Lead the path from its point `keep` - 1 through `targets` (n, D); False if there is no room for them.

        Args:
            keep: from `splice`.
            targets: in their ranges.
            seconds: (n,) nominal time from each target's predecessor.
        """
        path = self.path
        most = len(path.points) - keep - TAIL
        start, spacing = path.points[keep - 1], path.spacing(keep)
        found = curve(start, spacing, targets, seconds, self.axes.velocity, self._blend, most)
        if found is None:
            return False
        np.clip(found.points, self.axes.low, self.axes.high, out=found.points)
        path.extend(keep, found)
        self._ahead.measure(keep)
        return True

    def ahead_s(self, point: int) -> float:
        """Return the nominal time from here until the path passes a point."""
        here, there = int(self.s), point - 1
        return max(0.0, float(self.path.seconds[here:there].sum() - (self.s - here) * self.path.seconds[here]))

    def samples(self, keep: int, distance: float) -> FloatArray:
        """Return positions (n, D) along the path that `extend` made, at most `distance` apart in each axis.

        A path that would need more than `SAMPLES_MAX` is sampled evenly with so many.
        """
        first = max(self.s, float(keep - 3))
        points = self.path.points[self.path.span(first) : self.path.count]
        per_span = np.ceil(np.abs(np.diff(points, axis=0)).max() / distance)
        count = int(min(max(2.0, per_span) * (self.path.end - first + 1) + 2, SAMPLES_MAX))
        return self.path.at(np.linspace(first, self.path.end, count, dtype=np.float64))

    def truncate(self) -> None:
        """Drop what is not promised yet."""
        keep = self.splice(replace=True)
        self.path.end_at(keep)
        self._ahead.measure(keep)

    def advance(self, share: float) -> FloatArray:
        """Move on by one tick and return the position (D,) to emit.

        Args:
            share: of the nominal rate, 0 to 1; 0 plays the plan in force to its end, which is rest.
        """
        self.slowed = False
        if share > 0 and self.s < self.path.end:
            self._speed_up(share)
        s, q = self.s, self.history[-1]
        self._still += 1
        if self._at < len(self._plan_s):
            s, q = float(self._plan_s[self._at]), self._plan_q[self._at]
            self._at, self._still = self._at + 1, 0
        rate = s - self.s
        self._keep_time(share, rate)
        self.s, self.rate, self.gain = s, rate, rate - self.rate
        self.history[:-1] = self.history[1:]
        self.history[-1] = q
        return self.position

    def _keep_time(self, share: float, rate: float) -> None:
        """Note by how much the path falls behind in a tick that moves on by `rate`."""
        if self.done:
            self.lag_s = self.debt_s = 0.0
            return
        passed = rate * float(self.path.seconds[self.path.span(self.s)])
        self.lag_s = max(0.0, self.lag_s + self.period_s - passed)
        self.debt_s = max(0.0, self.debt_s + self.period_s - passed) if share == 1 else 0.0

    def _speed_up(self, share: float) -> None:
        """Replace the plan in force by a faster one, if one keeps the limits."""
        step = self._next_step(share)
        kind = self._first
        fast = braked(step, self.s, self.path.end, KINDS[kind].longer, self._check.ticks_max)
        if KINDS[kind].share < 1 and len(fast):
            fast = mixed(self._plan_s[self._at :], fast, KINDS[kind].share, self.s)
        if len(fast) and self._adopt(fast):
            self._passed(kind)
            return
        self.slowed = True
        self._first = (kind + 1) % len(KINDS)
        self._scale = max(SCALE_MIN, 0.25 * self._scale)

    def _passed(self, kind: int) -> None:
        """Try the kind of plan that passed first in the next ticks, and the fastest again after some."""
        self.slowed = self.slowed or KINDS[kind].share < 1
        self._scale = min(1.0, 4 * self._scale) if KINDS[kind].share == 1 else self._scale
        self._since = 0 if kind == 0 else (self._since + 1) % FASTEST_AGAIN
        self._first = min(kind, 1) if self._since else 0

    def _adopt(self, s: FloatArray) -> bool:
        """Take a plan if its positions keep the limits."""
        q = self.path.at(s)
        np.maximum(q, self.axes.low, out=q)
        np.minimum(q, self.axes.high, out=q)
        if not self._check.within(self.history, q):
            return False
        self._plan_s, self._plan_q, self._at = s, q, 0
        return True

    def _next_step(self, share: float) -> Step:
        """Return a step that brings the rate nearer to what is wanted."""
        slope, jerk, ceiling = self._ahead.bounds(self.s, self.horizon)
        seconds = float(self.path.seconds[self.path.span(self.s)])
        long = (self.path.end - self.horizon) * seconds > CATCH_UP_AHEAD_S
        nominal = share * (1 + (min(self._catch_up, self.debt_s) if long else 0.0)) / seconds
        self.slowed = nominal > ceiling
        wanted = min(nominal, ceiling) * self.period_s
        rate = max(0.0, self.rate + self._gain(wanted - self.rate))
        change = EASE * self.period_s**3 / max(jerk, TINY)
        gain = rate - self.rate
        gain = gain if abs(gain - self.gain) <= change else 0.0
        return Step(rate, gain, change, EASE * self.period_s**2 / max(slope, TINY))

    def _gain(self, error: float) -> float:
        """Return the next gain on an S-curve towards a rate that differs by `error`, as the path here allows."""
        slope, jerk = self._ahead.here(self.s)
        gain_max = EASE * self.period_s**2 / max(slope, TINY)
        step = 0.5 * self._scale * EASE * self.period_s**3 / max(jerk, TINY)
        goal = math.copysign(min(self._scale * abs(error), math.sqrt(step * abs(error)), gain_max), error)
        return self.gain + min(max(goal - self.gain, -step), step)
