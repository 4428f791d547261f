"""Merge: other datasets' episodes byte for byte, all or none, never twice, never over what is here."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from edited import copied, files, folders, small_dataset, valid, words
from view_robots import humanoid_messages, record

from lehrling.datasets import inventory
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.edit_cut import trim
from lehrling.datasets.edit_merge import merge
from lehrling.datasets.edits import Labels, delete, label, undo
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import ContractError, DamageError, InputError, StorageError
from lehrling.datasets.where import parse_where


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {
        "a": small_dataset(folder / "a.zarr", ("one", "two")),
        "b": small_dataset(folder / "b.zarr", ("three", "four"), 0.2),
    }


@pytest.fixture
def a(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["a"], tmp_path / "a.zarr")


@pytest.fixture
def b(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["b"], tmp_path / "b.zarr")


def test_merged_episodes_are_the_same_bytes_under_the_same_hash(a: Path, b: Path) -> None:
    before = files(b)
    seen: list[tuple[int, int]] = []
    with Dataset.open_for_writing(a) as dataset:
        report = merge(dataset, [b], progress=lambda done, total: seen.append((done, total)))
        assert (report.number, report.made, report.skipped) == (1, ("three", "four"), {})
        assert dataset.verify().whole
    for name in ("three", "four"):
        assert files(a / "episodes" / name) == files(b / "episodes" / name)
        assert words(a)[name].content_hash == words(b)[name].content_hash
        assert words(a)[name].timing == words(b)[name].timing
    assert valid(a) == ["four", "one", "three", "two"]
    total = sum(record.bytes for record in words(b).values())
    assert seen == [(words(b)["three"].bytes, total), (total, total)]
    assert files(b) == before


def test_several_datasets_merge_into_a_new_one(a: Path, b: Path, tmp_path: Path) -> None:
    with Dataset.open_for_writing(tmp_path / "new.zarr", create=True) as dataset:
        assert merge(dataset, [a, b]).words == "merged 4 episodes of a.zarr, b.zarr"
        assert dataset.verify().whole
    assert valid(tmp_path / "new.zarr") == ["four", "one", "three", "two"]


def test_what_is_here_already_is_left_alone(a: Path, b: Path) -> None:
    with Dataset.open_for_writing(a) as dataset:
        merge(dataset, [b])
        label(dataset, [dataset.records["three"]], Labels("failure"))
        delete(dataset, [dataset.records["four"]])
        report = merge(dataset, [b, b])
        assert (report.number, report.made) == (0, ())
        assert report.skipped == {"three": "is here already", "four": "is deleted here"}
    assert words(a)["three"].outcome == "failure"


def test_labels_and_parents_come_along(a: Path, b: Path) -> None:
    with Dataset.open_for_writing(b) as source:
        label(source, [source.records["three"]], Labels(tag=("dark",)))
        trim(source, [source.records["four"]], 0.1)
    with Dataset.open_for_writing(a) as dataset:
        assert merge(dataset, [b]).made == ("three", "four.t1")
    assert words(a)["three"].tags == ("dark",)
    assert words(a)["four.t1"].parent == words(b)["four.t1"].parent
    assert "four" not in words(a)


def test_a_filter_says_what_is_merged(a: Path, b: Path) -> None:
    with Dataset.open_for_writing(a) as dataset:
        assert merge(dataset, [b], parse_where("id == 'four'")).made == ("four",)
        with pytest.raises(InputError, match="Expected a sealed episode that passes 'duration_s > 99'"):
            merge(dataset, [b], parse_where("duration_s > 99"))


def test_an_id_of_other_content_is_refused_before_anything_is_copied(a: Path, b: Path, tmp_path: Path) -> None:
    other = small_dataset(tmp_path / "other.zarr", ("five", "one"), 0.1)
    with Dataset.open_for_writing(a) as dataset, pytest.raises(InputError, match=r"'one' of .* has other content"):
        merge(dataset, [b, other])
    assert (valid(a), folders(a)) == (["one", "two"], ["one", "two"])
    new = Dataset.open_for_writing(tmp_path / "new.zarr", create=True)
    with new as dataset, pytest.raises(InputError, match="has other content than the one of that id"):
        merge(dataset, [a, other])


def test_a_merge_taken_back_can_be_made_again_without_copying(a: Path, b: Path) -> None:
    with Dataset.open_for_writing(a) as dataset:
        merge(dataset, [b])
        assert undo(dataset).changed == ("three", "four")
        assert sorted(e.id for e in dataset.episodes()) == ["one", "two"]
        inode = (a / "episodes" / "three" / "zarr.json").stat().st_ino
        report = merge(dataset, [b])
        assert (report.changed, report.made) == (("three", "four"), ())
        assert (a / "episodes" / "three" / "zarr.json").stat().st_ino == inode
    assert valid(a) == ["four", "one", "three", "two"]


def test_another_contract_is_refused_with_the_difference_unless_asked_for(a: Path, tmp_path: Path) -> None:
    other = tmp_path / "humanoid.zarr"
    record(other, "walk", humanoid_messages(4), load_embodiment("humanoid"))
    with Dataset.open_for_writing(a) as dataset:
        with pytest.raises(
            ContractError, match=r"'walk' of .* has another contract than 'one'\. The contracts differ .*--mixed"
        ):
            merge(dataset, [other])
        assert merge(dataset, [other], mixed=True).made == ("walk",)
    new = Dataset.open_for_writing(tmp_path / "new.zarr", create=True)
    with new as dataset, pytest.raises(ContractError, match="another contract"):
        merge(dataset, [a, other])


def test_a_dataset_is_not_merged_into_itself(a: Path) -> None:
    with Dataset.open_for_writing(a) as dataset, pytest.raises(InputError, match="Expected another dataset"):
        merge(dataset, [a / ".." / a.name])


def test_a_damaged_source_merges_nothing_and_goes_on_once_it_is_mended(a: Path, b: Path) -> None:
    path = b / "episodes" / "four" / "tcp_pose" / "value" / "c" / "0" / "0"
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with Dataset.open_for_writing(a) as dataset, pytest.raises(DamageError, match="is not as it was sealed"):
        merge(dataset, [b])
    assert (valid(a), folders(a)) == (["one", "two"], ["one", "three", "two"])
    path.write_bytes(whole)
    inode = (a / "episodes" / "three" / "zarr.json").stat().st_ino
    with Dataset.open_for_writing(a) as dataset:
        assert dataset.repaired.mended == ()
        merge(dataset, [b])
        assert dataset.verify().whole
    assert (a / "episodes" / "three" / "zarr.json").stat().st_ino == inode
    assert not (a / "edit.json").exists()


def test_what_an_interrupted_merge_copied_is_dropped_by_repair_and_by_other_edits(a: Path, b: Path) -> None:
    shutil.rmtree(b / "episodes" / "four")
    for drop in ("repair", "trim", "merge"):
        with Dataset.open_for_writing(a) as dataset:
            with pytest.raises(DamageError, match="Expected an inventory"):
                merge(dataset, [b])
            assert "three" in folders(a)
            if drop == "repair":
                dataset.repair(deep=True)
                assert dataset.repaired.mended == ("took back the interrupted merge",)
            elif drop == "trim":
                trim(dataset, [dataset.records["two"]], 0.1)
            else:
                with pytest.raises(DamageError):
                    merge(dataset, [b], parse_where("id == 'four'"))
        assert "three" not in folders(a)


@pytest.mark.parametrize("path", ["../../../escape", "/tmp/escape", "inventory.json"])
def test_an_inventory_that_leads_out_of_its_episode_is_refused(a: Path, b: Path, path: str) -> None:
    directory = b / "episodes" / "three"
    listing = [inventory.Entry(path, 1, "00"), *inventory.load(directory)[1:]]
    inventory.save(directory, listing)
    manifest = b / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    told = [
        line | ({"content_hash": inventory.content_hash(listing)} if line["id"] == "three" else {}) for line in lines
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in told))
    with Dataset.open_for_writing(a) as dataset, pytest.raises(DamageError, match="is no file of an episode"):
        merge(dataset, [b])
    assert not list(a.parent.rglob("escape"))


def test_a_disk_that_is_too_small_is_refused_before_copying(a: Path, b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(a)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 << 20))
    with Dataset.open_for_writing(a) as dataset, pytest.raises(StorageError, match="of which 10 MB are free"):
        merge(dataset, [b])
    assert folders(a) == ["one", "two"]


def test_an_empty_source_is_refused(a: Path, tmp_path: Path) -> None:
    create_dataset(tmp_path / "empty.zarr")
    with Dataset.open_for_writing(a) as dataset, pytest.raises(InputError, match="Expected a sealed episode in"):
        merge(dataset, [tmp_path / "empty.zarr"])


@pytest.mark.parametrize("error", [errno.EXDEV, errno.ENOSYS])
def test_files_are_copied_where_the_kernel_does_not_copy_them(
    a: Path, b: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(error, "no")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with Dataset.open_for_writing(a) as dataset:
        merge(dataset, [b])
        assert dataset.verify().whole
    assert files(a / "episodes" / "three") == files(b / "episodes" / "three")


def test_a_disk_that_fails_on_the_way_is_named_and_the_merge_goes_on_later(
    a: Path, b: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Dataset.open_for_writing(a) as dataset:
        with monkeypatch.context() as broken:
            broken.setattr(os, "copy_file_range", fail)
            with pytest.raises(StorageError, match="No space left while writing"):
                merge(dataset, [b])
        assert folders(a) == ["one", "two"]
        assert merge(dataset, [b]).made == ("three", "four")
