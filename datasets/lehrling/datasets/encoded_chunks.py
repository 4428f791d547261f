"""Frames of an episode's `value` array as the bytes that are stored, whatever codec made them: read, and put elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.arrays import array_metadata
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.files import unreadable

_MISSING = np.uint64(2**64 - 1)
_CHECKSUM = 4


class EncodedChunks:
    """The encoded chunks of an array whose chunks follow each other along the first axis alone.

    Attributes:
        rows: frames in a chunk; 1 for JPEG and depth, more where frames are coded together.
        count: frames in all.
    """

    def __init__(self, directory: Path) -> None:
        """Read the metadata.

        Raises:
            InputError: the array is laid out as none of ours.
            DamageError: it cannot be read.
        """
        self.directory, self.metadata = directory, array_metadata(directory)
        self.count = int(self.metadata["shape"][0])
        outer = self.metadata["chunk_grid"]["configuration"]["chunk_shape"]
        inner = _inner(self.metadata, directory)
        self.sharded = inner is not None
        self.rows = int((inner or outer)[0])
        self.per_shard = int(outer[0]) // self.rows if inner else 1
        if list(outer[1:]) != self.metadata["shape"][1:] or (inner and list(inner[1:]) != list(outer[1:])):
            raise InputError(f"Expected whole frames in the chunks of {directory}, got {inner or outer}.")
        self._open: tuple[int, bytes, NDArray[np.uint64]] | None = None

    def __len__(self) -> int:
        return (self.count + self.rows - 1) // self.rows

    def __getitem__(self, number: int) -> bytes:
        """Return the bytes of a chunk.

        Raises:
            DamageError: it is missing, or its shard is damaged.
        """
        path = chunk_path(self.directory, self.metadata, number // self.per_shard)
        if not self.sharded:
            return _content(path)
        if self._open is None or self._open[0] != number // self.per_shard:
            self._open = (number // self.per_shard, *_shard(path, self.per_shard))
        _, content, table = self._open
        offset, length = map(int, table[number % self.per_shard])
        if offset == _MISSING or offset + length > len(content):
            raise DamageError(f"Chunk {number} is missing in {self.directory}; run `lehrling verify` on the dataset.")
        return content[offset : offset + length]

    def widened(self, start: int, stop: int) -> tuple[int, int]:
        """Return the frames of all chunks that hold any of start to stop."""
        if start >= stop:
            return start - start % self.rows, start - start % self.rows
        return start - start % self.rows, min(self.count, -(-stop // self.rows) * self.rows)


def copy_chunks(source: EncodedChunks, target: Path, start: int, stop: int) -> None:
    """Make the array `target` of the frames start to stop, which must be at borders of chunks (see `widened`)."""
    metadata = source.metadata | {"shape": [stop - start, *source.metadata["shape"][1:]]}
    target.mkdir()
    (target / "zarr.json").write_text(json.dumps(metadata), encoding="utf-8")
    chunks = range(start // source.rows, -(-stop // source.rows)) if stop > start else range(0)
    for shard, first in enumerate(range(0, len(chunks), source.per_shard)):
        path = chunk_path(target, metadata, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = (source[number] for number in chunks[first : first + source.per_shard])
        _write(path, encoded, source.per_shard if source.sharded else 0)


def difference(source: EncodedChunks, target: Path, start: int) -> str:
    """Return how an array differs from the frames of another that it was made of, from `start` on; or nothing."""
    copy, first = EncodedChunks(target), start // source.rows
    wrong = [number for number in range(len(copy)) if copy[number] != source[first + number]]
    return f"frame {wrong[0] * copy.rows} of {target} reads back differently" if wrong else ""


def chunk_path(array: Path, metadata: dict[str, Any], number: int) -> Path:
    """Return where an array keeps a chunk or shard."""
    return array.joinpath("c", str(number), *["0"] * (len(metadata["shape"]) - 1))


def _inner(metadata: dict[str, Any], directory: Path) -> list[int] | None:
    """Return the shape of a shard's chunks; None for an array that is not sharded."""
    codec = metadata["codecs"][0]
    if codec["name"] != "sharding_indexed":
        return None
    settings = codec["configuration"]
    index = [part["name"] for part in settings["index_codecs"]]
    if settings.get("index_location", "end") != "end" or index != ["bytes", "crc32c"]:
        raise InputError(f"Expected shards with their index at the end and a checksum in {directory}; it is refused.")
    return [int(size) for size in settings["chunk_shape"]]


def _content(path: Path) -> bytes:
    missing = DamageError(f"{path} is missing; run `lehrling verify` on the dataset.")
    if not path.is_file() or path.is_symlink():
        raise missing
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(error, path, missing) from error


def _shard(path: Path, chunks: int) -> tuple[bytes, NDArray[np.uint64]]:
    content, tail = _content(path), 16 * chunks + _CHECKSUM
    table = content[-tail:-_CHECKSUM]
    if len(content) < tail or google_crc32c.value(table).to_bytes(_CHECKSUM, "little") != content[-_CHECKSUM:]:
        raise DamageError(f"The index of {path} is damaged; run `lehrling verify` on the dataset.")
    return content[:-tail], np.frombuffer(table, "<u8").reshape(-1, 2)


def _write(path: Path, encoded: Iterator[bytes], per_shard: int) -> None:
    """Write a chunk or, of `per_shard` chunks at most, a shard (zarr-specs, codecs/sharding-indexed 1.0)."""
    index, at = np.full((per_shard, 2), _MISSING, "<u8"), 0
    with path.open("xb") as file:
        for number, chunk in enumerate(encoded):
            file.write(chunk)
            if per_shard:
                index[number] = at, len(chunk)
            at += len(chunk)
        if per_shard:
            table = index.tobytes()
            file.write(table + google_crc32c.value(table).to_bytes(_CHECKSUM, "little"))
