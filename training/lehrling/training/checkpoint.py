"""Checkpoints for exact resume: safetensors and JSON only, complete or absent."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lehrling.datasets.errors import DamageError

NAME = re.compile(r"step-(\d{8})")
STATE, TENSORS = "state.json", "tensors.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """Everything that the next step depends on.

    Attributes:
        trained, average: parameters by name, live and averaged (EMA).
        optimizer: AdamW's state by parameter position: `exp_avg`, `exp_avg_sq`, `step`.
        sampler: the sampler's state.
    """

    step: int
    trained: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: Tensor
    sampler: dict[str, Any]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as flat tensors, `position.key`."""
    state = optimizer.state_dict()["state"]
    return {f"{p}.{k}": torch.as_tensor(v) for p, values in state.items() for k, v in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put flat tensors back into an optimizer of the same layout."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        position, key = name.split(".", 1)
        state.setdefault(int(position), {})[key] = tensor
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def write(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write a checkpoint: to a hidden sibling, fsynced, renamed; then drop all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{snapshot.step:08d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    groups = {"trained": snapshot.trained, "average": snapshot.average, "optimizer": snapshot.optimizer}
    tensors = {f"{g}/{k}": v.detach().contiguous().clone() for g, items in groups.items() for k, v in items.items()}
    tensors["random"] = snapshot.random
    save_file(tensors, partial / TENSORS)
    (partial / STATE).write_text(json.dumps({"step": snapshot.step, "sampler": snapshot.sampler}), encoding="utf-8")
    for path in (partial / TENSORS, partial / STATE, partial):
        _fsync(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _fsync(folder)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old:08d}")
    return final


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def steps(folder: Path) -> list[int]:
    """Return the steps of complete checkpoints, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(m.group(1)) for p in folder.iterdir() if (m := NAME.fullmatch(p.name)))


def read(folder: Path) -> Snapshot | None:
    """Read the newest checkpoint, or None where there is none.

    Raises:
        DamageError: the newest checkpoint cannot be read.
    """
    found = steps(folder)
    if not found:
        return None
    path = folder / f"step-{found[-1]:08d}"
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS)
    except Exception as error:
        raise DamageError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); delete it to resume from the one before."
        ) from error
    groups: dict[str, dict[str, Tensor]] = {"trained": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        group, _, key = name.partition("/")
        if key:
            groups[group][key] = tensor
    return Snapshot(int(state["step"]), random=tensors["random"], sampler=state["sampler"], **groups)
