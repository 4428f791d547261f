"""An array of Zarr v2, row by row, from sources that are not trusted (zarr-specs, v2).

Metadata are bounded and codecs are on an allow-list before a byte is unpacked, and nothing unpacks to more than its chunk:
what a chunk claims to hold is read from its header, and must be the chunk's size.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.chunk_check import blosc_bytes, zstd_bytes
from lehrling.datasets.documents import parse_json
from lehrling.datasets.errors import DamageError, DocumentError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lehrling.datasets.replay_store import Store

CODECS = ("blosc", "zlib", "gzip", "zstd", "lz4")
DTYPE = re.compile(r"[<>|](?:f[248]|[iu][1248]|b1)")
META_BYTES_MAX = 1 << 20
DIMENSIONS_MAX, ELEMENTS_MAX = 6, 1 << 48
CHUNK_BYTES_MAX = 256 << 20
SLACK = 65_536
"""What a chunk that cannot be packed may take beyond its own size."""
GZIP, ZLIB = 31, 15


@dataclass(frozen=True)
class ReplayArray:
    """An array's description, and where its chunks are.

    Attributes:
        codec: what its chunks are packed with, empty if they are not.
        separator: between the numbers in a chunk's name.
    """

    store: Store
    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    codec: str
    separator: str

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows (stop - start, …) in the machine's byte order.

        Raises:
            InputError: a chunk is no plain file, or claims another size than it has.
            DamageError: a chunk is missing, or cannot be unpacked.
        """
        out = np.empty((stop - start, *self.shape[1:]), self.dtype.newbyteorder("="))
        blocks = range(start // self.chunks[0], ceil(stop / self.chunks[0]))
        rest = (range(ceil(size / chunk)) for size, chunk in zip(self.shape[1:], self.chunks[1:], strict=True))
        for place in product(blocks, *rest):
            begun = [number * chunk for number, chunk in zip(place, self.chunks, strict=True)]
            low = [max(start, begun[0]), *begun[1:]]
            ends = zip(begun, self.chunks, (stop, *self.shape[1:]), strict=True)
            high = [min(begin + chunk, end) for begin, chunk, end in ends]
            asked = [slice(low[0] - start, high[0] - start), *map(slice, low[1:], high[1:])]
            inside = [slice(first - b, last - b) for first, last, b in zip(low, high, begun, strict=True)]
            out[tuple(asked)] = self._chunk(place)[tuple(inside)]
        return out

    def _chunk(self, place: tuple[int, ...]) -> NDArray[Any]:
        name = f"{self.path}/{self.separator.join(map(str, place))}"
        size = prod(self.chunks) * self.dtype.itemsize
        packed = self.store.read(name, size + SLACK)
        if packed is None:
            raise DamageError(
                f"{self.store.name}: chunk {name} is missing, and would read as zeros; fetch it again, or write the buffer "
                "with its empty chunks."
            )
        content = unpacked(packed, self.codec, size, f"{self.store.name}, {name},")
        return np.frombuffer(content, self.dtype).reshape(self.chunks, order="F" if self.order == "F" else "C")


def open_array(store: Store, path: str) -> ReplayArray:
    """Read an array's description.

    Raises:
        InputError: there is none, or it asks for a codec, type or size that is not taken; the message names it.
    """
    where = f"{store.name}, {path}"
    content = store.read(f"{path}/.zarray", META_BYTES_MAX)
    if content is None:
        raise InputError(f"{where} is no array of Zarr v2; expected its .zarray.")
    try:
        facts = parse_json(content, f"{where}/.zarray")
    except DocumentError as error:
        raise InputError(str(error)) from error
    if not isinstance(facts, dict) or facts.get("zarr_format") != 2:
        raise InputError(f"{where} is no array of Zarr v2.")
    dtype = facts.get("dtype")
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise InputError(f"{where} holds {str(dtype)[:40]}, and not numbers; objects would have to be unpickled.")
    shape, chunks = _sizes(facts.get("shape"), where, 0), _sizes(facts.get("chunks"), where, 1)
    if len(shape) != len(chunks) or not shape:
        raise InputError(f"{where} has the shape {shape} and the chunks {chunks}, which do not fit each other.")
    array = ReplayArray(
        store,
        path,
        shape,
        chunks,
        np.dtype(dtype),
        str(facts.get("order", "C")),
        _codec(facts, where),
        _separator(facts, where),
    )
    if prod(chunks) * array.dtype.itemsize > CHUNK_BYTES_MAX:
        raise InputError(f"{where} is stored in chunks of {prod(chunks) * array.dtype.itemsize} bytes; it is refused.")
    return array


def _sizes(value: object, where: str, least: int) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, list) else ()
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= least for size in sizes)
    if not whole or not 1 <= len(sizes) <= DIMENSIONS_MAX or prod(sizes) > ELEMENTS_MAX:
        raise InputError(f"{where} declares the size {str(value)[:80]}, beyond any episode's; it is refused.")
    return sizes


