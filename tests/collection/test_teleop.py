"""Keys and joystick become commands within the guard's limits; nothing moves without them."""

from __future__ import annotations

import numpy as np
import pytest
from driven_robots import WALL_NS, DrivenArm, joy
from guard_checks import FloatArray

from lehrling.collection.teleop import Teleop, operator_name
from lehrling.collection.teleop_keys import LEVELS, JoyMap, Word, groups_of
from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import DamageError, InputError
from lehrling.deploy.guard_events import Cause, State
from lehrling.deploy.guard_link import GuardLink

MS = 1_000_000
DEADMAN = [0, 0, 0, 0, 1]


def arm() -> tuple[Teleop, DrivenArm]:
    teleop = Teleop.of(load_embodiment("arm6"), "Kim")
    teleop.level, robot = 6, DrivenArm(teleop.link)
    robot.run(3, teleop.tick)
    return teleop, robot


def hold(teleop: Teleop, robot: DrivenArm, key: str, ticks: int) -> None:
    """Hold a key as a terminal tells it: every 30 ms."""
    for tick in range(ticks):
        if tick % 3 == 0:
            teleop.key(key, robot.now_ns)
        robot.run(1, teleop.tick)


@pytest.mark.parametrize(("key", "axis", "sign"), [("w", 0, 1), ("s", 0, -1), ("a", 1, 1), ("d", 1, -1), ("r", 2, 1)])
def test_a_key_held_moves_its_axis_at_the_chosen_speed_and_no_other(key: str, axis: int, sign: int) -> None:
    teleop, robot = arm()
    start = robot.pose.copy()
    hold(teleop, robot, key, 85)
    assert robot.commands[-1].velocity[axis] == pytest.approx(sign * 0.24, rel=0.05)
    moved = robot.pose - start
    assert moved[axis] * sign > 0.08
    np.testing.assert_allclose(np.delete(moved, axis), 0, atol=1e-9)


def test_after_the_key_is_let_go_the_robot_stands_soon_and_stays() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 80)
    let_go = robot.pose[0]
    robot.run(80, teleop.tick)
    stood = robot.pose.copy()
    assert 0 < stood[0] - let_go < 0.25 * 0.15 + 0.06
    robot.run(200, teleop.tick)
    np.testing.assert_array_equal(robot.pose, stood)
    assert robot.commands[-1].state is State.WAITING


def test_one_press_is_a_nudge() -> None:
    teleop, robot = arm()
    teleop.key("w", robot.now_ns)
    robot.run(150, teleop.tick)
    assert 0.002 < robot.pose[0] - 0.4 < 0.04


def test_without_a_key_nothing_is_published() -> None:
    teleop, robot = arm()
    robot.run(300, teleop.tick)
    assert robot.sent == []


def test_commands_come_at_the_rate_that_the_binding_names() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 101)
    times = robot.times("/tcp_command")
    assert set(np.diff(times)) == {5}
    assert len(times) in (20, 21)


def test_the_gripper_is_left_alone_until_it_is_asked_for() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 30)
    assert robot.times("/gripper_command") == []
    assert teleop.key("g", robot.now_ns) == "closing"
    robot.run(100, teleop.tick)
    assert robot.gripper == pytest.approx(-1.0)
    before = robot.pose.copy()
    assert teleop.key("h", robot.now_ns) == "opening"
    robot.run(100, teleop.tick)
    assert robot.gripper == pytest.approx(1.0)
    np.testing.assert_allclose(robot.pose, before, atol=1e-9)


def test_a_turn_keeps_the_position_and_turns_the_tool() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "j", 60)
    robot.run(60, teleop.tick)
    np.testing.assert_allclose(robot.pose[:3], [0.4, 0.1, 0.2], atol=1e-9)
    turned = 2 * np.arccos(min(1.0, abs(float(robot.pose[3:] @ [0, 1, 0, 0]))))
    assert 0.3 < turned < 1.2


