"""The training configuration: one YAML, `--set a.b=c` on top, every key checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lehrling.datasets.errors import InputError

CONFIG_BYTES_MAX = 1 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseSettings(_Strict):
    """The backbone: a local directory, `builtin:base`, or a hub id with a pinned revision."""

    path: str = "builtin:base"
    revision: str | None = None


class LoraSettings(_Strict):
    """Adapters on the language model's projections."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rslora: bool = False
    dora: bool = False
    rate: Annotated[float, Field(gt=0)] = 1e-3
    plus_ratio: Annotated[float, Field(ge=1)] = 1.0


class HeadSettings(_Strict):
    """Slots and Head R, trained in full."""

    rate: Annotated[float, Field(gt=0)] = 1e-3
    hidden: Annotated[int, Field(ge=8, le=8192)] = 256
    warm_start: bool = True
    """Start from the slots and head that the base brings along, where it does and they fit."""


class PromptSettings(_Strict):
    """How observations are written for the language model."""

    order: Literal["instruction_first", "cameras_first"] = "instruction_first"
    instruction_tokens_max: Annotated[int, Field(ge=4, le=1024)] = 48


class TrainConfig(_Strict):
    """Everything that a run depends on besides data and code."""

    dataset: Path
    view: str = "train"
    output: Path
    base: BaseSettings = BaseSettings()
    lora: LoraSettings = LoraSettings()
    head: HeadSettings = HeadSettings()
    prompt: PromptSettings = PromptSettings()
    chunk: Annotated[int, Field(ge=1, le=256)] = 8
    steps: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 32
    warmup: Annotated[int, Field(ge=0)] = 20
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    state_noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of noise on the normalised state, against copying it."""
    precision: Literal["fp32", "bf16"] = "bf16"
    cache_features: bool = True
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    checkpoints_kept: Annotated[int, Field(ge=1)] = 2
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] | None = None


def _sentence(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the document"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(TrainConfig.model_fields))
        return f"{where}: {key!r} is not a key of a training configuration; at the top level there are {known}."
    return f"{where}: {key}: {first['msg']}, got {first.get('input')!r}."


def with_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return `data` with each `a.b=value` set; values are read as YAML.

    Raises:
        InputError: an override without `=`, or a path through something that is no mapping.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(data)) or {}
    for override in overrides:
        path, separator, value = override.partition("=")
        if not separator or not path:
            raise InputError(f"Expected --set KEY=VALUE such as --set lora.rank=8, got {override!r}.")
        *parents, last = path.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise InputError(f"--set {override!r}: {parent!r} holds no keys.")
        target[last] = yaml.safe_load(value)
    return result


def load_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read and check a configuration.

    Raises:
        InputError: the file is missing, too large, no mapping, or has a wrong key or value; the message names it.
    """
    if not path.is_file():
        raise InputError(f"Expected a training configuration (YAML) at {path}, but there is no such file.")
    if path.stat().st_size > CONFIG_BYTES_MAX:
        raise InputError(f"{path} is larger than {CONFIG_BYTES_MAX} bytes; that is no training configuration.")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(data, dict):
        raise InputError(f"Expected keys and values in {path}, got {type(data).__name__}.")
    return parse_config(with_overrides(data, overrides or []), str(path))


def parse_config(data: dict[str, Any], where: str = "configuration") -> TrainConfig:
    """Check a configuration given as a mapping.

    Raises:
        InputError: a wrong key or value; the message names it.
    """
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        raise InputError(_sentence(error, where)) from error
