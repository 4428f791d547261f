"""`lehrling import lerobot`: what it says, what it returns, what it refuses."""

from __future__ import annotations

from pathlib import Path

from cli_runs import Command
from lerobot_v21 import write_v21

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.view import View


def test_a_dataset_comes_in_and_a_second_time_is_kept(lehrling: Command, tmp_path: Path) -> None:
    source, root = write_v21(tmp_path / "old"), tmp_path / "d.zarr"
    seen = lehrling("import", "lerobot", source, root, "--outcome", "success")
    assert seen.code == 0
    assert "3 new episodes of 18 frames at 10 Hz, 0 kept" in seen.err
    assert "observation.images.laptop as laptop" in seen.err
    facts = lehrling("import", "lerobot", source, root, "--json").data
    assert [(e["new"], e["status"], e["frames"]) for e in facts["episodes"]] == [
        (False, "sealed", 5),
        (False, "sealed", 7),
        (False, "sealed", 6),
    ]
    assert {record.outcome for record in Dataset.open(root).records.values()} == {"success"}
    assert lehrling("inspect", root, facts["episodes"][0]["id"]).code == 0


def test_what_came_in_can_be_viewed_with_its_state_and_exported_again(lehrling: Command, tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    lehrling("import", "lerobot", write_v21(tmp_path / "old"), root)
    assert lehrling("view", root, "--rate", "10", "--size", "32").code == 0
    view = View.open(Dataset.open(root), "train")
    assert view.state_names == ("state.a", "state.b", "state.c")
    assert view.action_names == ("action.left", "action.right")
    assert len(view) == 18
    seen = lehrling("export", "lerobot", root, tmp_path / "new")
    assert "3 episodes, 18 frames at 10 Hz, 2 tasks" in seen.err


def test_a_loss_ends_with_3_and_is_told(lehrling: Command, tmp_path: Path) -> None:
    source = write_v21(tmp_path / "old")
    (source / "data/chunk-000/episode_000001.parquet").unlink()
    seen = lehrling("import", "lerobot", source, tmp_path / "d.zarr")
    assert seen.code == 3
    assert "episode 1 was not taken" in seen.err
    assert "lacks data/chunk-000/episode_000001.parquet" in seen.err
    assert "2 new episodes of 11 frames" in seen.err


def test_the_derived_embodiment_can_be_written_completed_and_given(lehrling: Command, tmp_path: Path) -> None:
    source, file = write_v21(tmp_path / "old"), tmp_path / "koch.yaml"
    seen = lehrling("import", "lerobot", source, tmp_path / "d.zarr", "--write-embodiment", file)
    assert seen.code == 0
    assert not (tmp_path / "d.zarr").exists()
    text = file.read_text()
    assert "kind: scalar" in text
    file.write_text(text.replace("kind: scalar", "kind: joint_position\n    unit: deg", 1))
    assert lehrling("import", "lerobot", source, tmp_path / "d.zarr", "--embodiment", file).code == 0
    assert Dataset.open(tmp_path / "d.zarr").contract().streams[0].unit == "deg"
    assert lehrling("import", "lerobot", source, tmp_path / "e", "--write-embodiment", file).refused("there already")


def test_what_is_no_lerobot_dataset_is_refused(lehrling: Command, tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    assert lehrling("import", "lerobot", tmp_path / "absent", root).refused("absent", "LeRobot")
    assert lehrling("import", "lerobot", tmp_path, root).refused("meta/info.json")
    source = write_v21(tmp_path / "old", version="v1.6")
    assert lehrling("import", "lerobot", source, root).refused("v3.0", "v2.1", "'v1.6'")
    new = write_v21(tmp_path / "new")
    assert lehrling("import", "lerobot", new, root, "--embodiment", "arm6").refused(
        "no stream of the embodiment 'arm6'"
    )
    assert not root.exists()
