"""The recorder under load, beside a plain rclpy node with the mcap writer and LeRobot's writer, in one run.

Four 640x480 cameras at 30 Hz, 43 joints at 1 kHz, six streams at 100 Hz, all from publishers on the same machine. `SECONDS` of
the environment (60 unless set) shortens it for a try.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from benchmarks.common import Result, write
from benchmarks.rigs import load, rig
from benchmarks.rigs.load import Run

SECONDS = float(os.environ.get("SECONDS", "60"))
SEAL_TARGET = 0.2
LEROBOT_S = 20.0


def per_minute(run: Run) -> float:
    """Return CPU seconds per recorded minute, sealing included."""
    return (run.cpu_s + run.seal_cpu_s) / run.seconds * 60


def lerobot_cpu_per_minute(seconds: float) -> float:
    """Return the CPU seconds per recorded minute of LeRobot's writer, fed the same frames; videos as it makes them."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    images = rig.frames()
    shape = {"dtype": "video", "shape": (rig.HEIGHT, rig.WIDTH, 3), "names": ["height", "width", "channels"]}
    features: dict[str, object] = {f"observation.images.camera_{k}": shape for k in range(rig.CAMERAS)}
    for name in ("observation.state", "action"):
        features[name] = {"dtype": "float32", "shape": (rig.JOINTS,), "names": rig.NAMES}
    folder = Path(tempfile.mkdtemp())
    usage = load.Usage()
    try:
        before = usage.cpu_s() + sum(os.times()[2:4])
        dataset = LeRobotDataset.create(
            "local/bench", rig.CAMERA_HZ, features, root=folder / "lerobot", image_writer_threads=4
        )
        for k in range(round(seconds * rig.CAMERA_HZ)):
            row = np.full(rig.JOINTS, np.sin(k), np.float32)
            frame = {f"observation.images.camera_{c}": images[(k + c) % len(images)] for c in range(rig.CAMERAS)}
            dataset.add_frame({**frame, "observation.state": row, "action": row, "task": "benchmark"})
        dataset.save_episode()
        return (usage.cpu_s() + sum(os.times()[2:4]) - before) / seconds * 60
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def accounting(name: str, ours: Run, peer: Run, *, none_lost: bool) -> list[Result]:
    """Return what was lost and whether all of it was reported."""
    target = "0 lost, all accounted for" if none_lost else "published = recorded + reported lost"
    met = ours.exact and (ours.lost_all == 0 or not none_lost)
    share = 100 * ours.lost_all / ours.published_all
    peers = 100 * peer.lost_all / peer.published_all
    unaccounted = sum(abs(n - ours.recorded.get(t, 0) - ours.lost[t]) for t, n in ours.published.items())
    return [
        Result(f"{name}: lost of {ours.published_all} messages", share, "%", "plain node", peers,
               share / peers if peers else float(share > 0), target, met),
        Result(f"{name}: messages neither recorded nor reported", unaccounted, "", "plain node (reports none)",
               peer.lost_all, unaccounted / peer.lost_all if peer.lost_all else float(unaccounted), "0", unaccounted == 0),
    ]  # fmt: skip


def costs(name: str, ours: Run, peer: Run, lerobot: float) -> list[Result]:
    """Return CPU, memory and lag."""
    mine, its = per_minute(ours), per_minute(peer)
    return [
        Result(f"{name}: CPU per recorded minute, sealing included", mine, "s", "plain node, not sealed", its,
               mine / its, "below the plain node", mine < its),
        Result(f"{name}: of it capturing", ours.cpu_s / ours.seconds * 60, "s", "plain node", its,
               ours.cpu_s / ours.seconds * 60 / its, "below the plain node", ours.cpu_s < peer.cpu_s),
        Result(f"{name}: CPU per recorded minute, sealing included", mine, "s", "LeRobot 0.6.1 writer", lerobot,
               mine / lerobot, "below LeRobot", mine < lerobot),
        Result(f"{name}: memory, all processes", ours.rss_mb, "MB", "plain node", peer.rss_mb, ours.rss_mb / peer.rss_mb,
               "stated", True),
        Result(f"{name}: longest wait for the journal", ours.lag_max_ms, "ms", "promised below", 50.0,
               ours.lag_max_ms / 50, "at most 50 ms", ours.lag_max_ms <= 50),
        Result(f"{name}: share of the machine in use, publishers included", 100 * ours.load, "%", "with the plain node",
               100 * peer.load, ours.load / peer.load, "stated", True),
    ]  # fmt: skip


def sealing(name: str, run: Run, *, judged: bool) -> Result:
    """Return how long sealing took, as a share of the episode's duration."""
    share = run.seal_s / run.seconds
    target = f"at most {SEAL_TARGET} x the duration" if judged else "stated"
    return Result(f"{name}: stop to sealed and readable", run.seal_s, "s", "duration", run.seconds, share, target,
                  share <= SEAL_TARGET or not judged)  # fmt: skip


def main() -> None:
    """Measure and write."""
    folder = Path(tempfile.mkdtemp())
    try:
        large = load.shared_memory_profile(folder)
        lerobot = lerobot_cpu_per_minute(min(LEROBOT_S, SECONDS))
        results = []
        compressed = load.ours("compressed", 4, SECONDS, images="jpeg", processes=1, profile=None)
        peer = load.plain("compressed", 4, SECONDS, profile=None)
        results += accounting("compressed", compressed, peer, none_lost=True) + costs(
            "compressed", compressed, peer, lerobot
        )
        results.append(sealing("compressed", compressed, judged=True))
        for name, profile in (("raw, 64 MiB shared memory", large), ("raw, Fast DDS as it comes", None)):
            raw = load.ours("raw", 4, SECONDS, images="jpeg", processes=1, profile=profile)
            peer = load.plain("raw", 4, SECONDS, profile=profile)
            results += accounting(name, raw, peer, none_lost=False) + costs(name, raw, peer, lerobot)
            results.append(sealing(name, raw, judged=True))
        kept = load.ours("raw", 2, min(SECONDS, 20), images="raw", processes=1, profile=large)
        results.append(sealing("raw journal, 2 cameras", kept, judged=False))
        write("recording", results)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
