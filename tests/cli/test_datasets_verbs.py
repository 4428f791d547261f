"""inspect, verify, repair, edit purge: what they say, what they return, what they refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import Command, script

from lehrling.datasets.dataset import Dataset

FIRST = "kitting-arm6-00000000"
ABSENT = "kitting-arm6-00009999"
HOLD = """
import sys, time
from lehrling.datasets.dataset import Dataset
dataset = Dataset.open_for_writing(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


def a_chunk(cell: Path) -> Path:
    chunks = cell / "episodes" / FIRST / "joint_position" / "value" / "c"
    return next(path for path in sorted(chunks.rglob("*")) if path.is_file())


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_inspect_shows_people_a_table_and_programs_json(lehrling: Command, made: Path) -> None:
    seen = lehrling("inspect", made / "cell.zarr")
    assert (seen.code, seen.err) == (0, "")
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


def test_inspect_counts_both_robots_of_a_mixed_dataset(lehrling: Command, mixed: Path) -> None:
    facts = lehrling("inspect", mixed, "--json").data
    assert facts["robots"] == {"arm6": 3, "iiwa": 1}
    assert sorted(facts["contracts"].values()) == [1, 3]


def test_the_installed_script_inspects_with_json_alone_on_stdout(made: Path) -> None:
    seen = script("inspect", made / "cell.zarr", "--json")
    assert (seen.code, seen.err, seen.data["episodes"]) == (0, "", 3)


def test_verify_passes_what_is_whole(lehrling: Command, made: Path) -> None:
    report = lehrling("verify", made / "cell.zarr", "--json")
    assert (report.code, report.data["problems"], report.data["whole"]) == (0, {}, True)
    assert lehrling("verify", made / "cell.zarr").err.splitlines()[-1].endswith("whole")


@pytest.mark.parametrize(
    ("damage", "word"),
    [(Path.unlink, "is missing"), (flip_a_bit, "other content"), (lambda path: path.write_bytes(b""), "0 bytes")],
)
def test_verify_fails_on_a_damaged_chunk_and_names_the_file(
    lehrling: Command, cell: Path, damage: object, word: str
) -> None:
    chunk = a_chunk(cell)
    assert callable(damage)
    damage(chunk)
    name = str(chunk.relative_to(cell / "episodes" / FIRST))
    seen = lehrling("verify", cell)
    assert (seen.code, seen.out) == (1, "")
    assert f"{FIRST}: {name} " in seen.err
    assert "1 damaged" in seen.err
    report = lehrling("verify", cell, "--json")
    assert (report.code, report.data["whole"], list(report.data["problems"])) == (1, False, [FIRST])
    assert [problem for problem in report.data["problems"][FIRST] if name in problem and word in problem]


def test_repair_of_what_is_whole_changes_nothing(lehrling: Command, cell: Path) -> None:
    before = contents(cell)
    facts = lehrling("repair", cell, "--json")
    assert facts.code == 0
    assert facts.data == {"sealed": [], "discarded": [], "quarantined": {}, "mended": [], "losses": []}
    after = contents(cell)
    assert after.pop(".lock", b"") == b""
    before.pop(".lock", None)
    assert after == before


def test_repair_sets_a_damaged_episode_aside_and_says_that_something_is_lost(lehrling: Command, cell: Path) -> None:
    chunk = a_chunk(cell)
    chunk.unlink()
    seen = lehrling("repair", cell, "--json")
    assert seen.code == 3
    assert list(seen.data["quarantined"]) == [FIRST]
    assert str(chunk.relative_to(cell / "episodes" / FIRST)) in seen.data["quarantined"][FIRST]
    assert lehrling("inspect", cell, "--json").data["statuses"] == {"sealed": 2, "quarantined": 1}
    assert lehrling("inspect", cell, FIRST).refused(FIRST, "quarantined", "is missing")
    again = lehrling("repair", cell)
    assert again.code == 0
    assert "quarantined 0" in again.err


def test_repair_tells_people_which_episode_is_set_aside(lehrling: Command, cell: Path) -> None:
    flip_a_bit(a_chunk(cell))
    seen = lehrling("repair", cell)
    assert (seen.code, seen.out) == (3, "")
    assert f"  {FIRST}: joint_position/value/" in seen.err


def test_repair_cuts_a_torn_line_and_loses_nothing(lehrling: Command, cell: Path) -> None:
    manifest = cell / "manifest.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + b'{"id": "torn')
    seen = lehrling("repair", cell, "--json")
    assert (seen.code, seen.data["mended"]) == (0, ["cut a torn line off the manifest"])
    assert manifest.read_bytes() == whole


@pytest.mark.parametrize("verb", ["inspect", "verify", "repair", "view"])
def test_a_damaged_manifest_fails_with_the_line_and_a_remedy(lehrling: Command, cell: Path, verb: str) -> None:
    manifest = cell / "manifest.jsonl"
    manifest.write_bytes(b"not json\n" + manifest.read_bytes())
    assert lehrling(verb, cell).refused("Line 1", str(manifest), "restore", code=1)


def test_purge_deletes_the_files_and_leaves_a_tombstone(lehrling: Command, cell: Path) -> None:
    assert lehrling("edit", "purge", cell, FIRST, "--yes", "--json").data == {
        "purged": [FIRST], "left": [],
    }  # fmt: skip
    assert not (cell / "episodes" / FIRST).exists()
    assert not (cell / "views" / "train").exists()
    assert not [name for name, content in contents(cell / "episodes").items() if FIRST.encode() in content]
    tombstone = Dataset.open(cell).records[FIRST]
    assert (tombstone.status, tombstone.instruction, tombstone.lengths) == ("purged", "", {})
    assert lehrling("verify", cell).code == 0
    assert lehrling("inspect", cell, FIRST).refused(FIRST, "purged")
    assert lehrling("edit", "purge", cell, FIRST, "--yes").refused(FIRST, "`lehrling inspect`")


@pytest.mark.parametrize(("answer", "code"), [("n\n", 130), ("\n", 130), ("", 130), ("y\n", 0)])
def test_purge_asks_and_only_yes_deletes(
    lehrling: Command, cell: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    before = contents(cell)
    read, write = os.pipe()
    os.write(write, answer.encode())
    os.close(write)
    with os.fdopen(read) as answers:
        monkeypatch.setattr("sys.stdin", answers)
        seen = lehrling("edit", "purge", cell, FIRST)
    assert (seen.code, seen.out) == (code, "")
    assert f"Delete {FIRST} from {cell} for good?" in seen.err
    assert (cell / "episodes" / FIRST).exists() == bool(code)
    assert (contents(cell) == before) == bool(code)


@pytest.mark.parametrize("verb", ["inspect {}", "verify {}", "repair {}", "view {}", "edit purge {} x --yes"])
def test_a_directory_that_is_no_dataset_is_refused_and_left_alone(lehrling: Command, tmp_path: Path, verb: str) -> None:
    (tmp_path / "holiday.txt").write_text("sun", encoding="utf-8")
    assert lehrling(*verb.format(tmp_path).split()).refused(str(tmp_path), "no Lehrling dataset")
    assert lehrling(*verb.format(tmp_path / "holiday.txt").split()).refused("holiday.txt", "dataset directory")
    assert lehrling(*verb.format(tmp_path / "absent").split()).refused("absent", "dataset directory")
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]


def test_a_dataset_of_another_format_is_refused(lehrling: Command, cell: Path) -> None:
    (cell / "zarr.json").write_text(json.dumps({"zarr_format": 3, "attributes": {"lehrling_dataset": 9}}))
    assert lehrling("inspect", cell).refused("format 1", "got 9", "use the version that wrote it")


@pytest.mark.parametrize("name", [ABSENT, "../cell.zarr", ""])
def test_an_unknown_episode_is_refused(lehrling: Command, cell: Path, name: str) -> None:
    assert lehrling("inspect", cell, name, "--json").refused(name, "`lehrling inspect`")
    assert lehrling("edit", "purge", cell, name, "--yes", "--json").refused(name)
    assert len(Dataset.open(cell).episodes()) == 3


def test_a_second_writer_is_refused_and_a_reader_is_not(lehrling: Command, cell: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, cell], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        told = f"being written by process {holder.pid}", "wait for it to end, or stop it"
        assert lehrling("repair", cell).refused(str(cell), *told)
        assert lehrling("edit", "purge", cell, FIRST, "--yes").refused(str(cell), *told)
        assert lehrling("verify", cell).code == 0
        assert lehrling("inspect", cell).code == 0
        holder.kill()
    assert (cell / "episodes" / FIRST).is_dir()
    assert lehrling("repair", cell).code == 0


def test_a_read_only_dataset_is_read(lehrling: Command, read_only: Path) -> None:
    assert lehrling("verify", read_only, "--json").data["whole"]
    assert lehrling("inspect", read_only, FIRST, "--json").data["id"] == FIRST


READ_ONLY = ["repair {}", f"edit purge {{}} {FIRST} --yes", "sim generate {} --task kitting", "view {} --name other"]


@pytest.mark.parametrize("line", READ_ONLY)
def test_writing_into_a_read_only_dataset_is_refused(lehrling: Command, read_only: Path, line: str) -> None:
    assert lehrling(*line.format(read_only).split()).refused(str(read_only))
    assert (read_only / "episodes" / FIRST).is_dir()
