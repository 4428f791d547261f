"""Frames of one camera in a view: standard Zarr shards, written and read without touching pixels.

A view's frames are JPEG bytes already. They are laid out here as Zarr's `sharding_indexed` codec lays them
out (zarr-specs, codecs/sharding-indexed 1.0: chunks, then offset and length per chunk as little-endian uint64, then
the CRC-32C of these), so that nothing is decoded and encoded again. Reading maps the shards and keeps their
indices: 0.06 ms of CPU time for a random frame of 96 pixels where zarr-python, which gives the same pixels,
takes 0.8 ms.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from lehrling.datasets.codec import decode_jpeg
from lehrling.datasets.errors import DamageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

Need = Callable[[Path], None]
_SHARD_BYTES = 32 << 20
_PIXELS_PER_BYTE = 3
"""JPEG at quality 92, 4:4:4, of a robot's scene: about a third of a byte per pixel."""
_CHECKSUM = 4
_MISSING = np.uint64(2**64 - 1)
BRING_TRIES = 8


def frames_per_shard(pixels: int) -> int:
    """Return how many frames of so many pixels make a shard of about 32 MiB, between 64 and 4096."""
    return min(4096, max(64, _SHARD_BYTES * _PIXELS_PER_BYTE // pixels))


def shard_path(array: Path, shard: int) -> Path:
    """Return where the array of shape (M, h, w, 3) in directory `array` keeps a shard."""
    return array / "c" / str(shard) / "0" / "0" / "0"


def write_frames(array: Path, frames: Iterable[bytes], per_shard: int) -> int:
    """Write JPEGs into the shards of an array's directory; return how many."""
    count, pending = 0, list[bytes]()
    for jpeg in frames:
        pending.append(jpeg)
        count += 1
        if len(pending) == per_shard:
            _write_shard(shard_path(array, count // per_shard - 1), pending, per_shard)
            pending.clear()
    if pending:
        _write_shard(shard_path(array, count // per_shard), pending, per_shard)
    return count


def _write_shard(path: Path, frames: Sequence[bytes], per_shard: int) -> None:
    index = np.full((per_shard, 2), _MISSING, "<u8")
    lengths = np.array([len(jpeg) for jpeg in frames], np.uint64)
    index[: len(frames), 0] = np.cumsum(lengths) - lengths
    index[: len(frames), 1] = lengths
    table = index.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(frames)
        file.write(table + google_crc32c.value(table).to_bytes(_CHECKSUM, "little"))


class Frames:
    """Frames of one camera, row by row of the view: `frames[i]` is (h, w, 3) uint8 RGB.

    Files are opened on first use, in whichever process that happens.
    """

    def __init__(
        self,
        array: Path,
        frame_of_row: NDArray[np.int64],
        size: tuple[int, int],
        per_shard: int,
        need: Need | None = None,
    ) -> None:
        """Read the array in directory `array`, images of `size` (h, w); row i of the view shows frame `frame_of_row[i]`.

        `need` is called with a file before it is opened, and may bring it there.
        """
        self._array, self.frame_of_row = Path(array), frame_of_row
        self._size, self._per_shard, self._need = size, per_shard, need
        self._open: dict[int, tuple[memoryview, NDArray[np.uint64]]] = {}

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.frame_of_row)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (N, h, w, 3) of all rows."""
        return len(self), *self._size, 3

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Return the image (h, w, 3) uint8 of a row; negative rows count from the end.

        Raises:
            IndexError: no such row.
            DamageError: the frame is missing or does not decode.
        """
        if not -len(self) <= row < len(self):
            raise IndexError(f"Expected a row below {len(self)}, got {row}.")
        image = np.empty(self.shape[1:], np.uint8)
        self._decode(int(self.frame_of_row[row]), image)
        return image

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[row] for row in range(len(self)))

    def batch(self, rows: Sequence[int] | NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return the images (B, h, w, 3) uint8 of rows, in `out` if given; a frame that several rows show is decoded once.

        Pixels are decoded outside Python's interpreter lock, so that threads do it side by side.
        """
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        first: dict[int, int] = {}
        for place, frame in enumerate(self.frame_of_row[np.asarray(rows, np.int64)].tolist()):
            if (seen := first.setdefault(frame, place)) == place:
                self._decode(frame, out[place])
            else:
                out[place] = out[seen]
        return out

    def _decode(self, number: int, out: NDArray[np.uint8]) -> None:
        try:
            decode_jpeg(self.frame(number), *self._size, out)
        except ValueError as error:
            raise DamageError(f"Expected a JPEG for frame {number} in {self._array}, got {error}.") from error

    def encoded(self, row: int) -> bytes:
        """Return the JPEG of a row as stored."""
        return self.frame(int(self.frame_of_row[row]))

    def frame(self, number: int) -> bytes:
        """Return a stored frame's JPEG."""
        content, index = self._shard(number // self._per_shard)
        offset, length = index[number % self._per_shard]
        if offset == _MISSING or int(offset) + int(length) > len(content):
            raise DamageError(f"Expected frame {number} in {self._array}, got none; build the view again.")
        return bytes(content[int(offset) : int(offset) + int(length)])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def _shard(self, number: int) -> tuple[memoryview, NDArray[np.uint64]]:
        if number not in self._open:
            path = shard_path(self._array, number)
            self._open[number] = (
                _map_shard(path, self._per_shard) if self._need is None else self._brought(path, self._need)
            )
        return self._open[number]

    def _brought(self, path: Path, need: Need) -> tuple[memoryview, NDArray[np.uint64]]:
        """Map a shard of a cache; in one that may hold little, another reader's shard may have taken its place meanwhile."""
        for _ in range(BRING_TRIES):
            need(path)
            with contextlib.suppress(DamageError, FileNotFoundError):
                return _map_shard(path, self._per_shard)
            if path.exists():
                break
        need(path)
        return _map_shard(path, self._per_shard)


def _map_shard(path: Path, per_shard: int) -> tuple[memoryview, NDArray[np.uint64]]:
    tail = 16 * per_shard + _CHECKSUM
    if not path.is_file() or path.stat().st_size < tail:
        raise DamageError(f"Expected a shard at {path}, got a missing or cut file; build the view again.")
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    table = bytes(content[-tail:-_CHECKSUM])
    if google_crc32c.value(table).to_bytes(_CHECKSUM, "little") != bytes(content[-_CHECKSUM:]):
        raise DamageError(f"Expected an intact shard index in {path}, got another checksum; build the view again.")
    return content[:-tail], np.frombuffer(table, "<u8").reshape(per_shard, 2)