def _codec(facts: dict[str, Any], where: str) -> str:
    if facts.get("filters"):
        raise InputError(f"{where} needs filters of numcodecs, which are not on the allow-list.")
    compressor = facts.get("compressor")
    if compressor is None:
        return ""
    name = compressor.get("id") if isinstance(compressor, dict) else compressor
    if isinstance(name, str) and "jpegxl" in name:
        raise InputError(
            f"{where} holds JPEG XL images, for which there is no decoder here; copy the buffer once with Blosc where "
            "imagecodecs is installed, as docs/interchange.md shows, and import the copy."
        )
    if name not in CODECS:
        raise InputError(
            f"{where} needs the codec {str(name)[:60]!r}, which is not on the allow-list ({', '.join(CODECS)})."
        )
    return str(name)


def _separator(facts: dict[str, Any], where: str) -> str:
    found = facts.get("dimension_separator", ".")
    if found not in (".", "/"):
        raise InputError(f"{where} separates its chunks' numbers by {str(found)[:20]!r}, and not by '.' or '/'.")
    return str(found)


def unpacked(packed: bytes, codec: str, size: int, where: str) -> bytes | bytearray:
    """Return a chunk's `size` bytes.

    Raises:
        InputError: it claims or gives another size.
        DamageError: it cannot be unpacked.
    """
    claimed = _claimed(packed, codec, size)
    if claimed is None:
        raise DamageError(f"{where} is no chunk packed by {codec or 'nothing'}; fetch it again.")
    if claimed != size:
        raise InputError(f"{where} claims to unpack to {claimed} bytes, and its chunk has {size}; it is refused.")
    if not codec:
        return packed
    try:
        content = _inflated(packed, codec, size) if codec in ("zlib", "gzip") else _decoded(packed, codec, size)
    except (ValueError, RuntimeError, zlib.error) as error:
        raise DamageError(f"{where} cannot be unpacked: {error}; fetch it again.") from error
    if len(content) != size:
        raise InputError(f"{where} unpacks to another size than its chunk's {size} bytes; it is refused.")
    return content


def _claimed(packed: bytes, codec: str, size: int) -> int | None:
    """Return what a chunk says it unpacks to, None if it is none; a deflated one does not say."""
    if codec == "blosc":
        return blosc_bytes(packed[:16])
    if codec == "zstd":
        return zstd_bytes(packed[:18])
    if codec == "lz4":
        return int.from_bytes(packed[:4], "little") if len(packed) > 4 else None
    return size if codec else len(packed)


def _inflated(packed: bytes, codec: str, size: int) -> bytes:
    stream = zlib.decompressobj(GZIP if codec == "gzip" else ZLIB)
    return stream.decompress(packed, size + 1)


def _decoded(packed: bytes, codec: str, size: int) -> bytearray:
    import numcodecs

    out = bytearray(size)
    numcodecs.registry.get_codec({"id": codec}).decode(packed, out)
    return out
