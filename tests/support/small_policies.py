"""Policies on a small random backbone of a real class, as training leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lehrling.training.artefact import Description, save_artefact
from lehrling.training.config import LoraSettings
from lehrling.training.lora import attach
from lehrling.training.models import load_backbone
from lehrling.training.policy_model import PolicyModel, pixel_spec
from lehrling.training.protocol import Observation
from lehrling.training.tiny import Size, tiny_backbone
from lehrling.training.tokenizer import make_tokenizer

PX, CHUNK = 96, 4


def save_checkpoint(folder: Path, *, seed: int) -> Path:
    """Save a small random Qwen3-VL and its tokenizer."""
    tokenizer = make_tokenizer()
    tiny_backbone("qwen3_vl", tokenizer, Size(patch=16, merge=1), seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_policy(folder: Path, checkpoint: Path, seed: int, rank: int = 2) -> Path:
    """Save a policy of two state values and one action, whose adapters say something."""
    torch.manual_seed(seed)
    backbone, tokenizer, base = load_backbone(str(checkpoint))
    description = Description(
        base={
            "source": str(checkpoint),
            "revision": None,
            "model_type": "qwen3_vl",
            "weights_sha256": base.weights_hash,
            "files": {},
        },
        view={},
        contract={},
        cameras=["front"],
        image_px=PX,
        rate_hz=10.0,
        chunk=CHUNK,
        prompt={"order": "instruction_first", "instruction_tokens_max": 48},
        state_names=["a", "b"],
        action_names=["x"],
        state={"offset": [0.0, 0.0], "scale": [1.0, 1.0]},
        action={"offset": [0.0], "scale": [1.0]},
        head={"kind": "regression", "hidden": 16},
    )
    pixels = pixel_spec(backbone.config)
    model = PolicyModel(
        backbone, tokenizer, description.make_prompt(pixels.tokens(PX)), 2, 1, pixels=pixels, head_hidden=16
    )
    model.backbone = attach(backbone, LoraSettings(rank=rank, alpha=4 * rank))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    save_artefact(folder, model, description)
    return folder


def seen(seed: int) -> Observation:
    """Return an observation that such a policy takes."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (PX, PX, 3), dtype=np.uint8)
    return Observation({"front": image}, draw.normal(size=2).astype(np.float32), "pick the nut")
