"""Exports of a trained policy: what they share, and the adapter alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.files import fsync_path, fsync_tree, sha256_file, write_durably
from lehrling.training.artefact import DESCRIPTION, HEAD, Description, check_base, read_description, restore
from lehrling.training.export_facts import FACTS
from lehrling.training.lora import ADAPTER, WEIGHTS
from lehrling.training.models import Base, load_backbone
from lehrling.training.policy import pixels_of
from lehrling.training.policy_model import PolicyModel
from lehrling.training.tensors import read_tensors

ADAPTER_FILES = (ADAPTER, WEIGHTS, HEAD, DESCRIPTION)
OPTIONAL_FILES = ("README.md", "sbom.json")
SAMPLES = 8
INSTRUCTIONS = ("pick", "put the red part into the left pocket")


@dataclass(frozen=True)
class Trained:
    """A policy's network, in fp32, with what was loaded for it."""

    model: PolicyModel
    description: Description
    base: Base


@dataclass(frozen=True)
class Inputs:
    """Inputs to compare two networks on: images (N, C, h, w, 3) uint8, instructions, normalised states (N, S)."""

    images: Tensor
    instructions: tuple[str, ...]
    state: Tensor


@dataclass(frozen=True)
class Agreement:
    """How far an export's actions are from the policy's, on random inputs.

    Attributes:
        max_difference: of all actions, in normalised units (1 is half the range between the 1 % and 99 % quantiles).
        tolerance: what is allowed.
    """

    max_difference: float
    tolerance: float
    samples: int
    seed: int

    def to_json(self) -> dict[str, float | int]:
        """Return the agreement as JSON data."""
        return dict(vars(self))


def open_trained(policy: Path, base: str | None = None) -> Trained:
    """Load a policy's network onto its base; `base` overrides where the base lies.

    Raises:
        InputError: no policy there, files that are broken or do not fit, or a base of other weights than it was trained on.
    """
    description = read_description(policy)
    source = base or description.base["source"]
    backbone, tokenizer, found = load_backbone(source, description.base["revision"], fetch=False)
    check_base(description, found)
    model = restore(policy, backbone, tokenizer, description, pixels_of(found, backbone.config))
    return Trained(model.eval(), description, found)


def random_inputs(description: Description, samples: int, seed: int) -> Inputs:
    """Draw inputs as a policy takes them; instructions are of different lengths."""
    draw = np.random.default_rng(seed)
    px = description.image_px
    images = draw.integers(0, 256, (samples, len(description.cameras), px, px, 3), dtype=np.uint8)
    state = draw.normal(size=(samples, len(description.state_names))).astype(np.float32)
    words = tuple(INSTRUCTIONS[number % len(INSTRUCTIONS)] for number in range(samples))
    return Inputs(torch.from_numpy(images), words, torch.from_numpy(state))


@torch.inference_mode()
def actions_of(model: PolicyModel, inputs: Inputs) -> Tensor:
    """Return normalised actions (N, H, A), one sample at a time, as a robot asks."""
    rows = zip(inputs.images, inputs.instructions, inputs.state, strict=True)
    return torch.cat([model(image[None], [words], state[None]) for image, words, state in rows])


def agreed(wanted: Tensor, found: Tensor, tolerance: float, seed: int, what: str) -> Agreement:
    """Compare normalised actions (N, H, A).

    Raises:
        DamageError: they differ by more than the tolerance, or are not finite.
    """
    difference = float((wanted - found).abs().max())
    if not difference <= tolerance:
        raise DamageError(
            f"The {what} differs from the policy by {difference:.3g} in normalised units, more than the {tolerance:g} "
            "allowed; nothing was written. Allow more with --tolerance only if the task can bear it."
        )
    return Agreement(difference, tolerance, len(wanted), seed)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a hidden sibling that becomes `out` once the block is done; nothing is left where it fails.

    Raises:
        InputError: `out` is there already.
        StorageError: the disk is full or failed.
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"Expected a folder that is not there yet, but {out} is; give another name or remove it.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        _open_to_readers(partial)
        fsync_tree(partial)
        partial.rename(out)
        fsync_path(out.parent)
    except OSError as error:
        text = f"Writing {out} failed: {error.strerror or error}; nothing was written. Check the disk and its space."
        raise StorageError(text) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Give every file the rights that a new one would have; safetensors are written for their owner alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def write_facts(folder: Path, kind: str, policy: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write export.json: what was exported from what, and the hash of every file; return its content."""
    files = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    content = {
        "kind": kind,
        "lehrling": metadata.version("lehrling-training"),
        "policy_sha256": sha256_file(policy / DESCRIPTION),
        **facts,
        "files": files,
    }
    write_durably(folder / FACTS, (json.dumps(content, indent=1) + "\n").encode())
    return content


def export_adapter(policy: Path, out: Path) -> dict[str, Any]:
    """Copy what a policy adds to its base, provenance included: adapters, slots, head, policy.json, card, bill of materials.

    Raises:
        InputError: there is no policy, a file of it is broken, or `out` is there.
        StorageError: the disk is full or failed.
    """
    description = read_description(policy)
    for name in (WEIGHTS, HEAD):
        read_tensors(policy / name)
    if not (policy / ADAPTER).is_file():
        raise InputError(f"Expected {policy / ADAPTER}, but there is no such file; restore it.")
    with new_folder(out) as folder:
        for name in (*ADAPTER_FILES, *(n for n in OPTIONAL_FILES if (policy / n).is_file())):
            shutil.copyfile(policy / name, folder / name)
        return write_facts(folder, "adapter", policy, {"base": description.base})
