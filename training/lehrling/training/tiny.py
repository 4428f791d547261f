"""Small, randomly initialised configurations of the real model classes, for tests and for bases trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lehrling.datasets.errors import InputError


@dataclass(frozen=True)
class Size:
    """Sizes of a small model: language width, layers, heads; vision width, layers; patch, merge and image [px]."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    hidden: int = 128
    vision_width: int = 48
    vision_layers: int = 2
    vision_heads: int = 4
    vision_hidden: int = 96
    patch: int = 16
    merge: int = 1
    image_px: int = 96


def _qwen3_vl(size: Size, tokenizer: Any) -> Any:
    from transformers import Qwen3VLConfig

    head = size.width // size.heads
    height = width = head // 6
    sections = [head // 2 - height - width, height, width]
    text = _text(size, tokenizer) | {
        "head_dim": head,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": sections,
            "mrope_interleaved": True,
            "rope_theta": 10_000.0,
        },
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_width,
        "intermediate_size": size.vision_hidden,
        "num_heads": size.vision_heads,
        "patch_size": size.patch,
        "spatial_merge_size": size.merge,
        "temporal_patch_size": 1,
        "out_hidden_size": size.width,
        "num_position_embeddings": (size.image_px // size.patch) ** 2,
        "deepstack_visual_indexes": [0] if size.merge > 1 else [],
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **_ids(tokenizer))


def _internvl(size: Size, tokenizer: Any) -> Any:
    from transformers import InternVLConfig

    text = _text(size, tokenizer) | {"model_type": "qwen2"}
    vision = {
        "hidden_size": size.vision_width,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
        "intermediate_size": size.vision_hidden,
        "image_size": [size.image_px, size.image_px],
        "patch_size": [size.patch, size.patch],
    }
    image = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    return InternVLConfig(text_config=text, vision_config=vision, image_token_id=image, downsample_ratio=1 / size.merge)


def _text(size: Size, tokenizer: Any) -> dict[str, Any]:
    """Return what the language models' configurations share."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "max_position_embeddings": 1024,
    }


def _ids(tokenizer: Any) -> dict[str, int]:
    return {
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    }


def tiny_config(model_type: str, tokenizer: Any, size: Size | None = None) -> Any:
    """Return a small configuration of a real class.

    Raises:
        InputError: no small configuration is known for this `model_type`.
    """
    makers = {"qwen3_vl": _qwen3_vl, "internvl": _internvl}
    if model_type not in makers:
        raise InputError(f"Expected one of {', '.join(sorted(makers))}, got {model_type!r}.")
    return makers[model_type](size or Size(), tokenizer)


def tiny_backbone(model_type: str, tokenizer: Any, size: Size | None = None, *, seed: int = 0) -> Any:
    """Return a randomly initialised model of the real class."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    return AutoModelForImageTextToText.from_config(tiny_config(model_type, tokenizer, size))
