"""Episodes of a two-camera arm for the reading benchmark: distinct frames, recorded through the journal like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment, parse_embodiment
from lehrling.datasets.journal import EpisodeMeta, JournalWriter

HEIGHT, WIDTH, JOINTS, HZ = 480, 640, 7, 30
CAMERAS = ("front", "wrist")
NAMES = [f"joint_{k}" for k in range(JOINTS)]
IMAGE, JOINT_STATE = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState"
QUALITY = 90


def embodiment(height: int = HEIGHT, width: int = WIDTH, cameras: tuple[str, ...] = CAMERAS) -> Embodiment:
    """Return an arm with seven joints, their command, and cameras."""
    joints = {"names": NAMES, "shape": [JOINTS], "unit": "rad"}
    command = {"kind": "joint_position", "role": "action", **joints}
    streams = [
        {"name": "joint_position", "kind": "joint_position", **joints},
        {"name": "joint_command", **command},
    ]
    sources = {
        "joint_position": [{"topic": "/joint_states", "type": JOINT_STATE, "field": "position", "rate_hz": HZ}],
        "joint_command": [{"topic": "/joint_command", "type": JOINT_STATE, "field": "position", "rate_hz": HZ}],
    }
    for name in cameras:
        sources[name] = [{"topic": f"/{name}", "type": IMAGE, "rate_hz": HZ}]
    contract = {
        "joints": [{"name": name} for name in NAMES],
        "cameras": [{"name": name, "height": height, "width": width} for name in cameras],
        "streams": streams,
    }
    return parse_embodiment({"name": "bench_arm", "contract": contract, "binding": {"sources": sources}}, "the arm")


def frames(episode: int, camera: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield frames (480, 640, 3): parts that move over a lit table, with sensor noise."""
    rng = np.random.default_rng((5, episode, camera))
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    base = np.stack([80 + rows / 6, 90 + columns / 9, 120 - rows / 8], axis=-1)
    colours, phase = rng.uniform(20, 230, (12, 3)), rng.uniform(0, 6, 12)
    noise = rng.normal(0, 3, (HEIGHT + 64, WIDTH + 64, 3)).astype(np.float32)
    for k in range(count):
        image = base.copy()
        for part in range(12):
            x, y = 40 + 45 * part, 60 + round(150 * (1 + np.sin(phase[part] + k / 15)))
            image[y : y + 50, x : x + 40] = colours[part]
        top, left = rng.integers(0, 64, 2)
        yield np.clip(image + noise[top : top + HEIGHT, left : left + WIDTH], 0, 255).astype(np.uint8)


def jpegs(episode: int, count: int) -> dict[str, list[bytes]]:
    """Return the cameras' frames as such cameras send them."""
    return {
        name: [bytes(simplejpeg.encode_jpeg(f, QUALITY, "RGB", "420")) for f in frames(episode, number, count)]
        for number, name in enumerate(CAMERAS)
    }


def states(episode: int, count: int) -> NDArray[np.float64]:
    """Return joint positions (count, 7) [rad]."""
    steps = np.arange(count)[:, None]
    return np.asarray(np.sin(steps / 20 + np.arange(JOINTS) + episode))


def write_journal(root: Path, name: str, pictures: dict[str, list[bytes]], positions: NDArray[np.float64]) -> None:
    """Write an ended journal of an episode: stamps of 30 Hz from 1 s on."""
    first = next(iter(pictures.values()))
    height, width, _, _ = simplejpeg.decode_jpeg_header(first[0])
    robot = embodiment(height, width, tuple(pictures))
    meta = EpisodeMeta(name, "pick", "pick the part", robot.name, "robot")
    with JournalWriter(root, meta, robot) as journal:
        for k, row in enumerate(positions):
            stamp = 1_000_000_000 + round(k * 1e9 / HZ)
            for topic in ("/joint_states", "/joint_command"):
                journal.write(topic, messages.joint_state(NAMES, row, [], [], stamp), received_ns=stamp + 1_000_000)
            for camera, pieces in pictures.items():
                cdr = messages.compressed_image(pieces[k], stamp, camera)
                journal.write(f"/{camera}", cdr, received_ns=stamp + 2_000_000)
        journal.close("success", "done")


def open_dataset(root: Path) -> Dataset:
    """Make a dataset, or open it, for writing."""
    return Dataset.open_for_writing(root, create=True)


def small_jpeg(number: int) -> bytes:
    """Return a small frame (32, 32, 3) as JPEG."""
    image = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(image, QUALITY, "RGB", "420"))
