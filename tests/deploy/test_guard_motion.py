"""No command breaks a limit, whatever comes; the path is kept; stops are short."""

from __future__ import annotations

import math
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from guard_checks import Emitted, FloatArray, Robot, Storm, arm_axes
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axes, Axis
from lehrling.deploy.guard_events import Cause, State
from lehrling.deploy.guard_limits import Box, GuardConfig, SpaceConfig
from lehrling.deploy.guard_motion import Motion

MIXED = (
    *arm_axes(3),
    Axis("vx", "m", velocity=0.5, acceleration=1.0, jerk=5.0, is_velocity=True),
    Axis("wz", "rad", velocity=1.0, acceleration=2.0, jerk=10.0, is_velocity=True),
    Axis("gripper", "1", -1.0, 1.0, measured=False),
)
TCP = tuple(
    Axis(name, "m", low, high, 0.25, 1.0, 10.0, coordinate=name)  # type: ignore[arg-type]
    for name, low, high in (("x", 0.2, 0.7), ("y", -0.4, 0.4), ("z", 0.0, 0.5))
)
KEEP_OUT = SpaceConfig(keep_out=(Box(low=(0.45, -0.1, 0.0), high=(0.55, 0.1, 0.1)),))
STORMS: dict[str, dict[str, Any]] = {
    "arm at 100 Hz": {},
    "arm at 1 kHz": {"axes": arm_axes(6), "config": GuardConfig(rate_hz=1000)},
    "arm at 20 Hz": {"axes": arm_axes(6), "config": GuardConfig(rate_hz=20, stall_ms=400)},
    "soft": {"axes": arm_axes(3, velocity=1.0, acceleration=1.0, jerk=2.0)},
    "stiff and slow": {"axes": arm_axes(3, velocity=0.1, acceleration=50.0, jerk=1e5)},
    "velocity limit alone": {"axes": arm_axes(3, acceleration=math.inf, jerk=math.inf)},
    "mixed": {"axes": MIXED},
    "workspace": {"axes": TCP, "config": GuardConfig(space=KEEP_OUT), "start": np.array([0.4, 0.0, 0.3])},
}


def test_twenty_thousand_random_and_hostile_calls_emit_no_command_beyond_a_limit() -> None:
    storm = Storm(2026).run(20_000)
    assert storm.commands > 12_000
    assert storm.accepted > 800
    assert storm.emitted.states[State.MOVING] > 5_000
    assert (storm.emitted.worst > [0.5, 0.9, 0.95]).all()
    seen = set(storm.guard.counts)
    assert seen >= {Cause.SHAPE, Cause.NOT_FINITE, Cause.CLOCK, Cause.STALL, Cause.CLAMPS, Cause.STEP, Cause.LATE}


@pytest.mark.parametrize("name", STORMS)
def test_the_limits_hold_at_other_rates_and_with_other_axes(name: str) -> None:
    storm = Storm(7, **STORMS[name]).run(1500)
    assert storm.commands > 500


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_random_and_hostile_calls_emit_no_command_beyond_a_limit() -> None:
    tasks = [(name, seed, 25_000) for seed in range(5) for name in STORMS]
    with ProcessPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        commands = list(pool.map(_storm, tasks))
    assert sum(calls for _, _, calls in tasks) == 1_000_000
    assert sum(commands) > 400_000


def _storm(task: tuple[str, int, int]) -> int:
    name, seed, calls = task
    return Storm(100 + seed, **STORMS[name]).run(calls).commands


# --- any limits, any path ---------------------------------------------------------------------------------------------------

limits = st.fixed_dictionaries(
    {
        "velocity": st.floats(0.05, 10),
        "acceleration": st.floats(0.2, 100),
        "jerk": st.floats(2, 5000),
    }
)
paths = st.lists(st.lists(st.floats(-2.5, 2.5), min_size=3, max_size=3), min_size=1, max_size=12)


