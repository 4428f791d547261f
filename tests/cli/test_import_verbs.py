"""`lehrling import bag`: what it says, what it returns, what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bags import arm, joints, text, write_mcap, write_rosbag
from cli_runs import Command

from lehrling.datasets.dataset import Dataset


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_rosbag(tmp_path / "bag", [*arm(30), text("/task", 31, "stack the parts")])


def test_a_bag_comes_in_and_a_second_time_is_kept(lehrling: Command, bag: Path, tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    command = ("import", "bag", bag, root, "--embodiment", "arm6", "--instruction", "stack", "--outcome", "success")
    facts = lehrling(*command, "--json").data
    assert facts["dataset"] == str(root)
    assert [(episode["status"], episode["outcome"]) for episode in facts["episodes"]] == [("sealed", "success")]
    assert facts["extra"] == {"/task": {"type": "std_msgs/msg/String", "messages": 1}}
    seen = lehrling(*command)
    assert seen.code == 0
    assert "imported before, sealed; kept as it is" in seen.err
    assert "/task (std_msgs/msg/String, 1)" in seen.err
    assert "0 new episodes, 1 kept" in seen.err
    records = Dataset.open(root).records
    assert [record.instruction for record in records.values()] == ["stack"]
    assert lehrling("inspect", root, facts["episodes"][0]["id"]).code == 0


def test_a_cut_bag_ends_with_3_and_says_where(lehrling: Command, bag: Path, tmp_path: Path) -> None:
    file = next(bag.glob("*.db3"))
    os.truncate(file, file.stat().st_size * 2 // 3)
    seen = lehrling("import", "bag", bag, tmp_path / "d.zarr", "--embodiment", "arm6")
    assert seen.code == 3
    assert "source truncated" in seen.err
    assert f"can be read no further after {file.stat().st_size} bytes" in " ".join(seen.err.split())


def test_a_message_that_does_not_fit_ends_with_3_and_is_told(lehrling: Command, tmp_path: Path) -> None:
    source = write_mcap(tmp_path / "bag.mcap", [*arm(20), joints(25, ["elbow"]), *arm(5, first=30)])
    command = ("import", "bag", source, tmp_path / "d.zarr", "--embodiment", "arm6", "--instruction-topic", "")
    seen = lehrling(*command)
    assert seen.code == 3
    assert "names joint 'elbow'" in seen.err
    assert "unknown joint" in seen.err


def test_what_is_no_bag_or_another_robots_is_refused(lehrling: Command, bag: Path, tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    assert lehrling("import", "bag", tmp_path / "absent", root, "--embodiment", "arm6").refused("absent", "rosbag2")
    assert lehrling("import", "bag", bag, root, "--embodiment", "r2d2").refused("r2d2", "arm6")
    assert lehrling("import", "bag", bag, root, "--embodiment", "humanoid").refused("/base_pose", "/joint_states")
    assert lehrling("import", "bag", bag, root).refused("--embodiment")
    assert lehrling("import", "bag", bag, root, "--embodiment", "arm6", "--outcome", "great").refused("great")
    assert not root.exists()
