"""Each row of the guard's table: its default, and that it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guard_checks import AXES, FREE, MS, FloatArray, Robot, arm_axes, guarded, moving, wave
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.errors import ContractError
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axis
from lehrling.deploy.guard_claim import Claim
from lehrling.deploy.guard_events import Cause, State
from lehrling.deploy.guard_limits import ByUnit, Freshness, GuardConfig

property_test = settings(max_examples=12, deadline=None)


# --- numbers, shape -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_refuses_the_whole_chunk_and_holds(bad: float) -> None:
    robot = moving(guarded())
    chunk = wave(5)
    chunk[3, 2] = bad
    answer = robot.submit(chunk)
    assert (answer.accepted, answer.cause) == (False, Cause.NOT_FINITE)
    assert "Target 3 of axis 'joint3'" in answer.text
    robot.rest()
    assert robot.state() is State.HOLDING
    assert robot.submit(robot.position + 0.01)
    robot.tick(5)
    assert robot.state() is State.MOVING


@pytest.mark.parametrize(
    "bad", [np.zeros(5), np.zeros((0, 6)), np.zeros((2, 3, 6)), "x", None, [[1.0], [1.0, 2.0]], {}]
)
def test_what_has_no_shape_of_a_command_is_refused_with_what_was_expected(bad: Any) -> None:
    robot = guarded()
    answer = robot.submit(bad)
    assert (answer.accepted, answer.cause) == (False, Cause.SHAPE)
    assert "(6,)" in answer.text


def test_a_chunk_longer_than_allowed_is_refused() -> None:
    assert guarded(chunk_max=8).submit(wave(9)).cause is Cause.SHAPE


@pytest.mark.parametrize(
    "times",
    [
        {"interval_ns": 0},
        {"interval_ns": 10**12},
        {"due_ns": [1, 2, 3]},
        {"due_ns": [0.5]},
        {"due_ns": [10**12 * k for k in range(4)]},
        {"due_ns": [50 * MS * k for k in range(1, 3)]},
    ],
)
def test_times_that_make_no_schedule_are_refused(times: dict[str, Any]) -> None:
    assert guarded().submit(wave(4), **times).cause is Cause.SHAPE


# --- range --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=AXES, max_size=AXES), st.integers(0, 5))
@property_test
def test_no_command_leaves_the_range_less_its_margin(target: list[float], repeats: int) -> None:
    robot = guarded(FREE, first_move=ByUnit(rad=1e9, m=1), clamps_max=1000)
    for _ in range(repeats + 1):
        robot.submit(np.array(target))
        robot.tick(20)
    robot.rest()
    np.testing.assert_allclose(robot.position, np.clip(target, -3.0, 3.0), atol=1e-9)
    assert np.abs(robot.at).max() <= 3.0 + 1e-9


def test_targets_beyond_the_range_are_clamped_counted_and_after_so_many_the_robot_stops_but_not_for_its_margin() -> (
    None
):
    robot = moving(guarded(FREE, clamps_max=4))
    assert robot.submit(np.full((9, AXES), 3.05))
    robot.guard.counts.clear()
    over = np.full(AXES, 3.15)
    for count in range(1, 4):
        assert robot.submit(over)
        assert robot.guard.counts[Cause.CLAMPED] == count
    answer = robot.submit(over)
    assert (answer.accepted, answer.cause) == (False, Cause.CLAMPS)
    robot.rest()
    assert robot.state() is State.STOPPED
    assert robot.guard.latch.cause == Cause.CLAMPS


def test_targets_at_the_very_ends_of_the_range_give_no_command_beyond_them() -> None:
    ends = np.linspace(0.1, 3.0, 13)
    limits: dict[str, Any] = {"margin": 0.0, "velocity": 3.5, "acceleration": 20.0, "jerk": 400.0}
    axes = (*(Axis(f"end{end:.2f}", low=-end, high=3.0, **limits) for end in ends), *arm_axes(1))
    start = np.array([*-ends, 0.0])
    robot = Robot(Guard(GuardConfig(), axes), start)
    robot.tick(3)
    assert robot.submit(start + np.outer(np.linspace(0, 1.5, 20), np.eye(14)[13]), interval_ns=70 * MS)
    robot.rest()
    assert robot.guard.counts[Cause.CLAMPED] == 0
    np.testing.assert_allclose(robot.position[:13], -ends, rtol=1e-12)


def test_clamps_long_ago_do_not_stop_the_robot() -> None:
    robot = guarded(FREE, clamps_max=2, clamp_window_s=0.05, first_move=ByUnit(rad=9, m=9))
    for _ in range(6):
        assert robot.submit(np.full(AXES, 3.15))
        robot.tick(10)


def test_a_normalised_axis_is_clamped_without_being_counted() -> None:
    axes = (*arm_axes(1), Axis("gripper", "1", -1, 1, measured=False))
    robot = guarded(axes, clamps_max=1)
    assert robot.submit([0.0, 1.2])
    robot.rest()
    assert robot.position[1] == pytest.approx(1.0)
    assert robot.guard.counts[Cause.CLAMPED] == 0


# --- step cap, first move -----------------------------------------------------------------------------------------------


def test_a_step_larger_than_the_cap_is_shortened_and_keeps_its_direction() -> None:
    robot = guarded(arm_axes(AXES, step=0.1), first_move=ByUnit(rad=9, m=9))
    assert robot.submit([0.4, -0.2, 0, 0, 0, 0])
    robot.rest()
    np.testing.assert_allclose(robot.position, [0.1, -0.05, 0, 0, 0, 0], atol=1e-9)
    assert robot.guard.counts[Cause.STEP] == 1


@given(st.floats(0.201, 6), st.integers(0, AXES - 1))
@property_test
def test_motion_does_not_start_towards_a_target_far_from_where_the_robot_is(distance: float, axis: int) -> None:
    robot = guarded()
    target = np.zeros(AXES)
    target[axis] = distance
    answer = robot.submit(target)
    assert answer.cause is Cause.FIRST_MOVE
    assert f"joint{axis + 1}" in answer.text
    robot.tick(10)
    assert not any(command.publish for command in robot.commands)


def test_a_target_far_away_is_fine_once_the_robot_moves() -> None:
    robot = guarded(FREE)
    assert robot.submit(np.full(AXES, 0.1))
    robot.tick(5)
    assert robot.submit(np.full(AXES, 2.0))
    robot.rest()
    np.testing.assert_allclose(robot.position, 2.0)


def test_a_robot_outside_of_its_range_is_not_taken_over() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(AXES)), np.full(AXES, 3.4))
    robot.tick(3)
    answer = robot.submit(np.full(AXES, 3.35))
    assert answer.cause is Cause.FIRST_MOVE
    assert "outside of its range" in answer.text


def test_a_robot_moved_by_hand_is_taken_over_where_it_is() -> None:
    robot = moving(guarded())
    robot.guard.drop()
    robot.tick(200)
    assert robot.state() is State.WAITING
    robot.position = robot.position + 0.5
    robot.tick()
    assert robot.submit(robot.position + 0.05)
    command = robot.tick()
    assert Cause.RESYNC in [event.cause for event in command.events]
    assert np.abs(command.position - robot.position).max() < 0.01


def test_what_a_drive_lags_behind_does_not_add_up_over_many_starts() -> None:
    robot = guarded()
    for _ in range(3):
        robot.submit(np.full(AXES, 0.1))
        robot.tick(200)
        sagged = robot.position
        robot.position = sagged - 0.01
        robot.tick(1)
        robot.position = robot.guard.position
    np.testing.assert_allclose(robot.position, 0.1, atol=1e-12)


# --- velocity, acceleration, jerk: see test_guard_motion.py -----------------------------------------------------------------


# --- observations -------------------------------------------------------------------------------------------------------


def test_without_an_observation_nothing_moves() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(AXES)))
    robot.seen = False
    robot.tick(3)
    assert robot.submit(np.zeros(AXES)).cause is Cause.OBSERVATION


def test_a_stale_observation_holds_and_then_stops() -> None:
    robot = moving(guarded())
    robot.seen = False
    robot.tick(19)
    assert robot.state() is State.MOVING
    robot.tick(5)
    assert (robot.state(), robot.commands[-1].cause) == (State.HOLDING, Cause.OBSERVATION)
    robot.rest()
    assert robot.guard.latch.cause == ""
    robot.tick(100)
    assert robot.guard.latch.cause == Cause.OBSERVATION
    assert robot.state() is State.STOPPED


def test_motion_goes_on_when_observations_come_back_in_time() -> None:
    robot = moving(guarded())
    robot.seen = False
    robot.tick(50)
    robot.seen = True
    robot.rest()
    np.testing.assert_allclose(robot.position, wave(40)[-1], atol=1e-9)


def test_an_observation_that_repeats_its_stamp_is_a_frozen_robot() -> None:
    robot = moving(guarded())
    robot.seen, stamp = False, robot.now_ns
    for _ in range(30):
        assert not robot.guard.observe(robot.now_ns, robot.position, stamp)
        robot.tick()
    assert robot.commands[-1].cause is Cause.OBSERVATION


def test_an_observation_from_the_future_does_not_count() -> None:
    robot = guarded()
    assert not robot.guard.observe(robot.now_ns, robot.position, robot.now_ns + 10**10)


@pytest.mark.parametrize("bad", [[np.nan] * AXES, [0.0], "x", [np.inf] * AXES])
def test_a_measured_position_that_is_no_finite_vector_does_not_count(bad: Any) -> None:
    robot = guarded()
    assert not robot.guard.observe(robot.now_ns + 1, bad, robot.now_ns + 1)
    assert robot.guard.counts[Cause.NOT_FINITE] == 1


def test_each_camera_must_be_fresh() -> None:
    sources = {"joints": Freshness(hold_ms=200, stop_ms=1000), "front": Freshness(hold_ms=100, stop_ms=300)}
    robot = guarded(sources=sources)
    assert "front" in robot.submit(np.zeros(AXES)).text
    robot.guard.saw(robot.now_ns, "front", robot.now_ns)
    robot = moving_after(robot)
    robot.tick(15)
    assert robot.commands[-1].cause is Cause.OBSERVATION
    robot.rest()
    robot.tick(40)
    assert robot.guard.latch.cause == Cause.OBSERVATION


def moving_after(robot: Robot) -> Robot:
    assert robot.submit(wave(40), interval_ns=100 * MS)
    return robot


def test_a_robot_that_does_not_follow_is_stopped() -> None:
    robot = moving(guarded(following=ByUnit(rad=0.1, m=0.1)))
    robot.seen = False
    stuck = robot.position.copy()
    for _ in range(60):
        robot.guard.observe(robot.now_ns, stuck, robot.now_ns)
        robot.tick()
    assert robot.guard.latch.cause == Cause.FOLLOWING
    assert np.abs(robot.at[-1] - stuck).max() < 0.2


# --- speed override, velocity axes, contract --------------------------------------------------------------------------------


@given(st.floats(15, 99))
@settings(max_examples=6, deadline=None)
def test_a_speed_override_scales_time_and_leaves_the_path(percent: float) -> None:
    full, slow = guarded(), guarded()
    slow.guard.override(slow.now_ns, percent)
    for robot in (full, slow):
        assert robot.submit(wave(10), interval_ns=100 * MS)
    ticks_full, ticks_slow = full.rest(), slow.rest(20_000)
    assert ticks_slow >= 0.9 * ticks_full * 100 / percent - 60
    assert farthest(slow.at, full.at) < 2e-4
    for target in wave(10):
        assert np.abs(np.array(slow.at) - target).max(axis=1).min() < 0.012
    np.testing.assert_allclose(slow.position, full.position, atol=1e-12)


def farthest(points: list[FloatArray], polyline: list[FloatArray]) -> float:
    """How far the points are from the polyline, at most."""
    a, b = np.array(polyline[:-1]), np.array(polyline[1:])
    way = b - a
    worst = 0.0
    for point in points:
        share = np.clip(((point - a) * way).sum(1) / np.maximum((way * way).sum(1), 1e-30), 0, 1)
        worst = max(worst, float(np.linalg.norm(a + share[:, None] * way - point, axis=1).min()))
    return worst


def test_an_override_of_zero_pauses_and_goes_on_with_the_same_path() -> None:
    robot = moving(guarded())
    robot.guard.override(robot.now_ns, 0)
    robot.rest()
    assert (robot.state(), robot.commands[-1].cause) == (State.HOLDING, Cause.OVERRIDE)
    robot.tick(300)
    robot.guard.override(robot.now_ns, 100)
    robot.rest()
    np.testing.assert_allclose(robot.position, wave(40)[-1], atol=1e-9)


@pytest.mark.parametrize("percent", [-1, 101, np.nan, np.inf])
def test_an_override_that_is_no_percentage_is_refused(percent: float) -> None:
    robot = guarded()
    assert not robot.guard.override(robot.now_ns, percent)
    assert robot.tick().override == 1.0


def base() -> tuple[Axis, ...]:
    limits: dict[str, Any] = {"velocity": 0.5, "acceleration": 1.0, "jerk": 10.0, "is_velocity": True}
    return (Axis("vx", "m", **limits), Axis("wz", "rad", **limits))


def test_an_axis_of_velocities_reaches_what_was_asked_for_and_is_zero_when_targets_end() -> None:
    robot = guarded(base())
    assert robot.submit(np.tile([0.3, -0.2], (40, 1)))
    robot.tick(120)
    np.testing.assert_allclose(robot.commands[-1].velocity, [0.3, -0.2], rtol=0.02)
    robot.rest()
    np.testing.assert_allclose(robot.commands[-1].velocity, 0, atol=1e-12)


@pytest.mark.parametrize("how", ["stop", "release", "leave", "override"])
def test_whatever_ends_motion_brings_velocities_to_zero(how: str) -> None:
    robot = guarded(base())
    assert robot.submit(np.tile([0.3, -0.2], (60, 1)))
    robot.tick(100)
    robot.enabled = how != "release"
    robot.present = how != "leave"
    if how == "stop":
        robot.guard.stop(robot.now_ns)
    elif how == "release":
        robot.guard.release()
    elif how == "leave":
        robot.guard.leave()
    else:
        robot.guard.override(robot.now_ns, 0)
    assert robot.rest() < 90
    np.testing.assert_allclose(robot.commands[-1].velocity, 0, atol=1e-12)


def claim(**changes: Any) -> Claim:
    names = tuple(axis.name for axis in arm_axes(AXES))
    facts = {"contract_hash": "c" * 64, "names": names, "units": ("rad",) * AXES, "statistics_hash": "s" * 64}
    return Claim(**(facts | changes))


def test_nothing_moves_before_the_contract_was_checked() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(AXES), claim()))
    robot.tick(3)
    assert robot.submit(np.zeros(AXES)).cause is Cause.CONTRACT
    robot.guard.accept(claim())
    assert robot.submit(np.zeros(AXES))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contract_hash": "d" * 64}, "contract with hash cccccccccccc…, got dddddddddddd…"),
        ({"statistics_hash": ""}, "statistics with hash ssssssssssss…, got none"),
        ({"model_hash": "m" * 64}, "model with hash none, got mmmmmmmmmmmm…"),
        ({"units": ("deg",) * AXES}, "Expected 'joint1' in rad, got deg"),
        ({"units": ("rad",)}, "Expected 6 units, one per axis, got 1"),
        (
            {"names": tuple(f"joint{n}" for n in (2, 1, 3, 4, 5, 6))},
            "Expected 'joint1' as element 0 of a command, got 'joint2'",
        ),
        ({"names": tuple(f"joint{n}" for n in (1, 2, 3, 4, 5, 7))}, "joint6 missing, joint7 not among them"),
    ],
)
def test_a_contract_that_differs_is_refused_with_what_differs(changes: dict[str, Any], words: str) -> None:
    guard = Guard(GuardConfig(), arm_axes(AXES), claim())
    with pytest.raises(ContractError, match="Expected") as caught:
        guard.accept(claim(**changes))
    assert words in str(caught.value)


def test_a_client_that_left_must_show_its_contract_again() -> None:
    robot = Robot(Guard(GuardConfig(), arm_axes(AXES), claim()))
    robot.guard.accept(claim())
    robot.guard.leave()
    robot.tick(3)
    assert robot.submit(np.zeros(AXES)).cause is Cause.CONTRACT


# --- queue --------------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_more_and_takes_it_again_when_targets_were_reached() -> None:
    robot = guarded()
    for _ in range(40):
        answer = robot.submit(wave(200, 0.1, 0.0), interval_ns=100 * MS, replace=False)
        if not answer:
            break
    assert answer.cause is Cause.QUEUE
    robot.guard.drop()
    assert robot.submit(wave(20))


def test_appended_targets_are_all_visited_in_their_order() -> None:
    robot, path = guarded(), wave(60)
    for start in range(0, 60, 6):
        assert robot.submit(path[start : start + 6], interval_ns=50 * MS, replace=False)
        robot.tick(20)
    robot.rest()
    near = [int(np.abs(np.array(robot.at) - target).max(axis=1).argmin()) for target in path]
    assert near == sorted(near)
    assert max(np.abs(np.array(robot.at) - target).max(axis=1).min() for target in path) < 0.02
    assert robot.guard.pending == 0
    assert robot.guard.queued_s == 0
