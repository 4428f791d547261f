"""An embodiment as a station gives it: other image sizes, raw images, a namespace."""

from __future__ import annotations

import re

from lehrling.datasets.embodiment import Embodiment, Source
from lehrling.datasets.errors import InputError
from lehrling.sim.station import Size

SIZE_MIN, SIZE_MAX = 16, 1024
_NAMESPACE = re.compile(r"^(/[A-Za-z_][A-Za-z0-9_]{0,63}){1,8}$")


def parse_size(text: str) -> Size:
    """Read an image size: one number for a square, or height x width, such as `240x320`.

    Raises:
        InputError: no such form, or beyond the limits.
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(SIZE_MIN <= side <= SIZE_MAX for side in size):
        raise InputError(
            f"Expected an image size such as 96 or 240x320 (height x width), sides from {SIZE_MIN} to {SIZE_MAX}, got {text!r}."
        )
    return size


def parse_namespace(text: str) -> str:
    """Return a namespace with its leading slash, or an empty string.

    Raises:
        InputError: no ROS 2 namespace.
    """
    name = "/" + text.strip("/") if text.strip("/") else ""
    if name and not _NAMESPACE.match(name):
        raise InputError(f"Expected a ROS namespace such as cell1 or plant/cell1, got {text!r}.")
    return name


def resized(embodiment: Embodiment, size: Size) -> Embodiment:
    """Return the embodiment with its cameras at the size rendered."""
    height, width = size
    if {(camera.height, camera.width) for camera in embodiment.contract.cameras} == {size}:
        return embodiment
    cameras = tuple(c.model_copy(update={"height": height, "width": width}) for c in embodiment.contract.cameras)
    contract = embodiment.contract.model_copy(update={"cameras": cameras})
    return embodiment.model_copy(update={"contract": contract})


def _rebound(embodiment: Embodiment, **changes: object) -> Embodiment:
    return embodiment.model_copy(update={"binding": embodiment.binding.model_copy(update=changes)})


def _raw(source: Source) -> Source:
    return source.model_copy(
        update={"type": "sensor_msgs/msg/Image", "topic": source.topic.removesuffix("/compressed")}
    )


def with_raw_images(embodiment: Embodiment) -> Embodiment:
    """Return the embodiment with every camera as `sensor_msgs/Image` on `/CAMERA/image_raw`, without JPEG."""
    sources = dict(embodiment.binding.sources)
    for camera in embodiment.contract.cameras:
        sources[camera.name] = tuple(_raw(source) for source in sources[camera.name])
    return _rebound(embodiment, sources=sources)


def in_namespace(embodiment: Embodiment, namespace: str) -> Embodiment:
    """Return the embodiment bound to a robot in a namespace, such as `/cell1`."""
    return _rebound(embodiment, namespace=namespace)
