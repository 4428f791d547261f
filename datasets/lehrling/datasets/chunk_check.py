"""What an array's files say of themselves, compared with its metadata before anything is unpacked.

A chunk of a few kilobytes can claim to unpack to any size, a file can be sparse, and a shape can be declared without any
chunk behind it. Zarr trusts all three.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from lehrling.datasets.errors import DamageError, InputError

ITEM_BYTES = {"bool": 1, **{f"{kind}{bits}": bits // 8 for kind in ("int", "uint") for bits in (8, 16, 32, 64)}}
ITEM_BYTES |= {"float16": 2, "float32": 4, "float64": 8}
CHUNKS_MAX = 1 << 20
BOMB_BYTES, SHARDED_BOMB_BYTES, BOMB_RATIO = 4 << 30, 64 << 30, 1000
"""Hours of a robot that stands still pack a thousandfold too: only arrays beyond these sizes are judged by their ratio."""
_ZSTD_MAGIC, _HEADER_BYTES, _SLACK = b"\x28\xb5\x2f\xfd", 18, 4096


def check_chunks(directory: Path, metadata: dict[str, Any]) -> None:
    """Look at every chunk's file and header of an array whose metadata have passed `array_metadata`.

    Raises:
        InputError: it would unpack to more than is declared, or to more than any episode's data does.
        DamageError: a chunk is missing, or is none.
    """
    outer = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    grid = [ceil(size / chunk) for size, chunk in zip(metadata["shape"], outer, strict=True)]
    if prod(grid) > CHUNKS_MAX:
        raise InputError(f"{directory} declares {prod(grid)} chunks, beyond any episode; it is refused.")
    codec = metadata["codecs"][0]
    inner = codec["configuration"] if codec["name"] == "sharding_indexed" else None
    item, stored = ITEM_BYTES[metadata["data_type"]], 0
    chunk_bytes = prod(inner["chunk_shape"] if inner else outer) * item
    per_shard = prod(outer) * item // max(1, chunk_bytes)
    most = prod(outer) * item + 2 * _SLACK + per_shard * (_SLACK if inner else 0)
    for place in product(*map(range, grid)):
        path = directory.joinpath("c", *map(str, place))
        stored += _size(path, most)
        codecs = inner["codecs"] if inner else metadata["codecs"]
        for header in _headers(path, per_shard if inner else 0):
            _check_header(path, header, [part["name"] for part in codecs], chunk_bytes)
    declared = prod(metadata["shape"]) * item
    if declared > (SHARDED_BOMB_BYTES if inner else BOMB_BYTES) and declared > BOMB_RATIO * stored:
        raise InputError(f"{directory} would unpack from {stored} to {declared} bytes; it is refused.")


def _size(path: Path, most: int) -> int:
    """Return the size of a chunk's file, which is no more than a chunk that cannot be packed takes."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise DamageError(f"{path} is missing; run `lehrling verify` on the dataset.") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is no regular file; it is refused.")
    if found.st_size > most:
        raise InputError(f"{path} has {found.st_size} bytes, and its chunk at most {most}; it is refused.")
    return found.st_size


def _headers(path: Path, per_shard: int) -> Iterator[bytes]:
    """Yield the first bytes of a chunk, or of every chunk of a shard (zarr-specs, codecs/sharding-indexed 1.0)."""
    with path.open("rb") as file:
        if not per_shard:
            yield file.read(_HEADER_BYTES)
            return
        tail = 16 * per_shard + 4
        size = file.seek(0, 2)
        file.seek(max(0, size - tail))
        table = file.read(tail)
        if len(table) < tail or google_crc32c.value(table[:-4]).to_bytes(4, "little") != table[-4:]:
            raise DamageError(f"The index of {path} is damaged; run `lehrling verify` on the dataset.")
        for offset, length in np.frombuffer(table[:-4], "<u8").reshape(-1, 2).tolist():
            if offset + length <= size - tail:
                file.seek(offset)
                yield file.read(min(_HEADER_BYTES, length))


def _check_header(path: Path, header: bytes, names: list[str], chunk_bytes: int) -> None:
    claimed = zstd_bytes(header) if "zstd" in names else blosc_bytes(header) if "blosc" in names else 0
    if claimed is None:
        raise DamageError(f"{path} does not say how large it is unpacked; run `lehrling verify` on the dataset.")
    if claimed > chunk_bytes + _SLACK:
        raise InputError(f"{path} claims to unpack to {claimed} bytes, and its chunk has {chunk_bytes}; it is refused.")


def zstd_bytes(header: bytes) -> int | None:
    """Return what a frame says it unpacks to; None if it does not say (RFC 8878, 3.1.1.1)."""
    if len(header) < 6 or header[:4] != _ZSTD_MAGIC:
        return None
    flags = header[4]
    single, width = bool(flags & 0x20), (0, 2, 4, 8)[flags >> 6]
    if not width:
        width = 1 if single else 0
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    field = header[at : at + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


def blosc_bytes(header: bytes) -> int | None:
    """Return what a chunk of Blosc 1 says it unpacks to (c-blosc, README_CHUNK_FORMAT)."""
    return int.from_bytes(header[4:8], "little") if len(header) >= 16 else None
