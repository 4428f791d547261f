"""Exports to LeRobot v3.0, read by LeRobot 0.6.1 itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lerobot_peer
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from small_disks import small_disk
from view_robots import arm_messages, jpeg, record

from lehrling.datasets import lerobot_format, lerobot_video
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError, LockedError, StorageError
from lehrling.datasets.lerobot_export import ExportOptions, ExportReport, export_lerobot
from lehrling.datasets.lerobot_format import Limits
from lehrling.datasets.lerobot_stats import QUANTILES, PixelCounts, column_stats
from lehrling.datasets.lerobot_video import VideoShards
from lehrling.datasets.view import Field, View, ViewSpec, build_view

FPS, NAMES = 20, ("one", "three", "two")
CAMERAS = ("front", "wrist")
SPEC = ViewSpec(
    rate_hz=FPS,
    image_px=96,
    cameras=CAMERAS,
    state=(Field(stream="joint_position", latency_ms=5), Field(stream="tcp_pose", select=("x", "y", "z"))),
    action=(Field(stream="tcp_command"), Field(stream="gripper_command")),
    image_latency_ms=40,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("arm") / "arm.zarr"
    record(root, "one", arm_messages(1, 20))
    record(root, "two", arm_messages(2, 24), task="press")
    record(root, "three", arm_messages(3, 17))
    record(root, "failed", arm_messages(4, 12), outcome="failure")
    return Dataset.open(root)


@pytest.fixture(scope="module")
def view(dataset: Dataset) -> View:
    return build_view(dataset, "oracle", SPEC)


@pytest.fixture(scope="module")
def videos(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "videos"
    export_lerobot(dataset, out, ExportOptions(SPEC))
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def expected_frame(view: View, camera: str, row: int) -> int:
    """Which of the recorded frames a row of the view shows, by its bytes."""
    frames = view.images(camera)
    seed = 2 * NAMES_SEEDS[NAMES[int(view.episode_index[row])]] + (camera == "wrist")
    return next(number for number in range(40) if jpeg(number, seed, 96) == frames.encoded(row))


NAMES_SEEDS = {"one": 1, "two": 2, "three": 3}


def shows(image: Any, frame: NDArray[np.uint8], others: list[NDArray[np.uint8]]) -> bool:
    """Whether a (3, h, w) image in 0 to 1 is the frame, and none of the others."""
    seen = (np.asarray(image).transpose(1, 2, 0) * 255).astype(np.float64)
    errors = [float(np.abs(seen - other).mean()) for other in (frame, *others)]
    return errors[0] < 12 and min(errors[1:], default=255) > 3 * errors[0]


def border_rows(view: View) -> list[int]:
    return sorted({row for e in view.episodes for row in (e.start, e.start + 1, e.stop - 2, e.stop - 1)})


def test_lerobot_reads_lengths_features_and_every_value(view: View, videos: Path, cache: Path) -> None:
    peer = lerobot_peer.load(videos, cache)
    assert (len(peer), peer.num_episodes, peer.fps, peer.meta.robot_type) == (len(view), 3, FPS, "arm6")
    assert [peer.meta.episodes[i]["length"] for i in range(3)] == [e.stop - e.start for e in view.episodes]
    assert peer.meta.features["observation.state"]["names"] == list(view.state_names)
    assert peer.meta.features["observation.images.front"]["shape"] == (96, 96, 3)
    table = peer.hf_dataset.with_format("numpy")[:]
    np.testing.assert_array_equal(table["observation.state"], view.state)
    np.testing.assert_array_equal(table["action"], view.action)
    np.testing.assert_array_equal(table["lehrling.stamp_ns"], view.row_stamp_ns)
    np.testing.assert_array_equal(table["lehrling.age_ns"], view.age_ns)
    np.testing.assert_array_equal(table["lehrling.valid"], view.valid)
    np.testing.assert_array_equal(table["episode_index"], view.episode_index)
    np.testing.assert_array_equal(table["index"], np.arange(len(view)))
    for episode in view.episodes:
        rows = slice(episode.start, episode.stop)
        length = episode.stop - episode.start
        np.testing.assert_array_equal(table["frame_index"][rows], np.arange(length))
        np.testing.assert_array_equal(table["timestamp"][rows], (np.arange(length) / FPS).astype(np.float32))


def test_first_last_and_border_frames_show_what_was_seen(view: View, videos: Path, cache: Path) -> None:
    peer = lerobot_peer.load(videos, cache)
    for row in border_rows(view):
        item = peer[row]
        episode = view.episodes[int(view.episode_index[row])]
        assert item["task"] == episode.instruction
        for camera in CAMERAS:
            frames = view.images(camera)
            number = expected_frame(view, camera, row)
            seed = 2 * NAMES_SEEDS[episode.id] + (camera == "wrist")
            near = [n for n in (number - 1, number + 1) if n >= 0]
            others = [simplejpeg.decode_jpeg(jpeg(n, seed, 96), "RGB") for n in near]
            assert shows(item[f"observation.images.{camera}"], frames[row], others), (row, camera)


def test_windows_are_cut_and_padded_at_the_borders_of_episodes(view: View, videos: Path, cache: Path) -> None:
    steps = [step / FPS for step in range(4)]
    windows = {"action": steps, "observation.images.front": [-1 / FPS, 0.0], "observation.state": [-1 / FPS, 0.0]}
    peer = lerobot_peer.load(videos, cache, delta_timestamps=windows)
    for row in border_rows(view):
        episode = view.episodes[int(view.episode_index[row])]
        item = peer[row]
        wanted = np.clip(np.arange(row, row + 4), episode.start, episode.stop - 1)
        np.testing.assert_array_equal(item["action"], view.action[wanted])
        np.testing.assert_array_equal(item["action_is_pad"], np.arange(row, row + 4) >= episode.stop)
        before = max(row - 1, episode.start)
        np.testing.assert_array_equal(item["observation.state"], view.state[[before, row]])
        assert bool(item["observation.images.front_is_pad"][0]) == (row == episode.start)
        for place, shown in enumerate((before, row)):
            assert shows(item["observation.images.front"][place], view.images("front")[shown], [])


def test_lerobots_own_tools_delete_split_and_merge(view: View, videos: Path, cache: Path, tmp_path: Path) -> None:
    tools, peer = lerobot_peer.tools(), lerobot_peer.load(videos, cache)
    spans = [slice(e.start, e.stop) for e in view.episodes]
    kept = np.concatenate([view.state[spans[0]], view.state[spans[2]]])
    shorter = tools.delete_episodes(peer, [1], output_dir=tmp_path / "shorter", repo_id="test/shorter")
    np.testing.assert_array_equal(shorter.hf_dataset.with_format("numpy")["observation.state"][:], kept)
    last = spans[2].stop - 1
    assert shows(shorter[len(shorter) - 1]["observation.images.front"], view.images("front")[last], [])
    parts = tools.split_dataset(peer, {"train": [0, 2], "val": [1]}, output_dir=tmp_path / "parts")
    np.testing.assert_array_equal(parts["val"].hf_dataset.with_format("numpy")["action"][:], view.action[spans[1]])
    assert shows(parts["val"][0]["observation.images.wrist"], view.images("wrist")[spans[1].start], [])
    merged = tools.merge_datasets([peer, shorter], "test/merged", output_dir=tmp_path / "merged")
    np.testing.assert_array_equal(
        merged.hf_dataset.with_format("numpy")["observation.state"][:], np.concatenate([view.state, kept])
    )
    assert shows(merged[len(view)]["observation.images.front"], view.images("front")[0], [])
    assert merged[len(merged) - 1]["task"] == view.episodes[2].instruction


def test_statistics_are_of_all_rows_with_exact_quantiles(view: View, videos: Path, cache: Path) -> None:
    peer = lerobot_peer.load(videos, cache)
    found = peer.meta.stats
    for key, values in (("observation.state", view.state), ("action", view.action)):
        rows = values.astype(np.float64)
        for name, part in QUANTILES.items():
            np.testing.assert_allclose(found[key][name], np.quantile(rows, part, axis=0), rtol=1e-12)
        np.testing.assert_allclose(found[key]["mean"], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found[key]["std"], rows.std(axis=0), rtol=1e-9, atol=1e-12)
        assert found[key]["count"].tolist() == [len(view)]
    assert set(found["action"]) == {"min", "max", "mean", "std", "count", *QUANTILES}
    pictures = np.stack(list(view.images("front"))) / 255
    for name, part in QUANTILES.items():
        wanted = np.quantile(pictures, part, axis=(0, 1, 2)).reshape(3, 1, 1)
        np.testing.assert_allclose(found["observation.images.front"][name], wanted, atol=1e-9)
    np.testing.assert_allclose(found["observation.images.front"]["std"].reshape(3), pictures.std(axis=(0, 1, 2)))


def test_episodes_carry_statistics_of_their_own(view: View, videos: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(videos / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for episode, facts in zip(view.episodes, rows, strict=True):
        values = view.action[episode.start : episode.stop].astype(np.float64)
        np.testing.assert_allclose(facts["stats/action/q10"], np.quantile(values, 0.1, axis=0), rtol=1e-12)
        assert facts["stats/action/count"] == [len(values)]
        assert facts["tasks"] == [episode.instruction]
        span = facts["videos/observation.images.front/to_timestamp"]
        span -= facts["videos/observation.images.front/from_timestamp"]
        assert span == pytest.approx(len(values) / FPS, abs=1e-12)


def test_videos_have_a_frame_for_every_row_and_a_key_frame_where_an_episode_begins(view: View, videos: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(videos / "videos/observation.images.front/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        frames = [(frame.pts * stream.time_base, frame.key_frame) for frame in container.decode(stream)]
    assert [float(time) for time, _ in frames] == [row / FPS for row in range(len(view))]
    assert all(frames[episode.start][1] for episode in view.episodes)
    gaps = np.diff(np.flatnonzero([key for _, key in frames]))
    assert gaps.max() <= 4


def test_files_end_at_their_limits_and_lerobot_still_reads_them(
    dataset: Dataset, view: View, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    export_lerobot(dataset, out, ExportOptions(SPEC, limits=Limits(1000, 1000)))
    assert len(list(out.glob("data/chunk-000/*.parquet"))) == 3
    assert len(list(out.glob("videos/observation.images.wrist/chunk-000/*.mp4"))) == 3
    peer = lerobot_peer.load(out, cache)
    for row in border_rows(view):
        assert shows(peer[row]["observation.images.wrist"], view.images("wrist")[row], [])
        np.testing.assert_array_equal(peer[row]["action"], view.action[row])


def test_embedded_pictures_keep_the_cameras_bytes(dataset: Dataset, view: View, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "images"
    export_lerobot(dataset, out, ExportOptions(SPEC, images=True))
    assert not (out / "videos").exists()
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(out / "data/chunk-000/file-000.parquet")
    stored = [row["bytes"] for row in table.column("observation.images.front").to_pylist()]
    assert stored == [view.images("front").encoded(row) for row in range(len(view))]
    peer = lerobot_peer.load(out, cache, delta_timestamps={"action": [0.0, 1 / FPS]})
    item = peer[len(view) - 1]
    assert shows(item["observation.images.front"], view.images("front")[len(view) - 1], [])
    shorter = lerobot_peer.tools().delete_episodes(peer, [0], output_dir=tmp_path / "shorter", repo_id="test/s")
    assert len(shorter) == len(view) - view.episodes[0].stop


def test_images_take_the_specifications_size_where_asked(dataset: Dataset, tmp_path: Path) -> None:
    smaller = SPEC.model_copy(update={"image_px": 48})
    export_lerobot(dataset, tmp_path / "o", ExportOptions(smaller))
    info = json.loads((tmp_path / "o/meta/info.json").read_text())
    assert info["features"]["observation.images.front"]["shape"] == [48, 48, 3]
    assert info["features"]["observation.images.front"]["info"]["video.height"] == 48


def test_rows_without_a_number_are_cut_at_the_ends_and_refused_within(dataset: Dataset, tmp_path: Path) -> None:
    late = SPEC.model_copy(
        update={"action": (Field(stream="tcp_command", select=("x",), alignment="previous", representation="delta"),)}
    )
    report = export_lerobot(dataset, tmp_path / "o", ExportOptions(late))
    whole = export_lerobot(dataset, tmp_path / "p", ExportOptions(SPEC))
    assert report.frames == whole.frames - 3
    assert report.skipped == {}


def test_rows_after_the_last_command_are_cut_where_it_is_interpolated(dataset: Dataset, tmp_path: Path) -> None:
    action = (Field(stream="tcp_command", select=("x",), alignment="linear"), Field(stream="tcp_pose", select=("y",)))
    report = export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC.model_copy(update={"action": action})))
    assert report.skipped == {}
    assert report.frames == 58
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(tmp_path / "o/data/chunk-000/file-000.parquet", columns=["action"])
    assert np.isfinite(np.array(rows.column("action").to_pylist())).all()


def test_what_is_older_than_the_limit_is_marked_and_counted(dataset: Dataset, tmp_path: Path) -> None:
    strict = SPEC.model_copy(update={"image_max_age_ms": 30.0})
    report = export_lerobot(dataset, tmp_path / "o", ExportOptions(strict))
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "o/data/chunk-000/file-000.parquet", columns=["lehrling.valid"])
    valid = np.array(table.column("lehrling.valid").to_pylist())
    assert 0 < sum(report.doubtful.values()) == int((~valid).sum()) < len(valid)


def test_failures_stay_out_unless_asked_for_and_the_episodes_are_told(dataset: Dataset, tmp_path: Path) -> None:
    report = export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC))
    said = json.loads((tmp_path / "o" / lerobot_format.PROVENANCE).read_text())
    assert [episode["id"] for episode in said["episodes"]] == list(NAMES)
    assert said["episodes"][0]["content_hash"] == dataset.records["one"].content_hash
    assert said["specification"]["rate_hz"] == FPS
    assert (report.episodes, report.tasks) == (3, 3)
    every = SPEC.model_copy(update={"episodes": SPEC.episodes.model_copy(update={"outcomes": ("success", "failure")})})
    assert export_lerobot(dataset, tmp_path / "p", ExportOptions(every)).episodes == 4


def test_what_cannot_go_out_is_refused_in_a_sentence_and_leaves_nothing(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there already"):
        export_lerobot(dataset, tmp_path / "there", ExportOptions(SPEC))
    with pytest.raises(InputError, match="whole number"):
        export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC.model_copy(update={"rate_hz": 12.5})))
    with pytest.raises(InputError, match="rate or a specification"):
        export_lerobot(dataset, tmp_path / "o", ExportOptions())
    odd = SPEC.model_copy(update={"image_px": 47})
    with pytest.raises(InputError, match="even height and width"):
        export_lerobot(dataset, tmp_path / "o", ExportOptions(odd))
    never = SPEC.model_copy(update={"image_max_age_ms": 0.0})
    with pytest.raises(InputError, match="no episode gives any"):
        export_lerobot(dataset, tmp_path / "o", ExportOptions(never))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_missing_library_is_named_with_its_extra(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"needs av.*lehrling-datasets\[lerobot\]"):
        export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC))


def test_an_interrupted_export_leaves_nothing(dataset: Dataset, tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC), stop)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.view import ViewSpec

def die(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

export_lerobot(Dataset.open(sys.argv[1]), Path(sys.argv[2]), ExportOptions(ViewSpec.model_validate_json(sys.argv[3])), die)
"""


