"""inspect, verify, repair, edit purge, view: what they say, what they return, what they refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_runs import Command

from lehrling.datasets.dataset import Dataset

FIRST = "kitting-arm6-00000000"


def a_chunk(cell: Path) -> Path:
    return next(
        p for p in sorted((cell / "episodes" / FIRST / "joint_position" / "value" / "c").rglob("*")) if p.is_file()
    )


def test_inspect_shows_people_a_table_and_programs_json(lehrling: Command, made: Path) -> None:
    seen = lehrling("inspect", made / "cell.zarr")
    assert seen.code == 0
    assert "3 (sealed 3)" in seen.out
    facts = lehrling("inspect", made / "cell.zarr", "--json").data
    assert (facts["episodes"], facts["outcomes"], facts["views"]) == (3, {"success": 3}, ["train"])
    assert facts["ids"] == [f"kitting-arm6-{k:08d}" for k in range(3)]


def test_inspect_of_an_episode_names_its_streams_rates_and_latency(lehrling: Command, made: Path) -> None:
    seen = lehrling("inspect", made / "cell.zarr", FIRST)
    for name in ("joint_position", "gripper_command", "front", "wrist"):
        assert name in seen.out
    facts = lehrling("inspect", made / "cell.zarr", FIRST, "--json").data
    assert facts["timing"]["joint_position"]["rate_hz"] == 100
    assert 25 < facts["timing"]["front"]["latency_ms"] < 40


def test_verify_passes_what_is_whole(lehrling: Command, made: Path) -> None:
    report = lehrling("verify", made / "cell.zarr", "--json")
    assert (report.code, report.data["problems"]) == (0, {})
    assert lehrling("verify", made / "cell.zarr").err.splitlines()[-1].endswith("whole")


def test_verify_fails_on_a_missing_chunk_and_names_it(lehrling: Command, cell: Path) -> None:
    chunk = a_chunk(cell)
    chunk.unlink()
    seen = lehrling("verify", cell)
    assert seen.code == 1
    assert f"{FIRST}: " in seen.err
    assert str(chunk.relative_to(cell / "episodes" / FIRST)) in seen.err
    assert list(lehrling("verify", cell, "--json").data["problems"]) == [FIRST]


def test_verify_fails_on_one_flipped_bit(lehrling: Command, cell: Path) -> None:
    chunk = a_chunk(cell)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    assert lehrling("verify", cell).code == 1


def test_repair_sets_a_damaged_episode_aside_and_says_that_something_is_lost(lehrling: Command, cell: Path) -> None:
    a_chunk(cell).unlink()
    seen = lehrling("repair", cell, "--json")
    assert seen.code == 3
    assert list(seen.data["quarantined"]) == [FIRST]
    assert lehrling("inspect", cell, "--json").data["statuses"] == {"sealed": 2, "quarantined": 1}
    again = lehrling("repair", cell)
    assert again.code == 0
    assert "quarantined 0" in again.err


def test_purge_deletes_the_files_and_leaves_a_tombstone(lehrling: Command, cell: Path) -> None:
    assert lehrling("edit", "purge", cell, FIRST, "--yes", "--json").data == {"purged": FIRST}
    assert not (cell / "episodes" / FIRST).exists()
    assert Dataset.open(cell).records[FIRST].status == "purged"
    assert lehrling("verify", cell).code == 0


def test_purge_asks_and_no_keeps_everything(lehrling: Command, cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.write(write, b"n\n")
    os.close(write)
    with os.fdopen(read) as answers:
        monkeypatch.setattr("sys.stdin", answers)
        seen = lehrling("edit", "purge", cell, FIRST)
    assert seen.code == 130
    assert f"Delete {FIRST}" in seen.err
    assert (cell / "episodes" / FIRST).is_dir()


def test_a_view_is_built_and_found_again(lehrling: Command, cell: Path) -> None:
    first = lehrling("view", cell, "--name", "small", "--size", 48, "--json").data
    assert (first["view"], first["episodes"]) == ("small", 3)
    assert lehrling("view", cell, "--name", "small", "--size", 48, "--json").data == first
    other = lehrling("view", cell, "--name", "small", "--size", 64, "--json").data
    assert other["key"] != first["key"]


def test_a_view_specification_with_a_wrong_key_stream_or_syntax_is_refused(
    lehrling: Command, cell: Path, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    good = {"rate_hz": 10, "image_px": 48, "cameras": ["front"], "state": [{"stream": "joint_position"}],
            "action": [{"stream": "gripper_command"}]}  # fmt: skip
    for change, words in (
        ({"colour": 1}, ("colour",)),
        ({"cameras": ["rear"]}, ("rear", "front")),
        ({"state": [{"stream": "joint_positon"}]}, ("joint_positon", "joint_position")),
        ({"rate_hz": -1}, ("rate_hz",)),
    ):
        path.write_text(json.dumps(good | change), encoding="utf-8")
        assert lehrling("view", cell, "--spec", path).refused(*words)
    path.write_text("a: [", encoding="utf-8")
    assert lehrling("view", cell, "--spec", path).refused("not YAML")
    assert lehrling("view", cell, "--spec", tmp_path / "absent.yaml").refused("absent.yaml")


@pytest.mark.parametrize("verb", ["inspect", "verify", "repair", "view"])
def test_a_directory_that_is_no_dataset_is_refused_and_left_alone(lehrling: Command, tmp_path: Path, verb: str) -> None:
    (tmp_path / "holiday.txt").write_text("sun", encoding="utf-8")
    assert lehrling(verb, tmp_path).refused(str(tmp_path), "dataset")
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]
    assert lehrling(verb, tmp_path / "absent").refused("absent")


def test_an_unknown_episode_is_refused(lehrling: Command, cell: Path) -> None:
    assert lehrling("inspect", cell, "kitting-arm6-00009999").refused("kitting-arm6-00009999")
    assert lehrling("edit", "purge", cell, "kitting-arm6-00009999", "--yes").refused("kitting-arm6-00009999")


def test_a_second_writer_is_refused_and_a_reader_is_not(lehrling: Command, cell: Path) -> None:
    with Dataset.open_for_writing(cell):
        assert lehrling("repair", cell).refused("being written by process")
        assert lehrling("edit", "purge", cell, FIRST, "--yes").refused("being written by process")
        assert lehrling("verify", cell).code == 0
    assert (cell / "episodes" / FIRST).is_dir()
