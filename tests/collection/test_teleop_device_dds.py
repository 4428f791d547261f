"""A person takes over from the policy node with keys in a terminal, over real DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2, for example lehrling-collection[ros-wheels]")

from node_caller import Caller, caller
from policy_robots import policy_process, served_sim
from ros_publishers import own_domain
from terminals import Terminal

STATE = "/policy/state"


def place(peer: Caller, axis: str) -> float:
    return float(peer.last(STATE)["axes"][f"tcp_command_{axis}"]["position"])


@pytest.mark.slow
def test_keys_take_over_from_the_policy_which_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_domain()
    for name in ("ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY"):
        monkeypatch.setenv(name, os.environ[name])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    audit = tmp_path / "audit.jsonl"
    with served_sim(tmp_path / "sim.log"), policy_process() as server, caller() as peer:
        told = {
            "embodiment": "arm6",
            "server": server.url,
            "adapter": "left",
            "instruction": "go",
            "interventions": "/leader",
            "limit_s": 120.0,
            "audit": audit,
        }
        words = [word for name, value in told.items() for word in ("-p", f"{name}:={value}")]
        node = subprocess.Popen([sys.executable, "-m", "lehrling.deploy.policy_node", "--ros-args", *words])
        try:
            peer.hear(STATE)
            peer.spin_until(lambda: peer.last(STATE).get("phase") == "ready")
            terminal = Terminal(tmp_path, "--embodiment", "arm6", "--intervene", "/leader")
            terminal.wait_for("waiting")
            assert peer.trigger("/policy/start") == (True, "1")
            peer.spin_until(lambda: place(peer, "y") > 0.1)
            assert '"intervention"' not in audit.read_text()

            def led() -> bool:
                terminal.hold("d", 0.5)
                return place(peer, "y") < 0.05

            peer.spin_until(led)
            peer.spin_until(lambda: place(peer, "y") > 0.1)
            os.write(terminal.ours, b"q")
            report = terminal.end()
            assert peer.trigger("/policy/stop") == (True, "")
            peer.spin_until(lambda: peer.last(STATE)["phase"] == "ready")
        finally:
            node.send_signal(signal.SIGINT)
            assert node.wait(60) == 0
    assert report["published"]["/leader/tcp_command"] > 10
    assert report["published"]["/leader/gripper_command"] == 0
    assert (report["latched"], peer.last(STATE)["fault"]) == ("", "")
    assert audit.read_text().count('"intervention"') >= 2
