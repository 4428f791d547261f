"""Trim and split: new episodes with the rows between two times, frames byte for byte, the parent replaced."""

from __future__ import annotations

import errno
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from edited import copied, folders, small_dataset, valid, words

from lehrling.datasets.arrays import write_depth, write_jpegs
from lehrling.datasets.codec import JpegFrames
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_cut import split, trim
from lehrling.datasets.edits import Labels, delete, label, restore, undo
from lehrling.datasets.encoded_chunks import EncodedChunks, copy_chunks, difference
from lehrling.datasets.episode import Episode
from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.manifest import Parent
from lehrling.datasets.rows import TIMES

MS = 1_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("made") / "plant.zarr", seconds=1.0)


@pytest.fixture
def plant(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "plant.zarr")


def first_receipt(episode: Episode) -> int:
    return min(int(episode.stream(name).received_ns[0]) for name in episode.streams)


def test_a_trimmed_episode_has_the_rows_received_between_the_times(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        report = trim(dataset, [dataset.records["one"]], 0.2, 0.75)
        assert (report.changed, report.made) == (("one",), ("one.t1",))
        assert dataset.verify().whole
    dataset = Dataset.open(plant)
    whole, part = dataset.episode_of(dataset.records["one"]), dataset.episode("one.t1")
    begin = first_receipt(whole)
    for name in whole.streams:
        old, new = whole.stream(name), part.stream(name)
        kept = (old.received_ns >= begin + 200 * MS) & (old.received_ns < begin + 750 * MS)
        assert 0 < kept.sum() < len(old)
        for time in TIMES:
            np.testing.assert_array_equal(getattr(new, time), getattr(old, time)[kept])
        if old.stream.kind == "colour_image":
            assert [new.encoded(k) for k in range(len(new))] == [old.encoded(int(k)) for k in np.flatnonzero(kept)]
            np.testing.assert_array_equal(new.frame(0), old.frame(int(np.flatnonzero(kept)[0])))
        else:
            np.testing.assert_array_equal(new.value, old.value[kept])
            np.testing.assert_array_equal(new.mask, old.mask[kept])
        assert new.attributes == old.attributes


def test_a_trimmed_episode_names_its_parent_and_keeps_the_words_in_force(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, [dataset.records["one"]], Labels("failure", tag=("short",)))
        trim(dataset, [dataset.records["one"]], -0.5)
    old, new = words(plant)["one"], words(plant)["one.t1"]
    assert (old.status, old.reason) == ("replaced", "replaced by one.t1")
    assert new.parent is not None
    assert (new.parent.id, new.parent.content_hash) == ("one", old.content_hash)
    assert new.parent.stop_s - new.parent.start_s == pytest.approx(0.5)
    assert (new.outcome, new.tags, new.sealed_as) == ("failure", ("short",), {"outcome": "success"})
    assert new.duration_s == pytest.approx(0.47, abs=0.05)
    assert new.lengths["joint_position"] == new.timing["joint_position"].count < old.lengths["joint_position"]
    assert new.timing["joint_position"].rate_hz == pytest.approx(100, abs=1)
    assert Dataset.open(plant).episode("one.t1").attributes["parent"]["id"] == "one"
    assert valid(plant) == ["one.t1", "two"]


def test_a_split_loses_no_row_and_repeats_none(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        report = split(dataset, [dataset.records["one"]], [0.6, 0.25])
        assert report.made == ("one.s1", "one.s2", "one.s3")
        whole = dataset.episode_of(dataset.records["one"])
        parts = [dataset.episode(name) for name in report.made]
        for name in whole.streams:
            received = np.concatenate([part.stream(name).received_ns for part in parts])
            np.testing.assert_array_equal(received, whole.stream(name).received_ns)
        frames = [part.stream("front").encoded(k) for part in parts for k in range(len(part.stream("front")))]
        assert frames == [whole.stream("front").encoded(k) for k in range(len(frames))]
        borders = [part.record.parent for part in parts]
        assert [a.stop_s == b.start_s for a, b in pairwise(b for b in borders if b)] == [True, True]


def test_the_same_cut_gives_the_same_content_hash(plant: Path, made: Path, tmp_path: Path) -> None:
    other = copied(made, tmp_path / "other.zarr")
    for root in (plant, other):
        with Dataset.open_for_writing(root) as dataset:
            trim(dataset, [dataset.records["one"]], 0.3)
    assert words(plant)["one.t1"].content_hash == words(other)["one.t1"].content_hash
    assert words(plant)["one.t1"].content_hash != words(plant)["one"].content_hash


def test_several_are_trimmed_at_once_and_taken_back_at_once(plant: Path) -> None:
    before = {name: record.status for name, record in words(plant).items()}
    with Dataset.open_for_writing(plant) as dataset:
        assert trim(dataset, list(dataset.records.values()), 0.1, -0.1).made == ("one.t1", "two.t1")
        undo(dataset)
        assert {name: dataset.records[name].status for name in before} == before
        assert (dataset.records["one.t1"].status, dataset.records["one.t1"].reason) == (
            "deleted", "trim number 1 was taken back",
        )  # fmt: skip
        assert trim(dataset, [dataset.records["one"]], 0.2).made == ("one.t2",)
    assert valid(plant) == ["one.t2", "two"]


def test_a_part_can_be_cut_again_and_the_parent_comes_back_only_without_its_heirs(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        split(dataset, [dataset.records["one"]], [0.5])
        trim(dataset, [dataset.records["one.s1"]], 0.2)
        with pytest.raises(InputError, match=r"replaced by one.s2, one.s1.t1; delete these first, or undo"):
            restore(dataset, [dataset.records["one"]])
        delete(dataset, [dataset.records["one.s2"], dataset.records["one.s1.t1"]])
        restore(dataset, [dataset.records["one"]])
    assert valid(plant) == ["one", "two"]


def test_a_cut_whose_parent_was_purged_is_not_taken_back(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        trim(dataset, [dataset.records["one"]], 0.2)
        dataset.purge("one")
        with pytest.raises(InputError, match=r"no edit left .* one stays purged"):
            undo(dataset)
    assert valid(plant) == ["one.t1", "two"]
    assert words(plant)["one.t1"].parent == Parent("one", words(plant)["one"].content_hash, 0.2, 0.992)


@pytest.mark.parametrize(
    ("start", "stop", "reason"),
    [
        (0.0, None, "keep a part of 'one', which lasts 0.992 s, got 0 to its end"),
        (0.5, 0.5, "keep a part"),
        (0.6, 0.2, "keep a part"),
        (0.0, 9.0, "a time within the 0.992 s of 'one', got 9 s"),
        (-9.0, None, "a time within"),
        (math.nan, None, "a time within the 0.992 s of 'one', got nan s"),
        (math.inf, None, "a time within"),
        (0.1, 1e300, r"a time within the 0.992 s of 'one', got 1e\+300 s"),
        (-math.inf, None, "a time within"),
    ],
)
def test_times_that_cut_nothing_or_everything_are_refused(
    plant: Path, start: float, stop: float | None, reason: str
) -> None:
    with Dataset.open_for_writing(plant) as dataset, pytest.raises(InputError, match=reason):
        trim(dataset, [dataset.records["one"]], start, stop)
    assert (valid(plant), folders(plant)) == (["one", "two"], ["one", "two"])


@pytest.mark.parametrize("at", [[], [0.0], [0.5, 0.5], [0.4, 3.0], [math.nan], [-1e300]])
def test_times_that_do_not_split_are_refused(plant: Path, at: list[float]) -> None:
    with Dataset.open_for_writing(plant) as dataset, pytest.raises(InputError, match="Expected"):
        split(dataset, [dataset.records["one"]], at)
    assert not (plant / "edit.json").exists()


def test_a_damaged_episode_is_not_cut_and_nothing_is_left(plant: Path) -> None:
    (plant / "episodes" / "two" / "front" / "value" / "c" / "0" / "0" / "0" / "0").unlink()
    with Dataset.open_for_writing(plant) as dataset, pytest.raises(DamageError, match="is missing"):
        trim(dataset, list(dataset.records.values()), 0.2)
    assert (valid(plant), folders(plant)) == (["one", "two"], ["one", "two"])
    assert not (plant / "edit.json").exists()


def test_depth_frames_are_copied_as_they_are_stored(tmp_path: Path) -> None:
    frames = [np.full((8, 6), k, np.uint16) for k in range(1300)]
    group = zarr.create_group(tmp_path / "a.zarr")
    write_depth(group, "value", frames, (8, 6))
    source = EncodedChunks(tmp_path / "a.zarr" / "value")
    assert (source.rows, source.per_shard, len(source)) == (1, 512, 1300)
    copy_chunks(source, tmp_path / "cut", 100, 1200)
    assert difference(source, tmp_path / "cut", 100) == ""
    assert "reads back differently" in difference(source, tmp_path / "cut", 101)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "cut", mode="r")[...], np.stack(frames[100:1200]))


def test_no_frames_make_an_array_without_chunks(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    write_jpegs(group, tmp_path / "a.zarr", "value", [b"one", b"two"], (8, 8, 3))
    copy_chunks(EncodedChunks(tmp_path / "a.zarr" / "value"), tmp_path / "cut", 1, 1)
    assert (len(EncodedChunks(tmp_path / "cut")), (tmp_path / "cut" / "c").exists()) == (0, False)


@pytest.mark.parametrize("shards", [None, 12])
def test_frames_that_are_coded_together_are_kept_together(tmp_path: Path, shards: int | None) -> None:
    values = np.arange(30 * 4, dtype=np.uint16).reshape(30, 2, 2)
    array = zarr.create_array(
        tmp_path / "a", shape=values.shape, chunks=(4, 2, 2), shards=(shards, 2, 2) if shards else None, dtype="uint16",
        compressors=None, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[...] = values
    source = EncodedChunks(tmp_path / "a")
    assert [source.widened(a, b) for a, b in ((5, 7), (8, 12), (0, 30), (7, 29), (9, 9))] == [
        (4, 8), (8, 12), (0, 30), (4, 30), (8, 8),
    ]  # fmt: skip
    start, stop = source.widened(9, 29)
    copy_chunks(source, tmp_path / "cut", start, stop)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "cut", mode="r")[...], values[8:30])
    assert difference(source, tmp_path / "cut", start) == ""


def test_an_array_of_another_layout_is_refused(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "a",
        shape=(4, 8, 8, 3),
        chunks=(1, 4, 8, 3),
        dtype="uint8",
        serializer=JpegFrames(),
        compressors=None,
    )
    with pytest.raises(InputError, match="Expected whole frames in the chunks"):
        EncodedChunks(tmp_path / "a")


def test_a_cut_needs_a_dataset_open_for_writing(plant: Path) -> None:
    dataset = Dataset.open(plant)
    with pytest.raises(InputError, match="is open for reading"):
        trim(dataset, [dataset.records["one"]], 0.2)
    assert (folders(plant), (plant / "edit.json").exists()) == (["one", "two"], False)


def test_a_disk_that_fails_once_the_lines_are_written_loses_no_part(
    plant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the edit is in force is what the manifest says, not how far the program came."""

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with Dataset.open_for_writing(plant) as dataset, monkeypatch.context() as broken:
        broken.setattr("lehrling.datasets.manifest.fsync_path", fail)
        with pytest.raises(StorageError, match="Input/output error"):
            trim(dataset, [dataset.records["one"]], 0.2)
    assert valid(plant) == ["one.t1", "two"]
    with Dataset.open_for_writing(plant) as dataset:
        assert dataset.verify().whole
    assert folders(plant) == ["one", "one.t1", "two"]
