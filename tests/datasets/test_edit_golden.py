"""Manifests with edits and snapshots of every format version are read for ever, and by versions from before there were edits."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

from lehrling.datasets.edit_log import edit_log
from lehrling.datasets.manifest import EpisodeRecord, Parent, read_manifest
from lehrling.datasets.snapshots import read_snapshot

GOLDEN = Path(__file__).parent / "golden"
ONE = "b909d5de5869adadd84d9bc9872d3247e601eb37b6e5ecac4cff858faa86c779"
LATER = {"tags", "sealed_as", "parent", "edit"}
"""Keys that versions from before edits pass over."""


def manifest(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN / "manifest-with-edits.jsonl", tmp_path / "manifest.jsonl")
    return tmp_path


def test_a_manifest_with_edits_is_read_as_it_was_meant(tmp_path: Path) -> None:
    records = read_manifest(manifest(tmp_path))
    assert {name: record.status for name, record in records.items()} == {
        "one": "replaced", "two": "purged", "one.t1": "sealed",
    }  # fmt: skip
    part = records["one.t1"]
    assert part.parent == Parent("one", ONE, 0.1, 0.25)
    assert (part.outcome, part.instruction, part.tags) == ("failure", "take the part", ("dark",))
    assert part.sealed_as == {"instruction": "put the red part into the left pocket", "outcome": "success"}
    assert records["one"].reason == "replaced by one.t1"


def test_its_edits_are_listed_with_what_took_them_back(tmp_path: Path) -> None:
    log = edit_log(manifest(tmp_path))
    assert [(e.number, e.verb, e.ids, e.undone_by) for e in log] == [
        (1, "label", ("one",), 0),
        (2, "delete", ("one", "two"), 3),
        (3, "undo", ("one", "two"), 0),
        (4, "trim", ("one", "one.t1"), 0),
        (0, "purge", ("two",), 0),
    ]
    assert log[3].made == ("one.t1",)


def test_versions_from_before_edits_read_the_same_episodes_under_the_same_labels(tmp_path: Path) -> None:
    """They take the last line of an id, whatever its status, and know fewer keys."""
    ours = read_manifest(manifest(tmp_path))
    known = {field.name for field in fields(EpisodeRecord)} - LATER
    theirs = {}
    for line in (tmp_path / "manifest.jsonl").read_text().splitlines():
        data = json.loads(line)
        theirs[data["id"]] = {key: value for key, value in data.items() if key in known}
    assert list(theirs) == list(ours)
    for name, data in theirs.items():
        record = ours[name]
        assert (data["status"], data["outcome"], data["instruction"]) == (
            record.status, record.outcome, record.instruction,
        )  # fmt: skip


def test_a_snapshot_of_format_1_is_read_and_has_the_hash_that_it_had(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    shutil.copy(GOLDEN / "snapshot-1.json", tmp_path / "snapshots" / "v1.json")
    snapshot = read_snapshot(tmp_path, "v1")
    assert snapshot.hash == "f8244d55dafde4249feee41a8b01ce4b0e34d5f1a8d7a6e891d0e5d97fd98e8b"
    assert [(e.id, e.tags, e.parent) for e in snapshot.episodes] == [("one.t1", ("dark",), "one"), ("two", (), "")]
