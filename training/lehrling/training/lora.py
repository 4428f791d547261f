"""LoRA on every language-model projection of every family, by one regular expression."""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import InputError
from lehrling.training.config import LoraSettings
from lehrling.training.tensors import difference, read_tensors

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
ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(.+?)\.lora_\w+(?:\.weight)?")
_NO_MATTER = frozenset(
    {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
     "target_modules", "lora_dropout", "init_lora_weights", "megatron_core", "qalora_group_size"}
)  # fmt: skip
"""Keys of adapter_config.json that change nothing here: provenance, training only, or told by the tensors themselves."""


@contextmanager
def _quiet_deprecation() -> Iterator[None]:
    """Hide that peft 0.21 still asks for a property that transformers 5 renamed; it concerns neither the user nor us."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def attach(backbone: Any, settings: LoraSettings) -> Any:
    """Freeze the backbone, attach adapters and return the PeftModel."""
    from peft import get_peft_model

    with _quiet_deprecation():
        return get_peft_model(backbone, _peft_config(settings, TARGETS))


def _peft_config(settings: LoraSettings, targets: str, **options: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=targets,
        bias="none",
        **options,
    )


def save_adapter(backbone: Any, directory: Path, *, base: str, revision: str | None) -> None:
    """Write the adapters as a PEFT directory that names its base as it was given, not where this machine keeps it."""
    config = backbone.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    backbone.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False)


def load_adapter(backbone: Any, directory: Path | str, name: str = "default") -> Any:
    """Attach the adapters of a PEFT directory, for inference; to a PeftModel as further ones, of another name.

    PEFT's own loader asks a hub for a file that is missing here, and takes pickles; this one reads the two local files
    only. The tensors' names say which modules have adapters, the configuration how they are scaled.

    Raises:
        InputError: a file is missing or broken, or does not fit the backbone.
    """
    from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    settings, path = _settings(Path(directory) / ADAPTER), Path(directory) / WEIGHTS
    tensors = read_tensors(path)
    targets = {match.group(1) for name in tensors if (match := _TENSOR.fullmatch(name))}
    further = isinstance(backbone, PeftModel)
    absent = targets - linear_modules(backbone.get_base_model() if further else backbone)
    if absent or not targets:
        raise InputError(f"{path} does not fit this base: it adapts {min(absent, default='nothing')!r}.")
    with _quiet_deprecation():
        config = _peft_config(settings, _any_of(targets), inference_mode=True)
        if further:
            model = backbone
            model.add_adapter(name, config)
        else:
            model = get_peft_model(backbone, config, adapter_name=name)
        held = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        if differs := difference(held, tensors):
            raise InputError(f"{path} does not fit this base and {ADAPTER}: {differs}.")
        set_peft_model_state_dict(model, tensors, adapter_name=name)
    return model


def linear_modules(backbone: Any) -> set[str]:
    """Return the names of a backbone's linear layers, of those that have adapters too."""
    from peft.tuners.lora import LoraLayer

    modules = backbone.named_modules()
    return {name for name, module in modules if isinstance(module, nn.Linear | LoraLayer) and ".lora_" not in name}


def _any_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names))


def _settings(path: Path) -> LoraSettings:
    """Read adapter_config.json; refuse whatever would make the adapters mean something else than here."""
    if not path.is_file():
        raise InputError(f"Expected {path}, but there is no such file; restore it.")
    data = read_json(path, "adapter configuration")
    try:
        scale = {"rslora": data.get("use_rslora", False), "dora": data.get("use_dora", False)}
        settings = LoraSettings(rank=data["r"], alpha=data["lora_alpha"], **scale)
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{path} is no LoRA configuration: {type(error).__name__}; restore it.") from error
    plain = _peft_config(settings, TARGETS).to_dict()
    for key, value in data.items():
        if key not in _NO_MATTER and value and value != plain.get(key):
            raise InputError(f"{path} sets {key!r} to {reprlib.repr(value)}, which is not applied here; it is refused.")
    return settings


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
