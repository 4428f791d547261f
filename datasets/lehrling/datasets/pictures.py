"""Camera messages on their way into an episode: JPEG bytes as they came, raw colour as JPEG, depth without loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lehrling.datasets.embodiment import Stream
from lehrling.datasets.errors import DamageError, MessageError
from lehrling.datasets.messages import COMPRESSED_IMAGE

IMAGE = "sensor_msgs/msg/Image"
JPEG_QUALITY, SUBSAMPLING = 92, "444"
COLOUR = {"rgb8": (3, "RGB"), "bgr8": (3, "BGR"), "rgba8": (4, "RGBA"), "bgra8": (4, "BGRA"), "mono8": (1, "GRAY")}
"""Encoding -> bytes per pixel and simplejpeg's word for it (sensor_msgs/image_encodings.hpp)."""
DEPTH = ("16UC1", "mono16")


def image_bytes(message: Any, stream: Stream, topic: str) -> bytes | NDArray[np.uint16]:
    """Return a colour image's JPEG bytes, untouched where they came as JPEG, or a depth image (h, w) uint16 [mm].

    Raises:
        MessageError: another format or size than the contract says.
        DamageError: fewer bytes than the message says, or no JPEG.
    """
    if stream.kind == "depth_image":
        return _depth(message, stream, topic)
    if message.__msgtype__ == IMAGE:
        return colour_jpeg(message, stream, topic)
    kind = str(getattr(message, "format", "")).lower()
    if message.__msgtype__ != COMPRESSED_IMAGE or not ("jpeg" in kind or "jpg" in kind):
        raise MessageError(
            "unknown encoding", f"Topic {topic}: expected JPEG in a CompressedImage, got {kind or message.__msgtype__}."
        )
    jpeg = bytes(message.data.tobytes())
    try:
        size = simplejpeg.decode_jpeg_header(jpeg)[:2]
    except ValueError as error:
        raise DamageError(f"Topic {topic}: {len(jpeg)} bytes that are no JPEG ({str(error)[:80]}).") from error
    _same_size(size, stream, topic)
    return jpeg


def colour_jpeg(message: Any, stream: Stream, topic: str) -> bytes:
    """Encode a raw colour Image as JPEG; the same pixels give the same bytes.

    Raises:
        MessageError: another encoding or size than can be taken.
        DamageError: fewer bytes than the message says.
    """
    pixels = colour_pixels(message, stream, topic)
    space = COLOUR[message.encoding][1]
    return bytes(simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorspace=space, colorsubsampling=SUBSAMPLING))


def colour_pixels(message: Any, stream: Stream, topic: str) -> NDArray[np.uint8]:
    """Return a raw colour Image's pixels (h, w, c) in its own encoding, as a view where rows have no padding.

    Raises:
        MessageError: another encoding or size than can be taken.
        DamageError: fewer bytes than the message says.
    """
    if message.encoding not in COLOUR:
        known = ", ".join(COLOUR)
        raise MessageError(
            "unknown encoding", f"Topic {topic}: expected {known}, got an image in {message.encoding!r}."
        )
    _same_size((message.height, message.width), stream, topic)
    channels = COLOUR[message.encoding][0]
    return _rows(message, channels, topic).reshape(message.height, message.width, channels)


def _depth(message: Any, stream: Stream, topic: str) -> NDArray[np.uint16]:
    if message.__msgtype__ != IMAGE or message.encoding not in DEPTH:
        found = getattr(message, "encoding", "") or getattr(message, "format", "") or message.__msgtype__
        raise MessageError("unknown encoding", f"Topic {topic}: expected an Image in 16UC1, got {found!r}.")
    _same_size((message.height, message.width), stream, topic)
    order = ">u2" if message.is_bigendian else "<u2"
    return _rows(message, 2, topic).view(order).astype(np.uint16)


def _rows(message: Any, pixel_bytes: int, topic: str) -> NDArray[np.uint8]:
    """Return an image's rows (h, w * pixel_bytes) uint8 without the padding at their ends."""
    width = pixel_bytes * message.width
    if len(message.data) != message.height * message.step or message.step < width:
        raise DamageError(
            f"Topic {topic}: {len(message.data)} bytes do not hold {message.height} rows of {message.step}."
        )
    return np.ascontiguousarray(message.data.reshape(message.height, message.step)[:, :width])


def _same_size(size: tuple[int, int], stream: Stream, topic: str) -> None:
    if size != stream.shape[:2]:
        raise MessageError(
            "other image size",
            f"Topic {topic}: expected {stream.shape[0]} x {stream.shape[1]} pixels, got {size[0]} x {size[1]}; images of a "
            "stream are of one size.",
        )
