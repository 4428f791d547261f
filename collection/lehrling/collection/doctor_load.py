"""What an embodiment asks of a computer: its largest message and its bytes per second."""

from __future__ import annotations

from dataclasses import dataclass

from lehrling.datasets.embodiment import IMAGE_KINDS, Embodiment, Source, Stream

JPEG_BYTES_PER_PIXEL = 0.4
"""A 640x480 JPEG of quality 90 takes 60 to 120 KB (0.2 to 0.39 bytes per pixel)."""
HEADER_BYTES = 200
RAGGED_BYTES = 1024
IMAGE_RATE_HZ, ROW_RATE_HZ = 30.0, 100.0
"""Taken where the binding gives no rate."""


@dataclass(frozen=True)
class Message:
    """One topic's messages: size on the wire and in the journal, bytes; rate, Hz.

    Attributes:
        reliable: whether the binding asks the sender to repeat what was lost.
    """

    topic: str
    wire_bytes: int
    journal_bytes: int
    rate_hz: float
    reliable: bool


@dataclass(frozen=True)
class Load:
    """All topics of an embodiment."""

    messages: tuple[Message, ...]

    @property
    def largest(self) -> Message:
        """The topic with the largest messages."""
        return max(self.messages, key=lambda message: message.wire_bytes)

    @property
    def wire_bytes_per_s(self) -> float:
        """What passes through the middleware."""
        return sum(message.wire_bytes * message.rate_hz for message in self.messages)

    @property
    def journal_bytes_per_s(self) -> float:
        """What recording writes."""
        return sum(message.journal_bytes * message.rate_hz for message in self.messages)


def load_of(embodiment: Embodiment) -> Load:
    """Return what recording this embodiment asks for; raw images are exact, JPEG and ragged rows are estimates."""
    topics: dict[str, list[tuple[Stream, Source]]] = {}
    for stream in embodiment.contract.all_streams:
        for source in embodiment.binding.sources[stream.name]:
            topics.setdefault(source.topic, []).append((stream, source))
    as_jpeg = embodiment.binding.journal_images == "jpeg"
    return Load(tuple(_message(topic, fed, as_jpeg) for topic, fed in topics.items()))


def _message(topic: str, fed: list[tuple[Stream, Source]], as_jpeg: bool) -> Message:
    image = any(stream.kind in IMAGE_KINDS for stream, _ in fed)
    wire = HEADER_BYTES + sum(_wire_bytes(stream, source) for stream, source in fed)
    colour = fed[0][0].kind == "colour_image"
    journal = HEADER_BYTES + _jpeg_bytes(fed[0][0]) if colour and as_jpeg else wire
    rates = [source.rate_hz for _, source in fed if source.rate_hz is not None]
    rate = max(rates, default=IMAGE_RATE_HZ if image else ROW_RATE_HZ if fed[0][0].shape else 1.0)
    reliable = any(source.qos.get("reliability") == "reliable" for _, source in fed)
    return Message(topic, wire, min(wire, journal), rate, reliable)


def _jpeg_bytes(stream: Stream) -> int:
    return int(stream.shape[0] * stream.shape[1] * JPEG_BYTES_PER_PIXEL)


def _wire_bytes(stream: Stream, source: Source) -> int:
    if not stream.shape:
        return RAGGED_BYTES
    if stream.kind == "colour_image" and source.type.endswith("CompressedImage"):
        return _jpeg_bytes(stream)
    elements = 1
    for length in stream.shape:
        elements *= length
    return elements * (1 if stream.kind == "colour_image" else 2 if stream.kind == "depth_image" else 8)
