"""Small HDF5 files as robomimic and ALOHA write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import simplejpeg

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENV = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})


def numbers(seed: int, frames: int, width: int, dtype: str = "float64") -> NDArray[Any]:
    """Return an array that its seed determines."""
    return np.random.default_rng(seed).standard_normal((frames, width)).astype(dtype)


def image(seed: int, frame: int) -> NDArray[np.uint8]:
    """Return a frame with large patches, so that JPEG keeps it."""
    small = np.random.default_rng((seed, frame)).integers(0, 256, (3, 4, 3), np.uint8)
    return small.repeat(16, 0).repeat(16, 1)


def images(seed: int, frames: int) -> NDArray[np.uint8]:
    return np.stack([image(seed, frame) for frame in range(frames)])


def robomimic(path: Path, lengths: tuple[int, ...] = (4, 6, 5)) -> Path:
    """Write a file with demo_0, demo_1 …, and demo_10 last, as sorting by letters would not have it."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = ENV
        for number, frames in enumerate(lengths):
            name = f"demo_{number if number < len(lengths) - 1 else 10}"
            demo = data.create_group(name)
            demo.attrs["num_samples"] = frames
            demo["actions"] = numbers(number, frames, 7)
            demo["rewards"] = np.arange(frames) / 7
            demo["dones"] = np.arange(frames) == frames - 1
            demo.create_dataset("states", data=numbers(number + 50, frames, 9), compression="gzip", shuffle=True)
            obs = demo.create_group("obs")
            obs["robot0_eef_pos"] = numbers(number + 100, frames, 3)
            obs.create_dataset("agentview_image", data=images(number, frames), chunks=(1, 48, 64, 3), compression="lzf")
            obs["agentview_depth"] = np.zeros((frames, 48, 64, 1), np.float32)
            demo.create_group("next_obs")["robot0_eef_pos"] = numbers(number + 100, frames, 3)
    return path


def aloha(folder: Path, episodes: int = 3, *, packed: bool = False, frames: int = 4) -> Path:
    """Write a folder with episode_0.hdf5 …; `packed` stores images as padded JPEGs."""
    folder.mkdir(exist_ok=True)
    for number in range(episodes):
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = False
            observed = file.create_group("observations")
            observed["qpos"] = numbers(number, frames, 14)
            observed["qvel"] = numbers(number + 100, frames, 14)
            file["action"] = numbers(number + 200, frames, 14)
            cameras = observed.create_group("images")
            for seed, camera in enumerate(("cam_high", "cam_left_wrist")):
                shown = images(10 * number + seed, frames)
                cameras[camera] = padded(shown) if packed else shown
    return folder


def padded(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images as ALOHA packs them: JPEGs, with zeros to the length of the longest."""
    jpegs = [simplejpeg.encode_jpeg(frame, 90) for frame in shown]
    rows = np.zeros((len(jpegs), max(map(len, jpegs)) + 3), np.uint8)
    for row, jpeg in zip(rows, jpegs, strict=True):
        row[: len(jpeg)] = np.frombuffer(jpeg, np.uint8)
    return rows
