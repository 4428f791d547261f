"""Reading one sealed episode."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.arrays import array_metadata, open_array, read_array
from lehrling.datasets.codec import decode_jpeg
from lehrling.datasets.embodiment import Binding, Contract, Embodiment, Stream, parse_embodiment
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.files import refuse_links
from lehrling.datasets.frames import JpegFile, attributes
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.resize import encode
from lehrling.datasets.sealer import read_attributes
from lehrling.datasets.video_frames import VideoFile, is_video

VIDEO_JPEG_QUALITY = 95


class EpisodeStream:
    """One stream's rows, in order of receipt; arrays are read on first use and kept.

    Shapes: stamps (N,) int64 [ns]; `value` (N, …) in the contract's unit. Images are read frame by frame.
    """

    def __init__(self, directory: Path, stream: Stream) -> None:
        self.directory, self.stream = directory, stream

    def __len__(self) -> int:
        return len(self.stamp_ns)

    @cached_property
    def stamp_ns(self) -> NDArray[np.int64]:
        """Stamps of the sender (or of receipt, where `stamps` in the attributes says so)."""
        return read_array(self.directory / "stamp_ns")

    @cached_property
    def received_ns(self) -> NDArray[np.int64]:
        """Receive times on the realtime clock."""
        return read_array(self.directory / "received_ns")

    @cached_property
    def publish_ns(self) -> NDArray[np.int64]:
        """Publish times, -1 where the middleware tells none."""
        return read_array(self.directory / "publish_ns")

    @cached_property
    def monotonic_ns(self) -> NDArray[np.int64]:
        """Receive times on the monotonic clock, -1 where unknown."""
        return read_array(self.directory / "monotonic_ns")

    @cached_property
    def sequence(self) -> NDArray[np.int64]:
        """Publication sequence numbers, -1 where unknown."""
        return read_array(self.directory / "sequence")

    @cached_property
    def value(self) -> NDArray[Any]:
        """All values of a numeric stream."""
        if self.stream.kind == "colour_image":
            raise InputError(f"{self.stream.name!r} is a camera; read it with frame(i) or frames(a, b).")
        return read_array(self.directory / "value")

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Which elements of each row a message gave; all of them, where no mask is stored."""
        path = self.directory / "mask"
        if path.is_dir():
            return read_array(path)
        return np.ones((len(self), *self.stream.shape), dtype=bool)

    @cached_property
    def attributes(self) -> dict[str, object]:
        """The stream's words: the contract's and where stamps come from."""
        return attributes(self.directory)

    @cached_property
    def _jpegs(self) -> JpegFile:
        if self.stream.kind != "colour_image":
            raise InputError(f"{self.stream.name!r} is no colour camera.")
        return JpegFile(self.directory / "value")

    @cached_property
    def _depth(self) -> Any:
        return open_array(self.directory / "value")

    @cached_property
    def is_video(self) -> bool:
        """Whether a camera's frames are kept as video, at a loss."""
        return self.stream.kind == "colour_image" and is_video(array_metadata(self.directory / "value"))

    @cached_property
    def _video(self) -> VideoFile:
        return VideoFile(self.directory / "value")

    def encoded(self, index: int) -> bytes:
        """Return frame `index` as the JPEG bytes that the camera sent; of a video, encoded anew."""
        return encode(self._video[index], VIDEO_JPEG_QUALITY) if self.is_video else self._jpegs[index]

    def frame(self, index: int) -> NDArray[Any]:
        """Return frame `index`: (H, W, 3) uint8, or (H, W) uint16 [mm] of a depth camera.

        Raises:
            DamageError: the frame is missing or no image of the contract's size.
        """
        if self.stream.kind == "depth_image":
            return np.asarray(self._depth[index])
        if self.is_video:
            return self._video[index]
        height, width = self.stream.shape[:2]
        try:
            return decode_jpeg(self.encoded(index), height, width)
        except ValueError as error:
            raise DamageError(f"Frame {index} of {self.directory} is damaged: {error}.") from error

    def frames(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames start to stop (excluded), stacked."""
        return np.stack([self.frame(index) for index in range(start, stop)])

    def ragged(self, index: int) -> bytes:
        """Return row `index` of a ragged or raw stream."""
        offsets, data = self._ragged
        return data[offsets[index] : offsets[index + 1]].tobytes()

    @cached_property
    def _ragged(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        return read_array(self.directory / "offsets"), read_array(self.directory / "data")


class Episode:
    """A sealed episode: its record in the manifest, its contract and binding, its streams."""

    def __init__(self, directory: Path, record: EpisodeRecord) -> None:
        self.directory, self.record = directory, record
        self._streams: dict[str, EpisodeStream] = {}

    @property
    def id(self) -> str:
        """The episode's id."""
        return self.record.id

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """What the episode says of itself: task, instruction, seeds, outcome, embodiment.

        Raises:
            InputError: a symbolic link lies in the episode.
        """
        refuse_links(self.directory)
        return read_attributes(self.directory)

    @cached_property
    def embodiment(self) -> Embodiment:
        """The robot as it was when the episode was recorded."""
        return parse_embodiment(self.attributes["embodiment"], str(self.directory / "zarr.json"))

    @property
    def contract(self) -> Contract:
        """What the data means."""
        return self.embodiment.contract

    @property
    def binding(self) -> Binding:
        """Where the data came from."""
        return self.embodiment.binding

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of all streams, cameras last."""
        return tuple(stream.name for stream in self.contract.all_streams)

    def stream(self, name: str) -> EpisodeStream:
        """Return a stream by name.

        Raises:
            InputError: the contract has none of that name.
        """
        if name not in self._streams:
            # the contract comes from the attributes, which are read after looking for links
            self._streams[name] = EpisodeStream(self.directory / name, self.contract.stream(name))
        return self._streams[name]
