"""Pixels equal those of the families' own processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lehrling.training.families import FAMILIES
from lehrling.training.images import PixelSpec, model_inputs


def pictures(count: int, px: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, (count, px, px, 3), dtype=np.uint8)


@pytest.mark.parametrize(("patch", "merge", "temporal", "px"), [(16, 2, 2, 256), (14, 2, 2, 224), (8, 2, 1, 96)])
@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen2_5_vl"])
def test_qwen_patches_equal_the_processors(model_type: str, patch: int, merge: int, temporal: int, px: int) -> None:
    from transformers import Qwen2VLImageProcessor

    family = FAMILIES[model_type]
    processor = Qwen2VLImageProcessor(
        patch_size=patch,
        merge_size=merge,
        temporal_patch_size=temporal,
        image_mean=list(family.mean),
        image_std=list(family.std),
        size={"shortest_edge": px * px, "longest_edge": px * px},
    )
    images = pictures(3, px)
    wanted = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    spec = PixelSpec(family, patch, merge, temporal, family.mean, family.std)
    ours = model_inputs(torch.from_numpy(images), spec)
    torch.testing.assert_close(ours["pixel_values"], wanted["pixel_values"], atol=2e-6, rtol=1e-5)
    assert torch.equal(ours["image_grid_thw"], wanted["image_grid_thw"])
    assert spec.tokens(px) * 3 == int(wanted["image_grid_thw"].prod(-1).sum()) // merge**2


def test_whole_images_equal_internvls_processor() -> None:
    from transformers import GotOcr2ImageProcessor

    family = FAMILIES["internvl"]
    processor = GotOcr2ImageProcessor(
        size={"height": 96, "width": 96},
        crop_to_patches=False,
        image_mean=list(family.mean),
        image_std=list(family.std),
    )
    images = pictures(2, 96)
    wanted = processor([Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    ours = model_inputs(torch.from_numpy(images), PixelSpec(family, 8, 2, 1, family.mean, family.std))
    torch.testing.assert_close(ours["pixel_values"], wanted, atol=2e-6, rtol=1e-5)
