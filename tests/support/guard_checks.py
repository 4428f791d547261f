"""Watches what a guard emits, by finite differences; a robot that follows; and a storm of hostile calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axis
from lehrling.deploy.guard_events import Answer, Cause, Command, State
from lehrling.deploy.guard_limits import GuardConfig

FloatArray = NDArray[np.float64]
MS = 1_000_000
TOLERANCE = 1e-6
"""Relative, on every limit; the differences of float64 positions are exact to about 1e-9 of the limits used here."""


def arm_axes(count: int = 14, **changes: Any) -> tuple[Axis, ...]:
    limits = {
        "low": -3.1,
        "high": 3.1,
        "velocity": 3.5,
        "acceleration": 20.0,
        "jerk": 400.0,
        "margin": 0.1,
        "step": 0.5,
    }
    return tuple(Axis(f"joint{i + 1}", **(limits | changes)) for i in range(count))


@dataclass
class Emitted:
    """Checks every published command against the axes' limits.

    Attributes:
        worst: largest share of the velocity, acceleration and jerk limits that was used.
    """

    axes: tuple[Axis, ...]
    period_s: float = 0.01
    worst: FloatArray = field(default_factory=lambda: np.zeros(3))
    states: Counter[State] = field(default_factory=Counter)
    positions: list[FloatArray] = field(default_factory=list)
    keep: bool = False
    _left: bool = True
    _history: tuple[FloatArray, ...] = ()
    _published_ns: int = -(10**18)

    def __post_init__(self) -> None:
        columns = [
            [getattr(a, name) for a in self.axes] for name in ("low", "high", "velocity", "acceleration", "jerk")
        ]
        self._low, self._high, *limits = (np.array(column) for column in columns)
        self.limits = np.stack([limit * self.period_s**n for n, limit in enumerate(limits, 1)])
        self._position = np.array([not axis.is_velocity for axis in self.axes])
        self._measured = np.array([axis.measured for axis in self.axes])

    def check(self, command: Command, measured: FloatArray) -> None:
        """Check a command; `measured` is where the robot was when it was last taken over."""
        self.states[command.state] += 1
        if any(event.cause is Cause.RESYNC for event in command.events) or (command.publish and not self._history):
            self._history = (self._start(command, measured),) * 3
        if any(event.cause is Cause.STALL for event in command.events) and self._history:
            self._history = (self._history[-1],) * 3
        if not command.publish:
            self._left = self._left or command.state in (State.WAITING, State.STOPPED)
            return
        if self._left:
            self._take_over()
        first, second, third, now = *self._history, command.position
        one, two = now - third, now - 2 * third + second
        used = np.abs([one, two, two - (third - 2 * second + first)]) / self.limits
        self.worst = np.maximum(self.worst, used.max(axis=1))
        assert used.max() <= 1 + TOLERANCE, (used, command)
        assert ((now >= self._low) & (now <= self._high)).all(), command
        assert np.abs(command.velocity * self.period_s - one).max() < 1e-9, (one, command)
        assert not 0 <= command.now_ns - self._published_ns < self.period_s * 1e9 / 2
        self._history, self._published_ns = (second, third, now), command.now_ns
        if self.keep:
            self.positions.append(command.position)

    def _start(self, command: Command, measured: FloatArray) -> FloatArray:
        """Return where commands start: where the robot was measured; an axis without measurement is taken at its word."""
        last = self._history[-1] if self._history else command.position - command.velocity * self.period_s
        return np.clip(np.where(self._measured, measured, last), self._low, self._high)

    def _take_over(self) -> None:
        """Let the robot be at rest, and axes of velocities begin at zero."""
        start = np.where(self._position, self._history[-1], 0.0)
        self._history, self._left = (start, start, start), False


class Robot:
    """A robot that stands where the last published command put it, and the loop around a guard.

    Attributes:
        enabled, present, seen: whether the signals are renewed in every tick.
        at: positions of the robot after each tick.
    """

    def __init__(self, guard: Guard, start: FloatArray | None = None) -> None:
        self.guard, axes = guard, guard.axes.all
        self.position = np.zeros(len(axes)) if start is None else start
        self.emitted = Emitted(axes, 1 / guard.config.rate_hz)
        self.now_ns, self.enabled, self.present, self.seen = 0, True, True, True
        self.at: list[FloatArray] = []
        self.commands: list[Command] = []

    @property
    def events(self) -> list[Cause]:
        return [event.cause for command in self.commands for event in command.events]

    def state(self) -> State:
        return self.commands[-1].state

    def tick(self, count: int = 1) -> Command:
        for _ in range(count):
            self.now_ns += self.guard.config.period_ns
            self.renew()
            command = self.guard.step(self.now_ns)
            self.emitted.check(command, self.position)
            if command.publish:
                self.position = command.position
            self.at.append(self.position)
            self.commands.append(command)
        return command

    def renew(self) -> None:
        if self.enabled:
            self.guard.enable(self.now_ns)
        if self.present:
            self.guard.client(self.now_ns)
        if self.seen:
            self.guard.observe(self.now_ns, self.position, self.now_ns)

    def submit(self, targets: Any, **times: Any) -> Answer:
        self.renew()
        return self.guard.submit(self.now_ns, targets, **times)

    def rest(self, most: int = 3000) -> int:
        """Tick until the robot stood for six ticks; return after how many."""
        for count in range(most):
            self.tick()
            still = len(self.at) > 6 and all((self.at[-1] == place).all() for place in self.at[-7:])
            if still and self.state() is not State.MOVING:
                return count
        raise AssertionError(f"the robot still moves after {most} ticks")


class Storm:
    """Calls a guard with random and hostile input, and checks every command.

    The robot follows what is published, one tick late, with noise.
    """

    def __init__(
        self,
        seed: int,
        axes: tuple[Axis, ...] | None = None,
        config: GuardConfig | None = None,
        start: FloatArray | None = None,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.axes = axes or arm_axes(7)
        self.guard = Guard(config or GuardConfig(), self.axes)
        self.emitted = Emitted(self.axes, 1 / self.guard.config.rate_hz)
        self.robot: FloatArray = np.zeros(len(self.axes)) if start is None else start
        self.measured = self.taken = self.robot
        self.now_ns, self.commands, self.accepted = 0, 0, 0

    def run(self, steps: int) -> Storm:
        for _ in range(steps):
            self.step()
        return self

    def step(self) -> None:
        rng, guard = self.rng, self.guard
        self.now_ns += self._elapsed()
        if rng.random() < 0.98:
            guard.enable(self.now_ns)
        if rng.random() < 0.99:
            guard.client(self.now_ns)
        self._observe()
        if rng.random() < 0.12:
            self._submit()
        if rng.random() < 0.02:
            guard.override(self.now_ns, float(rng.choice([0, 10, 55, 100, 100, -1, np.nan, 1e9, rng.uniform(0, 100)])))
        if rng.random() < 0.001:
            guard.stop(self.now_ns)
        if guard.latch.latched and rng.random() < 0.2:
            guard.reset(self.now_ns, "operator")
        command = guard.step(self.now_ns)
        self.commands += command.publish
        self.emitted.check(command, self.taken)
        if command.publish:
            self.robot = np.clip(command.position, -1e6, 1e6)
        elif rng.random() < 0.002:
            self.robot = rng.uniform(np.maximum(self.guard.axes.low, -3), np.minimum(self.guard.axes.high, 3))

    def _elapsed(self) -> int:
        kind, period = self.rng.random(), self.guard.config.period_ns
        if kind < 0.9:
            return period
        if kind < 0.97:
            return int(period * self.rng.uniform(0, 2.5))
        if kind < 0.996:
            return 0
        if kind < 0.999:
            return int(self.rng.choice([12, 60, 150, 2000])) * 5 * MS
        return -int(self.rng.integers(1, 10**10))

    def _observe(self) -> None:
        kind = self.rng.random()
        if kind < 0.03:
            return
        position = self.robot + self.rng.normal(0, 0.001, len(self.robot))
        if kind < 0.035:
            position = position * self.rng.choice([np.nan, np.inf, 1e300, 40.0])
        if self.guard.observe(self.now_ns, position, self.now_ns - int(self.rng.integers(0, 8)) * MS):
            self.measured = position

    def _submit(self) -> None:
        rng, size = self.rng, len(self.axes)
        here = self.guard.position if self.guard.engaged else self.measured
        rows = int(rng.integers(1, 24))
        walk = here + np.cumsum(rng.normal(0, rng.choice([0.001, 0.01, 0.05, 0.3]), (rows, size)), axis=0)
        phase = rng.uniform(0, 2 * np.pi) + np.arange(rows)[:, None] * rng.uniform(0, 1.5)
        sway = here + rng.uniform(0, 1.5) * (np.sin(phase) - np.sin(phase[0]))
        hostile: list[Any] = [
            np.full(size, np.nan),
            np.where(rng.random((rows, size)) < 0.05, np.inf, walk),
            np.full((rows, size), 1e308),
            here + np.outer((-1.0) ** np.arange(rows), np.full(size, 1e3)),
            np.outer((-1.0) ** np.arange(rows), np.full(size, 3.1)),
            here + rng.normal(0, 5, (rows, size)),
            np.zeros(size + 1),
            np.zeros((0, size)),
            [[1.0] * size, [2.0]],
            "forwards",
            None,
            np.zeros((2, size, 2)),
        ]
        targets = walk if (kind := rng.random()) < 0.4 else sway if kind < 0.75 else hostile[rng.integers(len(hostile))]
        times: dict[str, Any] = {"interval_ns": int(rng.choice([0, 1, 5, 20, 50, 100, 1000])) * MS}
        if rng.random() < 0.2:
            times = {"due_ns": self.now_ns + (np.arange(rows) - rng.integers(-2, 6)) * int(rng.choice([10, 50])) * MS}
        if rng.random() < 0.1:
            times["observed_ns"] = self.now_ns - int(rng.choice([0, 100, 3000])) * MS
        before = self.guard.engaged
        self.accepted += bool(self.guard.submit(self.now_ns, targets, replace=bool(rng.random() < 0.6), **times))
        self.taken = self.taken if before else self.measured


AXES = 6
FREE = arm_axes(AXES, step=100.0)


def guarded(axes: tuple[Axis, ...] | None = None, **config: Any) -> Robot:
    robot = Robot(Guard(GuardConfig(**config), axes or arm_axes(AXES)))
    robot.tick(3)
    return robot


def wave(rows: int, size: float = 0.4, speed: float = 0.1) -> FloatArray:
    """A path that starts at 0: (rows, AXES)."""
    phase = np.arange(1, rows + 1)[:, None] * speed + np.arange(AXES)
    return np.asarray(size * (np.sin(phase) - np.sin(np.arange(AXES))))


def moving(robot: Robot, rows: int = 40) -> Robot:
    assert robot.submit(wave(rows), interval_ns=100 * MS)
    robot.tick(30)
    assert robot.state() is State.MOVING
    assert np.abs(robot.commands[-1].velocity).max() > 0.1
    return robot
