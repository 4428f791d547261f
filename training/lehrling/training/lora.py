"""LoRA on every language-model projection of every family, by one regular expression."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lehrling.training.config import LoraSettings

PROJECTIONS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "gate_up_proj",
    "in_proj_qkv",
    "in_proj_z",
    "out_proj",
)
TARGETS = rf".*language_model\..*\.({'|'.join(PROJECTIONS)})"
"""Matches inside the language model only: the vision tower stays frozen, so its features can be cached."""


@contextmanager
def _quiet_deprecation() -> Iterator[None]:
    """Hide that peft 0.21 still asks for a property that transformers 5 renamed; it concerns neither the user nor us."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def attach(backbone: Any, settings: LoraSettings) -> Any:
    """Freeze the backbone, attach adapters and return the PeftModel."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=TARGETS,
        bias="none",
    )
    with _quiet_deprecation():
        return get_peft_model(backbone, config)


def load_adapter(backbone: Any, directory: str, *, trainable: bool = False) -> Any:
    """Attach the adapters stored in a PEFT directory."""
    from peft import PeftModel

    with _quiet_deprecation():
        return PeftModel.from_pretrained(backbone, directory, is_trainable=trainable)


def parameter_groups(
    adapters: list[nn.Parameter], adapter_names: list[str], settings: LoraSettings, weight_decay: float
) -> list[dict[str, Any]]:
    """Return optimizer groups; LoRA+ (arXiv 2402.12354) gives the B matrices a higher rate."""
    is_b = ["lora_B" in name for name in adapter_names]
    a = [p for p, b in zip(adapters, is_b, strict=True) if not b]
    b = [p for p, chosen in zip(adapters, is_b, strict=True) if chosen]
    return [
        {"params": a, "lr": settings.rate, "weight_decay": weight_decay},
        {"params": b, "lr": settings.rate * settings.plus_ratio, "weight_decay": weight_decay},
    ]
