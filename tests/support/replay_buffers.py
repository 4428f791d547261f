"""Small replay buffers as diffusion_policy and UMI write them: Zarr v2, by zarr itself."""

from __future__ import annotations

import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
import zarr
from hdf5_files import images, numbers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LENGTHS = (4, 6, 5)
POSITIONS = numbers(1, 15, 3, "float32")
ACTIONS = numbers(2, 15, 7)
PIXELS = images(3, 15)
FLOATS = images(4, 15).astype("float32")


def replay_buffer(
    root: Path, arrays: dict[str, NDArray[Any]] | None = None, lengths: tuple[int, ...] = LENGTHS, codec: Any = None
) -> Path:
    """Write a buffer: numbers and pixels, in chunks that cut across episodes and pictures."""
    found = {"robot0_eef_pos": POSITIONS, "action": ACTIONS, "camera0_rgb": PIXELS} if arrays is None else arrays
    group = zarr.open_group(root, mode="w", zarr_format=2)
    data, meta = group.create_group("data"), group.create_group("meta")
    for name, values in found.items():
        _write(
            data,
            name,
            values,
            tuple(min(4, n) if axis == 0 else -(-n // 2) for axis, n in enumerate(values.shape)),
            codec,
        )
    ends = np.cumsum(lengths).astype("int64")
    _write(meta, "episode_ends", ends, ends.shape, numcodecs.Blosc())
    return root


def _write(group: Any, name: str, values: NDArray[Any], chunks: tuple[int, ...], codec: Any) -> None:
    made = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        compressors=codec,
        config={"write_empty_chunks": True},
        order="C",
    )
    made[...] = values


def zipped(folder: Path, path: Path, top: str = "") -> Path:
    """Zip a buffer without packing it, as UMI's are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for found in sorted(folder.rglob("*")):
            if found.is_file():
                archive.write(found, top + str(found.relative_to(folder)))
    return path


def changed(folder: Path, array: str, out: Path, **facts: object) -> Path:
    """Copy a buffer and change what an array says of itself."""
    copy = shutil.copytree(folder, out)
    path = copy / array / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return copy
