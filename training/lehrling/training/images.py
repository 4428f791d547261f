"""Pixels for each family, in one batched function on the device, equal to the family's own processor.

The cameras' images arrive at training size (a multiple of the patch grid), so no resizing is left to do here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lehrling.datasets.errors import InputError
from lehrling.training.families import Family


@dataclass(frozen=True)
class PixelSpec:
    """Geometry and normalisation of one backbone's vision tower.

    Attributes:
        patch, merge, temporal: patch edge [px], merged patches per edge, repeats in time (Qwen).
    """

    family: Family
    patch: int
    merge: int
    temporal: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def grid(self, px: int) -> int:
        """Return patches per edge of a square image.

        Raises:
            InputError: the size does not fit the patch grid.
        """
        if px < 1 or px % (self.patch * self.merge):
            raise InputError(
                f"Expected an image size divisible by {self.patch * self.merge} (patch {self.patch} x merge "
                f"{self.merge} of {self.family.model_type}), got {px} px; build the view with another --size."
            )
        return px // self.patch

    def tokens(self, px: int) -> int:
        """Return visual tokens per image."""
        return (self.grid(px) // self.merge) ** 2


def normalised(images: Tensor, spec: PixelSpec) -> Tensor:
    """Return (N, 3, h, w) float32 from (N, h, w, 3) uint8."""
    mean = torch.tensor(spec.mean, device=images.device).mul(255.0)
    std = torch.tensor(spec.std, device=images.device).mul(255.0)
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def qwen_patches(images: Tensor, spec: PixelSpec) -> tuple[Tensor, Tensor]:
    """Return patches (N * grid², 3 * temporal * patch²) in merge order, and grid_thw (N, 3) int64."""
    pixels = normalised(images, spec)
    n, _, px, _ = pixels.shape
    grid, p, m = spec.grid(px), spec.patch, spec.merge
    blocks = pixels.reshape(n, 3, grid // m, m, p, grid // m, m, p)
    patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(n * grid * grid, 3, 1, p * p)
    repeated = patches.expand(-1, -1, spec.temporal, -1).reshape(n * grid * grid, -1)
    thw = torch.tensor([[1, grid, grid]], device=images.device).expand(n, -1)
    return repeated, thw


def model_inputs(images: Tensor, spec: PixelSpec) -> dict[str, Tensor]:
    """Return the keyword arguments of the family's `get_image_features` for (N, h, w, 3) uint8 images."""
    if spec.family.pixels == "qwen_patches":
        patches, thw = qwen_patches(images, spec)
        return {"pixel_values": patches, "image_grid_thw": thw}
    spec.grid(int(images.shape[1]))
    return {"pixel_values": normalised(images, spec)}
