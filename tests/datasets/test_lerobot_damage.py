"""LeRobot datasets that are broken: what is whole comes in, or the whole is refused in a sentence, before anything is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from lerobot_files import SPEC, column, edit_info, feature, named, rewrite, taken, truncate
from lerobot_v21 import CAMERA, write_v21

from lehrling.datasets import lerobot_listing
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.lerobot_import import import_lerobot

# Broken midway: the rest comes in


def bend(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


def flip(path: Path) -> None:
    """Write a table with checksums, and flip a bit of its first page."""
    rewrite(path, lambda rows: rows)
    content = bytearray(path.read_bytes())
    content[60] ^= 4
    path.write_bytes(content)


TABLE = "data/chunk-000/episode_000001.parquet"
VIDEO = f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated table": (lambda root: truncate(root / TABLE), "episode_000001.parquet.*cannot be read"),
    "missing table": (lambda root: (root / TABLE).unlink(), "lacks data/chunk-000/episode_000001.parquet"),
    "empty table": (lambda root: (root / TABLE).write_bytes(b""), "episode_000001.parquet.*cannot be read"),
    "truncated video": (lambda root: truncate(root / VIDEO), "episode_000001.mp4"),
    "missing video": (lambda root: (root / VIDEO).unlink(), "lacks videos/.*episode_000001.mp4"),
    "no video": (lambda root: (root / VIDEO).write_bytes(b"not a video" * 99), "episode_000001.mp4 cannot be decoded"),
    "bent video": (lambda root: bend(root / VIDEO, b"avc1", b"zzzz"), "episode_000001.mp4"),
    "bent table": (lambda root: flip(root / TABLE), "episode_000001.parquet.*cannot be read"),
    "shorter video": (
        lambda root: shutil.copy(root / VIDEO.replace("1.mp4", "0.mp4"), root / VIDEO),
        "no frame at 0.5000 s, which is frame 5",
    ),
    "no number": (
        lambda root: rewrite(root / TABLE, lambda t: column(t, "action", [[0.0, 0.0]] * 6 + [[0.0, float("nan")]])),
        "action is no finite number in frame 6",
    ),
    "missing value": (
        lambda root: rewrite(root / TABLE, lambda t: column(t, "action", [None] + [[0.0, 0.0]] * 6)),
        "action has 1 rows without a value",
    ),
    "rows missing": (lambda root: rewrite(root / TABLE, lambda t: t.slice(0, 5)), "has 5 rows.*says 7"),
    "rows in another order": (
        lambda root: rewrite(root / TABLE, lambda t: t.take([1, 0, 2, 3, 4, 5, 6])),
        "frame_index does not count from 0",
    ),
    "off the rate": (
        lambda root: rewrite(root / TABLE, lambda t: column(t, "timestamp", [0, 0.1, 0.2, 0.35, 0.4, 0.5, 0.6])),
        "frame 3 is stamped 0.3",
    ),
    "unknown task": (
        lambda root: rewrite(root / TABLE, lambda t: column(t, "task_index", [7] * 7)),
        "names task 7",
    ),
    "column missing": (
        lambda root: rewrite(root / TABLE, lambda t: t.drop_columns(["observation.state"])),
        "lacks the column observation.state",
    ),
    "other type": (
        lambda root: rewrite(root / TABLE, lambda t: t.set_column(0, "action", pa.array([[0.0, 1.0]] * 7))),
        "stored as float64, not as float32",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_episode_is_refused_by_itself_and_the_others_come_in(name: str, tmp_path: Path) -> None:
    root = write_v21(tmp_path / "old")
    harm, sentence = BREAKS[name]
    harm(root)
    report = import_lerobot(root, tmp_path / "d.zarr")
    assert taken(report) == [0, 2]
    assert report.lossy
    assert list(report.refused) == [1]
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(report.refused[1])
    assert report.refused[1].rstrip(".").count(". ") == 0
    opened = Dataset.open(tmp_path / "d.zarr")
    assert (len(opened.episodes()), opened.unfinished(), opened.verify().whole) == (2, [], True)


def test_a_v3_dataset_that_breaks_midway_keeps_what_came_in(lerobot_source: Path, tmp_path: Path) -> None:
    truncate(lerobot_source / "data/chunk-000/file-001.parquet")
    truncate(lerobot_source / "videos/observation.images.front/chunk-000/file-002.mp4")
    report = import_lerobot(lerobot_source, tmp_path / "d.zarr")
    assert taken(report) == [0]
    assert sorted(report.refused) == [1, 2]


def test_a_playlist_is_not_followed_to_other_files(lerobot_recorded: Dataset, tmp_path: Path) -> None:
    export_lerobot(lerobot_recorded, tmp_path / "source", ExportOptions(SPEC))
    path = tmp_path / "source/videos/observation.images.front/chunk-000/file-000.mp4"
    path.rename(path.with_name("other.mp4"))
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(InputError, match=r"file-000.mp4 cannot be decoded .*: Invalid data"):
        import_lerobot(tmp_path / "source", tmp_path / "d.zarr")


def test_where_nothing_can_be_taken_the_first_reason_is_told(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "old")
    for path in root.glob("data/*/*.parquet"):
        truncate(path)
    with pytest.raises(InputError, match=r"Nothing was imported. .*episode_000000.parquet.*cannot be read"):
        import_lerobot(root, tmp_path / "d.zarr")


# Refused as a whole, before anything is made


def link_out(root: Path) -> None:
    shutil.copy(root / "meta/info.json", root.parent / "elsewhere.json")
    (root / "meta/info.json").unlink()
    (root / "meta/info.json").symlink_to(root.parent / "elsewhere.json")


REFUSED_V3: dict[str, tuple[Callable[[Path], object], str]] = {
    "no info": (lambda root: (root / "meta/info.json").unlink(), "no meta/info.json"),
    "no json": (lambda root: (root / "meta/info.json").write_text("{"), "is not JSON"),
    "huge info": (lambda root: (root / "meta/info.json").write_text(" " * (5 << 20)), "larger than 4194304 bytes"),
    "deep info": (lambda root: (root / "meta/info.json").write_text("[" * 100_000), "nested too deeply"),
    "older version": (named("codebase_version", "v2.0"), "v3.0 or v2.1.*'v2.0'"),
    "newer version": (named("codebase_version", "v4.0"), "v3.0 or v2.1.*'v4.0'"),
    "no version": (named("codebase_version", ["v3.0"]), "v3.0 or v2.1"),
    "fps": (named("fps", 29.97), "whole number of frames per second.*29.97"),
    "no fps": (named("fps", 0), "fps"),
    "totals": (named("total_frames", 99), "says 3 episodes and 99 frames"),
    "tasks missing": (lambda root: (root / "meta/tasks.parquet").unlink(), "lacks meta/tasks.parquet"),
    "tasks cut": (lambda root: truncate(root / "meta/tasks.parquet"), "tasks.parquet cannot be read"),
    "episodes missing": (lambda root: shutil.rmtree(root / "meta/episodes"), "no meta/episodes"),
    "episodes cut": (
        lambda root: truncate(root / "meta/episodes/chunk-000/file-000.parquet"),
        "file-000.parquet cannot be read",
    ),
    "index feature missing": (
        lambda root: edit_info(root, lambda info: info["features"].pop("timestamp")),
        "info.json lacks timestamp",
    ),
    "key with a path": (
        feature("../../etc/passwd", {"dtype": "video", "shape": [96, 96, 3], "names": None}),
        "keys of letters",
    ),
    "table outside": (named("data_path", "../../elsewhere/file-{file_index:03d}.parquet"), "leads out of"),
    "table absolute": (named("data_path", "/etc/passwd"), "leads out of"),
    "format string": (named("data_path", "{chunk_index.__class__.__mro__}"), "Expected a path of"),
    "wide format": (named("data_path", "{chunk_index:0999999999d}"), "Expected a path of"),
    "video outside": (named("video_path", "../{video_key}.mp4"), "leads out of"),
    "no video path": (named("video_path", None), "no video_path"),
    "info outside": (link_out, "leads out of"),
}


@pytest.mark.parametrize("name", REFUSED_V3)
def test_bad_metadata_is_refused_in_a_sentence(name: str, lerobot_source: Path, tmp_path: Path) -> None:
    harm, sentence = REFUSED_V3[name]
    harm(lerobot_source)
    with pytest.raises(InputError, match=sentence) as caught:
        import_lerobot(lerobot_source, tmp_path / "d.zarr")
    text = str(caught.value).removeprefix("Nothing was imported. ")
    assert text.rstrip(".").count(". ") == 0, text
    assert not list(tmp_path.glob("d.zarr/episodes/lerobot*"))


def test_tables_that_unpack_beyond_bounds_are_refused_before_they_are_read(
    lerobot_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_listing, "TABLE_BYTES_MAX", 1 << 20)
    path = lerobot_source / "data/chunk-000/file-001.parquet"
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(pa.concat_tables([rows] * 5000), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    report = import_lerobot(lerobot_source, tmp_path / "d.zarr")
    assert taken(report) == [0, 2]
    assert "unpacks to" in report.refused[1]
    list_path = lerobot_source / "meta/episodes/chunk-000/file-000.parquet"
    listed = pq.read_table(list_path, partitioning=None)
    pq.write_table(pa.concat_tables([listed] * 5000), list_path, compression="zstd")
    with pytest.raises(InputError, match="unpacks to"):
        import_lerobot(lerobot_source, tmp_path / "d.zarr")


REFUSED_V21: dict[str, tuple[Callable[[Path], object], str]] = {
    "episodes missing": (lambda root: (root / "meta/episodes.jsonl").unlink(), "lacks meta/episodes.jsonl"),
    "tasks missing": (lambda root: (root / "meta/tasks.jsonl").unlink(), "lacks meta/tasks.jsonl"),
    "torn line": (lambda root: truncate(root / "meta/episodes.jsonl", 0.9), "line 3.* is not JSON"),
    "no object": (lambda root: (root / "meta/tasks.jsonl").write_text("[1]\n"), "Expected an object"),
    "long line": (lambda root: (root / "meta/tasks.jsonl").write_text(" " * (2 << 20)), "longer than"),
    "no length": (lambda root: (root / "meta/episodes.jsonl").write_text('{"episode_index": 0}\n'), "as length"),
    "negative": (
        lambda root: (root / "meta/episodes.jsonl").write_text('{"episode_index": 0, "length": -5}\n'),
        "as length.*'-5'",
    ),
    "gap": (
        lambda root: (root / "meta/episodes.jsonl").write_text('{"episode_index": 4, "length": 5}\n'),
        "Expected episode 0.*got 4",
    ),
}


@pytest.mark.parametrize("name", REFUSED_V21)
def test_bad_lists_of_version_2_1_are_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    root = write_v21(tmp_path / "old")
    harm, sentence = REFUSED_V21[name]
    harm(root)
    with pytest.raises(InputError, match=sentence) as caught:
        import_lerobot(root, tmp_path / "d.zarr")
    assert str(caught.value).rstrip(".").count(". ") == 0, str(caught.value)
    assert not (tmp_path / "d.zarr").exists()


def test_a_picture_of_another_size_or_no_picture_is_refused(lerobot_recorded: Dataset, tmp_path: Path) -> None:
    export_lerobot(lerobot_recorded, tmp_path / "images", ExportOptions(SPEC, images=True))
    path = tmp_path / "images/data/chunk-000/file-000.parquet"
    small = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    old = pq.read_table(path)
    rows = old.column("observation.images.front").to_pylist()
    rows[0]["bytes"], rows[-1]["bytes"] = small, b"no picture"
    place = old.column_names.index("observation.images.front")
    kind = old.schema.field("observation.images.front").type
    pq.write_table(old.set_column(place, "observation.images.front", pa.array(rows, kind)), path)
    report = import_lerobot(tmp_path / "images", tmp_path / "d.zarr")
    assert taken(report) == [1]
    assert "96 x 96 pixels in observation.images.front, frame 0 of episode 0, got 8 x 8" in report.refused[0]
    assert "PNG or JPEG" in report.refused[2]
