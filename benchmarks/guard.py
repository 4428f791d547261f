"""Time of one guard step with 14 joints, beside clipping position and velocity alone, which keeps neither path nor stop.

Measured in CPU time of the thread: on a busy machine the wall clock shows the scheduler's slices instead.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np
from benchmarks.common import Result, write
from numpy.typing import NDArray

from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axis
from lehrling.deploy.guard_limits import ByUnit, GuardConfig

JOINTS, STEPS, ROUNDS, CHUNK = 14, 2000, 9, 16
TARGET_US = 200.0
FloatArray = NDArray[np.float64]
LOW, HIGH, VELOCITY, ACCELERATION, JERK = -3.1, 3.1, 3.5, 20.0, 400.0


def sway(step: int) -> FloatArray:
    """Return the chunk (CHUNK, JOINTS) from here on: 1.2 rad/s, within every limit."""
    seconds = step * 0.01 + 0.1 * np.arange(1, CHUNK + 1)[:, None]
    return np.asarray(0.6 * (np.sin(2 * seconds + np.arange(JOINTS)) - np.sin(np.arange(JOINTS))))


def noise(step: int) -> FloatArray:
    """Return a chunk that no robot could follow in its time."""
    return np.random.default_rng(step).normal(0, 0.3, (CHUNK, JOINTS))


def clipped(chunks: Callable[[int], FloatArray]) -> FloatArray:
    """Return the times [µs] of steps that clip the next target's position and velocity."""
    low, high, most = np.full(JOINTS, LOW), np.full(JOINTS, HIGH), np.full(JOINTS, VELOCITY * 0.01)
    position: FloatArray = np.zeros(JOINTS)
    times = np.empty(STEPS)
    for step in range(STEPS):
        if step % 80 == 0:
            chunk = chunks(step)
        target = chunk[step % 80 // 10]
        begun = time.thread_time_ns()
        position = position + np.clip(np.clip(target, low, high) - position, -most, most)
        times[step] = (time.thread_time_ns() - begun) / 1e3
    return times


def guarded(chunks: Callable[[int], FloatArray]) -> FloatArray:
    """Return the times [µs] of the guard's steps at 100 Hz, chunks of 10 Hz replaced every 0.8 s."""
    axes = tuple(Axis(f"joint{n}", "rad", LOW, HIGH, VELOCITY, ACCELERATION, JERK, step=9.0) for n in range(JOINTS))
    guard, times = Guard(GuardConfig(first_move=ByUnit(rad=9, m=9)), axes), np.empty(STEPS)
    position: FloatArray = np.zeros(JOINTS)
    for step in range(STEPS):
        now_ns = step * 10_000_000
        guard.observe(now_ns, position, now_ns)
        guard.enable(now_ns)
        guard.client(now_ns)
        if step % 80 == 0 and not (answer := guard.submit(now_ns, chunks(step), interval_ns=100_000_000)):
            raise SystemExit(answer.text)
        begun = time.thread_time_ns()
        command = guard.step(now_ns)
        times[step] = (time.thread_time_ns() - begun) / 1e3
        position = command.position
    return times


def calmest(
    run: Callable[[Callable[[int], FloatArray]], FloatArray], chunks: Callable[[int], FloatArray]
) -> FloatArray:
    """Return the times of the round with the least 99th percentile: other processes can only add to it."""
    rounds = [run(chunks) for _ in range(ROUNDS)]
    return min(rounds, key=lambda times: float(np.percentile(times, 99)))


def main() -> None:
    """Measure steps along a path within the limits, and along one that must be slowed down."""
    gc.disable()
    results = []
    for name, chunks in (("within its limits", sway), ("slowed down throughout", noise)):
        peer, ours = calmest(clipped, chunks), calmest(guarded, chunks)
        for share in (50, 99):
            value, beside = float(np.percentile(ours, share)), float(np.percentile(peer, share))
            target = f"at most {TARGET_US:g} µs" if share == 99 else "none"
            metric = f"CPU time of a guard step, 14 joints, path {name}, p{share}"
            met = share != 99 or value <= TARGET_US
            results.append(
                Result(metric, value, "µs", "clip of position and velocity", beside, value / beside, target, met)
            )
    write("guard", results)


if __name__ == "__main__":
    main()
