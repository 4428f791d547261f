"""Writing and reading an episode's arrays: nothing left out because it is zero, nothing missing read as zero."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from lehrling.datasets.chunk_check import ITEM_BYTES, check_chunks
from lehrling.datasets.codec import CODEC_NAME, JpegFrames
from lehrling.datasets.codec_video import CODEC_NAME as VIDEO_CODEC_NAME
from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError, InputError, LehrlingError
from lehrling.datasets.files import unreadable
from lehrling.datasets.view_images import write_frames

ROWS_PER_CHUNK = 65_536
ROWS_BYTES = 64 << 20
"""Of rows so large that ROWS_PER_CHUNK of them would be more, a chunk holds as many as fit."""
FRAMES_PER_SHARD = 512
CODECS = ("bytes", "zstd", "blosc", "crc32c", "sharding_indexed", CODEC_NAME, VIDEO_CODEC_NAME)
METADATA_BYTES_MAX = 1 << 20
ELEMENTS_MAX = 1 << 40
CHUNK_BYTES_MAX = 256 << 20
"""Of what is unpacked at once; a shard is not."""
COMPRESSORS = ("zstd", "blosc")


def write_array(group: Any, path: str, values: NDArray[Any]) -> None:
    """Write a numeric array (N, …) in chunks of ROWS_PER_CHUNK rows, or of fewer that are large."""
    row = tuple(max(1, n) for n in values.shape[1:])
    rows = max(1, min(ROWS_PER_CHUNK, ROWS_BYTES // (prod(row) * values.dtype.itemsize)))
    chunks = (rows, *row)
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
        data = read_json(path, "array's metadata", bytes_max=METADATA_BYTES_MAX)
        version, kind = data["zarr_format"], data["node_type"]
        shape = data.get("shape")
        if version != 3 or kind != "array":
            raise InputError(f"Expected a Zarr v3 array at {directory}, got version {version}, {kind}; it is refused.")
        names = list(_codec_names(data["codecs"]))
        if foreign := [name for name in names if name not in CODECS]:
            raise InputError(
                f"{path} asks for the codec {foreign[0]!r}, which is not on the allow-list; it is refused."
            )
        unusual, chunks = _unusual(data), data["chunk_grid"]["configuration"]["chunk_shape"]
        unpacked = _unpacked_bytes(data)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        damage = DamageError(f"Expected the metadata of a Zarr v3 array at {path}, got none that can be read.")
        raise unreadable(error, path, damage) from error
    if unusual:
        raise InputError(f"{path} asks for {unusual}, which no episode has; it is refused.")
    if _elements(shape) > ELEMENTS_MAX or _elements(chunks) > ELEMENTS_MAX or unpacked > CHUNK_BYTES_MAX:
        raise InputError(f"{path} declares the shape {shape} in chunks of {chunks}, beyond any episode; it is refused.")
    return dict(data)


def _unusual(data: dict[str, Any]) -> str:
    """Return what zarr-python would do that our arrays never ask for."""
    if str(data["data_type"]) not in ITEM_BYTES:
        return f"elements of the type {str(data['data_type'])[:80]!r}"
    keys = data["chunk_key_encoding"]
    separator = keys.get("configuration", {}).get("separator", "/")
    if data["chunk_grid"]["name"] != "regular" or keys["name"] != "default" or separator != "/":
        return "chunks at other places"
    if data.get("storage_transformers"):
        return "storage transformers"
    shape, chunks = data["shape"], data["chunk_grid"]["configuration"]["chunk_shape"]
    if len(shape) != len(chunks) or not all(type(size) is int and size > 0 for size in chunks):
        return f"chunks of {str(chunks)[:80]}"
    return _unusual_codecs(data["codecs"], chunks)


def _unusual_codecs(codecs: list[dict[str, Any]], chunks: list[int]) -> str:
    names = [codec["name"] for codec in codecs]
    if "sharding_indexed" not in names:
        return "" if sum(name in COMPRESSORS for name in names) < 2 else "chunks packed twice"
    settings, inner = codecs[0]["configuration"], codecs[0]["configuration"]["chunk_shape"]
    index = [codec["name"] for codec in settings["index_codecs"]]
    if len(names) > 1 or index != ["bytes", "crc32c"] or settings.get("index_location", "end") != "end":
        return "other shards than with a checksum and their index at the end"
    within = [type(size) is int and size > 0 and whole % size == 0 for size, whole in zip(inner, chunks, strict=True)]
    if not all(within) or "sharding_indexed" in [codec["name"] for codec in settings["codecs"]]:
        return f"shards of {str(inner)[:80]}"
    return _unusual_codecs(settings["codecs"], inner)


def _unpacked_bytes(data: dict[str, Any]) -> int:
    """Return the size of what is unpacked at once: a chunk, not a shard."""
    codec, item = data["codecs"][0], ITEM_BYTES.get(str(data["data_type"]), 1)
    sharded = codec["name"] == "sharding_indexed"
    grid = codec if sharded else data["chunk_grid"]
    return _elements(grid["configuration"]["chunk_shape"]) * item


def _elements(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        if type(size) is not int or size < 0:
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
    """Open an array for reading; a missing chunk raises instead of reading as zero.

    Raises:
        InputError: it is larger than it says, or asks for what a dataset of ours never does.
        DamageError: it is damaged.
    """
    metadata = array_metadata(directory)
    try:
        check_chunks(directory, metadata)
        return zarr.open_array(directory, mode="r", zarr_format=3, config={"read_missing_chunks": False})
    except LehrlingError:
        raise
    except Exception as error:
        raise _damaged(directory, error) from error


def read_array(directory: Path) -> NDArray[Any]:
    """Read a whole array.

    Raises:
        InputError: it is larger than it says, or asks for what a dataset of ours never does.
        DamageError: a chunk is missing or damaged.
    """
    array = open_array(directory)
    try:
        return np.asarray(array[...])
    except Exception as error:
        raise _damaged(directory, error) from error


def _damaged(directory: Path, error: Exception) -> LehrlingError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    damage = DamageError(
        f"{directory} is damaged: {reason}; run `lehrling verify` on the dataset, and never train on this episode."
    )
    return unreadable(error, directory, damage)
