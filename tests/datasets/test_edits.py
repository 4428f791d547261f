"""Edits that are records alone: what they change, what they leave, and how they are taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from edited import copied, files, small_dataset, valid, words

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_log import edit_log
from lehrling.datasets.edits import Labels, delete, label, restore, select, undo
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.files import MANIFEST
from lehrling.datasets.where import parse_where


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("made") / "plant.zarr")


@pytest.fixture
def plant(two: Path, tmp_path: Path) -> Path:
    return copied(two, tmp_path / "plant.zarr")


def of(dataset: Dataset, *names: str) -> list[object]:
    return [dataset.records[name] for name in names]


def test_a_deleted_episode_is_out_and_its_files_stay(plant: Path) -> None:
    before = files(plant / "episodes")
    with Dataset.open_for_writing(plant) as dataset:
        report = delete(dataset, select(dataset, ["one"], None, ("sealed",)), "gripper was loose")
    assert (report.number, report.changed) == (1, ("one",))
    assert valid(plant) == ["two"]
    record = words(plant)["one"]
    assert (record.status, record.reason) == ("deleted", "gripper was loose")
    assert files(plant / "episodes") == before


def test_what_was_deleted_is_restored_as_it_was(plant: Path) -> None:
    before = words(plant)["one"]
    with Dataset.open_for_writing(plant) as dataset:
        delete(dataset, [before])
        restore(dataset, select(dataset, ["one"], None, ("deleted",)))
        assert dataset.verify().whole
    after = words(plant)["one"]
    assert (after.status, after.reason, after.content_hash) == ("sealed", "", before.content_hash)


def test_a_damaged_episode_is_not_restored(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        delete(dataset, [dataset.records["one"]])
        (plant / "episodes" / "one" / "tcp_pose" / "stamp_ns" / "c" / "0").unlink()
        with pytest.raises(DamageError, match="tcp_pose/stamp_ns/c/0 is missing; it stays deleted"):
            restore(dataset, [dataset.records["one"]])
    assert valid(plant) == ["two"]


def test_a_quarantined_episode_whose_files_are_back_is_restored(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        dataset.quarantine("one", "a file was missing")
        restore(dataset, [dataset.records["one"]])
    assert valid(plant) == ["one", "two"]


def test_labels_change_words_and_remember_what_was_sealed(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        report = label(
            dataset, [dataset.records["one"]], Labels("failure", instruction="take it", tag=("slow", "dark"))
        )
        assert report.words == "labelled one: outcome 'failure', instruction 'take it', tag slow, tag dark"
        label(dataset, [dataset.records["one"]], Labels("success", untag=("slow",)))
    record = words(plant)["one"]
    assert (record.outcome, record.instruction, record.tags) == ("success", "take it", ("dark",))
    assert record.sealed_as == {"instruction": "put the red part into the left pocket"}
    assert Dataset.open(plant).episode("one").attributes["instruction"] == "put the red part into the left pocket"


def test_a_label_that_changes_nothing_is_no_edit(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        report = label(dataset, [dataset.records["one"]], Labels("success"))
    assert (report.number, report.changed, report.skipped) == (0, (), {"one": "is labelled so already"})
    assert edit_log(plant) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"outcome": "good"}, "Expected the outcome success, failure, unknown, got 'good'"),
        ({"tag": ("a b",)}, "Expected a tag of letters"),
        ({"instruction": "x" * 5000}, "at most 4096 characters"),
        ({}, "Expected an outcome, a task, an instruction or a tag"),
    ],
)
def test_words_that_are_no_labels_are_refused(given: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Labels(**given)  # type: ignore[arg-type]


def test_undo_takes_back_one_edit_after_the_other(plant: Path) -> None:
    first = words(plant)
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, list(dataset.records.values()), Labels(task="sorting"))
        second = dict(dataset.records)
        delete(dataset, [dataset.records["two"]])
        assert undo(dataset).words == "took back delete number 2 (deleted two)"
        assert {name: r.task for name, r in dataset.records.items()} == {n: r.task for n, r in second.items()}
        assert dataset.records["two"].status == "sealed"
        assert undo(dataset).changed == ("one", "two")
        with pytest.raises(InputError, match="no edit left"):
            undo(dataset)
    assert {name: (r.status, r.task, r.sealed_as) for name, r in words(plant).items()} == {
        name: (r.status, r.task, {}) for name, r in first.items()
    }
    log = edit_log(plant)
    assert [(e.number, e.verb, e.undoes, e.undone_by) for e in log] == [
        (1, "label", 0, 4), (2, "delete", 0, 3), (3, "undo", 2, 0), (4, "undo", 1, 0),
    ]  # fmt: skip


def test_undo_after_a_new_edit_takes_that_one_first(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        delete(dataset, [dataset.records["one"]])
        undo(dataset)
        label(dataset, [dataset.records["one"]], Labels("failure"))
        assert undo(dataset).words.startswith("took back label number 3")
        with pytest.raises(InputError, match="no edit left"):
            undo(dataset)


def test_what_was_purged_stays_purged_and_the_rest_comes_back(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        delete(dataset, list(dataset.records.values()))
        dataset.purge("one")
        report = undo(dataset)
        assert (report.changed, report.skipped) == (("two",), {"one": "stays purged"})
        with pytest.raises(InputError, match="can be taken back"):
            undo(dataset)
    assert valid(plant) == ["two"]
    assert not (plant / "episodes" / "one").exists()
    assert [(e.number, e.verb) for e in edit_log(plant)] == [(1, "delete"), (0, "purge"), (2, "undo")]


def test_a_deleted_id_is_never_recorded_anew(plant: Path) -> None:
    from recordings import record

    with Dataset.open_for_writing(plant) as dataset:
        delete(dataset, [dataset.records["one"]])
    before = files(plant / "episodes" / "one")
    with pytest.raises(InputError, match="never changes"):
        record(plant, "one", seconds=0.1)
    record(plant, "one", seconds=0.1, origin="sim")
    Dataset.open_for_writing(plant).close()
    assert words(plant)["one"].status == "deleted"
    assert files(plant / "episodes" / "one") == before


def test_episodes_are_chosen_by_filter_or_by_id(plant: Path) -> None:
    dataset = Dataset.open(plant)
    assert [r.id for r in select(dataset, [], parse_where("id != 'one'"), ("sealed",))] == ["two"]
    assert [r.id for r in select(dataset, ["two", "one", "two"], None, ("sealed",))] == ["two", "one"]
    for ids, where, reason in (
        ([], None, "Expected episode ids or a filter"),
        (["one"], parse_where("True"), "one of both"),
        ([], parse_where("duration_s > 99"), "No sealed episode of .* passes the filter 'duration_s > 99'"),
        (["three"], None, "There is no episode 'three'"),
    ):
        with pytest.raises(InputError, match=reason):
            select(dataset, ids, where, ("sealed",))
    with pytest.raises(InputError, match="Expected an episode that is deleted, but 'one' is sealed"):
        select(dataset, ["one"], None, ("deleted",))


def test_an_edit_that_lacks_its_last_line_never_counts_and_is_cut(plant: Path) -> None:
    path = plant / MANIFEST
    whole = path.read_bytes()
    with Dataset.open_for_writing(plant) as dataset:
        delete(dataset, list(dataset.records.values()))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert valid(plant) == ["one", "two"]
    with Dataset.open_for_writing(plant) as dataset:
        assert dataset.repaired.mended == ("cut a torn line off the manifest",)
    assert path.read_bytes() == whole


def test_an_edit_cut_short_before_other_lines_never_counts_either(plant: Path) -> None:
    path = plant / MANIFEST
    with Dataset.open_for_writing(plant) as dataset:
        delete(dataset, list(dataset.records.values()))
    *before, first, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*before, first, before[-1]]))
    assert valid(plant) == ["one", "two"]


def test_what_was_quarantined_since_stays_so_when_the_edit_before_is_taken_back(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, list(dataset.records.values()), Labels("failure"))
        dataset.quarantine("one", "a file is missing")
        report = undo(dataset)
        assert (report.changed, report.skipped) == (("two",), {"one": "stays quarantined"})
    assert {name: (r.status, r.outcome) for name, r in words(plant).items()} == {
        "one": ("quarantined", "failure"), "two": ("sealed", "success"),
    }  # fmt: skip


def test_an_edit_needs_a_dataset_open_for_writing(plant: Path) -> None:
    dataset = Dataset.open(plant)
    before = (plant / MANIFEST).read_bytes()
    with pytest.raises(InputError, match="is open for reading"):
        delete(dataset, [dataset.records["one"]])
    assert (plant / MANIFEST).read_bytes() == before