def test_a_killed_export_leaves_no_half_dataset_and_the_next_one_succeeds(
    dataset: Dataset, videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    command = [sys.executable, "-c", KILLED, str(dataset.root), str(out), SPEC.model_dump_json()]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    assert (tmp_path / ".o.partial").is_dir()
    (tmp_path / ".o.partial/data/stray").mkdir(parents=True)
    export_lerobot(dataset, out, ExportOptions(SPEC))
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert sorted(files(out)) == sorted(files(videos))


@pytest.mark.parametrize("left_kib", [4, 40, 80, 140])
@pytest.mark.parametrize("images", [False, True])
def test_a_disk_that_gets_full_is_told_and_leaves_nothing(
    dataset: Dataset, tmp_path: Path, left_kib: int, images: bool
) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        (disk / "ballast").write_bytes(bytes((1024 - left_kib) << 10))
        with pytest.raises(StorageError, match=r"disk|[Ss]pace"):
            export_lerobot(dataset, disk / "o", ExportOptions(SPEC, images=images))
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_a_video_that_does_not_read_back_is_no_export(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = VideoShards._verify

    def cut(shards: VideoShards, path: Path) -> None:
        os.truncate(path, path.stat().st_size - 2000)
        verify(shards, path)

    monkeypatch.setattr(VideoShards, "_verify", cut)
    with pytest.raises(StorageError, match=r"file-000.mp4 failed: \d+ of 58 frames can be read back"):
        export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC))
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_is_missing_is_named(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_video, "ENCODER", "no_such_encoder")
    with pytest.raises(InputError, match=r"encoder no_such_encoder.*--images"):
        export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC))
    assert list(tmp_path.iterdir()) == []


