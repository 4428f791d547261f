"""The served robot over real DDS, seen by another process as any robot would be."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lehrling.datasets.embodiment import load_embodiment, parse_embodiment

pytest.importorskip("rclpy", reason="ROS 2 for Python is not installed")
SUPPORT = Path(__file__).parents[1] / "support"
COMMAND = "from lehrling.cli.main import run; run()"


def private_domain() -> dict[str, str]:
    """Return an environment in which only this test's processes hear each other."""
    return os.environ | {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 101)), "ROS_LOCALHOST_ONLY": "1"}


def start(env: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "sim", "serve", *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def conversation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Serve an arm, let a peer talk to it, stop it by SIGINT; what both said."""
    env, path = private_domain(), tmp_path_factory.mktemp("ros") / "served.yaml"
    options = ("--namespace", "cell1", "--size", "32x48", "--seed", "3", "--embodiment-out", str(path), "--json")
    robot = start(env, "--task", "kitting", *options)
    try:
        command = [sys.executable, str(SUPPORT / "sim_peer.py"), "3"]
        peer = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        robot.send_signal(signal.SIGINT)
        out, err = robot.communicate(timeout=30)
    finally:
        robot.kill()
    assert peer.returncode == 0, peer.stderr
    return {**json.loads(peer.stdout), "report": json.loads(out), "log": err, "code": robot.returncode, "path": path}


def test_the_topics_have_the_embodiments_names_and_types(conversation: dict[str, Any]) -> None:
    bound = {f"/cell1{topic}": msgtype for topic, msgtype in load_embodiment("arm6").binding.topics.items()}
    assert conversation["topics"].items() >= bound.items()
    assert conversation["joints"] == ["joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper"]


def test_latched_topics_reach_a_late_subscriber(conversation: dict[str, Any]) -> None:
    assert conversation["latched"]
    first = conversation["first"]
    assert first["/cell1/robot_description"].lstrip().startswith("<?xml")
    assert "pocket" in first["/cell1/task_instruction"]
    assert first["/cell1/task_success"] is False


def test_streams_come_at_their_rates_after_their_latency(conversation: dict[str, Any]) -> None:
    for topic, rate_hz, latency_ms in (
        ("joint_states", 100, 2),
        ("tcp_pose", 100, 2),
        ("front/image_raw/compressed", 10, 30),
    ):
        seen = conversation["timing"][f"/cell1/{topic}"]
        assert seen["rate_hz"] == pytest.approx(rate_hz, rel=0.1)
        assert seen["period_ms"] == pytest.approx(1000 / rate_hz, rel=0.01)
        assert latency_ms <= seen["least_late_ms"]
        assert seen["late_ms"] < latency_ms + 60


def test_a_command_moves_the_arm_and_shuts_the_gripper(conversation: dict[str, Any]) -> None:
    moved = conversation["moved"]
    assert moved["to"] == pytest.approx([0.42, 0.12, 0.22], abs=0.01)
    assert moved["from"] != pytest.approx([0.42, 0.12, 0.22], abs=0.02)
    assert conversation["opening"] < 0.01


def test_the_reset_service_lays_out_the_next_seed_and_tells_it(conversation: dict[str, Any]) -> None:
    reset = conversation["reset"]
    assert reset["success"]
    laid = json.loads(reset["message"])
    assert (laid["episode"], laid["seed"]) == (1, 4)
    assert laid["instruction"] == conversation["instruction"]


def test_the_pause_service_silences_the_robot_and_wakes_it(conversation: dict[str, Any]) -> None:
    assert (conversation["pause"]["success"], conversation["resume"]["success"]) == (True, True)
    assert conversation["silent"]
    assert conversation["awake"]


def test_sigint_ends_it_in_order_and_the_embodiment_written_is_the_one_served(conversation: dict[str, Any]) -> None:
    assert conversation["code"] == 0
    assert conversation["report"]["finished"] is False
    assert "Traceback" not in conversation["log"]
    written = parse_embodiment(yaml.safe_load(conversation["path"].read_text()), "served.yaml")
    assert written.binding.namespace == "/cell1"
    assert {(c.height, c.width) for c in written.contract.cameras} == {(32, 48)}


def test_the_expert_drives_the_robot_over_its_topics_and_ends_after_its_episodes() -> None:
    options = ("--expert", "--episodes", "2", "--size", "16", "--sim-time", "--real-time-factor", "4", "--json")
    robot = start(private_domain(), "--task", "kitting", "--seed", "1", *options)
    try:
        out, err = robot.communicate(timeout=90)
    finally:
        robot.kill()
    report = json.loads(out)
    assert robot.returncode == 0, err
    assert (report["episodes"], report["successes"], report["finished"]) == (2, 2, True)
    assert "seed 1, succeeded" in err
