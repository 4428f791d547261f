"""Writing and reading an episode's arrays: nothing left out because it is zero, nothing missing read as zero."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from lehrling.datasets.codec import CODEC_NAME, JpegFrames
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.view_images import write_frames

ROWS_PER_CHUNK = 65_536
FRAMES_PER_SHARD = 512
CODECS = ("bytes", "zstd", "blosc", "crc32c", "sharding_indexed", CODEC_NAME)
METADATA_BYTES_MAX = 1 << 20
ELEMENTS_MAX = 1 << 40
CHUNK_BYTES_MAX = 1 << 30


def write_array(group: Any, path: str, values: NDArray[Any]) -> None:
    """Write a numeric array (N, …) in chunks of ROWS_PER_CHUNK rows."""
    chunks = (ROWS_PER_CHUNK, *(max(1, n) for n in values.shape[1:]))
    array = group.create_array(
        path,
        shape=values.shape,
        chunks=chunks,
        dtype=values.dtype,
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=0,
        config={"write_empty_chunks": True},
    )
    if values.size:
        array[...] = values


def write_depth(group: Any, path: str, frames: Sequence[NDArray[np.uint16]], shape: tuple[int, ...]) -> None:
    """Write depth frames (H, W) uint16 without loss: one frame a chunk, sharded."""
    array = group.create_array(
        path,
        shape=(len(frames), *shape),
        chunks=(1, *shape),
        shards=(min(FRAMES_PER_SHARD, max(1, len(frames))), *shape),
        dtype="uint16",
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
        fill_value=0,
        config={"write_empty_chunks": True},
    )
    if frames:
        array[...] = np.stack(frames)


def write_jpegs(group: Any, directory: Path, path: str, frames: Sequence[bytes], shape: tuple[int, ...]) -> None:
    """Write colour frames from their JPEG bytes, as they are: one frame a chunk, sharded."""
    group.create_array(
        path,
        shape=(len(frames), *shape),
        chunks=(1, *shape),
        shards=(FRAMES_PER_SHARD, *shape),
        dtype="uint8",
        serializer=JpegFrames(),
        compressors=None,
        fill_value=0,
    )
    write_frames(directory / path, frames, FRAMES_PER_SHARD)


def array_metadata(directory: Path) -> dict[str, Any]:
    """Read and check an array's zarr.json before zarr sees it: v3, allowed codecs, sane sizes.

    Raises:
        InputError: anything that a dataset of ours never holds.
        DamageError: the metadata is missing or no JSON.
    """
    path = directory / "zarr.json"
    try:
        if path.stat().st_size > METADATA_BYTES_MAX:
            raise InputError(f"{path} is larger than {METADATA_BYTES_MAX} bytes; it is refused.")
        data = json.loads(path.read_text(encoding="utf-8"))
        version, kind = data["zarr_format"], data["node_type"]
        shape, chunks = data["shape"], data["chunk_grid"]["configuration"]["chunk_shape"]
        names = list(_codec_names(data["codecs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamageError(f"Expected the metadata of a Zarr v3 array at {path}, got none that can be read.") from error
    if version != 3 or kind != "array":
        raise InputError(f"Expected a Zarr v3 array at {directory}, got version {version}, {kind}; it is refused.")
    if foreign := [name for name in names if name not in CODECS]:
        raise InputError(f"{path} asks for the codec {foreign[0]!r}, which is not on the allow-list; it is refused.")
    if _elements(shape) > ELEMENTS_MAX or _elements(chunks) * 8 > 64 * CHUNK_BYTES_MAX:
        raise InputError(f"{path} declares the shape {shape} in chunks of {chunks}, beyond any episode; it is refused.")
    return dict(data)


def _elements(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        if not isinstance(size, int) or size < 0:
            return ELEMENTS_MAX + 1
        total *= size
    return total


def _codec_names(codecs: Any) -> list[str]:
    names: list[str] = []
    for codec in codecs:
        name = codec if isinstance(codec, str) else codec["name"]
        names.append(str(name))
        inner = codec.get("configuration", {}) if isinstance(codec, dict) else {}
        for key in ("codecs", "index_codecs"):
            names += _codec_names(inner.get(key, []))
    return names


def open_array(directory: Path) -> Any:
    """Open an array for reading; a missing chunk raises instead of reading as zero."""
    array_metadata(directory)
    return zarr.open_array(directory, mode="r", zarr_format=3, config={"read_missing_chunks": False})


def read_array(directory: Path) -> NDArray[Any]:
    """Read a whole array.

    Raises:
        DamageError: a chunk is missing or damaged.
    """
    array = open_array(directory)
    try:
        return np.asarray(array[...])
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamageError(
            f"{directory} is damaged: {reason}; run `lehrling verify` on the dataset, and never train on this episode."
        ) from error