def test_at_the_end_of_the_workspace_the_robot_stops_without_a_clamp() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 400)
    assert robot.pose[0] == pytest.approx(0.7, abs=1e-6)
    assert teleop.guard.counts[Cause.CLAMPED] == 0
    hold(teleop, robot, "s", 60)
    assert robot.pose[0] < 0.66


def test_speed_steps_change_the_speed() -> None:
    teleop, robot = arm()
    for _ in range(4):
        said = teleop.key("-", robot.now_ns)
    assert said == f"speed {100 * LEVELS[2]:g} %"
    hold(teleop, robot, "w", 80)
    assert robot.commands[-1].velocity[0] == pytest.approx(0.25 * LEVELS[2], rel=0.05)
    for _ in range(20):
        teleop.key("+", robot.now_ns)
    assert teleop.speed == 1.0


def test_space_halts_and_motion_needs_a_new_press() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 60)
    teleop.key(" ", robot.now_ns)
    robot.run(80, teleop.tick)
    stood = robot.pose.copy()
    robot.run(100, teleop.tick)
    np.testing.assert_array_equal(robot.pose, stood)


def test_a_stop_latches_until_the_operator_resets_it() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 60)
    assert "R resets" in teleop.key("x", robot.now_ns)
    robot.run(80, teleop.tick)
    stood = robot.pose.copy()
    hold(teleop, robot, "w", 60)
    np.testing.assert_array_equal(robot.pose, stood)
    assert "latched (protective stop request)" in teleop.trouble()
    assert teleop.key("R", robot.now_ns) == "the stop is reset"
    hold(teleop, robot, "w", 60)
    assert robot.pose[0] > stood[0] + 0.02


def test_a_robot_that_no_longer_tells_where_it_is_stops() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 60)
    robot.deaf = True
    hold(teleop, robot, "w", 150)
    assert teleop.guard.latch.cause == Cause.OBSERVATION


def test_a_joystick_moves_the_robot_only_while_its_deadman_is_held() -> None:
    teleop, robot = arm()
    for _ in range(50):
        teleop.joy(joy([0.0, 0.5, 0, 0, 0], [0] * 9), robot.now_ns)
        robot.run(1, teleop.tick)
    assert robot.sent == []
    for _ in range(80):
        teleop.joy(joy([0.0, 0.5, 0, 0, 0], DEADMAN), robot.now_ns)
        robot.run(1, teleop.tick)
    assert robot.commands[-1].velocity[0] == pytest.approx(0.125, rel=0.05)
    teleop.joy(joy([0.0, 0.5, 0, 0, 0], [0] * 9), robot.now_ns)
    robot.run(40, teleop.tick)
    assert np.abs(robot.commands[-1].velocity).max() == 0


def test_a_joystick_that_falls_silent_stops_the_robot() -> None:
    teleop, robot = arm()
    for _ in range(80):
        teleop.joy(joy([0.0, 0.5, 0, 0, 0], DEADMAN), robot.now_ns)
        robot.run(1, teleop.tick)
    robot.run(70, teleop.tick)
    assert np.abs(robot.commands[-1].velocity).max() == 0


def test_joystick_buttons_count_once_and_a_small_deflection_is_none() -> None:
    teleop, robot = arm()
    assert teleop.joy(joy([0.0] * 5, [1, 0, 0, 0, 0]), robot.now_ns) == "closing"
    assert teleop.joy(joy([0.0] * 5, [1, 0, 0, 0, 0]), robot.now_ns) == ""
    assert JoyMap().deflections([0.05, -0.05, 0, 0.09, 0]) == {}
    assert JoyMap().deflections([float("nan"), 1.0]) == {"x": 1.0}
    with pytest.raises(DamageError):
        teleop.joy(b"\x00\x01", robot.now_ns)


# --- humanoid: joints and a base ------------------------------------------------------------------------------------------


