"""The bimanual lift: expert, success, determinism, and the way into a dataset."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sim_serving import served

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.sim.generate import generate
from lehrling.sim.humanoid_model import JOINTS, NAMES
from lehrling.sim.humanoid_station import HumanoidStation
from lehrling.sim.record import demonstrate
from lehrling.sim.seeding import Seeds
from lehrling.sim.serve_expert import ExpertRun

JOINT_STATE = "sensor_msgs/msg/JointState"
Sent = dict[str, list[tuple[bytes, int, int]]]


def run(station: HumanoidStation, seed: int, *, disturb: bool = True) -> tuple[bool, Sent]:
    sent: Sent = {}
    seeds = Seeds(seed)
    station.reset(seeds, disturb=disturb)
    done = demonstrate(
        station, seeds, lambda topic, cdr, stamp, at: sent.setdefault(topic, []).append((cdr, stamp, at))
    )
    return done, sent


def fingerprint(sent: Sent) -> str:
    return hashlib.sha256(repr(sorted(sent.items())).encode()).hexdigest()


def test_the_expert_succeeds_within_all_limits_and_the_same_seed_gives_the_same_bits() -> None:
    station, fresh = HumanoidStation((24, 24)), HumanoidStation((24, 24))
    prints = []
    for seed in range(3):
        done, sent = run(station, seed)
        assert done
        prints.append(fingerprint(sent))
        commands = np.array([messages.decode(cdr, JOINT_STATE).position for cdr, _, _ in sent["/joint_commands"]])
        assert (commands >= [joint.lower for joint in JOINTS]).all()
        assert (commands <= [joint.upper for joint in JOINTS]).all()
        for order, kind in enumerate(("velocity", "acceleration", "jerk"), start=1):
            fastest = np.abs(np.diff(commands, n=order, axis=0)).max(axis=0) * 50**order
            assert (fastest < [getattr(joint, kind) for joint in JOINTS]).all()
    assert fingerprint(run(fresh, 1)[1]) == prints[1]
    assert len(set(prints)) == 3
    station.close()
    fresh.close()


@pytest.mark.slow
def test_the_expert_succeeds_on_nine_of_ten_seeds() -> None:
    station = HumanoidStation((16, 16))
    assert sum(run(station, seed)[0] for seed in range(20)) >= 18
    station.close()


def test_the_instruction_names_colour_and_height_and_varies_with_the_goal() -> None:
    station, texts, goals = HumanoidStation((16, 16)), set(), set()
    for seed in range(16):
        station.reset(Seeds(seed), disturb=False)
        task = station.task
        assert task.named.colour in station.instruction
        assert f"{round(task.goal.level_m * 100)} c" in station.instruction
        texts.add(station.instruction)
        goals.add((task.goal.box, task.goal.level_m))
    assert len(texts) > 10
    assert len(goals) == 6
    station.close()


def test_only_the_named_box_at_the_named_height_between_both_hands_is_a_success() -> None:
    station = HumanoidStation((16, 16))
    station.reset(Seeds(1), disturb=False)
    world, task = station.world, station.task
    client, body, half = world.physics.client, task.named.body, task.named.half[2]
    x, y, _ = world.physics.position(body)
    for height in (task.goal.level_m, task.goal.level_m + 0.05):
        client.resetBasePositionAndOrientation(body, (x, y, height + half), (0, 0, 0, 1))
        client.resetBaseVelocity(body, (0, 0, 0), (0, 0, 0))
        assert not any(task.update(world) for _ in range(60))
    assert task.partial_credit(world) == 0.5
    station.close()


def test_a_box_that_is_taken_away_is_fetched_again() -> None:
    station = HumanoidStation((16, 16))
    station.reset(Seeds(0), disturb=False)
    world, task, expert = station.world, station.task, station.expert()
    rest = world.physics.position(task.named.body)
    done, robbed, periods = False, False, 0
    while not done and periods < 500:
        periods += 1
        for topic, cdr in expert.act(0):
            station.hear(topic, cdr)
        station.apply()
        world.physics.step(4)
        if not robbed and task.height(world) > 0.06:
            robbed = True
            world.physics.client.resetBasePositionAndOrientation(task.named.body, rest.tolist(), (0, 0, 0, 1))
        done = station.judge()
    assert robbed
    assert done
    assert periods > 300
    station.close()


def test_a_demonstration_becomes_an_episode_with_both_joint_topics_in_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "lift.zarr"
    report = generate(path, "bimanual_lift", "upper_humanoid", [5], image_px=32)
    assert (report.made, report.successes) == (("bimanual_lift-upper_humanoid-00000005",), 1)
    episode = Dataset.open(path).episode(report.made[0])
    station = HumanoidStation((32, 32))
    sent = run(station, 5)[1]
    station.close()
    body, hands = sent["/body/joint_states"], sent["/hands/joint_states"]
    stream = episode.stream("joint_position")
    assert len(stream.value) == len(body) + len(hands)
    whole = np.concatenate([messages.decode(cdr, JOINT_STATE).position for cdr in (body[0][0], hands[0][0])])
    np.testing.assert_array_equal(np.sort(stream.value[:2].sum(axis=0)), np.sort(whole))
    stored = [messages.decode(cdr, JOINT_STATE).position for cdr, _, _ in sent["/joint_commands"]]
    np.testing.assert_array_equal(episode.stream("joint_command").value, stored)
    depth = messages.decode(sent["/head/depth/image_raw"][3][0], "sensor_msgs/msg/Image")
    np.testing.assert_array_equal(episode.stream("head_depth").frame(3), depth.data.view("<u2").reshape(32, 32))
    assert episode.contract.stream("joint_command").names == NAMES
    rates = {name: round(t.rate_hz) for name, t in episode.record.timing.items()}
    assert (rates["joint_command"], rates["left_tcp_pose"], rates["head_camera"], rates["head_depth"]) == (
        50,
        100,
        10,
        10,
    )


def test_served_the_expert_lifts_by_messages_alone_and_a_fault_strikes_its_depth_camera() -> None:
    with served("bimanual_lift", "upper_humanoid", faults=["camera_unplug:head_depth:1:100"]) as robot:

        class Wire:
            def command(self, topic: str, cdr: bytes) -> None:
                robot.server.post(lambda: robot.server.hear(topic, cdr))

            def connected(self) -> bool:
                return True

        run = ExpertRun(robot.server, Wire(), episodes=1)
        robot.server.run(run.drive())
        assert (run.done, run.successes) == (1, 1)
        assert robot.sent.texts("/task_success") == [False, True]
        counts = {topic: len(rows) for topic, rows in robot.sent.rows.items()}
        assert counts["/head/depth/image_raw"] == 10
        assert counts["/head/color/image_raw/compressed"] > 35
        assert counts["/body/joint_states"] == pytest.approx(2 * counts["/hands/joint_states"], abs=2)
        assert robot.log == ["Episode 1: seed 0, succeeded: " + robot.robot.station.instruction]
