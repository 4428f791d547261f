"""Cameras as MP4 files that LeRobot reads: many episodes in a file, each frame at its row's time.

H.264 (x264) and not LeRobot's default AV1, because whatever FFmpeg a reader has decodes it, in hardware too, and browsers do;
and because it costs a third: 3.0 against 11.1 ms of CPU time per 480 px frame. Every fourth frame is a key frame: against
LeRobot's every second a file is a third smaller, at the same cost of a random frame (4.0 to 4.5 ms). No B-frames, so that a
frame never waits for a later one; every episode begins with a key frame, so that cutting one off touches no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.lerobot_format import VIDEO_PATH, Place, needed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

ENCODER = "libx264"
KEY_FRAME_EVERY, CRF, PRESET = 4, 18, "veryfast"
PIXELS_MAX = 1 << 26
TOLERANCE_S = 1e-4
"""How far from its row's time a frame may be, as LeRobot reads."""


@dataclass(frozen=True)
class Span:
    """An episode in a video file, from its first frame to after its last."""

    place: Place
    from_s: float
    to_s: float


def video_info(height: int, width: int, fps: int) -> dict[str, Any]:
    """Return the `info` of a camera's feature: what LeRobot's tools encode with when they cut a file."""
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "video.g": KEY_FRAME_EVERY,
        "video.crf": CRF,
        "video.preset": PRESET,
        "video.fast_decode": 0,
        "video.video_backend": "pyav",
        "video.extra_options": {"bf": 0},
        "is_depth_map": False,
    }


class VideoShards:
    """One camera's files; a file ends before the episode that would take it beyond the limit."""

    def __init__(self, root: Path, key: str, size: tuple[int, int], fps: int, limit_bytes: int) -> None:
        """Prepare for images of size (height, width).

        Raises:
            InputError: an odd height or width, which 4:2:0 does not have.
        """
        if size[0] % 2 or size[1] % 2:
            raise InputError(
                f"Expected a camera of even height and width for video, got {key} of {size[0]} x {size[1]}; "
                "export with --images, or give another --size."
            )
        self._root, self._key, self._size, self._fps, self._limit = root, key, size, fps, limit_bytes
        self._place, self._frames, self._bytes = Place(), 0, 0
        self._container: Any = None
        self._stream: Any = None

    def write(self, frames: Iterable[NDArray[np.uint8]], count: int) -> Span:
        """Write an episode of `count` frames (h, w, 3) uint8."""
        if self._container is not None and self._bytes + self._bytes / self._frames * count >= self._limit:
            self.close()
            self._place = self._place.next()
        if self._container is None:
            self._open()
        first = self._frames
        for number, image in enumerate(frames):
            self._encode(image, key_frame=number == 0)
        if self._frames - first != count:
            raise DamageError(f"Expected {count} frames of {self._key}, got {self._frames - first}.")
        return Span(self._place, first / self._fps, self._frames / self._fps)

    def _open(self) -> None:
        path = self._root / self._place.path(VIDEO_PATH, self._key)
        path.parent.mkdir(parents=True, exist_ok=True)
        av = needed("av")
        self._container = av.open(str(path.resolve()), "w", options={"movflags": "faststart"})
        options = {
            "g": str(KEY_FRAME_EVERY),
            "crf": str(CRF),
            "preset": PRESET,
            "bf": "0",
            "forced-idr": "1",
        }
        try:
            self._stream = self._container.add_stream(ENCODER, rate=self._fps, options=options)
        except ValueError as error:
            raise InputError(
                f"Expected PyAV with the encoder {ENCODER}, which this one lacks; install `av` from PyPI, or export with --images."
            ) from error
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = Fraction(1, self._fps)
        self._frames = self._bytes = 0

    def _encode(self, image: NDArray[np.uint8], *, key_frame: bool) -> None:
        av = needed("av")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self._frames, Fraction(1, self._fps)
        if key_frame:
            frame.pict_type = av.video.frame.PictureType.I
        self._mux(self._stream.encode(frame))
        self._frames += 1

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self._bytes += packet.size
            self._container.mux(packet)

    def close(self) -> None:
        """End the file and read back that every frame is in it, at its time; a second call does nothing.

        Raises:
            StorageError: one is not, as on a disk that was full when the muxer wrote its index.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            for packet in self._stream.encode():
                container.mux(packet)
        finally:
            container.close()
        self._verify(self._root / self._place.path(VIDEO_PATH, self._key))

    def _verify(self, path: Path) -> None:
        """Look at every packet, without decoding any."""
        av = needed("av")
        found: list[Fraction] = []
        try:
            with av.open(str(path.resolve()), format="mp4") as container:
                stream = container.streams.video[0]
                found = [packet.pts * stream.time_base for packet in container.demux(stream) if packet.size]
        except (av.error.FFmpegError, IndexError, TypeError):
            pass
        if found != [Fraction(frame, self._fps) for frame in range(self._frames)]:
            raise StorageError(
                f"Writing {path} failed: {len(found)} of {self._frames} frames can be read back; check the disk and its space."
            )

    def abandon(self) -> None:
        """Let go of the file as it is."""
        container, self._container = self._container, None
        if container is not None:
            container.close()