def humanoid() -> tuple[Teleop, list[tuple[str, bytes]], FloatArray]:
    teleop = Teleop.of(load_embodiment("humanoid"), "Kim")
    teleop.level = 6
    return teleop, [], np.zeros(43)


def run_humanoid(
    teleop: Teleop, sent: list[tuple[str, bytes]], joints: FloatArray, key: str, ticks: int, start: int
) -> None:
    names = teleop.link.layout.embodiment.contract.stream("joint_position").names
    for tick in range(start, start + ticks):
        now_ns = tick * 10 * MS
        for topic, members in (("/body/joint_states", names[:31]), ("/hands/joint_states", names[31:])):
            position = joints[: len(members)] if topic.startswith("/body") else joints[31:]
            cdr = messages.joint_state(members, position, [], [], WALL_NS + now_ns)
            teleop.link.hear(topic, cdr, now_ns, WALL_NS + now_ns)
        if key and tick % 3 == 0:
            teleop.key(key, now_ns)
        for message in teleop.tick(now_ns, WALL_NS + now_ns)[1]:
            sent.append((message.topic, message.cdr))
            if message.topic == "/joint_commands":
                joints[:] = messages.decode(message.cdr, message.type).position


def test_a_chosen_joint_moves_and_all_joints_are_commanded_by_name() -> None:
    teleop, sent, joints = humanoid()
    assert [group.name for group in teleop.groups][-1] == "base_twist"
    assert teleop.chosen == "left_leg: left_hip_pitch"
    assert teleop.key("n", 0) == "left_leg: left_hip_roll"
    run_humanoid(teleop, sent, joints, "w", 150, 1)
    assert joints[1] > 0.3
    np.testing.assert_allclose(np.delete(joints, 1), 0, atol=1e-9)
    decoded = messages.decode(
        sent[-1][1] if sent[-1][0] == "/joint_commands" else sent[-2][1], "sensor_msgs/msg/JointState"
    )
    assert len(decoded.name) == 43
    assert len(decoded.velocity) == 43


def test_the_base_drives_while_its_key_is_held_and_its_last_command_is_zero() -> None:
    teleop, sent, joints = humanoid()
    while teleop.chosen != "base_twist":
        teleop.key("\t", 0)
    run_humanoid(teleop, sent, joints, "w", 150, 1)
    twists = [
        messages.decode(cdr, "geometry_msgs/msg/TwistStamped").twist for topic, cdr in sent if topic == "/cmd_vel"
    ]
    assert twists[-1].linear.x == pytest.approx(0.25, rel=0.05)
    run_humanoid(teleop, sent, joints, "", 300, 151)
    last = [messages.decode(cdr, "geometry_msgs/msg/TwistStamped").twist for topic, cdr in sent if topic == "/cmd_vel"][
        -1
    ]
    assert last.linear.x == 0
    assert not teleop.guard.engaged


def test_quitting_lets_the_robot_come_to_rest() -> None:
    teleop, robot = arm()
    hold(teleop, robot, "w", 60)
    teleop.key("q", robot.now_ns)
    assert teleop.quitting
    robot.run(60, teleop.tick)
    assert np.abs(robot.commands[-1].velocity).max() == 0


def test_keys_without_a_meaning_do_nothing() -> None:
    teleop, robot = arm()
    for key in "éz1\x00\n":
        assert teleop.key(key, robot.now_ns) == ""
    robot.run(20, teleop.tick)
    assert robot.sent == []


def test_an_operator_has_a_name() -> None:
    assert operator_name(" Kim ") == "Kim"
    assert operator_name("")


def test_a_robot_with_nothing_to_drive_is_refused() -> None:
    link = GuardLink.of(load_embodiment("arm6"), streams=["gripper_command"])
    with pytest.raises(InputError, match="Expected joints, a pose or a twist"):
        groups_of(link.layout)


def test_each_word_has_one_key_at_least() -> None:
    from lehrling.collection.teleop_keys import WORDS

    assert set(WORDS.values()) == set(Word)
