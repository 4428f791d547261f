"""Observations of a running robot, put together exactly as a view would hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lehrling.datasets.align import AlignedValue, Rule, align_values
from lehrling.datasets.errors import InputError
from lehrling.datasets.resize import decode, view_image, view_jpeg
from lehrling.datasets.view_layout import resolve
from lehrling.datasets.view_rows import NumericRows, Streams, observe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lehrling.datasets.embodiment import Contract
    from lehrling.datasets.view_spec import ViewSpec

NUMERIC_ROWS = 2048
"""Rows kept per numeric stream: 2 s at 1 kHz, four times the default limit of an observation's age."""
FRAMES = 64
type Frame = bytes | NDArray[np.uint8]


class LiveBuffer:
    """The newest rows of one stream, appended as they arrive, aligned by the functions that views use.

    An answer equals the offline one as long as the row it needs is among the newest `capacity` ones.
    """

    def __init__(self, width: int, capacity: int = NUMERIC_ROWS) -> None:
        """Keep at least `capacity` rows of `width` numbers."""
        self._capacity, self._start, self._stop = capacity, 0, 0
        self._times = np.empty((2 * capacity, 2), np.int64)
        self._value = np.empty((2 * capacity, width), np.float64)

    def __len__(self) -> int:
        """Return how many rows are kept."""
        return self._stop - self._start

    @property
    def rows(self) -> NumericRows:
        """The rows kept, in order of receipt; views into the buffer."""
        kept = slice(self._start, self._stop)
        return NumericRows(self._times[kept, 0], self._times[kept, 1], self._value[kept])

    def append(self, value: NDArray[np.float64] | Sequence[float], stamp_ns: int, received_ns: int) -> None:
        """Append a row (width,), NaN where a partial message gave nothing.

        Raises:
            InputError: the row has another width.
        """
        row = np.asarray(value, np.float64).reshape(-1)
        if row.shape != self._value.shape[1:]:
            raise InputError(f"Expected a row of {self._value.shape[1]} numbers, got {row.size}.")
        if self._stop == len(self._times):
            self._compact()
        self._times[self._stop] = stamp_ns, received_ns
        self._value[self._stop] = row
        self._stop += 1
        self._start = max(self._start, self._stop - self._capacity)

    def at(self, at_ns: int, rule: Rule) -> AlignedValue:
        """Return the value (1, width) at time t by a causal rule."""
        rows = self.rows
        return align_values(rows.stamp_ns, rows.received_ns, rows.value, np.array([at_ns], np.int64), rule)

    def _compact(self) -> None:
        kept = len(self)
        self._times[:kept] = self._times[self._start : self._stop].copy()
        self._value[:kept] = self._value[self._start : self._stop].copy()
        self._start, self._stop = 0, kept


@dataclass(frozen=True)
class Look:
    """What a policy is to be given at one time, its frames as the cameras sent them.

    Attributes:
        state, valid, age_ns, lacking: as in `LiveObservation`.
        frames: per camera JPEG bytes or (h, w, 3) uint8, only of cameras that have sent one.
    """

    state: NDArray[np.float32]
    frames: dict[str, Frame]
    valid: bool
    age_ns: dict[str, int]
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class LiveObservation:
    """What a policy is given at one time.

    Attributes:
        state: (S,) float32 in the view's order, NaN where nothing had come.
        images: per camera (h, w, 3) uint8, only of cameras that have sent a frame.
        valid: whether every source was there and recent enough.
        age_ns: per source, as `Layout.sources` names them.
        lacking: the sources that were not.
    """

    state: NDArray[np.float32]
    images: dict[str, NDArray[np.uint8]]
    valid: bool
    age_ns: dict[str, int]
    lacking: tuple[str, ...]


