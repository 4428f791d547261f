"""The model families: how each one writes a user's turn with images, and how it wants pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lehrling.datasets.errors import InputError

Pixels = Literal["qwen_patches", "whole_images"]


@dataclass(frozen=True)
class Family:
    """What differs between families on the seam that they share.

    Attributes:
        model_type: the `model_type` of the checkpoint's configuration.
        turn: text that opens the user's turn of the family's chat template.
        image: text around an image's placeholder tokens, before and after.
        image_token: the placeholder, one per visual token.
        pixels: layout of `pixel_values`.
        mean, std: per-channel normalisation of pixels in 0 to 1, where the checkpoint says nothing else.
    """

    model_type: str
    maker: str
    turn: str
    image: tuple[str, str]
    image_token: str
    pixels: Pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_QWEN_IMAGE = ("<|vision_start|>", "<|vision_end|>")

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "qwen3_vl",
            "Qwen (Alibaba)",
            "<|im_start|>user\n",
            _QWEN_IMAGE,
            "<|image_pad|>",
            "qwen_patches",
            _HALF,
            _HALF,
        ),
        Family(
            "qwen2_5_vl",
            "Qwen (Alibaba)",
            "<|im_start|>user\n",
            _QWEN_IMAGE,
            "<|image_pad|>",
            "qwen_patches",
            _CLIP_MEAN,
            _CLIP_STD,
        ),
        Family(
            "internvl",
            "OpenGVLab",
            "<|im_start|>user\n",
            ("<img>", "</img>"),
            "<IMG_CONTEXT>",
            "whole_images",
            _IMAGENET_MEAN,
            _IMAGENET_STD,
        ),
    )
}


def family_of(model_type: str, where: str = "the checkpoint") -> Family:
    """Return the family, or say which there are; `where` names the checkpoint in the error.

    Raises:
        InputError: the `model_type` is not on the list.
    """
    if model_type not in FAMILIES:
        raise InputError(
            f"Expected a model_type on the allow-list ({', '.join(sorted(FAMILIES))}) in {where}, got {model_type!r}; "
            "other architectures are refused, because their code has not been reviewed."
        )
    return FAMILIES[model_type]
