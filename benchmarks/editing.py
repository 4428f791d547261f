"""Merge speed, beside `cp -r` of the same episodes on the same disk in the same run.

Merging hashes every file against its inventory and makes every file durable before it counts; `cp -r` does neither, so it
is measured twice: as it is, and with `sync` of what it copied.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.common import Result, write

from lehrling.datasets import inventory
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.edit_merge import merge
from lehrling.datasets.files import fsync_tree, tree_bytes
from lehrling.datasets.manifest import append_records
from lehrling.datasets.view_images import shard_path, write_frames

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

FRAMES, FRAME_BYTES, PER_SHARD = 450, 55_000, 512
"""15 s at 30 Hz of two cameras; 640×480 JPEGs of a robot's scene at quality 92."""


def make_source(root: Path, episodes: int) -> int:
    """Make a dataset of episodes with two cameras' worth of bytes that do not compress; return its bytes."""
    from recordings import add_episode

    create_dataset(root)
    add_episode(root, "base", seconds=2.0)
    dataset = Dataset.open(root)
    base, rng, records = dataset.records["base"], np.random.default_rng(0), []
    for number in range(episodes):
        directory = root / "episodes" / f"episode-{number:03d}"
        shutil.copytree(root / "episodes" / "base", directory)
        for camera in ("front", "wrist"):
            value = directory / camera / "value"
            shard_path(value, 0).unlink()
            write_frames(value, (rng.bytes(FRAME_BYTES) for _ in range(FRAMES)), PER_SHARD)
        listing = inventory.build(directory)
        inventory.save(directory, listing)
        size = tree_bytes(directory)
        records.append(replace(base, id=directory.name, content_hash=inventory.content_hash(listing), bytes=size))
    append_records(root, [*records, replace(base, status="deleted")])
    return sum(record.bytes for record in records)


def seconds(action: Callable[[], object]) -> float:
    """Return the wall time of an action that starts with nothing left to write."""
    os.sync()
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def merged(source: Path, target: Path) -> None:
    """Merge a dataset into a new one."""
    with Dataset.open_for_writing(target, create=True) as dataset:
        merge(dataset, [source])


def copied(source: Path, target: Path, *, durable: bool) -> None:
    """Copy the episodes as `cp -r` does."""
    target.mkdir()
    command = ["/bin/cp", "-r", *(str(path) for path in (source / "episodes").glob("episode-*")), str(target)]
    subprocess.run(command, check=True)
    if durable:
        fsync_tree(target)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary folder without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        size = make_source(folder / "source.zarr", options.episodes)
        times: dict[str, list[float]] = {"merge": [], "cp": [], "cp durable": []}
        actions: dict[str, Callable[[], object]] = {
            "merge": lambda: merged(folder / "source.zarr", folder / "target"),
            "cp": lambda: copied(folder / "source.zarr", folder / "target", durable=False),
            "cp durable": lambda: copied(folder / "source.zarr", folder / "target", durable=True),
        }
        for _ in range(options.rounds):
            for kind, action in actions.items():
                times[kind].append(seconds(action))
                shutil.rmtree(folder / "target")
    rate = {kind: size / 1e6 / statistics.median(found) for kind, found in times.items()}
    peers = {
        "cp": ("cp -r, into the page cache only", 0.5),
        "cp durable": ("cp -r, then fsync of every file", 1.0),
    }
    metric = f"merge of {options.episodes} episodes, {size / 1e6:.0f} MB, every file hashed and durable"
    results = []
    for kind, (peer, least) in peers.items():
        ratio = rate["merge"] / rate[kind]
        results.append(
            Result(metric, rate["merge"], "MB/s", peer, rate[kind], ratio, f"at least {least:g}", ratio >= least)
        )
    write("editing", results)


if __name__ == "__main__":
    main()
