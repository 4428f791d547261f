"""The training configuration: one YAML, `--set a.b=c` on top, every key checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lehrling.datasets.documents import explain, parse_yaml, read_json, read_yaml
from lehrling.datasets.errors import InputError
from lehrling.datasets.remote import is_remote

WHAT = "a training configuration"
FREE_ON_RESUME = frozenset(
    {
        "dataset",
        "cache",
        "output",
        "base",
        "steps",
        "checkpoint_every",
        "checkpoints_kept",
        "threads",
        "cache_features",
        "loader_threads",
        "precision",
    }
)
"""What a resumed run may change: places, length and means. A checkpoint knows itself of which data, base, precision it is."""
FREE_ON_RESUME_IN_BF16 = FREE_ON_RESUME - {"cache_features"}
"""Cached features are float32, uncached ones come out of bf16 arithmetic."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BaseSettings(_Strict):
    """The backbone: a local directory, `builtin:base`, or a hub id with a pinned revision."""

    path: str = "builtin:base"
    revision: str | None = None


class CacheSettings(_Strict):
    """Where files of an object store are kept; for datasets on disk it means nothing."""

    directory: Path | None = None
    """None: `LEHRLING_CACHE`, or the user's cache directory."""
    gib_max: Annotated[float, Field(gt=0)] | None = None
    """Beyond it, what was opened longest ago goes."""

    @property
    def bytes_max(self) -> int | None:
        """The limit in bytes."""
        return None if self.gib_max is None else int(self.gib_max * (1 << 30))


def _place(value: object) -> object:
    """Keep an address as it is; a path's way of writing would take a slash from it."""
    return value if isinstance(value, str) and is_remote(value) else Path(value) if isinstance(value, str) else value


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

    dataset: Annotated[Path | str, BeforeValidator(_place)]
    """A directory, or an object store's address such as s3://bucket/plant.zarr; credentials are the environment's."""
    cache: CacheSettings = CacheSettings()
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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the backbone's arithmetic. `auto`: bf16 where the hardware has it; emulated, it is several times slower than fp32."""
    cache_features: bool = True
    """Changes no result in fp32; in bf16 slightly, because cached features are fp32."""
    loader_threads: Annotated[int, Field(ge=0, le=64)] = 2
    """Read and decode images ahead of the training step, where vision features are not cached; changes no result."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    checkpoints_kept: Annotated[int, Field(ge=1)] = 2
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] | None = None


def with_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return `data` with each `a.b=value` set; values are read as YAML.

    Raises:
        InputError: an override without `=`, a value that is no YAML, or a path through something that is no mapping.
    """
    result = copy.deepcopy(data)
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
        target[last] = parse_yaml(value, f"--set {override!r}")
    return result


def load_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read and check a configuration.

    Raises:
        InputError: the file is missing, too large, no mapping, or has a wrong key or value; the message names it.
    """
    if not path.is_file():
        raise InputError(f"Expected a training configuration (YAML) at {path}, but there is no such file.")
    data = read_yaml(path, "training configuration")
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
        raise InputError(explain(error, where, TrainConfig, WHAT)) from error


def check_resumable(config: TrainConfig, stored: Path, free: frozenset[str] = FREE_ON_RESUME) -> None:
    """Refuse to go on with another configuration than the run was begun with, which lies in `stored`.

    Keys in `free` may differ.

    Raises:
        InputError: naming the first key that differs, and both values.
    """
    before = _flat(parse_config(read_json(stored, "training configuration"), str(stored)).model_dump(mode="json"))
    now = _flat(config.model_dump(mode="json"))
    for key, value in now.items():
        if key.partition(".")[0] not in free and value != before[key]:
            raise InputError(
                f"{config.output} holds a run of another configuration: {key} was {before[key]!r}, but {value!r} came; "
                "resume it with the former, or train into another output directory."
            )


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
