"""The policy as a lifecycle node over real DDS: services, state, transitions, an operator who takes over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from node_caller import Caller, caller
from policy_robots import policy_process, served_sim
from ros_publishers import own_domain

from lehrling.datasets.dataset import Dataset
from lehrling.deploy.audit_verify import verify
from lehrling.deploy.cycle import Recipe

pytest.importorskip("rclpy")
STATE = "/policy/state"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the simulator and two policies; give the server's address."""
    with pytest.MonkeyPatch.context() as patch:
        own_domain()
        for name in ("ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY"):
            patch.setenv(name, os.environ[name])
        with served_sim(tmp_path_factory.mktemp("sim") / "sim.log"), policy_process() as process:
            yield process.url


@contextmanager
def node(tmp_path: Path, server: str, *words: str, **parameters: object) -> Iterator[subprocess.Popen[str]]:
    guard = tmp_path / "guard.yaml"
    guard.write_text(f"latch_path: {tmp_path / 'latch.json'}\n")
    told = {
        "embodiment": "arm6",
        "server": server,
        "guard": guard,
        "adapter": "left",
        "instruction": "go",
        **parameters,
    }
    given = [word for name, value in told.items() for word in ("-p", f"{name}:={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "lehrling.deploy.policy_node", *words, "--ros-args", *given],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def phase(peer: Caller, wanted: str) -> None:
    peer.spin_until(lambda: peer.last(STATE).get("phase") == wanted)


def test_a_cycle_is_started_and_stopped_by_services_and_audited(server: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    with node(tmp_path, server, audit=audit, limit_s=30.0) as process, caller() as peer:
        peer.hear(STATE)
        phase(peer, "ready")
        assert peer.trigger("/policy/start") == (True, "1")
        phase(peer, "executing")
        started, why = peer.trigger("/policy/start")
        assert not started
        assert "it is executing" in why
        peer.spin_until(lambda: abs(peer.last(STATE)["axes"]["tcp_command_y"]["velocity"]) > 0.01)
        assert peer.trigger("/policy/stop") == (True, "")
        phase(peer, "ready")
        told = peer.last(STATE)
        assert (told["cycle"], told["result"], told["jitter"]["ticks"] > 50) == (1, "aborted", True)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    report = verify(audit)
    assert (report.whole, report.closed) == (True, True)
    assert report.kinds["start"] == report.kinds["end"] == 1


def test_a_supervisor_makes_the_transitions(server: str, tmp_path: Path) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    def change(peer: Caller, number: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(peer.call(ChangeState, "/policy/change_state", request).success)

    with node(tmp_path, server, "--managed") as process, caller() as peer:
        peer.hear(STATE)
        assert change(peer, Transition.TRANSITION_CONFIGURE)
        assert peer.trigger("/policy/start") == (False, "policy is not active; activate it first.")
        assert change(peer, Transition.TRANSITION_ACTIVATE)
        phase(peer, "ready")
        assert peer.trigger("/policy/start") == (True, "1")
        assert change(peer, Transition.TRANSITION_DEACTIVATE)
        peer.spin_until(lambda: change(peer, Transition.TRANSITION_CLEANUP))
        assert change(peer, Transition.TRANSITION_CONFIGURE)
        assert process.poll() is None
        assert change(peer, Transition.TRANSITION_INACTIVE_SHUTDOWN)
        assert process.wait(30) == 0
    with node(tmp_path, server, "--managed") as process, caller() as peer:
        assert change(peer, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert process.wait(30) == 0


def test_an_operators_device_takes_over_and_what_it_did_is_an_episode(server: str, tmp_path: Path) -> None:
    from geometry_msgs.msg import PoseStamped

    corrections = tmp_path / "corrections.zarr"
    with (
        node(tmp_path, server, interventions="/leader", corrections=corrections, limit_s=60.0),
        caller() as peer,
    ):
        peer.hear(STATE)
        phase(peer, "ready")
        peer.trigger("/policy/start")
        phase(peer, "executing")
        peer.spin_until(lambda: abs(peer.last(STATE)["axes"]["tcp_command_y"]["velocity"]) > 0.01)
        publisher = peer._node.create_publisher(PoseStamped, "/leader/tcp_command", 10)
        peer.spin_until(lambda: publisher.get_subscription_count() == 1)
        place = {axis: peer.last(STATE)["axes"][f"tcp_command_{axis}"]["position"] for axis in "xyz"}
        goal = float(place["x"]) - 0.05
        message = PoseStamped()
        message.header.frame_id = "cell"
        message.pose.orientation.y, message.pose.orientation.w = 1.0, 0.0
        message.pose.position.y, message.pose.position.z = place["y"], place["z"]

        def led() -> bool:
            place["x"] = max(goal, place["x"] - 0.004)
            message.pose.position.x = place["x"]
            publisher.publish(message)
            return abs(float(peer.last(STATE)["axes"]["tcp_command_x"]["position"]) - goal) < 0.005

        peer.spin_until(led)
        peer.spin_until(lambda: corrections.is_dir() and list(Dataset.open(corrections).records))
        peer.trigger("/policy/stop")
    (record,) = Dataset.open(corrections).records.values()
    assert (record.task, record.instruction, record.outcome) == ("correction", "go", "unknown")
    episode = Dataset.open(corrections).episode(record.id)
    commanded = episode.stream("tcp_command").value[:, 0]
    assert commanded[-1] < commanded[0] - 0.02
    assert record.lengths["front"] > 2


def test_another_instruction_leaves_the_rest_of_the_recipe_as_it_was() -> None:
    from lehrling.deploy.policy_node import PolicyNode

    recipe = Recipe(1, "run", "old", "left", 7.0, "sync", 3, 2, "pinned")
    node: Any = SimpleNamespace(loop=SimpleNamespace(drive=SimpleNamespace(cycle=1)), _recipe=recipe)
    PolicyNode.instruct(node, "new")
    assert node._recipe == replace(recipe, instruction="new")


def test_parameters_that_cannot_be_are_refused_in_a_sentence(server: str, tmp_path: Path) -> None:
    for parameters, says in (
        ({"embodiment": "arm7"}, "arm7"),
        ({"mode": "fast"}, "Expected sync, async or ensemble"),
        ({"adapter": "middle"}, "no policy 'middle'"),
    ):
        with node(tmp_path, server, **parameters) as process:
            assert process.wait(60) == 2
            assert process.stderr is not None
            said = process.stderr.read()
            assert says in said
            assert "Traceback" not in said
