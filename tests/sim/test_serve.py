"""The served robot without ROS: schedule, rates, commands, resets, pauses, slowness."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sim_serving import EPOCH_NS, served

from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.sim.catalogue import make_station
from lehrling.sim.record import demonstrate
from lehrling.sim.seeding import Seeds
from lehrling.sim.serve import SimRobot, check_factor
from lehrling.sim.variants import in_namespace, parse_namespace, parse_size, with_raw_images

JOINTS, POSE, CLOCK = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped", "rosgraph_msgs/msg/Clock"
COMPRESSED, FRONT = "sensor_msgs/msg/CompressedImage", "/front/image_raw/compressed"
MS = 1_000_000


def pose(x: float, y: float, z: float, frame: str = "cell") -> bytes:
    return messages.pose_stamped((x, y, z), (0, 1, 0, 0), 0, frame)


def test_every_topic_of_the_embodiment_is_offered_with_its_type_and_the_usual_quality_of_service() -> None:
    with served() as robot:
        found = {topic.name: (topic.type, topic.qos) for topic in robot.robot.topics}
        bound = load_embodiment("arm6").binding.topics
        assert found.keys() | robot.robot.commands.keys() == bound.keys() | {
            "/task_success",
            "/task_instruction",
            "/robot_description",
        }
        assert all(bound.get(name, msgtype) == msgtype for name, (msgtype, _) in found.items())
        assert robot.robot.commands == {"/tcp_command": POSE, "/gripper_command": JOINTS}
        assert (found[FRONT][1], found["/joint_states"][1]) == ("sensor", "reliable")
        assert {found[t][1] for t in ("/task_success", "/task_instruction", "/robot_description")} == {"latched"}


def test_streams_come_at_their_rates_stamped_by_the_wall_clock_and_arrive_after_their_latency() -> None:
    with served() as robot:
        begun = robot.clock.wall_ns()
        robot.run(2)
        for topic, msgtype, period_ms, latency_ms in (
            ("/joint_states", JOINTS, 10, 2.0),
            ("/tcp_pose", POSE, 10, 2.0),
            (FRONT, COMPRESSED, 100, 30.0),
        ):
            stamps = robot.sent.stamps(topic, msgtype)
            assert stamps[0] == begun > EPOCH_NS
            assert set(np.diff(stamps)) == {period_ms * MS}
            late = (np.array([at for at, _ in robot.sent.rows[topic]]) - stamps) / 1e6
            assert latency_ms <= late.min() < late.max() <= 1.2 * latency_ms + 0.001
            assert late.max() - late.min() > 0.1 * latency_ms


def test_a_real_time_factor_of_two_takes_half_the_time_and_doubles_the_rates() -> None:
    with served(factor=2.0) as robot:
        begun = robot.clock.now_ns
        robot.run(1)
        assert robot.clock.now_ns - begun == pytest.approx(500 * MS, abs=6 * MS)
        assert set(np.diff(robot.sent.stamps("/joint_states", JOINTS))) == {5 * MS}


def test_sim_time_stamps_with_the_clock_topic_which_goes_on_over_resets() -> None:
    with served(sim_time=True) as robot:
        robot.run(0.5)
        robot.server.reset()
        robot.run(0.5)
        ticks = [m.clock.sec * 10**9 + m.clock.nanosec for m in robot.sent.decoded("/clock", CLOCK)]
        assert ticks == list(range(0, 1000 * MS, 5 * MS))
        assert robot.sent.stamps("/joint_states", JOINTS) == list(range(0, 1000 * MS, 10 * MS))


def test_readings_are_noisy_and_the_same_bytes_as_a_recording_of_the_same_seed() -> None:
    with served(sim_time=True, seed=4) as robot:
        robot.run(0.5)
    recorded: dict[str, bytes] = {}

    def keep(topic: str, cdr: bytes, *_: int) -> None:
        recorded.setdefault(topic, cdr)

    station, seeds = make_station("kitting", "arm6", (16, 16)), Seeds(4)
    station.reset(seeds, disturb=False)
    demonstrate(station, seeds, keep)
    station.close()
    for topic in (FRONT, "/wrist/image_raw/compressed", "/tcp_pose"):
        assert robot.sent.rows[topic][0][1] == recorded[topic]
    still = np.array([m.position for m in robot.sent.joints()[-20:]])
    assert 0.0002 < still[:, :6].std(axis=0).mean() < 0.0008


def test_a_commanded_arm_goes_there_and_an_uncommanded_one_stays() -> None:
    with served() as robot:
        robot.run(0.5)
        rest = robot.world.tcp()[0]
        robot.run(0.5)
        np.testing.assert_allclose(robot.world.tcp()[0], rest, atol=0.002)
        robot.server.post(lambda: robot.server.hear("/tcp_command", pose(0.4, 0.1, 0.2)))
        grip = messages.joint_state(["gripper"], [-1.0], [], [], 0)
        robot.server.post(lambda: robot.server.hear("/gripper_command", grip))
        robot.run(1.5)
        np.testing.assert_allclose(robot.world.tcp()[0], np.array([0.4, 0.1, 0.2]), atol=0.005)
        assert robot.sent.joints()[-1].position[-1] < 0.01
        assert robot.log == []


@pytest.mark.parametrize(
    ("topic", "cdr", "reason"),
    [
        ("/tcp_command", pose(float("nan"), 0, 0.2), "finite"),
        ("/tcp_command", pose(0.4, 0.1, 0.2, "map"), "frame 'cell'"),
        ("/tcp_command", b"\x00\x01\x00\x00\x07", "PoseStamped"),
        ("/gripper_command", messages.joint_state(["elbow"], [1.0], [], [], 0), "joint 'gripper'"),
        ("/gripper_command", messages.joint_state(["gripper"], [], [], [], 0), "joint 'gripper'"),
    ],
)
def test_a_command_that_cannot_be_followed_is_told_once_and_left_aside(topic: str, cdr: bytes, reason: str) -> None:
    with served() as robot:
        robot.run(0.1)
        before = robot.world.target
        for _ in range(3):
            robot.server.hear(topic, cdr)
        robot.run(0.2)
        assert len(robot.log) == 1
        assert reason in robot.log[0]
        np.testing.assert_array_equal(robot.world.target, before)


def test_a_reset_takes_the_next_seed_tells_it_and_forgets_commands_and_success() -> None:
    with served(seed=6) as robot:
        robot.run(0.3)
        robot.robot.success = True
        robot.server.hear("/tcp_command", pose(0.6, 0.3, 0.4))
        laid = json.loads(robot.server.reset().to_json())
        assert (laid["episode"], laid["seed"]) == (1, 7)
        assert robot.sent.texts("/task_instruction")[-1] == laid["instruction"] == robot.robot.station.instruction
        assert robot.sent.texts("/task_success") == [False, False]
        assert not robot.robot.success
        placed = robot.world.target
        robot.run(0.2)
        np.testing.assert_array_equal(robot.world.target, placed)
        assert len(robot.sent.texts("/robot_description")) == 1
        assert "<robot" in robot.sent.texts("/robot_description")[0]


def test_a_paused_robot_is_silent_and_wakes_without_a_burst() -> None:
    with served() as robot:
        robot.run(0.2)
        count, sim = len(robot.sent.joints()), robot.robot.sim_ns
        robot.server.pause(True)
        left = iter(range(10))
        robot.server.pacer.sleep_s = lambda s: (
            robot.clock.sleep_s(s) if next(left, None) is not None else robot.server.stop()
        )
        robot.run(1)
        assert (len(robot.sent.joints()), robot.robot.sim_ns) == (count, sim)
        robot.server.pacer.sleep_s = robot.clock.sleep_s
        robot.server._stop.clear()
        robot.clock.now_ns += 3_000 * MS
        robot.server.pause(False)
        robot.run(0.2)
        stamps = robot.sent.stamps("/joint_states", JOINTS)
        assert max(np.diff(stamps)) > 3_000 * MS
        assert sorted(np.diff(stamps))[-2] == 10 * MS


def test_a_machine_that_is_too_slow_is_told_of_once_a_second_with_the_factor_reached() -> None:
    with served(look_ns=4 * MS) as robot:
        begun = robot.clock.now_ns
        robot.run(2)
        elapsed_s = (robot.clock.now_ns - begun) / 1e9
        assert elapsed_s > 3
        assert elapsed_s - 2 <= len(robot.log) <= elapsed_s
        assert robot.log[0].startswith(
            f"Real-time factor {robot.server.reached[0]:.2f} instead of 1: one process cannot"
        )
        assert robot.server.reached[0] == pytest.approx(2 / elapsed_s, rel=0.1)
        assert robot.server.pacer.lost_ns > 0


def test_a_slow_robot_on_a_busy_machine_blames_the_others() -> None:
    with served(look_ns=4 * MS, busy=0.3) as robot:
        robot.run(1)
        assert robot.log[0].endswith("other processes left this one 30% of a core; end some, or ask for less.")


def test_a_machine_that_keeps_up_says_nothing() -> None:
    with served() as robot:
        robot.run(2.5)
        assert robot.log == []
        assert robot.server.reached == pytest.approx([1.0, 1.0], abs=0.01)


def test_too_many_posts_are_refused_not_kept_without_bound() -> None:
    with served() as robot:
        taken = [robot.server.post(lambda: None) for _ in range(1500)]
        assert sum(taken) == 1000
        robot.run(0.01)
        assert robot.server.post(lambda: None)


def test_raw_images_come_as_pixels_on_their_own_topic() -> None:
    with served() as robot:
        embodiment = with_raw_images(robot.robot.station.embodiment)
        raw = SimRobot(robot.robot.station, robot.sent, embodiment=embodiment)
        assert "/front/image_raw" in {topic.name for topic in raw.topics}
        raw.reset()
        pixels = robot.world.render("front")
        raw.step()
        while raw.next_arrival_ns is not None:
            raw.deliver()
        message = robot.sent.decoded("/front/image_raw", "sensor_msgs/msg/Image")[0]
        assert (message.height, message.width, message.encoding, message.step) == (16, 16, "rgb8", 48)
        np.testing.assert_array_equal(message.data.reshape(16, 16, 3), pixels)
        assert FRONT not in robot.sent.rows


def test_pictures_need_not_be_square() -> None:
    with served(size=(24, 40)) as robot:
        robot.run(0.01)
        assert robot.world.render("wrist").shape == (24, 40, 3)
        camera = robot.robot.station.embodiment.contract.cameras[0]
        assert (camera.height, camera.width) == (24, 40)


def test_sizes_namespaces_and_factors_are_checked() -> None:
    assert (parse_size("96"), parse_size("240x320")) == ((96, 96), (240, 320))
    assert (parse_namespace(""), parse_namespace("cell1"), parse_namespace("/a/b/")) == ("", "/cell1", "/a/b")
    assert in_namespace(load_embodiment("arm6"), "/cell1").binding.namespace == "/cell1"
    for bad in ("", "8", "96x", "96x2000", "-1", "x96"):
        with pytest.raises(InputError, match="height x width"):
            parse_size(bad)
    for bad in ("9lives", "a b", "a//b", "ä"):
        with pytest.raises(InputError, match="ROS namespace"):
            parse_namespace(bad)
    for factor in (0.0, -1.0, float("nan"), 1e6):
        with pytest.raises(InputError, match="real-time factor"):
            check_factor(factor)
