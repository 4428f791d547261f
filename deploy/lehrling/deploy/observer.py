"""A running robot's messages, put together as the view of its policy was: the same alignment, row by row. No ROS."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment, Source, Stream
from lehrling.datasets.errors import LehrlingError
from lehrling.datasets.live import Frame, Look, ObservationAssembler
from lehrling.datasets.pictures import image_bytes
from lehrling.datasets.view_spec import ViewSpec


class Observer:
    """Hears the topics that a view needs; `look` gives the observation of a time.

    Attributes:
        heard: topics to subscribe to -> message type, full names.
        latency_ns: how long after a time the view waits for what was seen at it.
        refused: topic -> why its last message could not be used.
        same: camera -> how many of its newest frames are, byte for byte, the one before them.
    """

    def __init__(self, embodiment: Embodiment, view: ViewSpec) -> None:
        """Find the topics.

        Raises:
            InputError: the view does not fit the robot's contract.
        """
        self._assembler = ObservationAssembler(embodiment.contract, view)
        self._joints = embodiment.contract.joint_names
        prefix = f"/{name}" if (name := embodiment.binding.namespace.strip("/")) else ""
        self._feeds: dict[str, list[tuple[Stream, Source]]] = {}
        for name in self._assembler.streams:
            for source in embodiment.binding.sources[name]:
                feed = embodiment.contract.stream(name), source
                self._feeds.setdefault(prefix + source.topic, []).append(feed)
        self.heard = {topic: feeds[0][1].type for topic, feeds in self._feeds.items()}
        waits = [view.image_latency_ms if view.cameras else 0.0, *(field.latency_ms for field in view.state)]
        self.latency_ns = round(max(waits) * 1e6)
        self.refused: dict[str, str] = {}
        self.same = dict.fromkeys(view.cameras, 0)
        self._newest: dict[str, bytes] = {}

    def hear(self, topic: str, cdr: bytes, wall_ns: int) -> None:
        """Take a message that came at a wall-clock time; one that cannot be used is noted in `refused`."""
        for stream, source in self._feeds.get(topic, ()):
            try:
                self._hear(cdr, stream, source, wall_ns)
                self.refused.pop(topic, None)
            except (LehrlingError, struct.error) as error:
                self.refused[topic] = str(error)

    def _hear(self, cdr: bytes, stream: Stream, source: Source, wall_ns: int) -> None:
        message = messages.decode(cdr, source.type)
        stamp = messages.stamp_of(message)
        stamp_ns = wall_ns if stamp is None else stamp
        if stream.kind == "colour_image":
            image = image_bytes(message, stream, source.topic)
            assert isinstance(image, bytes)
            self.same[stream.name] = self.same[stream.name] + 1 if image == self._newest.get(stream.name) else 0
            self._newest[stream.name] = image
            self._assembler.add_image(stream.name, image, stamp_ns, wall_ns)
            return
        row, mask = messages.numeric_row(message, source, stream, self._joints)
        if mask.any():
            self._assembler.add(stream.name, row, stamp_ns, wall_ns, mask=mask)

    def look(self, wall_ns: int) -> Look:
        """Return the newest observation that is complete at a wall-clock time: that of `latency_ns` before it."""
        return self._assembler.look(wall_ns - self.latency_ns)


def request(look: Look, instruction: str, **options: object) -> dict[str, object]:
    """Return the request to a policy server for an observation; frames go as they came, the server prepares them."""
    frames: Mapping[str, Frame] = look.frames
    images = {f"observation/{camera}": frame for camera, frame in frames.items()}
    return {**images, "observation/state": _whole(look.state), "prompt": instruction, **options}


def _whole(state: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(state, dtype=np.float32)
