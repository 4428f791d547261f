"""`lehrling.jpeg`: a Zarr v3 array-to-bytes codec; one chunk is one colour frame, its bytes are a JPEG file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import simplejpeg
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import JSON, parse_named_configuration

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

CODEC_NAME = "lehrling.jpeg"


def decode_jpeg(
    jpeg: bytes | memoryview, height: int, width: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return (height, width, 3) uint8 RGB, decoded into `out` if given.

    The header is compared with the declared size before any pixel is decoded, so a small file cannot claim much memory.

    Raises:
        ValueError: no JPEG, or of another size.
    """
    found = simplejpeg.decode_jpeg_header(jpeg)[:2]
    if found != (height, width):
        raise ValueError(f"expected a JPEG of {height} x {width}, got {found[0]} x {found[1]}")
    return np.asarray(simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=out))


@dataclass(frozen=True)
class JpegFrames(ArrayBytesCodec):
    """Chunks (1, H, W, 3) uint8 as JPEG.

    Episodes hold their cameras' own bytes, put there without encoding again; `quality` and `subsampling` matter only to
    someone who writes pixels through zarr.
    """

    is_fixed_size = False
    quality: int = 92
    subsampling: str = "444"

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Read the codec's JSON."""
        _, configuration = parse_named_configuration(data, CODEC_NAME, require_configuration=False)
        settings = configuration or {}
        quality, subsampling = settings.get("quality", 92), settings.get("subsampling", "444")
        if not isinstance(quality, int) or not 1 <= quality <= 100:
            raise ValueError(f"expected a JPEG quality from 1 to 100, got {quality!r}")
        if subsampling not in ("444", "422", "420"):
            raise ValueError(f"expected a subsampling of 444, 422 or 420, got {subsampling!r}")
        return cls(quality, str(subsampling))

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec's JSON."""
        return {"name": CODEC_NAME, "configuration": {"quality": self.quality, "subsampling": self.subsampling}}

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """JPEG's size depends on its content."""
        raise ValueError(f"the encoded size of {input_byte_length} bytes is not known before encoding")

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        _, height, width, _ = chunk_spec.shape
        frame = decode_jpeg(chunk_bytes.to_bytes(), height, width)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(frame[None])

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        frames = np.ascontiguousarray(chunk_array.as_numpy_array())
        if frames.ndim != 4 or frames.shape[0] != 1 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"expected a chunk (1, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
        jpeg = simplejpeg.encode_jpeg(frames[0], quality=self.quality, colorsubsampling=self.subsampling)
        return chunk_spec.prototype.buffer.from_bytes(jpeg)
