"""Snapshots: pinned for ever, read back bit for bit whatever was edited since, refused by name once something was purged."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from edited import copied, files, killed_at, small_dataset

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_cut import split, trim
from lehrling.datasets.edits import Labels, delete, label, undo
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.snapshot_diff import version_diff
from lehrling.datasets.snapshots import now, read_snapshot, snapshot_names, take_snapshot
from lehrling.datasets.view import EpisodeFilter, Field, View, ViewSpec, build_view

SPEC = ViewSpec(
    rate_hz=10,
    image_px=96,
    cameras=("front",),
    state=(Field(stream="joint_position", latency_ms=5),),
    action=(Field(stream="tcp_command"),),
    image_latency_ms=40,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("made") / "plant.zarr", ("one", "two", "three"), 0.6)


@pytest.fixture
def plant(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "plant.zarr")


def of_snapshot(name: str, **more: object) -> ViewSpec:
    return SPEC.model_copy(update={"episodes": EpisodeFilter.model_validate({"snapshot": name, **more})})


def test_a_snapshot_holds_ids_hashes_and_labels_in_force(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, [dataset.records["two"]], Labels("failure", tag=("dark",)))
        snapshot = take_snapshot(dataset, "v1", "id != 'three'")
        record = dataset.records["two"]
    data = json.loads((plant / "snapshots" / "v1.json").read_text())
    assert [episode["id"] for episode in data["episodes"]] == ["one", "two"]
    assert data["episodes"][1] == {
        "id": "two", "content_hash": record.content_hash, "contract_hash": record.contract_hash, "robot": "arm6",
        "task": "kitting", "instruction": "put the red part into the left pocket", "outcome": "failure",
        "tags": ["dark"], "parent": "",
    }  # fmt: skip
    assert (data["hash"], data["where"], data["contract_hashes"]) == (
        snapshot.hash, "id != 'three'", [record.contract_hash],
    )  # fmt: skip
    assert read_snapshot(plant, "v1") == snapshot


def test_the_hash_is_of_the_content_and_not_of_name_or_time(plant: Path) -> None:
    dataset = Dataset.open(plant)
    assert take_snapshot(dataset, "a").hash == take_snapshot(dataset, "b").hash == now(dataset).hash
    assert take_snapshot(dataset, "c", "id == 'one'").hash != now(dataset).hash
    assert snapshot_names(plant) == ["a", "b", "c"]


def test_a_snapshot_is_never_written_over(plant: Path) -> None:
    dataset = Dataset.open(plant)
    take_snapshot(dataset, "v1")
    before = files(plant / "snapshots")
    with pytest.raises(InputError, match=r"There is a snapshot 'v1' of .* already, and snapshots never change"):
        take_snapshot(dataset, "v1", "id == 'one'")
    assert files(plant / "snapshots") == before


@pytest.mark.parametrize(
    ("name", "where", "reason"),
    [
        ("now", "", "a name other than 'now'"),
        ("../v1", "", "Expected an id"),
        ("v1", "duration_s > 99", "Expected a sealed episode to pin"),
        ("v1", "colour == 'red'", "no field 'colour'"),
    ],
)
def test_a_snapshot_of_nothing_or_nowhere_is_refused(plant: Path, name: str, where: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        take_snapshot(Dataset.open(plant), name, where)
    assert snapshot_names(plant) == []


def test_a_missing_snapshot_is_refused_with_those_that_there_are(plant: Path) -> None:
    take_snapshot(Dataset.open(plant), "v1")
    with pytest.raises(InputError, match=r"There is no snapshot 'v2' of .*; there is: v1"):
        read_snapshot(plant, "v2")


@pytest.mark.parametrize(("old", "new"), [('"success"', '"failure"'), ("}", ""), ('"v1"', '"v2"')])
def test_a_changed_snapshot_is_damage(plant: Path, old: str, new: str) -> None:
    take_snapshot(Dataset.open(plant), "v1")
    path = plant / "snapshots" / "v1.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DamageError, match=r"not as it was written|cannot be read"):
        read_snapshot(plant, "v1")


def test_what_a_killed_snapshot_left_is_swept_and_one_at_work_is_not(plant: Path) -> None:
    folder = plant / "snapshots"
    folder.mkdir()
    (folder / f".v1.json.{os.getpid()}.partial").touch()
    (folder / ".v2.json.99999999.partial").touch()
    with Dataset.open_for_writing(plant) as dataset:
        assert dataset.repaired.mended == ("removed the half-written snapshot .v2.json.99999999.partial",)
    assert [path.name for path in folder.iterdir()] == [f".v1.json.{os.getpid()}.partial"]
    assert snapshot_names(plant) == []


def edited_since(root: Path) -> None:
    """Label, trim, split, delete: everything but purge."""
    with Dataset.open_for_writing(root) as dataset:
        label(dataset, [dataset.records["one"]], Labels("failure", instruction="something else"))
        trim(dataset, [dataset.records["one"]], 0.1)
        split(dataset, [dataset.records["two"]], [0.3])
        delete(dataset, [dataset.records["three"]])


def test_a_view_of_a_snapshot_is_bit_identical_after_later_edits(plant: Path) -> None:
    take_snapshot(Dataset.open(plant), "v1")
    build_view(Dataset.open(plant), "before", of_snapshot("v1"))
    edited_since(plant)
    dataset = Dataset.open(plant)
    build_view(dataset, "after", of_snapshot("v1"))
    assert files(plant / "views" / "after") == files(plant / "views" / "before")
    view = View.open(dataset, "before")
    assert view.stale == ""
    assert [(e.id, e.instruction) for e in view.episodes] == [
        (name, "put the red part into the left pocket") for name in ("one", "three", "two")
    ]


def test_a_view_carries_the_snapshots_name_and_hash(plant: Path) -> None:
    snapshot = take_snapshot(Dataset.open(plant), "v1")
    keep = build_view(Dataset.open(plant), "train", of_snapshot("v1")).spec.episodes
    assert (keep.snapshot, keep.snapshot_hash) == ("v1", snapshot.hash)
    again = View.open(Dataset.open(plant), "train").spec
    assert build_view(Dataset.open(plant), "train", again).spec == again


def test_a_specification_with_another_snapshots_hash_is_refused(plant: Path) -> None:
    take_snapshot(Dataset.open(plant), "v1")
    with pytest.raises(InputError, match="Expected the snapshot 'v1' with hash abc"):
        build_view(Dataset.open(plant), "train", of_snapshot("v1", snapshot_hash="abc"))


def test_a_view_holds_of_a_snapshot_what_the_filter_passes(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, [dataset.records["two"]], Labels("failure"))
    take_snapshot(Dataset.open(plant), "v1")
    edited_since(plant)
    view = build_view(Dataset.open(plant), "train", of_snapshot("v1", where="id != 'three'"))
    assert [episode.id for episode in view.episodes] == ["one"]


def test_a_purged_episode_is_named_when_its_snapshot_is_asked_for(plant: Path) -> None:
    take_snapshot(Dataset.open(plant), "v1")
    with Dataset.open_for_writing(plant) as dataset:
        dataset.purge("two")
    with pytest.raises(InputError, match="Snapshot 'v1' holds episode 'two', which is purged"):
        build_view(Dataset.open(plant), "train", of_snapshot("v1"))
    assert read_snapshot(plant, "v1").episodes[2].id == "two"


def test_specifications_without_snapshots_keep_the_hash_that_they_had() -> None:
    plain = json.loads(SPEC.canonical_json)["episodes"]
    assert plain == {"outcomes": ["success", "unknown"], "tasks": None, "robots": None, "ids": None, "contract": None}
    assert of_snapshot("v1").hash != SPEC.hash


def test_a_label_makes_views_stale_and_undo_makes_them_fit_again(plant: Path) -> None:
    built = build_view(Dataset.open(plant), "train", SPEC)
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, [dataset.records["two"]], Labels(instruction="take it"))
        assert "labels changed since" in View.open(dataset, "train").stale
        view = build_view(dataset, "train", SPEC)
        assert [e.instruction for e in view.episodes if e.id == "two"] == ["take it"]
        undo(dataset)
        assert build_view(dataset, "train", SPEC).key == built.key


def test_a_filter_in_a_specification_is_checked_when_it_is_read() -> None:
    with pytest.raises(ValueError, match="known are"):
        EpisodeFilter(where="colour == 'red'")


def test_a_difference_tells_added_removed_relabelled_and_trimmed(plant: Path) -> None:
    dataset = Dataset.open(plant)
    take_snapshot(dataset, "a", "id != 'three'")
    with Dataset.open_for_writing(plant) as writer:
        label(writer, [writer.records["one"]], Labels("failure", tag=("dark",)))
    take_snapshot(Dataset.open(plant), "b")
    edited_since(plant)
    seen = version_diff(Dataset.open(plant), "a", "b")
    assert (seen.added, seen.removed, seen.trimmed, seen.same) == (["three"], {}, {}, 1)
    assert seen.relabelled == {"one": {"outcome": ("success", "failure"), "tags": ((), ("dark",))}}
    later = version_diff(Dataset.open(plant), "b", "now")
    assert later.trimmed == {"one": ["one.t1"], "two": ["two.s1", "two.s2"]}
    assert (later.added, later.removed, later.same, later.equal) == ([], {"three": "deleted"}, 0, False)
    assert version_diff(Dataset.open(plant), "b", "b").equal


def test_a_part_of_a_part_is_told_as_the_whole_ones(plant: Path) -> None:
    take_snapshot(Dataset.open(plant), "a")
    edited_since(plant)
    with Dataset.open_for_writing(plant) as dataset:
        trim(dataset, [dataset.records["two.s1"]], 0.1)
    seen = version_diff(Dataset.open(plant), "a", "now")
    assert seen.trimmed["two"] == ["two.s1.t1", "two.s2"]


def test_a_kill_while_pinning_leaves_no_snapshot_or_a_whole_one(plant: Path) -> None:
    assert killed_at("snapshot-written", lambda: take_snapshot(Dataset.open(plant), "v1")) == -signal.SIGKILL
    assert snapshot_names(plant) == []
    Dataset.open_for_writing(plant).close()
    assert list((plant / "snapshots").iterdir()) == []
    assert take_snapshot(Dataset.open(plant), "v1").name == "v1"
