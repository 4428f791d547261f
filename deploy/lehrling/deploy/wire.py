"""openpi's frames: msgpack maps with arrays in them, by a decoder that trusts nothing.

An array is a map with four byte-string keys: `__ndarray__` (true), `data` (C order), `dtype` (numpy's type string) and
`shape`; a scalar has `__npgeneric__`, `data` and `dtype`. Upstream's decoder takes the dtype `|O` from its peer, which
makes pointers of the peer's bytes; this one takes plain numbers only, of exactly the bytes that their shape asks for.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np

from lehrling.datasets.errors import InputError

FRAME_BYTES_MAX = 32 << 20
"""Three cameras of 1920 x 1080 pixels, and some."""
ENTRIES_MAX, DIMENSIONS_MAX, TEXT_BYTES_MAX = 256, 8, 1 << 16
ARRAY, SCALAR, DATA, DTYPE, SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|U[1-9]\d{0,3})")


class WireError(InputError):
    """A frame that is not what it should be."""


def pack(content: Mapping[str, Any]) -> bytes:
    """Return a frame of a map; arrays and numpy scalars may be among its values.

    Raises:
        WireError: a value has no place in a frame.
    """
    try:
        packed: bytes = msgpack.packb(content, default=_encoded)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"Expected numbers, text, lists, maps and arrays, got {error}.") from error
    return packed


def _encoded(value: object) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufU":
            raise TypeError(f"an array of {value.dtype}")
        return {ARRAY: True, DATA: value.tobytes(), DTYPE: value.dtype.str, SHAPE: value.shape}
    if isinstance(value, np.generic):
        return {SCALAR: True, DATA: value.item(), DTYPE: value.dtype.str}
    raise TypeError(type(value).__name__)


def unpack(
    frame: bytes | str, bytes_max: int = FRAME_BYTES_MAX, hook: Callable[[dict[Any, Any]], Any] | None = None
) -> dict[str, Any]:
    """Return the map that a frame holds; arrays are read-only views of the frame.

    `hook` makes something else of maps than openpi's arrays and scalars.

    Raises:
        WireError: it is text, too large, no msgpack, no map with text for keys, or holds what is no plain array.
    """
    if isinstance(frame, str):
        raise WireError("Expected a binary frame, got text.")
    if len(frame) > bytes_max:
        raise WireError(f"Expected a frame of at most {bytes_max} bytes, got {len(frame)}.")
    try:
        content = msgpack.unpackb(
            frame,
            object_hook=hook or _decoded,
            strict_map_key=True,
            max_ext_len=0,
            max_map_len=ENTRIES_MAX,
            max_array_len=1 << 16,
            max_str_len=TEXT_BYTES_MAX,
        )
    except InputError:
        raise
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise WireError(f"Expected msgpack, got {len(frame)} bytes that are none ({type(error).__name__}).") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise WireError("Expected a map whose keys are text.")
    return content


def _decoded(found: dict[Any, Any]) -> Any:
    if ARRAY in found:
        return _array(found)
    return _scalar(found) if SCALAR in found else found


def _dtype(found: dict[Any, Any]) -> np.dtype[Any]:
    name = found.get(DTYPE)
    name = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise WireError(f"Expected an array of numbers, booleans or text, got dtype {reprlib.repr(name)}.")
    return np.dtype(name)


def _array(found: dict[Any, Any]) -> np.ndarray[Any, Any]:
    data, shape, dtype = found.get(DATA), found.get(SHAPE), _dtype(found)
    if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) > DIMENSIONS_MAX:
        raise WireError(f"Expected an array's bytes and a shape of at most {DIMENSIONS_MAX} numbers.")
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"Expected the bytes of an array {reprlib.repr(shape)} of {dtype.str}, got {len(data)}.")
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(found: dict[Any, Any]) -> Any:
    dtype, value = _dtype(found), found.get(DATA)
    if not isinstance(value, str if dtype.kind == "U" else int | float):
        raise WireError(f"Expected a {dtype.str}, got {reprlib.repr(value)}.")
    try:
        return np.asarray(value, dtype)[()]
    except (ValueError, OverflowError) as error:
        raise WireError(f"Expected a {dtype.str}, got {reprlib.repr(value)}.") from error
