"""`lehrling import replay`: what it says, what it returns, what it refuses."""

from __future__ import annotations

from pathlib import Path

from cli_runs import Command
from replay_buffers import changed, replay_buffer, zipped

from lehrling.datasets.dataset import Dataset


def test_a_buffer_comes_in_with_a_rate_and_can_be_viewed(lehrling: Command, tmp_path: Path) -> None:
    source, root = replay_buffer(tmp_path / "b.zarr"), tmp_path / "d.zarr"
    assert lehrling("import", "replay", source, root).refused("--rate", "60")
    facts = lehrling("import", "replay", source, root, "--rate", "20", "--outcome", "success", "--json").data
    assert [(e["name"], e["new"]) for e in facts["episodes"]] == [(f"episode_{n}", True) for n in range(3)]
    assert {record.outcome for record in Dataset.open(root).records.values()} == {"success"}
    assert lehrling("view", root, "--rate", "20", "--size", "32").code == 0
    seen = lehrling("import", "replay", zipped(source, tmp_path / "b.zarr.zip"), root, "--rate", "20")
    assert seen.code == 0
    assert "0 new episodes of 0 frames at 20 Hz, 3 kept" in seen.err


def test_jpeg_xl_is_refused_with_what_to_do(lehrling: Command, tmp_path: Path) -> None:
    source = changed(
        replay_buffer(tmp_path / "b.zarr"),
        "data/camera0_rgb",
        tmp_path / "c.zarr",
        compressor={"id": "imagecodecs_jpegxl"},
    )
    told = lehrling("import", "replay", source, tmp_path / "d.zarr", "--rate", "60")
    assert told.refused("JPEG XL", "Blosc", "imagecodecs")
    assert not (tmp_path / "d.zarr").exists()