def test_a_second_export_to_the_same_place_is_told_to_wait(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[str] = []

    def also(done: int, _total: int) -> None:
        if done == 2:
            with pytest.raises(LockedError, match="another process"):
                export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC))
            seen.append("refused")

    export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC), also)
    assert "refused" in seen
    assert (tmp_path / "o/meta/info.json").is_file()


def test_the_same_dataset_gives_the_same_bytes(dataset: Dataset, videos: Path, tmp_path: Path) -> None:
    again = export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC))
    assert isinstance(again, ExportReport)
    assert all((videos / name).read_bytes() == (tmp_path / "o" / name).read_bytes() for name in files(videos))


def test_progress_goes_up_to_all(dataset: Dataset, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    export_lerobot(dataset, tmp_path / "o", ExportOptions(SPEC), lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_pixels_of_large_images_are_thinned_and_counted_exactly() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 480, 3), np.uint8)
    counts = PixelCounts()
    counts.add(image, 3)
    thinned = np.concatenate([image[::3, ::3].reshape(-1, 3)] * 3) / 255
    found = counts.stats()
    assert found["count"] == [3]
    for name, part in QUANTILES.items():
        np.testing.assert_allclose(np.reshape(found[name], 3), np.quantile(thinned, part, axis=0), atol=1e-9)
    np.testing.assert_allclose(np.reshape(found["mean"], 3), thinned.mean(axis=0))


