"""Imports from LeRobot, v3.0 and v2.1, and the way back: tables bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lerobot_peer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import SPEC, column, feature, rewrite, table, taken
from lerobot_v21 import CAMERA, FPS, TASKS, picture, state, write_v21

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_archive import archive
from lehrling.datasets.edit_cut import trim
from lehrling.datasets.edits import Labels, label, undo
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.episode_part import was_cut
from lehrling.datasets.errors import ContractError
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.lerobot_format import Limits
from lehrling.datasets.lerobot_import import LerobotOptions, import_lerobot, lerobot_embodiment
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.view import build_view


def episodes_table(root: Path, *prefixes: str) -> list[dict[str, Any]]:
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    return [{name: value for name, value in row.items() if name.startswith(prefixes)} for row in rows]


# Round trips


def test_an_export_comes_in_and_goes_out_again_with_equal_tables(lerobot_exported: Path, tmp_path: Path) -> None:
    report = import_lerobot(lerobot_exported, tmp_path / "d.zarr")
    assert (report.version, report.fps, report.robot, taken(report)) == ("v3.0", 30, "arm6", [0, 1, 2])
    assert not report.lossy
    opened = Dataset.open(tmp_path / "d.zarr")
    assert opened.verify().whole
    export_lerobot(opened, tmp_path / "back", ExportOptions(limits=Limits(1000, 1000)))
    assert table(tmp_path / "back").equals(table(lerobot_exported), check_metadata=True)
    assert pq.read_table(tmp_path / "back/meta/tasks.parquet").equals(
        pq.read_table(lerobot_exported / "meta/tasks.parquet")
    )
    numeric = ("episode_index", "tasks", "length", "data/", "dataset_", "stats/action", "stats/observation.state")
    assert episodes_table(tmp_path / "back", *numeric) == episodes_table(lerobot_exported, *numeric)
    info = [json.loads((root / "meta/info.json").read_text()) for root in (lerobot_exported, tmp_path / "back")]
    assert info[0] == info[1]


def test_embedded_pictures_come_back_byte_for_byte(lerobot_recorded: Dataset, tmp_path: Path) -> None:
    export_lerobot(lerobot_recorded, tmp_path / "images", ExportOptions(SPEC, images=True))
    import_lerobot(tmp_path / "images", tmp_path / "d.zarr")
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "back")
    assert table(tmp_path / "back").equals(table(tmp_path / "images"), check_metadata=True)
    names = ("meta/stats.json", "meta/info.json", "meta/episodes/chunk-000/file-000.parquet")
    assert all((tmp_path / "back" / name).read_bytes() == (tmp_path / "images" / name).read_bytes() for name in names)


def test_frames_of_videos_are_those_of_their_rows(
    lerobot_recorded: Dataset, lerobot_exported: Path, tmp_path: Path
) -> None:
    import_lerobot(lerobot_exported, tmp_path / "d.zarr")
    view = build_view(lerobot_recorded, "oracle", SPEC)
    opened = Dataset.open(tmp_path / "d.zarr")
    for episode, rows in zip(opened.episodes(), view.episodes, strict=True):
        stream = episode.stream("wrist")
        assert len(stream) == rows.stop - rows.start
        for row in (0, 1, len(stream) // 2, len(stream) - 1):
            wanted = view.images("wrist")[rows.start + row].astype(np.float64)
            assert np.abs(stream.frame(row) - wanted).mean() < 12
        np.testing.assert_array_equal(stream.stamp_ns, view.row_stamp_ns[rows.start : rows.stop])
        assert episode.record.outcome == lerobot_recorded.records[rows.id].outcome


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


@pytest.mark.parametrize(
    ("edited", "kept"), [(partial(archive, cameras=["top"]), True), (partial(trim, start_s=0.01), False)]
)
def test_tasks_that_change_on_the_way_outlive_an_archive_but_not_a_cut(
    written: Path, tmp_path: Path, edited: Callable[[Dataset, list[EpisodeRecord]], object], *, kept: bool
) -> None:
    import_lerobot(written, tmp_path / "d.zarr")
    with Dataset.open_for_writing(tmp_path / "d.zarr") as opened:
        edited(opened, [opened.episodes()[1].record])
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "back")
    tasks = set(pq.read_table(tmp_path / "back/meta/tasks.parquet").column("task").to_pylist())
    assert tasks == ({"do this", "then that"} if kept else {"do this", "do this; then that"})


def test_an_archived_episode_that_is_cut_and_a_cut_one_that_is_archived_have_one_task(
    written: Path, tmp_path: Path
) -> None:
    import_lerobot(written, tmp_path / "d.zarr")
    with Dataset.open_for_writing(tmp_path / "d.zarr") as opened:
        record = opened.episodes()[1].record
        trim(opened, [record], 0.01)
        archive(opened, [opened.records[f"{record.id}.t1"]], ["top"])
        assert was_cut(opened.episode(f"{record.id}.t1.v1").attributes)
        undo(opened)
        undo(opened)
        archive(opened, [opened.records[record.id]], ["top"])
        assert not was_cut(opened.episode(f"{record.id}.v1").attributes)
        trim(opened, [opened.records[f"{record.id}.v1"]], 0.01)
        assert was_cut(opened.episode(f"{record.id}.v1.t1").attributes)


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


def test_a_snapshot_in_hugging_faces_cache_is_read_through_its_links(lerobot_exported: Path, tmp_path: Path) -> None:
    hub = tmp_path / "datasets--x--y"
    snapshot = hub / "snapshots/abc"
    for number, path in enumerate(sorted(p for p in lerobot_exported.rglob("*") if p.is_file())):
        blob, link = hub / f"blobs/{number}", snapshot / path.relative_to(lerobot_exported)
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert taken(import_lerobot(snapshot, tmp_path / "d.zarr")) == [0, 1, 2]


def test_episodes_that_share_a_row_group_come_in_as_they_are(
    lerobot_exported: Path, lerobot_source: Path, tmp_path: Path
) -> None:
    rows = table(lerobot_source)
    for path in sorted(lerobot_source.glob("data/*/*.parquet"))[1:]:
        path.unlink()
    pq.write_table(rows, lerobot_source / "data/chunk-000/file-000.parquet", row_group_size=10_000)
    path = lerobot_source / "meta/episodes/chunk-000/file-000.parquet"
    rewrite(path, lambda t: column(t, "data/file_index", [0, 0, 0]))
    import_lerobot(lerobot_source, tmp_path / "d.zarr")
    export_lerobot(Dataset.open(tmp_path / "d.zarr"), tmp_path / "back")
    assert table(tmp_path / "back").equals(table(lerobot_exported))


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
