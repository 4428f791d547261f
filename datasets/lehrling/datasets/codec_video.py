"""`lehrling.h264`: a Zarr v3 array-to-bytes codec; one chunk is a group of pictures, its bytes are an H.264 stream.

For archives and small disks: a fifth to a thirtieth of the JPEGs' size, at a loss, and a random picture costs decoding its group.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import JSON, parse_named_configuration

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

CODEC_NAME = "lehrling.h264"
GROUP_MAX, CRF = 8, 20
_HEAD = struct.Struct("<4sHHHI")
"""Magic, frames, height, width, CRC-32 of the stream: decoders hide damage, and a hidden one is a wrong picture."""
_MAGIC = b"LH26"
_PRESET = "veryfast"
_X264 = "scenecut=0:mbtree=0"
"""Without the macroblock tree: with it x264 gave other bytes for the same pixels in 1 of 80 groups of 7 or 8 small pictures."""


def encode_group(frames: NDArray[np.uint8], crf: int = CRF) -> bytes:
    """Return frames (n, h, w, 3) uint8 RGB, n from 1 to 8, as H.264: the first is a key frame, none looks ahead.

    Chroma is halved (4:2:0); odd sizes are padded by their last row and column. One thread, so that the same pixels give the
    same bytes.

    Raises:
        InputError: `av` is not installed, or the frames have no such shape.
    """
    if frames.ndim != 4 or not 1 <= len(frames) <= GROUP_MAX or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise InputError(f"Expected 1 to {GROUP_MAX} frames (n, h, w, 3) uint8, got {frames.shape} {frames.dtype}.")
    av, (count, height, width) = _av(), frames.shape[:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = padded.shape[2], padded.shape[1], "yuv420p"
    encoder.time_base, encoder.thread_count = Fraction(1, 30), 1
    encoder.options = {"crf": str(crf), "preset": _PRESET, "bf": "0", "g": str(GROUP_MAX), "x264-params": _X264}
    packets = []
    for number, frame in enumerate(padded):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts = number
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    stream = b"".join(bytes(packet) for packet in packets)
    return _HEAD.pack(_MAGIC, count, height, width, zlib.crc32(stream)) + stream


def decode_group(content: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Return the frames (n, h, w, 3) uint8 RGB of a group.

    Sizes are compared with the head before anything is decoded, and each frame's before it is kept.

    Raises:
        ValueError: no such group, of another size, or it holds another number of frames than it says.
    """
    if len(content) < _HEAD.size:
        raise ValueError("expected a group of pictures, got a cut one")
    magic, count, high, wide, checksum = _HEAD.unpack_from(content)
    if magic != _MAGIC or not 1 <= count <= GROUP_MAX or (high, wide) != (height, width):
        raise ValueError(
            f"expected a group of pictures of {height} x {width}, got {magic!r}, {count} of {high} x {wide}"
        )
    if zlib.crc32(memoryview(content)[_HEAD.size :]) != checksum:
        raise ValueError("expected an intact group of pictures, got another checksum")
    av = _av()
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    out = np.empty((count, height, width, 3), np.uint8)
    kept = 0
    try:
        for packet in [*decoder.parse(content[_HEAD.size :]), *decoder.parse(None), None]:
            for frame in decoder.decode(packet):
                if kept == count or (frame.height, frame.width) != (height + height % 2, width + width % 2):
                    raise ValueError(f"expected {count} frames of {height} x {width}, got others")
                out[kept] = frame.to_ndarray(format="rgb24")[:height, :width]
                kept += 1
    except av.FFmpegError as error:
        raise ValueError(f"expected an H.264 stream: {error}") from error
    if kept != count:
        raise ValueError(f"expected {count} frames, got {kept}")
    return out


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise InputError("Video needs the extra `lehrling-datasets[video]`, which is not installed.") from None
    return av


@dataclass(frozen=True)
class H264Frames(ArrayBytesCodec):
    """Chunks (G, H, W, 3) uint8 as H.264; frames of the last chunk beyond the array's end repeat its last one."""

    is_fixed_size = False
    crf: int = CRF

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Read the codec's JSON."""
        _, configuration = parse_named_configuration(data, CODEC_NAME, require_configuration=False)
        crf = (configuration or {}).get("crf", CRF)
        if not isinstance(crf, int) or not 0 <= crf <= 51:
            raise ValueError(f"expected a crf from 0 to 51, got {crf!r}")
        return cls(crf)

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec's JSON."""
        return {"name": CODEC_NAME, "configuration": {"crf": self.crf}}

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Video's size depends on its content."""
        raise ValueError(f"the encoded size of {input_byte_length} bytes is not known before encoding")

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        count, height, width, _ = chunk_spec.shape
        frames = decode_group(chunk_bytes.to_bytes(), height, width)
        if len(frames) < count:
            frames = np.concatenate([frames, np.repeat(frames[-1:], count - len(frames), axis=0)])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(frames)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        frames = np.ascontiguousarray(chunk_array.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(encode_group(frames, self.crf))