@given(limits, paths, st.sampled_from([0.005, 0.02, 0.1, 0.5]), st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_any_path_is_driven_within_any_limits_at_any_override(
    bounds: dict[str, float], path: list[list[float]], interval_s: float, shares: list[float]
) -> None:
    axes = arm_axes(3, **bounds)
    motion, emitted = Motion(Axes(axes), 0.01, np.full(3, 0.003)), Rows(axes)
    assert motion.extend(motion.splice(replace=False), np.array(path), np.full(len(path), interval_s))
    for tick in range(400):
        emitted.add(motion.advance(shares[tick // 20 % len(shares)]))
    while not motion.at_rest:
        emitted.add(motion.advance(0.0))
    np.testing.assert_array_equal(motion.velocity, 0)


class Rows:
    """Positions from rest at zero, checked by finite differences."""

    def __init__(self, axes: tuple[Axis, ...]) -> None:
        self._limits = Emitted(axes).limits
        self.rows: list[FloatArray] = [np.zeros(len(axes))] * 3

    def add(self, position: FloatArray) -> None:
        self.rows.append(position.copy())
        last = np.array(self.rows[-4:])
        used = [np.abs(np.diff(last, n, axis=0)[-1]).max() / self._limits[n - 1].min() for n in (1, 2, 3)]
        assert max(used) <= 1 + 1e-6


@given(paths)
@settings(max_examples=15, deadline=None)
def test_every_target_is_visited_in_its_order_and_the_last_one_exactly(path: list[list[float]]) -> None:
    axes, targets = arm_axes(3), np.array(path)
    motion = Motion(Axes(axes), 0.01, np.full(3, 0.003))
    assert motion.extend(motion.splice(replace=False), targets, np.full(len(path), 0.1))
    positions = []
    while not (motion.done and motion.at_rest):
        positions.append(motion.advance(1.0).copy())
        assert len(positions) < 200 * (len(path) + 2)
    # within the blend, and half the way of a tick at the velocity limit
    for target in targets:
        assert np.abs(np.array(positions) - target).max(axis=1).min() < 0.003 + 3.5 * 0.01 / 2 + 1e-9
    np.testing.assert_allclose(positions[-1], targets[-1], atol=1e-12)


@given(limits, paths, st.sampled_from([0.01, 0.05, 0.2]), st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_no_path_override_or_limit_leaves_the_robot_standing_on_its_way(
    bounds: dict[str, float], path: list[list[float]], interval_s: float, share: float
) -> None:
    motion = Motion(Axes(arm_axes(3, **bounds)), 0.01, np.full(3, 0.003))
    motion.extend(motion.splice(replace=False), np.array(path), np.full(len(path), interval_s))
    stood, tick = 0, 0
    while not motion.done and tick < 3000:
        place, tick = motion.s, tick + 1
        motion.advance(share)
        stood = 0 if motion.s > place else stood + 1
        assert stood < 40, (motion.s, tick)


@given(st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_nothing_beyond_the_targets_is_passed_but_on_smooth_turns(rows: int, seed: int) -> None:
    targets = np.cumsum(np.random.default_rng(seed).choice([-0.3, 0.0, 0.3], (rows, 3)), axis=0)
    motion = Motion(Axes(arm_axes(3, low=-9.0, high=9.0)), 0.01, np.full(3, 0.003))
    motion.extend(motion.splice(replace=False), targets, np.full(rows, 0.1))
    points = motion.path.points[: motion.path.count]
    over = 0.3 * 2 / 8 if rows > 3 else 0.0
    assert (points <= np.maximum(targets.max(axis=0), 0) + over + 1e-12).all()
    assert (points >= np.minimum(targets.min(axis=0), 0) - over - 1e-12).all()


# --- quality ----------------------------------------------------------------------------------------------------------------


def sway(seconds: float, speed: float = 2.0) -> FloatArray:
    return np.asarray(0.4 * (np.sin(speed * seconds + np.arange(7)) - np.sin(np.arange(7))))


def test_a_chunk_within_the_limits_is_driven_in_its_own_time() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(7)))
    robot.tick(3)
    chunk = np.array([sway(0.1 * (k + 1), 1.0) for k in range(60)])
    robot.submit(chunk, interval_ns=100_000_000)
    robot.tick(620)
    assert robot.guard.pending == 0
    wanted = np.array([sway(tick * 0.01, 1.0) for tick in range(-2, 597)])
    assert np.abs(robot.at[:599] - wanted)[200:].max() < 0.015


def test_replanned_chunks_join_without_hiccups() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(7)))
    robot.tick(3)
    for _ in range(50):
        times = robot.now_ns + np.arange(1, 17) * 100_000_000
        robot.submit(np.array([sway(float(at) / 1e9) for at in times]), due_ns=times)
        robot.tick(10)
    wanted = np.array([sway(at * 0.01) for at in range(1, len(robot.at) + 1)])
    assert np.abs(robot.at - wanted)[200:].max() < 0.04
    assert robot.guard.counts[Cause.SCALED] < 60


def test_targets_streamed_one_by_one_are_followed_smoothly() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(7)))
    robot.tick(3)
    for _ in range(300):
        robot.submit(sway(robot.now_ns / 1e9), interval_ns=20_000_000, replace=False)
        robot.tick(2)
    wanted = np.array([sway(max(0.0, at * 0.01 - 0.12)) for at in range(1, len(robot.at) + 1)])
    assert np.abs(robot.at - wanted)[200:].max() < 0.04


@pytest.mark.parametrize("every", [1, 2, 5, 10])
@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8])
def test_a_stream_that_the_limits_allow_is_followed_at_its_speed(speed: float, every: int) -> None:
    axes = arm_axes(2, velocity=1.0, acceleration=2.0, jerk=20.0, step=9.0)
    robot = Robot(Guard(GuardConfig(following=None), axes))
    robot.tick(5)
    for tick in range(300):
        if tick % every == 0:
            target = np.array([1.0, -0.5]) * speed * tick * 0.01
            assert robot.guard.submit(robot.now_ns, target, interval_ns=every * 10_000_000)
        robot.tick()
    passed = robot.at[-1] - robot.at[-151]
    behind = np.array([1.0, -0.5]) * speed * 2.99 - robot.at[-1]
    assert abs(passed[0]) >= 0.9 * speed * 1.5
    assert passed[1] == pytest.approx(-passed[0] / 2)
    assert np.abs(behind).max() / speed < 0.9


def test_a_stop_at_full_speed_takes_little_longer_than_the_limits_ask_for() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(1, low=-90.0, high=90.0, step=90.0)))
    robot.tick(3)
    robot.submit(np.linspace(0.2, 60, 300)[:, None], interval_ns=50_000_000)
    robot.tick(150)
    assert abs(float(robot.commands[-1].velocity[0])) > 3.3
    robot.guard.stop(robot.now_ns)
    ideal_s = 3.5 / 20 + 20 / 400
    assert (robot.rest() - 6) * 0.01 < 1.5 * ideal_s
