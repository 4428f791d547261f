"""A kill at every named place of every edit: the next opening gives the state before or after, and nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from edited import copied, folders, killed_at, small_dataset, valid

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_cut import split, trim
from lehrling.datasets.edit_log import edit_log
from lehrling.datasets.edit_merge import merge
from lehrling.datasets.edits import Labels, delete, label, restore, undo
from lehrling.datasets.failpoints import EDIT_PLACES


def edit(verb: str, root: Path, other: Path) -> None:
    """Make an edit of both episodes."""
    with Dataset.open_for_writing(root) as dataset:
        records = [dataset.records["one"], dataset.records["two"]]
        edits: dict[str, Callable[[], object]] = {
            "delete": lambda: delete(dataset, records),
            "restore": lambda: restore(dataset, records),
            "label": lambda: label(dataset, records, Labels("failure")),
            "undo": lambda: undo(dataset),
            "trim": lambda: trim(dataset, records, 0.1),
            "split": lambda: split(dataset, records[:1], [0.1]),
            "merge": lambda: merge(dataset, [other]),
        }
        edits[verb]()


RECORDS = ("edit-commit", "manifest-torn", "edit-torn", "manifest-append", "edit-committed")
FILES = ("edit-planned", "edit-written", "edit-synced", "edit-renamed")
AFTER = ("manifest-append", "edit-committed")
"""Killed there, the edit is in force."""
RESULTS = {
    "delete": [],
    "restore": ["one", "two"],
    "label": ["one", "two"],
    "undo": ["one", "two"],
    "trim": ["one.t1", "two.t1"],
    "split": ["one.s1", "one.s2", "two"],
    "merge": ["five", "four", "one", "two"],
}
CASES = [(verb, place) for verb in ("delete", "restore", "label", "undo") for place in RECORDS]
CASES += [("trim", place) for place in (*FILES, *(f"{p}:2" for p in FILES[1:]), *RECORDS)]
CASES += [("split", place) for place in (*FILES, "edit-written:2", "edit-torn")]
AGAIN = ("edit-commit", "edit-torn", "edit-renamed")
"""After a kill there, the edit is asked for again."""


def test_every_place_is_tried() -> None:
    assert {*RECORDS, *FILES} == set(EDIT_PLACES)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("made") / "plant.zarr")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("made") / "other.zarr", ("four", "five"), 0.2)


def state(root: Path) -> dict[str, tuple[str, str]]:
    return {name: (record.status, record.outcome) for name, record in Dataset.open(root).records.items()}


def prepared(verb: str, plant: Path, root: Path) -> Path:
    """Return a dataset on which the edit can be made."""
    copied(plant, root)
    with Dataset.open_for_writing(root) as dataset:
        records = list(dataset.records.values())
        if verb in ("restore", "undo"):
            delete(dataset, records)
        else:
            label(dataset, records, Labels(tag=("before",)))
    return root


QUICK = {
    number for number, (_, place) in enumerate(CASES) if number % 4 == 0 or place not in [p for _, p in CASES[:number]]
}
"""Every place once, and some more; the slow suite has all."""


@pytest.mark.parametrize(
    ("verb", "place"),
    [pytest.param(*case, marks=[] if number in QUICK else pytest.mark.slow) for number, case in enumerate(CASES)],
)
def test_a_killed_edit_counts_as_a_whole_or_not_at_all(
    plant: Path, other: Path, tmp_path: Path, verb: str, place: str
) -> None:
    root = prepared(verb, plant, tmp_path / "plant.zarr")
    before, there = state(root), valid(root)
    assert killed_at(place, lambda: edit(verb, root, other)) == -signal.SIGKILL
    in_force = place in AFTER
    assert valid(root) == (RESULTS[verb] if in_force else there)
    assert Dataset.open(root).verify().whole
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.verify().whole
        assert dataset.repaired.quarantined == {}
    assert valid(root) == (RESULTS[verb] if in_force else there)
    assert (state(root) == before) is not in_force
    assert len(edit_log(root)) == (2 if in_force else 1)
    assert folders(root) == sorted({"one", "two", *(RESULTS[verb] if in_force else ())})
    left = {"edit.json", "quarantine", ".edit.json.partial", ".manifest.jsonl.partial"}
    assert not left & {path.name for path in root.iterdir()}
    if place in AGAIN:
        assert killed_at("", lambda: edit(verb, root, other)) == 0
        assert valid(root) == RESULTS[verb]


@pytest.mark.parametrize("place", [*FILES, *(f"{p}:2" for p in FILES[1:]), *RECORDS])
def test_a_killed_merge_counts_as_a_whole_or_not_at_all_and_goes_on(
    plant: Path, other: Path, tmp_path: Path, place: str
) -> None:
    root = prepared("merge", plant, tmp_path / "plant.zarr")
    there = valid(root)
    assert killed_at(place, lambda: edit("merge", root, other)) == -signal.SIGKILL
    in_force = place in AFTER
    assert valid(root) == (RESULTS["merge"] if in_force else there)
    renamed = {"edit-renamed": 1, "edit-written:2": 1, "edit-synced:2": 1}.get(place, 0)
    copies = 2 if place in (*RECORDS, "edit-renamed:2") else renamed
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.verify().whole
        assert len(folders(root)) == 2 + copies
        assert not [name for name in folders(root) if name.startswith(".")]
        assert (root / "edit.json").exists() is not in_force
        inodes = {name: (root / "episodes" / name / "zarr.json").stat().st_ino for name in folders(root)}
        report = merge(dataset, [other])
        assert len(report.skipped if in_force else report.made) == 2
        assert dataset.verify().whole
    assert valid(root) == RESULTS["merge"]
    assert {n: (root / "episodes" / n / "zarr.json").stat().st_ino for n in inodes} == inodes
    assert len(edit_log(root)) == 2
    assert not (root / "edit.json").exists()


def test_a_killed_merge_that_nobody_asks_for_again_is_dropped_by_repair(
    plant: Path, other: Path, tmp_path: Path
) -> None:
    root = prepared("merge", plant, tmp_path / "plant.zarr")
    assert killed_at("edit-renamed", lambda: edit("merge", root, other)) == -signal.SIGKILL
    with Dataset.open_for_writing(root) as dataset:
        assert folders(root) == ["four", "one", "two"]
        assert dataset.repair(deep=True).mended == ("took back the interrupted merge",)
    assert folders(root) == ["one", "two"]
    assert not (root / "edit.json").exists()
