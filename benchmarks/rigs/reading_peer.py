"""LeRobot 0.6.1 on the same demonstrations: writing, reading at random with its own dataset class, disk."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from benchmarks.rigs import episodes as rig
from numpy.typing import NDArray


@dataclass(frozen=True)
class Written:
    """What LeRobot wrote.

    Attributes:
        frames_per_s: camera frames that `save_episode` with the frames given by `add_frame` takes per second.
        bytes_per_frame: of the video files, per camera frame.
    """

    root: Path
    frames_per_s: float
    bytes_per_frame: float


def write(
    root: Path, codec: str, pictures: list[dict[str, list[bytes]]], positions: list[NDArray[np.float64]]
) -> Written:
    """Write the episodes, decoded from the JPEGs, as videos of a codec; decoding is not counted."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    image = {"dtype": "video", "shape": (rig.HEIGHT, rig.WIDTH, 3), "names": ["height", "width", "channels"]}
    features: dict[str, Any] = {f"observation.images.{name}": image for name in rig.CAMERAS}
    for name in ("observation.state", "action"):
        features[name] = {"dtype": "float32", "shape": (rig.JOINTS,), "names": rig.NAMES}
    dataset = LeRobotDataset.create(
        "local/bench", rig.HZ, features, root=root, image_writer_threads=4, rgb_encoder=RGBEncoderConfig(vcodec=codec)
    )
    spent, count = 0.0, 0
    for shown, rows in zip(pictures, positions, strict=True):
        for k, row in enumerate(rows.astype(np.float32)):
            frame = {
                f"observation.images.{name}": simplejpeg.decode_jpeg(shown[name][k], "RGB") for name in rig.CAMERAS
            }
            begun = time.perf_counter()
            dataset.add_frame({**frame, "observation.state": row, "action": row, "task": "pick the part"})
            spent, count = spent + time.perf_counter() - begun, count + len(rig.CAMERAS)
        begun = time.perf_counter()
        dataset.save_episode()
        spent += time.perf_counter() - begun
    dataset.finalize()
    size = sum(path.stat().st_size for path in (root / "videos").rglob("*.mp4"))
    return Written(root, count / spent, size / count)


def samples_per_s(root: Path, chunk: int, batch: int, workers: int, batches: int) -> float:
    """Return how many random samples (two images, state, action chunk) come per second from its dataset and PyTorch's loader."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(
        "local/bench",
        root=root,
        delta_timestamps={"action": [k / rig.HZ for k in range(chunk)]},
        video_backend=working_decoder(),
    )
    torch.manual_seed(0)
    order = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=batch * (batches + 10))
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, sampler=order, num_workers=workers)
    read = iter(loader)
    first = next(read)
    assert first["observation.images.front"].shape == (batch, 3, rig.HEIGHT, rig.WIDTH)
    assert first["action"].shape == (batch, chunk, rig.JOINTS)
    begun = time.perf_counter()
    for _ in range(batches):
        next(read)
    return batch * batches / (time.perf_counter() - begun)


def working_decoder() -> str:
    """Return torchcodec if it loads, else pyav."""
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        return "pyav"
    return "torchcodec"