class ObservationAssembler:
    """Collects a robot's streams and puts observations together in a view's terms.

    Images pass through the same resizing and JPEG coding as the view's, so a policy sees at work what it saw
    in training. Rows must be added in order of receipt, which is the order in which they come.
    """

    def __init__(self, contract: Contract, spec: ViewSpec) -> None:
        """Prepare for a robot of this contract.

        Raises:
            InputError: the specification does not fit the contract.
        """
        self.layout = resolve(contract, spec)
        sizes = {part.stream: contract.stream(part.stream).shape for part in self.layout.state}
        self._buffers = {name: LiveBuffer(int(np.prod(shape))) for name, shape in sizes.items()}
        self._cameras = {camera: _FrameBuffer() for camera in spec.cameras}

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams and cameras to add rows of."""
        return (*self._buffers, *self._cameras)

    def add(
        self,
        stream: str,
        value: NDArray[np.float64] | Sequence[float],
        stamp_ns: int,
        received_ns: int,
        *,
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add a row of a numeric stream in the contract's order; `mask` says which elements a message gave.

        Raises:
            InputError: the view has no such stream, or the row has another width.
        """
        if stream not in self._buffers:
            raise InputError(f"Expected a stream of the view ({', '.join(self.streams)}), got {stream!r}.")
        row = np.asarray(value, np.float64)
        self._buffers[stream].append(row if mask is None else np.where(mask, row, np.nan), stamp_ns, received_ns)

    def add_image(self, camera: str, image: Frame, stamp_ns: int, received_ns: int) -> None:
        """Add a camera's frame: JPEG bytes, or (h, w, 3) uint8.

        Raises:
            InputError: the view has no such camera.
        """
        if camera not in self._cameras:
            raise InputError(f"Expected a camera of the view ({', '.join(self._cameras)}), got {camera!r}.")
        self._cameras[camera].append(image, stamp_ns, received_ns)

    def look(self, at_ns: int) -> Look:
        """Return the observation for time t with the frames as they came; call it once t plus the declared latency has passed."""
        cameras = {name: buffer.times for name, buffer in self._cameras.items()}
        streams = Streams(lambda name: self._buffers[name].rows, lambda name: cameras[name])
        seen = observe(streams, self.layout, np.array([at_ns], np.int64))
        names = self.layout.sources[: self.layout.observed]
        found = {name: int(frames[0]) for name, frames in seen.frames.items()}
        frames = {name: self._cameras[name].frame(place) for name, place in found.items() if place >= 0}
        lacking = tuple(name for name, valid in zip(names, seen.valid[0], strict=True) if not valid)
        ages = {name: int(age) for name, age in zip(names, seen.age_ns[0], strict=True)}
        return Look(seen.state[0], frames, not lacking, ages, lacking)

    def observe(self, at_ns: int) -> LiveObservation:
        """Return the observation for time t; call it once t plus the declared latency has passed."""
        look = self.look(at_ns)
        images = {name: self._image(name, frame) for name, frame in look.frames.items()}
        return LiveObservation(look.state, images, look.valid, look.age_ns, look.lacking)

    def _image(self, camera: str, frame: Frame) -> NDArray[np.uint8]:
        spec = self.layout.spec

        def prepare(image: Frame) -> NDArray[np.uint8]:
            jpeg = view_jpeg(image, spec, camera) if isinstance(image, bytes) else view_image(image, spec, camera)
            return decode(jpeg)

        return self._cameras[camera].prepared(frame, prepare)


class _FrameBuffer:
    """The newest frames of a camera; the one last shown is kept prepared."""

    def __init__(self) -> None:
        self._times = LiveBuffer(0, FRAMES)
        self._frames: list[Frame] = []
        self._shown: tuple[Frame, NDArray[np.uint8]] | None = None

    @property
    def times(self) -> NumericRows:
        return self._times.rows

    def append(self, image: Frame, stamp_ns: int, received_ns: int) -> None:
        self._times.append([], stamp_ns, received_ns)
        self._frames = [*self._frames, image][-FRAMES:]

    def frame(self, place: int) -> Frame:
        """Return frame `place` of `times`."""
        return self._frames[place]

    def prepared(self, image: Frame, prepare: Callable[[Frame], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return a frame prepared; the one shown last is not prepared again."""
        if self._shown is None or self._shown[0] is not image:
            self._shown = image, prepare(image)
        return self._shown[1]
