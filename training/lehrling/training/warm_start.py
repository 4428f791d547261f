"""Warm start: slots and head that a base brings along, taken where they mean the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from lehrling.datasets.view import View
from lehrling.training.config import TrainConfig
from lehrling.training.models import Base
from lehrling.training.normalise import Normaliser
from lehrling.training.policy_model import PolicyModel

FACTS = "policy_start.json"


@dataclass(frozen=True)
class WarmStart:
    """Slots, head and the normalisers that they were trained with."""

    tensors: dict[str, Tensor]
    state: Normaliser
    action: Normaliser

    def load_into(self, model: PolicyModel) -> None:
        """Put the weights into a model's slots and head."""
        for name, module in (("slots", model.slots), ("head", model.head)):
            prefix = f"policy.{name}."
            own = {k.removeprefix(prefix): v.float() for k, v in self.tensors.items() if k.startswith(prefix)}
            module.load_state_dict(own)


def fits(facts: dict[str, Any], view: View, config: TrainConfig) -> bool:
    """Whether the base's slots and head mean what this run's would: same cameras, state, actions, chunk, order, size."""
    return bool(
        facts["cameras"] == list(view.spec.cameras)
        and facts["state_names"] == list(view.state_names)
        and facts["action_names"] == list(view.action_names)
        and not view.codec.parts
        and facts["image_px"] == view.spec.image_px
        and facts["chunk"] == config.chunk
        and facts["order"] == config.prompt.order
    )


def policy_tensors(weights: Path) -> dict[str, Tensor]:
    """Return the slots' and head's tensors of a base's weight file."""
    with safe_open(weights, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith("policy.")}  # noqa: SIM118


def find_warm_start(base: Base, view: View, config: TrainConfig) -> WarmStart | None:
    """Return what the base brings along, or None where it brings nothing or nothing that fits."""
    path, weights = base.directory / FACTS, base.directory / "model.safetensors"
    if not path.is_file() or not weights.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    if not fits(facts, view, config):
        return None
    return WarmStart(
        policy_tensors(weights), Normaliser.from_json(facts["state"]), Normaliser.from_json(facts["action"])
    )
