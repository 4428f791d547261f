"""Reading, disk and sealing beside LeRobot 0.6.1 on the same demonstrations, in one run.

Two 640x480 cameras, 16-step action chunk, random access, two workers: threads here, processes there. `SECONDS` of the environment
(10 unless set) is the length of an episode, of which there are three.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.common import Result, write
from benchmarks.rigs import episodes as rig
from benchmarks.rigs import reading_peer
from benchmarks.rigs.reading_peer import Written
from numpy.typing import NDArray

from lehrling.datasets.codec import decode_jpeg
from lehrling.datasets.codec_video import CRF
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_archive import archive
from lehrling.datasets.loader import Loader
from lehrling.datasets.manifest import append_records
from lehrling.datasets.sampler import EpisodeSampler
from lehrling.datasets.samples import SampleReader
from lehrling.datasets.view import Field, View, ViewSpec, build_view

SECONDS = float(os.environ.get("SECONDS", "10"))
MANY = int(os.environ.get("EPISODES", "10000"))
EPISODES, CHUNK, BATCH, WORKERS = 3, 16, 16, 2
TRAINING_PX = 256
CODECS = ("h264", "libsvtav1")
OPEN_S, OPEN_MB = 2.0, 500.0


def spec(image_px: int, cameras: tuple[str, ...] = rig.CAMERAS) -> ViewSpec:
    """Return a view of everything at the cameras' rate."""
    return ViewSpec(
        rate_hz=rig.HZ,
        image_px=image_px,
        cameras=cameras,
        state=(Field(stream="joint_position"),),
        action=(Field(stream="joint_command"),),
    )


def per_second(step: Callable[[], object], samples: int, seconds: float = 8.0) -> float:
    """Return samples per second of `step`, which gives so many; the first is not counted."""
    step()
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        step()
        count += samples
    return count / (time.perf_counter() - begun)


def ours(view: View) -> float:
    """Return samples per second through the loader."""
    reader = SampleReader(view, CHUNK)
    with Loader(reader.batch, EpisodeSampler(reader.rows, BATCH), workers=WORKERS) as loader:
        return per_second(lambda: next(loader), BATCH)


def bare(view: View) -> float:
    """Return samples per second of threads that only decode random frames from the mapped file: two images are a sample."""
    frames = [view.images(camera) for camera in rig.CAMERAS]
    places = [np.random.default_rng(k).integers(0, len(view), 100_000).tolist() for k in range(WORKERS)]
    height, width = frames[0].shape[1:3]
    until = time.perf_counter() + 8.0

    def loop(number: int) -> int:
        out, count = np.empty((height, width, 3), np.uint8), 0
        for row in places[number]:
            for shown in frames:
                decode_jpeg(shown.encoded(row), height, width, out)
            count += 1
            if time.perf_counter() > until:
                break
        return count

    with ThreadPoolExecutor(WORKERS) as pool:
        begun = time.perf_counter()
        return sum(pool.map(loop, range(WORKERS))) / (time.perf_counter() - begun)


def seal_all(root: Path, pictures: list[dict[str, list[bytes]]], positions: list[NDArray[np.float64]]) -> float:
    """Record and seal the episodes; return camera frames sealed per second."""
    spent, count = 0.0, 0
    with rig.open_dataset(root) as dataset:
        for number, (shown, rows) in enumerate(zip(pictures, positions, strict=True)):
            rig.write_journal(root, f"e{number}", shown, rows)
            begun = time.perf_counter()
            dataset.finish(f"e{number}")
            spent, count = spent + time.perf_counter() - begun, count + len(rig.CAMERAS) * len(rows)
    return count / spent


def image_bytes(root: Path) -> float:
    """Return bytes of images per camera frame."""
    dataset = Dataset.open(root)
    folders = [episode.directory / camera / "value" for episode in dataset.episodes() for camera in rig.CAMERAS]
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return size / sum(len(episode.stream(camera)) for episode in dataset.episodes() for camera in rig.CAMERAS)


