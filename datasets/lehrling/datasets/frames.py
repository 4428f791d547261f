"""Colour frames of an episode straight from their shards, as the JPEG bytes that the camera sent."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.arrays import array_metadata
from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import unreadable
from lehrling.datasets.view_images import shard_path

_MISSING = np.uint64(2**64 - 1)
_HEADERS = 1 << 20
"""A JPEG is smaller than its pixels; what is said beside them, such as colour profiles, has room here."""


class JpegFile:
    """The frames of one `value` array; `file[i]` is a JPEG's bytes.

    Reads the standard `sharding_indexed` layout (index at the end, crc32c); a test holds it against zarr-python.
    """

    def __init__(self, directory: Path) -> None:
        data = array_metadata(directory)
        self._directory = directory
        self._count = int(data["shape"][0])
        self._per_shard = int(data["chunk_grid"]["configuration"]["chunk_shape"][0])
        self.shape = tuple(int(n) for n in data["shape"][1:])
        self._most = 2 * prod(self.shape) + _HEADERS
        self._shards: dict[int, NDArray[np.uint64]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        """Return frame `index` as JPEG bytes.

        Raises:
            IndexError: no such frame.
            DamageError: its shard is missing or damaged.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"expected a frame from 0 to {self._count - 1}, got {index}")
        number = index // self._per_shard
        if number not in self._shards:
            self._shards[number] = self._index(number)
        offset, length = map(int, self._shards[number][index % self._per_shard])
        if length <= self._most:
            with shard_path(self._directory, number).open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), length, offset)
            if len(content) == length:
                return content
        raise DamageError(f"Frame {index} is missing in {self._directory}; run `lehrling verify` on the dataset.")

    def _index(self, number: int) -> NDArray[np.uint64]:
        """Read where a shard keeps its frames; those beyond it are marked as missing."""
        path, tail = shard_path(self._directory, number), 16 * self._per_shard + 4
        size = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        if size < tail:
            raise DamageError(f"{path} is missing or cut; run `lehrling verify` on the dataset.")
        with path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), tail, size - tail)
        if google_crc32c.value(content[:-4]) != int.from_bytes(content[-4:], "little"):
            raise DamageError(f"The index of {path} is damaged; run `lehrling verify` on the dataset.")
        table = np.frombuffer(content[:-4], dtype="<u8").reshape(-1, 2).copy()
        whole = (table[:, 0] <= size - tail) & (table[:, 1] <= size - tail - np.minimum(table[:, 0], size - tail))
        table[~whole] = _MISSING
        return table


def attributes(directory: Path) -> dict[str, object]:
    """Return a group's or array's attributes."""
    path = directory / "zarr.json"
    try:
        data = read_json(path)
    except OSError as error:
        raise unreadable(error, path, DamageError(f"Expected attributes at {path}, got none.")) from error
    return dict(data.get("attributes", {}))
