"""Warm start: slots and head that a base brings along, taken where they mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError
from torch import Tensor

from lehrling.datasets.documents import explain, read_json
from lehrling.datasets.errors import InputError
from lehrling.datasets.view import View
from lehrling.training.config import TrainConfig
from lehrling.training.models import Base
from lehrling.training.normalise import Normaliser, NormaliserFacts
from lehrling.training.policy_model import PolicyModel
from lehrling.training.tensors import load_module, read_tensors, under

FACTS, WEIGHTS = "policy_start.json", "model.safetensors"


class StartFacts(BaseModel):
    """policy_start.json: what the base's slots and head were trained for."""

    cameras: list[str]
    state_names: list[str]
    action_names: list[str]
    image_px: int
    chunk: int
    order: str
    state: NormaliserFacts
    action: NormaliserFacts


@dataclass(frozen=True)
class WarmStart:
    """Slots, head and the normalisers that they were trained with."""

    tensors: dict[str, Tensor]
    state: Normaliser
    action: Normaliser

    def load_into(self, model: PolicyModel) -> None:
        """Put the weights into a model's slots and head.

        Raises:
            InputError: a tensor is missing or has another shape.
        """
        for name, module in (("slots", model.slots), ("head", model.head)):
            own = {key: tensor.float() for key, tensor in under(f"policy.{name}.", self.tensors).items()}
            load_module(module, own, f"What the base brings along as its {name}")

    @property
    def hidden(self) -> int | None:
        """Inner width of slots and head, or None where there are none."""
        first = self.tensors.get("policy.slots.state.0.weight")
        return None if first is None else len(first)


def fits(facts: StartFacts, view: View, config: TrainConfig) -> bool:
    """Whether slots and head mean what this run's would: same cameras, state, actions, image size, chunk, order."""
    return (
        facts.cameras == list(view.spec.cameras)
        and facts.state_names == list(view.state_names)
        and facts.action_names == list(view.action_names)
        and not view.codec.parts
        and facts.image_px == view.spec.image_px
        and facts.chunk == config.chunk
        and facts.order == config.prompt.order
    )


def policy_tensors(weights: Path) -> dict[str, Tensor]:
    """Return the slots' and head's tensors of a base's weight file."""
    return read_tensors(weights, lambda name: name.startswith("policy."))


def read_facts(path: Path) -> StartFacts:
    """Read policy_start.json.

    Raises:
        InputError: it is malformed; the message names the key.
    """
    try:
        return StartFacts.model_validate(read_json(path, "description of a start"))
    except ValidationError as error:
        raise InputError(explain(error, str(path), StartFacts, "a description of a start")) from error


def find_warm_start(base: Base, view: View, config: TrainConfig) -> WarmStart | None:
    """Return what the base brings along; None where it brings nothing, or nothing of this meaning and size."""
    path, weights = base.directory / FACTS, base.directory / WEIGHTS
    if not config.head.warm_start or not path.is_file() or not weights.is_file():
        return None
    facts = read_facts(path)
    if not fits(facts, view, config):
        return None
    start = WarmStart(policy_tensors(weights), Normaliser.from_json(facts.state), Normaliser.from_json(facts.action))
    return start if start.hidden == config.head.hidden else None