def test_quantiles_of_few_pixels_lie_between_them() -> None:
    image = np.array([[[0, 10, 7], [40, 20, 7], [200, 255, 7]]], np.uint8)
    counts = PixelCounts()
    counts.add(image)
    for name, part in QUANTILES.items():
        wanted = np.quantile(image[0] / 255, part, axis=0)
        np.testing.assert_allclose(np.reshape(counts.stats()[name], 3), wanted, atol=1e-12)


def test_an_episode_begins_with_a_key_frame_even_where_nothing_moves(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    shards = VideoShards(tmp_path, "still", (48, 64), FPS, 1 << 20)
    still = np.full((48, 64, 3), 90, np.uint8)
    spans = [shards.write([still] * count, count) for count in (3, 6, 1)]
    shards.close()
    assert [(span.from_s, span.to_s) for span in spans] == [(0.0, 3 / FPS), (3 / FPS, 9 / FPS), (9 / FPS, 10 / FPS)]
    with av.open(str(next(tmp_path.rglob("*.mp4")))) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    assert [number for number, key in enumerate(keys) if key] == [0, 3, 7, 9]


def test_statistics_of_one_row_are_that_row() -> None:
    found = column_stats(np.array([[3.0, 4.0]], np.float32))
    assert all(found[name] == [3.0, 4.0] for name in ("min", "max", "mean", *QUANTILES))
    assert found["std"] == [0.0, 0.0]


def files(root: Path) -> Iterator[str]:
    """Name every file below a folder."""
    return (os.path.relpath(Path(folder) / name, root) for folder, _, names in os.walk(root) for name in names)
