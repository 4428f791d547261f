"""Checkpoints for exact resume: safetensors and JSON only, complete or absent."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import fsync_tree, placed_whole, remove_tree
from lehrling.datasets.sampler import SamplerState
from lehrling.training.tensors import read_tensors, under, writing

NAME = re.compile(r"step-(\d{8})")
STATE, TENSORS = "state.json", "tensors.safetensors"
GROUPS = ("trained", "average", "optimizer", "random")


@dataclass(frozen=True)
class Snapshot:
    """Everything that the next step depends on.

    Attributes:
        trained, average: parameters by name, live and averaged (EMA).
        optimizer: AdamW's state by parameter position: `exp_avg`, `exp_avg_sq`, `step`.
        random: states of the random generators, by device type.
        sampler: the sampler's state.
        made_of: what the run is made of: the hashes of `view` and `base`, the `precision`.
    """

    step: int
    trained: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    sampler: SamplerState
    made_of: dict[str, str]


def random_states() -> dict[str, Tensor]:
    """Return the states of torch's generators that a step may draw from."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def restore_random(states: dict[str, Tensor]) -> None:
    """Put generators back to where `random_states` found them."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


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
    """Write a checkpoint: to a hidden sibling, fsynced, renamed; then drop all but the newest `keep`.

    Raises:
        StorageError: the disk is full or failed; the checkpoints before stay.
    """
    final = folder / f"step-{snapshot.step:08d}"
    groups = {name: getattr(snapshot, name) for name in GROUPS}
    tensors = {f"{g}/{k}": v.detach().contiguous().clone() for g, items in groups.items() for k, v in items.items()}
    state = {"step": snapshot.step, "sampler": snapshot.sampler, "made_of": snapshot.made_of}
    with placed_whole(final) as partial:
        remove_tree(partial)
        partial.mkdir(parents=True)
        with writing(partial / TENSORS):
            save_file(tensors, partial / TENSORS)
        (partial / STATE).write_text(json.dumps(state), encoding="utf-8")
        fsync_tree(partial)
        remove_tree(final)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old:08d}")
    return final


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
        state, tensors = read_json(path / STATE), read_tensors(path / TENSORS)
        groups = {name: under(f"{name}/", tensors) for name in GROUPS}
        return Snapshot(int(state["step"]), sampler=state["sampler"], made_of=dict(state["made_of"]), **groups)
    except Exception as error:
        raise DamageError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); delete it to resume from the one before."
        ) from error
