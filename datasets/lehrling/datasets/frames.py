"""Colour frames of an episode straight from their shards, as the JPEG bytes that the camera sent."""

from __future__ import annotations

import json
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.arrays import array_metadata
from lehrling.datasets.errors import DamageError
from lehrling.datasets.view_images import shard_path

_MISSING = np.uint64(2**64 - 1)


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
        self._shards: dict[int, tuple[bytes, NDArray[np.uint64]]] = {}

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
        content, table = self._shard(index // self._per_shard)
        offset, length = table[index % self._per_shard]
        if offset == _MISSING or int(offset) + int(length) > len(content):
            raise DamageError(f"Frame {index} is missing in {self._directory}; run `lehrling verify` on the dataset.")
        return content[int(offset) : int(offset) + int(length)]

    def _shard(self, number: int) -> tuple[bytes, NDArray[np.uint64]]:
        if number not in self._shards:
            self._shards[number] = self._load(number)
        return self._shards[number]

    def _load(self, number: int) -> tuple[bytes, NDArray[np.uint64]]:
        path, tail = shard_path(self._directory, number), 16 * self._per_shard + 4
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if len(content) < tail:
            raise DamageError(f"{path} is missing or cut; run `lehrling verify` on the dataset.")
        table, checksum = content[-tail:-4], content[-4:]
        if google_crc32c.value(table) != int.from_bytes(checksum, "little"):
            raise DamageError(f"The index of {path} is damaged; run `lehrling verify` on the dataset.")
        return content[:-tail], np.frombuffer(table, dtype="<u8").reshape(-1, 2)


def attributes(directory: Path) -> dict[str, object]:
    """Return a group's or array's attributes."""
    data = json.loads((directory / "zarr.json").read_text(encoding="utf-8"))
    return dict(data.get("attributes", {}))
