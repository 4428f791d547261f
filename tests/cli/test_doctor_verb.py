"""`lehrling doctor`: table or JSON, exit 1 where something fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from made_up_hosts import install_ros, made_up_host

from lehrling.cli import doctor_verbs
from lehrling.cli.output import guarded
from lehrling.collection.doctor_host import Host

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return the verb, called with arguments: exit code, stdout, stderr."""
    app = typer.Typer()
    app.callback()(lambda: None)
    doctor_verbs.register(app)

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["doctor", *map(str, arguments)]
        code = guarded(lambda: app(args=words, standalone_mode=False))
        seen = capfd.readouterr()
        return code, seen.out, seen.err

    return call


@pytest.fixture
def two_ros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Make this computer one with a sourced ROS and the wheels."""
    apt = install_ros(tmp_path / "opt/ros/kilted", "rmw_fastrtps_cpp")
    host = made_up_host(tmp_path, {"AMENT_PREFIX_PATH": str(apt)}, versions={"ros-rclpy": "9.1.2"})
    monkeypatch.setattr(Host, "this", staticmethod(lambda: host))
    return host


def test_two_ros_at_once_end_with_exit_code_1_and_the_remedy(run: Run, two_ros: Host, tmp_path: Path) -> None:
    code, out, _ = run("--dataset", tmp_path, "--json")
    report = json.loads(out)
    assert (code, report["verdict"]) == (1, "fail")
    assert "Keep one" in report["findings"][0]["remedy"]


def test_the_table_shows_verdicts_and_remedies_in_80_columns(
    run: Run, two_ros: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run("--dataset", tmp_path)
    assert code == 1
    assert "fail" in out
    assert "→ Keep one" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "fail" in err


def test_a_sound_computer_ends_with_exit_code_0(
    run: Run, two_ros: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import version

    sound = replace(two_ros, environ={}, version=lambda name: "9.1.2" if name == "ros-rclpy" else version(name))
    monkeypatch.setattr(Host, "this", staticmethod(lambda: sound))
    code, out, _ = run("--dataset", tmp_path, "--embodiment", "arm6", "--json")
    failed = [finding["name"] for finding in json.loads(out)["findings"] if finding["verdict"] == "fail"]
    assert failed == ["message types"], "the made-up prefix defines no message types"
    install_ros(
        two_ros.prefix,
        types=("sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/CompressedImage"),
    )
    assert code == 1
    assert run("--dataset", tmp_path, "--embodiment", "arm6", "--json")[0] == 0


def test_an_embodiment_that_is_not_there_is_refused(run: Run) -> None:
    code, out, err = run("--embodiment", "nobody")
    assert (code, out) == (2, "")
    assert "nobody" in err
    assert "Traceback" not in err
