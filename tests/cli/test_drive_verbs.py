"""teleop, replay, guard: what they say without a robot, what they refuse, how a stop is reset."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from cli_runs import Command
from driven_episodes import arm_episode

from lehrling.datasets.embodiment import load_embodiment
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axis
from lehrling.deploy.guard_limits import GuardConfig


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "lehrling" / "arm6.latch.json"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded")
    arm_episode(root / "arm.zarr")
    return root / "arm.zarr"


def stopped(path: Path, text: str = "gate opened") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Guard(GuardConfig(latch_path=path), (Axis("joint1", low=-1, high=1),)) as guard:
        guard.stop(0, text)


def test_a_dry_run_says_what_would_be_replayed_and_needs_no_robot(lehrling: Command, recorded: Path) -> None:
    facts = lehrling("replay", recorded, "slow", "--dry-run", "--speed", 0.5, "--all", "--json").data
    assert facts["commands"] == 40
    assert facts["seconds"] == pytest.approx(3.9)
    assert facts["topics"]["/tcp_command"] == "geometry_msgs/msg/PoseStamped"
    assert facts["others"] == ["joint_position", "joint_velocity", "tcp_pose", "front", "wrist"]
    assert facts["messages"] == 200 + 200 + 20 + 20
    assert facts["first"]["tcp_command_x"] == pytest.approx(0.4)
    said = lehrling("replay", recorded, "slow", "--dry-run")
    assert "40 commands of tcp_command, gripper_command in 1.9 s" in said.err + said.out or "in 2.0 s" in said.err


def test_what_cannot_be_replayed_is_refused_in_a_sentence(lehrling: Command, recorded: Path, tmp_path: Path) -> None:
    assert lehrling("replay", recorded, "absent", "--dry-run").refused("absent")
    assert lehrling("replay", recorded, "slow", "--embodiment", "iiwa", "--dry-run").refused(
        "contracts differ in joints"
    )
    assert lehrling("replay", recorded, "slow", "--speed", 9, "--dry-run").refused("from 0.05 to 5")
    assert lehrling("replay", recorded, "slow", "--stream", "joint_position", "--dry-run").refused("found none")
    bad = tmp_path / "guard.yaml"
    bad.write_text("velocity: 3\n")
    assert lehrling("replay", recorded, "slow", "--guard", bad, "--dry-run").refused(
        "'velocity' is not a key", "guard.yaml"
    )


def test_a_guard_file_without_a_range_is_refused_before_anything_moves(lehrling: Command, tmp_path: Path) -> None:
    shipped = load_embodiment("arm6").model_dump(mode="json")
    shipped["binding"]["limits"]["workspace"] = {}
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(shipped))
    assert lehrling("teleop", "--embodiment", path).refused("'tcp_command_x'", "has no range")


def test_a_latched_stop_is_told_and_reset_by_name(lehrling: Command, state: Path) -> None:
    assert lehrling("guard", "status", "--embodiment", "arm6").code == 0
    stopped(state)
    told = lehrling("guard", "status", "--embodiment", "arm6", "--json")
    assert told.code == 1
    assert (told.data["latched"], told.data["cause"], told.data["text"]) == (
        True,
        "protective stop request",
        "gate opened",
    )
    assert lehrling("guard", "reset", "--embodiment", "arm6", "--operator", "Kim", "--yes").code == 0
    after = lehrling("guard", "status", "--embodiment", "arm6", "--json")
    assert after.code == 0
    assert after.data["reset_by"].startswith("Kim at ")


def test_a_reset_without_a_yes_changes_nothing(lehrling: Command, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    stopped(state)
    before = state.read_bytes()
    assert lehrling("guard", "reset", "--embodiment", "arm6", "--operator", "Kim").code == 130
    assert state.read_bytes() == before


def test_robots_of_one_kind_in_two_namespaces_have_a_latch_each(lehrling: Command, state: Path) -> None:
    stopped(state.with_name("arm6-cell1.latch.json"))
    assert lehrling("guard", "status", "--embodiment", "arm6", "--namespace", "cell1").code == 1
    assert lehrling("guard", "status", "--embodiment", "arm6").code == 0


def test_a_latch_that_a_running_guard_holds_is_not_reset_from_outside(lehrling: Command, state: Path) -> None:
    stopped(state)
    with Guard(GuardConfig(latch_path=state), (Axis("joint1", low=-1, high=1),)):
        assert lehrling("guard", "reset", "--embodiment", "arm6", "--yes").refused("Another guard commands the robot")
