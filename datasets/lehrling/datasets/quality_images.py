"""Figures of an episode's pictures: how bright, how sharp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lehrling.datasets.episode import EpisodeStream
from lehrling.datasets.errors import DamageError

HEIGHT = 240
"""Pictures are decoded at half or a quarter of their size where that keeps so many rows: enough to tell blur, much faster."""


@dataclass(frozen=True)
class Pictures:
    """Of the pictures looked at: their numbers, mean brightness (0 to 255), and sharpness.

    Sharpness is the variance of the Laplacian over the variance of brightness: a shake or a lens out of focus lowers it,
    a darker scene does not. Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """

    number: NDArray[np.int64]
    brightness: NDArray[np.float64]
    sharpness: NDArray[np.float64]


def look_at(camera: EpisodeStream, count: int) -> Pictures:
    """Look at up to `count` pictures of a colour camera, evenly spread.

    Raises:
        DamageError: a picture does not decode.
    """
    number = np.unique(np.linspace(0, max(0, len(camera) - 1), min(count, len(camera))).round().astype(np.int64))
    figures = np.array([_figures(camera, int(k)) for k in number]).reshape(-1, 2)
    return Pictures(number, figures[:, 0], figures[:, 1])


def _figures(camera: EpisodeStream, number: int) -> tuple[float, float]:
    try:
        jpeg = camera.encoded(number)
        grey = simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, min_height=HEIGHT, min_width=1, min_factor=1)
    except ValueError as error:
        raise DamageError(f"Picture {number} of {camera.stream.name!r} does not decode: {error}.") from error
    shown = np.asarray(grey[..., 0], np.float32)
    laplacian = shown[:-2, 1:-1] + shown[2:, 1:-1] + shown[1:-1, :-2] + shown[1:-1, 2:] - 4 * shown[1:-1, 1:-1]
    spread = float(shown.var())
    return float(shown.mean()), float(laplacian.var()) / spread if spread > 1 else 0.0
