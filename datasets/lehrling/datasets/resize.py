"""Crop and resize images: one function for training views and for the running robot."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from lehrling.datasets.errors import DamageError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lehrling.datasets.view_spec import Crop, Fit, ViewSpec

_PIXELS_MAX = 1 << 26
_BITS = 15
"""Fixed-point weights: integer sums are the same on every machine, and 8 + 15 bits fit an int32."""


def resize_image(
    image: NDArray[np.uint8], image_px: int, fit: Fit = "crop", crop: Crop | None = None
) -> NDArray[np.uint8]:
    """Return image (h, w, 3) uint8 as (image_px, image_px, 3), cropped first; unchanged in size where `image_px` is 0.

    Shrinking averages the area that a pixel covers; enlarging interpolates linearly.

    Raises:
        InputError: the image is not (h, w, 3) uint8, or the crop reaches beyond it.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"Expected an image of shape (h, w, 3) and uint8, got {image.shape} {image.dtype}.")
    cut = _cut(image, crop)
    if image_px == 0:
        return np.ascontiguousarray(cut)
    cut = _square(cut, fit)
    height, width = (image_px, image_px) if fit != "pad" else _inside(cut, image_px)
    if cut.shape[:2] != (height, width):
        cut = _along_rows(_along_rows(cut, height).transpose(1, 0, 2), width).transpose(1, 0, 2)
    if (height, width) != (image_px, image_px):
        cut = _padded(cut, image_px)
    return np.ascontiguousarray(cut)


def view_jpeg(jpeg: bytes, spec: ViewSpec, camera: str) -> bytes:
    """Return a camera's JPEG as the view stores it: unchanged if it has the right size or keeps its own, else resized.

    Raises:
        DamageError: the bytes are not a colour JPEG.
    """
    crop = spec.crops.get(camera)
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(jpeg)
        if height * width > _PIXELS_MAX:
            raise ValueError(f"{height} x {width} pixels")
        if spec.image_px in (0, height) and spec.image_px in (0, width) and crop is None and colour != "Gray":
            return jpeg
        return encode(resize_image(decode(jpeg), spec.image_px, spec.fit, crop), spec.jpeg_quality)
    except ValueError as error:
        raise DamageError(f"Expected a JPEG of camera {camera!r}, got bytes that do not decode: {error}.") from error


def view_image(image: NDArray[np.uint8], spec: ViewSpec, camera: str) -> bytes:
    """Return a camera's raw image (h, w, 3) uint8 as the JPEG that a view would hold."""
    return encode(resize_image(image, spec.image_px, spec.fit, spec.crops.get(camera)), spec.jpeg_quality)


def decode(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to (h, w, 3) uint8 RGB.

    Raises:
        ValueError: the bytes are not a JPEG, or it is cut.
    """
    return np.asarray(simplejpeg.decode_jpeg(jpeg, "RGB"), np.uint8)


def encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """Encode image (h, w, 3) uint8 RGB as a JPEG at full colour resolution (4:4:4)."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "444"))


def _cut(image: NDArray[np.uint8], crop: Crop | None) -> NDArray[np.uint8]:
    if crop is None:
        return image
    bottom, right = crop.top + crop.height, crop.left + crop.width
    if bottom > image.shape[0] or right > image.shape[1]:
        raise InputError(
            f"Expected a crop within the image of {image.shape[0]} x {image.shape[1]}, got one down to row "
            f"{bottom} and column {right}."
        )
    return image[crop.top : bottom, crop.left : right]


def _square(image: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
    if fit != "crop":
        return image
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def _inside(image: NDArray[np.uint8], image_px: int) -> tuple[int, int]:
    height, width = image.shape[:2]
    longer = max(height, width)
    return max(1, round(height * image_px / longer)), max(1, round(width * image_px / longer))


def _padded(image: NDArray[np.uint8], image_px: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    top, left = (image_px - height) // 2, (image_px - width) // 2
    canvas = np.zeros((image_px, image_px, 3), np.uint8)
    canvas[top : top + height, left : left + width] = image
    return canvas


def _along_rows(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the first axis: for each tap, gather the source rows and add them weighted."""
    if image.shape[0] == size:
        return image
    source, weight = _taps(image.shape[0], size)
    total = np.full((size, *image.shape[1:]), 1 << (_BITS - 1), np.int32)
    for tap in range(source.shape[1]):
        total += image[source[:, tap]] * weight[:, tap, None, None]
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _taps(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return source rows (after, K) and weights (after, K) that sum to exactly 2**15 per row."""
    ratio = before / after
    if ratio > 1:
        start = np.arange(after) * ratio
        source = np.floor(start).astype(np.int64)[:, None] + np.arange(int(np.ceil(ratio)) + 1)
        low, high = np.maximum(source, start[:, None]), np.minimum(source + 1, start[:, None] + ratio)
        share = np.clip(high - low, 0, None) / ratio
    else:
        centre = (np.arange(after) + 0.5) * ratio - 0.5
        source = np.floor(centre).astype(np.int64)[:, None] + np.arange(2)
        share = 1 - np.abs(source - centre[:, None])
    weight = np.rint(share * (1 << _BITS)).astype(np.int32)
    weight[np.arange(after), weight.argmax(axis=1)] += (1 << _BITS) - weight.sum(axis=1, dtype=np.int32)
    return np.clip(source, 0, before - 1), weight
