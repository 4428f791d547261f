"""`lehrling export lerobot`: what it says, what it returns, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import Command
from view_robots import arm_messages, record


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("arm") / "arm.zarr"
    record(root, "one", arm_messages(1, 20))
    record(root, "blind", arm_messages(2, 20, frames=0))
    record(root, "failed", arm_messages(3, 20), outcome="failure")
    return root


def test_an_export_says_what_went_out_and_what_did_not(lehrling: Command, dataset: Path, tmp_path: Path) -> None:
    seen = lehrling("export", "lerobot", dataset, tmp_path / "out", "--rate", "20")
    assert seen.code == 3
    assert "blind: left out, image/front never came" in seen.err
    assert "1 episodes, 19 frames at 20 Hz, 1 tasks" in seen.err
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 20, 19)
    facts = lehrling(
        "export",
        "lerobot",
        dataset,
        tmp_path / "more",
        "--rate",
        "10",
        "--failures",
        "--size",
        "48",
        "--images",
        "--json",
    ).data
    assert (facts["episodes"], facts["fps"], list(facts["skipped"])) == (2, 10, ["blind"])
    info = json.loads((tmp_path / "more/meta/info.json").read_text())
    assert info["features"]["observation.images.front"]["shape"] == [48, 48, 3]
    assert info["features"]["observation.images.front"]["dtype"] == "image"


def test_a_specification_gives_columns_size_and_rate(lehrling: Command, dataset: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "rate_hz: 10\nimage_px: 32\ncameras: [wrist]\nstate: [{stream: tcp_pose, select: [x, y]}]\n"
        "action: [{stream: tcp_command, select: [z]}]\nepisodes: {ids: [one]}\n"
    )
    seen = lehrling("export", "lerobot", dataset, tmp_path / "out", "--spec", spec)
    assert seen.code == 0
    features = json.loads((tmp_path / "out/meta/info.json").read_text())["features"]
    assert features["observation.state"]["names"] == ["tcp_pose.x", "tcp_pose.y"]
    assert features["action"]["shape"] == [1]
    assert features["observation.images.wrist"]["shape"] == [32, 32, 3]


def test_a_filter_chooses_episodes(lehrling: Command, dataset: Path, tmp_path: Path) -> None:
    command = ("export", "lerobot", dataset, tmp_path / "out", "--rate", "20", "--failures")
    facts = lehrling(*command, "--where", "outcome == 'failure'", "--json").data
    assert (facts["episodes"], facts["skipped"]) == (1, {})
    assert lehrling(*command, "--where", "outcome ==").refused()


def test_what_cannot_be_exported_is_refused(lehrling: Command, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert lehrling("export", "lerobot", dataset, tmp_path / "out", "--rate", "20").refused("there already")
    new = tmp_path / "new"
    assert lehrling("export", "lerobot", dataset, new).refused("a rate or a specification")
    assert lehrling("export", "lerobot", dataset, new, "--rate", "12.5").refused("whole number", "12.5")
    assert lehrling("export", "lerobot", dataset, new, "--size", "64").refused("--rate", "--size")
    assert lehrling("export", "lerobot", dataset, new, "--rate", "20", "--size", "47").refused("even")
    assert lehrling("export", "lerobot", tmp_path / "absent", new, "--rate", "20").refused("absent")
    assert not new.exists()