def reading(folder: Path, pictures: list[dict[str, list[bytes]]]) -> list[Result]:
    """Measure reading, writing and disk."""
    positions = [rig.states(number, len(shown[rig.CAMERAS[0]])) for number, shown in enumerate(pictures)]
    sealed = seal_all(folder / "d.zarr", pictures, positions)
    dataset = Dataset.open(folder / "d.zarr")
    whole = build_view(dataset, "whole", spec(0))
    small = build_view(dataset, "small", spec(TRAINING_PX))
    peers: dict[str, Written] = {c: reading_peer.write(folder / c, c, pictures, positions) for c in CODECS}
    speeds = {c: reading_peer.samples_per_s(peers[c].root, CHUNK, BATCH, WORKERS, 20) for c in CODECS}
    best = max(speeds, key=lambda codec: speeds[codec])
    peer = f"LeRobot 0.6.1, {best}, {reading_peer.working_decoder()}, 2 worker processes"
    results = []
    for name, view, target in (("640x480", whole, 10), (f"{TRAINING_PX}x{TRAINING_PX} view", small, 20)):
        found, limit = ours(view), bare(view)
        results += [
            Result(f"random samples, 2 cameras, {name}, chunk {CHUNK}", found, "samples/s", f"{peer}, 640x480",
                   speeds[best], found / speeds[best], f"at least {target} x", found >= target * speeds[best]),
            Result(f"random samples, 2 cameras, {name}: beside bare decoding", found, "samples/s",
                   "two threads that only decode from the mapped file", limit, found / limit, "at least 0.8",
                   found >= 0.8 * limit),
        ]  # fmt: skip
    jpeg = image_bytes(folder / "d.zarr")
    for codec, written in peers.items():
        results += [
            Result("disk per camera frame: JPEG as recorded", jpeg, "bytes", f"LeRobot 0.6.1, {codec} (made smaller by loss)",
                   written.bytes_per_frame, jpeg / written.bytes_per_frame, "stated", True),
            Result("sealing, camera frames", sealed, "frames/s", f"LeRobot 0.6.1 add_frame and save_episode, {codec}",
                   written.frames_per_s, sealed / written.frames_per_s, "above LeRobot", sealed > written.frames_per_s),
        ]  # fmt: skip
    return results + video(folder / "d.zarr", peers["h264"])


def video(root: Path, best: Written) -> list[Result]:
    """Archive the episodes as H.264; measure size, and random frames beside JPEGs of the same episodes."""
    jpegs = random_frames(Dataset.open(root))
    with Dataset.open_for_writing(root) as dataset:
        archive(dataset, [episode.record for episode in dataset.episodes()])
    size, found = image_bytes(root), random_frames(Dataset.open(root))
    return [
        Result(f"disk per camera frame: video profile, crf {CRF}", size, "bytes", "LeRobot 0.6.1, h264, crf 30",
               best.bytes_per_frame, size / best.bytes_per_frame, "stated", True),
        Result("random frames of episodes, one thread: video profile", found, "frames/s", "JPEG as recorded", jpegs,
               found / jpegs, "stated", True),
    ]  # fmt: skip


def random_frames(dataset: Dataset) -> float:
    """Return random full-size frames per second, straight from episodes."""
    streams = [episode.stream(camera) for episode in dataset.episodes() for camera in rig.CAMERAS]
    rng = np.random.default_rng(0)

    def one() -> None:
        stream = streams[rng.integers(len(streams))]
        stream.frame(int(rng.integers(len(stream))))

    return per_second(one, 1, 4.0)


def many(root: Path, count: int) -> View:
    """Make a dataset of so many small episodes, copies of a few under other ids, and its view."""
    pieces = {"front": [rig.small_jpeg(k) for k in range(10)]}
    with rig.open_dataset(root) as dataset:
        rig.write_journal(root, "e0", pieces, rig.states(0, 10))
        first = dataset.finish("e0")
        copies = [replace(first, id=f"e{number}") for number in range(1, count)]
        for record in copies:
            shutil.copytree(root / "episodes" / "e0", root / "episodes" / record.id, copy_function=os.link)
        append_records(root, copies)
    return build_view(Dataset.open(root), "small", spec(0, ("front",)))


def first_sample(root: Path) -> None:
    """Print seconds until the first sample and the process's memory [MB]; in a process of its own."""
    begun = time.perf_counter()
    view = View.open(Dataset.open(root), "small")
    reader = SampleReader(view, 4)
    assert len(reader.batch(reader.rows[-1:])) == 1
    held = sum(
        a.nbytes
        for a in (view.images("front").frame_of_row, view.row_stamp_ns, view.valid, view.episode_index, reader.rows)
    )
    seconds = time.perf_counter() - begun
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    memory = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    print(seconds, memory, held / len(view))  # noqa: T201


def opening(folder: Path) -> list[Result]:
    """Measure opening a dataset of many episodes."""
    root = folder / "many.zarr"
    rows = len(many(root, MANY))
    code = f"from benchmarks.reading import first_sample; from pathlib import Path; first_sample(Path({str(root)!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, memory, index = (float(word) for word in out.split())
    return [
        Result(f"{MANY} episodes, {rows} rows: to the first sample", seconds, "s", "target", OPEN_S, seconds / OPEN_S,
               f"at most {OPEN_S:g} s", seconds <= OPEN_S),
        Result(f"{MANY} episodes, {rows} rows: memory of the process", memory, "MB", "target", OPEN_MB, memory / OPEN_MB,
               f"below {OPEN_MB:g} MB", memory < OPEN_MB),
        Result("index in memory per million rows, one camera", index, "MB", "a frame of 640x480 as pixels", 0.92,
               index / 0.92, "stated", True),
    ]  # fmt: skip


def main() -> None:
    """Measure and write."""
    folder = Path(tempfile.mkdtemp())
    try:
        pictures = [rig.jpegs(number, round(SECONDS * rig.HZ)) for number in range(EPISODES)]
        write("reading", reading(folder, pictures) + opening(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
