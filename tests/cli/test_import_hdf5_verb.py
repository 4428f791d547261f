"""`lehrling import hdf5`: what it says, what it returns, what it refuses."""

from __future__ import annotations

from pathlib import Path

from cli_runs import Command
from hdf5_files import aloha, robomimic

from lehrling.datasets.dataset import Dataset


def test_robomimic_comes_in_and_what_was_left_out_is_told(lehrling: Command, tmp_path: Path) -> None:
    seen = lehrling("import", "hdf5", robomimic(tmp_path / "a.hdf5"), tmp_path / "d.zarr", "--outcome", "success")
    assert seen.code == 3
    assert "agentview_depth was left out: no numbers or colour images, float32 (48, 64, 1)" in seen.err
    assert "3 new episodes of 15 frames at 20 Hz, 0 kept" in seen.err
    assert {record.outcome for record in Dataset.open(tmp_path / "d.zarr").records.values()} == {"success"}


def test_aloha_comes_in_with_a_rate_and_can_be_viewed(lehrling: Command, tmp_path: Path) -> None:
    source, root = aloha(tmp_path / "a"), tmp_path / "d.zarr"
    assert lehrling("import", "hdf5", source, root).refused("--rate", "50")
    facts = lehrling("import", "hdf5", source, root, "--rate", "50", "--instruction", "fold", "--json").data
    assert [(e["name"], e["new"]) for e in facts["episodes"]] == [(f"episode_{n}", True) for n in range(3)]
    assert lehrling("view", root, "--rate", "50", "--size", "32").code == 0


def test_what_is_no_hdf5_is_refused(lehrling: Command, tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").write_text("text")
    assert lehrling("import", "hdf5", tmp_path / "a.hdf5", tmp_path / "d.zarr").refused("a.hdf5", "HDF5")
    (tmp_path / "b.hdf5").write_bytes(robomimic(tmp_path / "c.hdf5").read_bytes()[:3000])
    assert lehrling("import", "hdf5", tmp_path / "b.hdf5", tmp_path / "d.zarr").refused("b.hdf5", "HDF5", code=1)
    assert lehrling("import", "hdf5", tmp_path / "absent", tmp_path / "d.zarr").refused("absent")
    assert not (tmp_path / "d.zarr").exists()
