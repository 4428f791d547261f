"""Decompression with bounds, so that a small bag cannot claim much memory or disk."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import zstandard
from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

from lehrling.collection.bag_records import MESSAGE_BYTES_MAX
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import storage_error

CHUNK_BYTES_MAX = 256 << 20
RATIO_MAX = 1000
"""Sensor data shrinks 2 to 20 times, black images a few hundred times."""
ANY_RATIO_BYTES = 16 << 20
ANY_RATIO_FILE_BYTES = 256 << 20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PIECE = 1 << 20


def limit_of(packed: int) -> int:
    """Return how many bytes `packed` bytes may become."""
    return min(CHUNK_BYTES_MAX, max(ANY_RATIO_BYTES, RATIO_MAX * packed))


def unpack(data: bytes, compression: str, where: str) -> bytes:
    """Decompress `zstd` or `lz4`; of data that end early, what they hold.

    Raises:
        InputError: an unknown compression, or more than the data may become.
        ValueError: the data are damaged.
    """
    limit = limit_of(len(data))
    if compression in ("", "none"):
        out = data
    elif compression == "zstd":
        out = _unzstd(data, limit)
    elif compression == "lz4":
        out = _unlz4(data, limit)
    else:
        raise InputError(f"{where} is compressed with {compression[:20]!r}; expected zstd, lz4 or nothing.")
    if len(out) > limit:
        raise InputError(f"{where}: {len(data)} bytes become more than {limit}; no recording does, it is refused.")
    return out


def plain(cdr: bytes, topic: str) -> bytes:
    """Return a message's CDR bytes, decompressed where the bag compresses message by message.

    No CDR begins like zstd, so that the bytes tell. What does not decompress is returned as it is and will not decode.

    Raises:
        InputError: the message becomes larger than any.
    """
    if not cdr.startswith(ZSTD_MAGIC):
        return cdr
    try:
        out = unpack(cdr, "zstd", f"A message on {topic}")
    except ValueError:
        return cdr
    if len(out) > MESSAGE_BYTES_MAX:
        raise InputError(
            f"A message on {topic} becomes {len(out)} bytes; the most is {MESSAGE_BYTES_MAX}, it is refused."
        )
    return out


def _unzstd(data: bytes, limit: int) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return bytes(reader.read(limit + 1))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _unlz4(data: bytes, limit: int) -> bytes:
    try:
        return bytes(LZ4FrameDecompressor().decompress(data, max_length=limit + 1))
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def unpack_file(source: Path, target: Path) -> None:
    """Decompress a zstd file; of one that ends early or is damaged, what can be had.

    Raises:
        InputError: it becomes larger than any recording.
        StorageError: no space for it.
    """
    limit = max(ANY_RATIO_FILE_BYTES, RATIO_MAX * source.stat().st_size)
    try:
        with (
            source.open("rb") as packed,
            target.open("wb") as out,
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader,
        ):
            _copy(reader, out, limit, source)
    except OSError as error:
        raise storage_error(error, target) from error


def _copy(reader: zstandard.ZstdDecompressionReader, out: IO[bytes], limit: int, source: Path) -> None:
    done = 0
    while piece := _piece(reader):
        done += len(piece)
        if done > limit:
            raise InputError(f"{source.name} becomes more than {limit} bytes; no recording does, it is refused.")
        out.write(piece)


def _piece(reader: zstandard.ZstdDecompressionReader) -> bytes:
    """Return the next bytes, none at the end or where the file is damaged; what is missing shows in what was packed."""
    try:
        return bytes(reader.read(_PIECE))
    except zstandard.ZstdError:
        return b""
