"""Small recordings made of real messages, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.journal import EpisodeMeta, JournalPart, JournalWriter

ARM6 = load_embodiment("arm6")
MS = 1_000_000


def meta(name: str, *, origin: str = "robot", seed: int | None = None) -> EpisodeMeta:
    return EpisodeMeta(name, "kitting", "put the red part into the left pocket", "arm6", origin, seed)  # type: ignore[arg-type]


def jpeg(index: int, height: int = 96, width: int = 96) -> bytes:
    rng = np.random.default_rng(index)
    small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(small.repeat(8, 0).repeat(8, 1)), quality=90))


def write_rows(journal: JournalPart, seconds: float = 0.5, *, start_ns: int = 10**18) -> None:
    """Write what arm6 sends in `seconds`: joints at 100 Hz, commands at 20 Hz, cameras at 10 Hz."""
    names = [joint.name for joint in ARM6.contract.joints]
    for tick in range(round(seconds * 100)):
        stamp = start_ns + tick * 10 * MS
        clocks: dict[str, Any] = {
            "received_ns": stamp + 2 * MS,
            "publish_ns": stamp + MS,
            "monotonic_ns": tick,
            "sequence": tick,
        }
        position = np.sin(np.arange(7) + tick / 50)
        journal.write("/joint_states", messages.joint_state(names, position, -position, [], stamp), **clocks)
        journal.write("/tcp_pose", messages.pose_stamped([tick / 100, 0, 0.1], [0, 1, 0, 0], stamp, "cell"), **clocks)
        if tick % 5 == 0:
            command = messages.pose_stamped([0.4, tick / 100, 0.1], [0, 1, 0, 0], stamp, "cell")
            journal.write("/tcp_command", command, received_ns=stamp)
            gripper = messages.joint_state(["gripper"], [1.0], [], [], stamp)
            journal.write("/gripper_command", gripper, received_ns=stamp)
        if tick % 10 == 0:
            for camera in ("front", "wrist"):
                image = messages.compressed_image(jpeg(tick + (camera == "wrist")), stamp, camera)
                journal.write(f"/{camera}/image_raw/compressed", image, received_ns=stamp + 30 * MS)


def record(root: Path, name: str, *, seconds: float = 0.5, origin: str = "robot") -> None:
    """Write a whole journal."""
    with JournalWriter(root, meta(name, origin=origin), ARM6) as journal:
        write_rows(journal, seconds)
        journal.close("success", "operator")


def add_episode(root: Path, name: str, *, seconds: float = 0.5) -> None:
    """Record, seal and commit: opening for writing does what a crash before sealing would leave to do."""
    record(root, name, seconds=seconds)
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records[name].status == "sealed"
