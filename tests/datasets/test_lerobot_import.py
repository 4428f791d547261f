"""Imports from LeRobot, v3.0 and v2.1, and the way back: tables bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lerobot_peer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from lerobot_v21 import CAMERA, FPS, TASKS, picture, state, write_v21
from view_robots import arm_messages, record

from lehrling.datasets import lerobot_listing
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edits import Labels, label
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import ContractError, InputError
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.lerobot_format import Limits
from lehrling.datasets.lerobot_import import LerobotOptions, LerobotReport, import_lerobot, lerobot_embodiment
from lehrling.datasets.view import Field, ViewSpec, build_view

SPEC = ViewSpec(
    rate_hz=30,
    image_px=96,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position", latency_ms=5),),
    action=(Field(stream="tcp_command"), Field(stream="gripper_command")),
    image_latency_ms=40,
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("arm") / "arm.zarr"
    record(root, "one", arm_messages(1, 14))
    record(root, "three", arm_messages(3, 12))
    record(root, "two", arm_messages(2, 16), outcome="unknown", task="press")
    return Dataset.open(root)


@pytest.fixture(scope="module")
def exported(recorded: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose every episode has files of its own."""
    out = tmp_path_factory.mktemp("out") / "videos"
    export_lerobot(recorded, out, ExportOptions(SPEC, limits=Limits(1000, 1000)))
    return out


@pytest.fixture
def source(exported: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    shutil.copytree(exported, tmp_path / "source")
    return tmp_path / "source"


def table(root: Path) -> pa.Table:
    """Return all rows of a LeRobot dataset."""
    return pa.concat_tables(pq.read_table(path, partitioning=None) for path in sorted(root.glob("data/*/*.parquet")))


def episodes_table(root: Path, *prefixes: str) -> list[dict[str, Any]]:
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    return [{name: value for name, value in row.items() if name.startswith(prefixes)} for row in rows]


def taken(report: LerobotReport) -> list[int]:
    return [episode.index for episode in report.episodes]


def edit_info(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


# Round trips


def test_an_export_comes_in_and_goes_out_again_with_equal_tables(exported: Path, tmp_path: Path) -> None:
    report = import_lerobot(exported, tmp_path / "d.zarr")
    assert (report.version, report.fps, report.robot, taken(report)) == ("v3.0", 30, "arm6", [0, 1, 2])
    assert not report.lossy
    opened = Dataset.open(tmp_path / "d.zarr")
    assert opened.verify().whole
    export_lerobot(opened, tmp_path / "back", ExportOptions(limits=Limits(1000, 1000)))
    assert table(tmp_path / "back").equals(table(exported), check_metadata=True)
    assert pq.read_table(tmp_path / "back/meta/tasks.parquet").equals(pq.read_table(exported / "meta/tasks.parquet"))
    numeric = ("episode_index", "tasks", "length", "data/", "dataset_", "stats/action", "stats/observation.state")
    assert episodes_table(tmp_path / "back", *numeric) == episodes_table(exported, *numeric)
    info = [json.loads((root / "meta/info.json").read_text()) for root in (exported, tmp_path / "back")]
    assert info[0] == info[1]


def test_embedded_pictures_come_back_byte_for_byte(recorded: Dataset, tmp_path: Path) -> None:
    export_lerobot(recorded, tmp_path / "images", ExportOptions(SPEC, images=True))
    import_lerobot(tmp_path / "images", tmp_path / "d.zarr")
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "back")
    assert table(tmp_path / "back").equals(table(tmp_path / "images"), check_metadata=True)
    names = ("meta/stats.json", "meta/info.json", "meta/episodes/chunk-000/file-000.parquet")
    assert all((tmp_path / "back" / name).read_bytes() == (tmp_path / "images" / name).read_bytes() for name in names)


def test_frames_of_videos_are_those_of_their_rows(recorded: Dataset, exported: Path, tmp_path: Path) -> None:
    import_lerobot(exported, tmp_path / "d.zarr")
    view = build_view(recorded, "oracle", SPEC)
    opened = Dataset.open(tmp_path / "d.zarr")
    for episode, rows in zip(opened.episodes(), view.episodes, strict=True):
        stream = episode.stream("wrist")
        assert len(stream) == rows.stop - rows.start
        for row in (0, 1, len(stream) // 2, len(stream) - 1):
            wanted = view.images("wrist")[rows.start + row].astype(np.float64)
            assert np.abs(stream.frame(row) - wanted).mean() < 12
        np.testing.assert_array_equal(stream.stamp_ns, view.row_stamp_ns[rows.start : rows.stop])
        assert episode.record.outcome == recorded.records[rows.id].outcome


FEATURES: dict[str, Any] = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    "observation.images.top": {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
    "observation.images.side": {"dtype": "image", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
    "action": {"dtype": "float64", "shape": (2,), "names": None},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "Grid-1": {"dtype": "float32", "shape": (2, 3), "names": None},
    "note": {"dtype": "string", "shape": (1,), "names": None},
    "big": {"dtype": "int64", "shape": (2,), "names": None},
    "small": {"dtype": "int16", "shape": (1,), "names": None},
}


def lerobot_frame(rng: np.random.Generator, row: int) -> dict[str, Any]:
    return {
        "observation.state": rng.standard_normal(3).astype(np.float32),
        "observation.images.top": np.full((64, 96, 3), 20 * row, np.uint8),
        "observation.images.side": rng.integers(0, 256, (48, 64, 3), np.uint8),
        "action": rng.standard_normal(2) * 10.0 ** rng.integers(-100, 100),
        "next.reward": np.array([row / 3], np.float32),
        "next.done": np.array([row == 4]),
        "Grid-1": rng.standard_normal((2, 3)).astype(np.float32),
        "note": f"Notiz {row} — 你好",
        "big": np.array([2**62 + row, -(2**62) - row]),
        "small": np.array([-row], np.int16),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LeRobot itself writes: three episodes, one of which changes its task on the way."""
    root = tmp_path_factory.mktemp("lerobot") / "written"
    peer = lerobot_peer.create(root, root.parent / "cache", FEATURES, fps=30, robot_type="so100_follower")
    rng = np.random.default_rng(0)
    for episode in range(3):
        for row in range(5 + episode):
            task = "do this" if (episode, row > 2) != (1, True) else "then that"
            peer.add_frame(lerobot_frame(rng, row) | {"task": task})
        peer.save_episode()
    peer.finalize()
    return root


def test_what_lerobot_wrote_comes_in_and_goes_out_again_with_equal_tables(written: Path, tmp_path: Path) -> None:
    report = import_lerobot(written, tmp_path / "d.zarr")
    assert taken(report) == [0, 1, 2]
    assert not report.lossy
    opened = Dataset.open(tmp_path / "d.zarr")
    assert opened.episodes()[1].record.instruction == "do this; then that"
    export_lerobot(opened, tmp_path / "back")
    ours, theirs = table(tmp_path / "back"), table(written)
    assert ours.column_names == theirs.column_names
    for name in (name for name in theirs.column_names if "images" not in name):
        assert ours.column(name).to_pylist() == theirs.column(name).to_pylist(), name
        assert ours.schema.field(name).type == storage(theirs.schema.field(name).type), name
    assert pq.read_table(tmp_path / "back/meta/tasks.parquet").equals(pq.read_table(written / "meta/tasks.parquet"))
    kept = ("episode_index", "tasks", "length", "data/", "dataset_", "videos/observation.images.top/chunk_index")
    mine, its = episodes_table(tmp_path / "back", *kept), episodes_table(written, *kept)
    assert [row | {"tasks": set(row["tasks"])} for row in mine] == [row | {"tasks": set(row["tasks"])} for row in its]


def storage(kind: Any) -> Any:
    """Return how a type of Hugging Face `datasets` is stored."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def test_lerobot_reads_what_came_back(written: Path, tmp_path: Path) -> None:
    import_lerobot(written, tmp_path / "d.zarr")
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "back")
    before, after = (lerobot_peer.load(root, tmp_path / "cache") for root in (written, tmp_path / "back"))
    assert len(before) == len(after)
    for row in (0, 4, 5, 10, 11, len(before) - 1):
        mine, its = after[row], before[row]
        assert set(mine) == set(its)
        assert mine["task"] == its["task"]
        for key in ("observation.state", "action", "Grid-1", "big", "next.done", "timestamp"):
            assert mine[key].dtype == its[key].dtype
            np.testing.assert_array_equal(mine[key], its[key])
        for key in ("observation.images.top", "observation.images.side"):
            assert float((mine[key] - its[key]).abs().mean()) < 0.03


# Version 2.1


def test_a_dataset_of_version_2_1_comes_in(tmp_path: Path) -> None:
    report = import_lerobot(write_v21(tmp_path / "old"), tmp_path / "d.zarr")
    assert (report.version, taken(report), report.robot) == ("v2.1", [0, 1, 2], "koch_v1_1")
    for number, episode in enumerate(Dataset.open(tmp_path / "d.zarr").episodes()):
        frames = (5, 7, 6)[number]
        stream = episode.stream("state")
        np.testing.assert_array_equal(stream.value, state(number, frames))
        assert stream.stream.names == ("a", "b", "c")
        assert episode.contract.stream("action").names == ("left", "right")
        np.testing.assert_array_equal(stream.stamp_ns, np.arange(frames) * (10**9 // FPS))
        assert episode.record.instruction == TASKS[number % 2]
        for frame in range(frames):
            assert np.abs(episode.stream("laptop").frame(frame).astype(int) - picture(number, frame)).max() < 12


def test_version_2_1_goes_out_as_version_3_and_lerobot_reads_it(tmp_path: Path) -> None:
    import_lerobot(write_v21(tmp_path / "old"), tmp_path / "d.zarr")
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "new")
    peer = lerobot_peer.load(tmp_path / "new", tmp_path / "cache")
    assert (len(peer), peer.meta.robot_type) == (18, "Koch-v1.1")
    np.testing.assert_array_equal(peer[17]["observation.state"], state(2, 6)[5])
    assert peer[5]["task"] == TASKS[1]
    shown = np.asarray(peer[11][CAMERA] * 255).transpose(1, 2, 0)
    assert np.abs(shown - picture(1, 6)).mean() < 6


# Embodiments


def test_an_embodiment_is_derived_from_the_features(written: Path) -> None:
    robot = lerobot_embodiment(written)
    assert robot.name == "so100_follower"
    streams = {s.name: (s.shape, s.dtype, s.role, s.kind) for s in robot.contract.all_streams}
    assert streams["state"] == ((3,), "float32", "observation", "scalar")
    assert streams["action"] == ((2,), "float64", "action", "scalar")
    assert streams["grid_1"] == ((2, 3), "float32", "auxiliary", "scalar")
    assert streams["next_done"] == ((1,), "uint8", "auxiliary", "scalar")
    assert streams["note"][3] == streams["big"][3] == "ragged"
    assert streams["side"][0] == (48, 64, 3)
    assert robot.binding.sources["state"][0].rate_hz == 30


def test_an_embodiment_given_is_checked_and_kept(tmp_path: Path) -> None:
    source = write_v21(tmp_path / "old")
    facts = lerobot_embodiment(source).model_dump(mode="json")
    stream = next(s for s in facts["contract"]["streams"] if s["name"] == "state")
    stream |= {"kind": "joint_position", "unit": "rad"}
    robot = Embodiment.model_validate(facts | {"name": "bench_two"})
    import_lerobot(source, tmp_path / "d.zarr", LerobotOptions(robot))
    episode = Dataset.open(tmp_path / "d.zarr").episodes()[0]
    assert (episode.contract.stream("state").unit, episode.record.robot) == ("rad", "bench_two")
    stream["shape"], stream["names"] = [2], ["a", "b"]
    with pytest.raises(ContractError, match=r"'state' has the shape \(2,\).*\(3,\) in the dataset"):
        import_lerobot(source, tmp_path / "e.zarr", LerobotOptions(Embodiment.model_validate(facts)))
    assert not (tmp_path / "e.zarr").exists()


def test_an_embodiment_of_another_robot_is_refused(tmp_path: Path) -> None:
    from lehrling.datasets.embodiment import load_embodiment

    with pytest.raises(ContractError, match="no stream of the embodiment 'arm6'"):
        import_lerobot(write_v21(tmp_path / "old"), tmp_path / "d.zarr", LerobotOptions(load_embodiment("arm6")))


# Again, more, interrupted


def test_a_second_import_keeps_what_is_there_and_takes_only_what_is_new(tmp_path: Path) -> None:
    import_lerobot(write_v21(tmp_path / "old", (5, 7)), tmp_path / "d.zarr")
    again = import_lerobot(tmp_path / "old", tmp_path / "d.zarr")
    assert [episode.new for episode in again.episodes] == [False, False]
    more = import_lerobot(write_v21(tmp_path / "more", (5, 7, 6)), tmp_path / "d.zarr")
    assert [episode.new for episode in more.episodes] == [False, False, True]
    assert len(Dataset.open(tmp_path / "d.zarr").episodes()) == 3


def test_an_interrupted_import_keeps_whole_episodes_and_is_finished_by_the_next(tmp_path: Path) -> None:
    source = write_v21(tmp_path / "old")

    def stop(done: int, _total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_lerobot(source, tmp_path / "d.zarr", progress=stop)
    assert len(Dataset.open(tmp_path / "d.zarr").episodes()) == 1
    told: list[tuple[int, int]] = []
    report = import_lerobot(source, tmp_path / "d.zarr", progress=lambda done, total: told.append((done, total)))
    assert [episode.new for episode in report.episodes] == [False, True, True]
    assert told[-1] == (18, 18)
    opened = Dataset.open(tmp_path / "d.zarr")
    assert (len(opened.episodes()), opened.unfinished()) == (3, [])


# Broken midway: the rest comes in


def truncate(path: Path, part: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * part))


def bend(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


def flip(path: Path) -> None:
    """Write a table with checksums, and flip a bit of its first page."""
    rewrite(path, lambda rows: rows)
    content = bytearray(path.read_bytes())
    content[60] ^= 4
    path.write_bytes(content)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path, write_page_checksum=True)


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


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


def test_a_v3_dataset_that_breaks_midway_keeps_what_came_in(source: Path, tmp_path: Path) -> None:
    truncate(source / "data/chunk-000/file-001.parquet")
    truncate(source / "videos/observation.images.front/chunk-000/file-002.mp4")
    report = import_lerobot(source, tmp_path / "d.zarr")
    assert taken(report) == [0]
    assert sorted(report.refused) == [1, 2]


def test_a_playlist_is_not_followed_to_other_files(recorded: Dataset, tmp_path: Path) -> None:
    export_lerobot(recorded, tmp_path / "source", ExportOptions(SPEC))
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


def named(key: str, value: Any) -> Callable[[Path], object]:
    return lambda root: edit_info(root, lambda info: info.update({key: value}))


def feature(key: str, facts: dict[str, Any]) -> Callable[[Path], object]:
    return lambda root: edit_info(root, lambda info: info["features"].update({key: facts}))


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
def test_bad_metadata_is_refused_in_a_sentence(name: str, source: Path, tmp_path: Path) -> None:
    harm, sentence = REFUSED_V3[name]
    harm(source)
    with pytest.raises(InputError, match=sentence) as caught:
        import_lerobot(source, tmp_path / "d.zarr")
    text = str(caught.value).removeprefix("Nothing was imported. ")
    assert text.rstrip(".").count(". ") == 0, text
    assert not list(tmp_path.glob("d.zarr/episodes/lerobot*"))


def test_tables_that_unpack_beyond_bounds_are_refused_before_they_are_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_listing, "TABLE_BYTES_MAX", 1 << 20)
    path = source / "data/chunk-000/file-001.parquet"
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(pa.concat_tables([rows] * 5000), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    report = import_lerobot(source, tmp_path / "d.zarr")
    assert taken(report) == [0, 2]
    assert "unpacks to" in report.refused[1]
    list_path = source / "meta/episodes/chunk-000/file-000.parquet"
    listed = pq.read_table(list_path, partitioning=None)
    pq.write_table(pa.concat_tables([listed] * 5000), list_path, compression="zstd")
    with pytest.raises(InputError, match="unpacks to"):
        import_lerobot(source, tmp_path / "d.zarr")


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


def test_what_cannot_be_taken_is_left_out_and_named(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "old")
    feature(
        "observation.depth", {"dtype": "video", "shape": [48, 64, 1], "names": None, "info": {"is_depth_map": True}}
    )(root)
    feature("language_events", {"dtype": "language", "shape": [1], "names": None})(root)
    report = import_lerobot(root, tmp_path / "d.zarr")
    assert report.left_out["observation.depth"] == "depth maps are not taken yet"
    assert "'language'" in report.left_out["language_events"]
    assert report.lossy
    assert taken(report) == [0, 1, 2]


def test_a_snapshot_in_hugging_faces_cache_is_read_through_its_links(exported: Path, tmp_path: Path) -> None:
    hub = tmp_path / "datasets--x--y"
    snapshot = hub / "snapshots/abc"
    for number, path in enumerate(sorted(p for p in exported.rglob("*") if p.is_file())):
        blob, link = hub / f"blobs/{number}", snapshot / path.relative_to(exported)
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert taken(import_lerobot(snapshot, tmp_path / "d.zarr")) == [0, 1, 2]


def test_a_picture_of_another_size_or_no_picture_is_refused(recorded: Dataset, tmp_path: Path) -> None:
    export_lerobot(recorded, tmp_path / "images", ExportOptions(SPEC, images=True))
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


def test_episodes_that_share_a_row_group_come_in_as_they_are(exported: Path, source: Path, tmp_path: Path) -> None:
    rows = table(source)
    for path in sorted(source.glob("data/*/*.parquet"))[1:]:
        path.unlink()
    pq.write_table(rows, source / "data/chunk-000/file-000.parquet", row_group_size=10_000)
    path = source / "meta/episodes/chunk-000/file-000.parquet"
    rewrite(path, lambda t: column(t, "data/file_index", [0, 0, 0]))
    import_lerobot(source, tmp_path / "d.zarr")
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "back")
    assert table(tmp_path / "back").equals(table(exported))


def test_an_instruction_given_or_a_later_label_goes_out_in_place_of_lerobots_tasks(
    written: Path, tmp_path: Path
) -> None:
    import_lerobot(written, tmp_path / "d.zarr", LerobotOptions(instruction="sort the parts"))
    with Dataset.open_for_writing(tmp_path / "d.zarr") as opened:
        label(opened, list(opened.records.values())[1:2], Labels(instruction="sort the screws"))
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "back")
    assert pq.read_table(tmp_path / "back/meta/tasks.parquet").to_pylist() == [
        {"task_index": 0, "task": "sort the parts"},
        {"task_index": 1, "task": "sort the screws"},
    ]
    index = table(tmp_path / "back").column("task_index").to_pylist()
    assert index == [0] * 5 + [1] * 6 + [0] * 7
