"""What a robot must know of a policy that a server offers, to look at the world and to act in its terms."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import ContractError, InputError
from lehrling.datasets.view_layout import Layout, resolve
from lehrling.datasets.view_spec import ViewSpec

CHUNK_MAX = 1024


@dataclass(frozen=True)
class PolicyFacts:
    """A policy as its server's hello tells of it.

    Attributes:
        view: how observations are put together and actions are meant.
        contract: hash of the contract that it was trained on.
        chunk: H, steps of a chunk, `view.rate_hz` apart.
    """

    name: str
    view: ViewSpec
    contract: str
    chunk: int
    action_names: tuple[str, ...]
    statistics_hash: str
    model_hash: str

    @classmethod
    def from_hello(cls, hello: Mapping[str, Any], name: str) -> Self:
        """Read what a server told.

        Raises:
            InputError: it has no such policy, or tells too little to run one on a robot.
        """
        adapters = hello.get("adapters")
        if not isinstance(adapters, Mapping) or not isinstance(adapters.get(name), Mapping):
            offered = ", ".join(map(str, adapters)) if isinstance(adapters, Mapping) else "none by name"
            raise InputError(f"The policy server has no policy {name!r}; it offers {offered}.")
        found = adapters[name]
        try:
            view = ViewSpec.model_validate_json(found["view"])
            texts = [found["contract"], found["statistics_hash"], found["model_hash"]]
            names, chunk = tuple(found["action_names"]), found["action_horizon"]
        except (KeyError, TypeError, ValidationError) as error:
            raise InputError(
                f"The policy server tells too little of {name!r} to move a robot by it ({type(error).__name__}); it needs the "
                "view and contract that the policy was trained on: serve it with `lehrling serve`."
            ) from error
        if not all(isinstance(text, str) for text in (*texts, *names)) or not _is_count(chunk):
            raise InputError(f"The policy server tells nonsense of {name!r}: {reprlib.repr(dict(found))}.")
        return cls(name, view, texts[0], chunk, names, texts[1], texts[2])

    def layout(self, embodiment: Embodiment) -> Layout:
        """Return the columns of observations and actions on a robot.

        Raises:
            ContractError: the policy was trained on another contract, or its actions are named otherwise.
        """
        if self.contract != embodiment.contract_hash:
            raise ContractError(
                f"Policy {self.name!r} was trained on the contract {self.contract[:12] or 'of no robot'}, {embodiment.name} has "
                f"{embodiment.contract_hash[:12]}; use a policy of this robot, or the embodiment that it was trained on."
            )
        layout = resolve(embodiment.contract, self.view)
        if layout.action_names != self.action_names:
            raise ContractError(
                f"Policy {self.name!r} gives {', '.join(self.action_names)}; expected {', '.join(layout.action_names)}, in "
                "this order, by its own view."
            )
        return layout

    def differs(self, other: PolicyFacts) -> str:
        """Return where another policy cannot take this one's place on a robot, or an empty string.

        How images are resized and what actions are relative to may differ: the server does both by each policy's own view.
        """
        for what, mine, its in (
            ("contract", self.contract, other.contract),
            ("rate", self.view.rate_hz, other.view.rate_hz),
            ("cameras", self.view.cameras, other.view.cameras),
            ("image latency", self.view.image_latency_ms, other.view.image_latency_ms),
            ("oldest image", self.view.image_max_age_ms, other.view.image_max_age_ms),
            ("state", self.view.state, other.view.state),
            ("oldest state", self.view.observation_max_age_ms, other.view.observation_max_age_ms),
            ("actions", self.action_names, other.action_names),
            ("chunk length", self.chunk, other.chunk),
        ):
            if mine == its:
                continue
            if self.name == other.name:
                return f"The policy server has another policy {self.name!r} than before: its {what} differs."
            return f"Policies {self.name!r} and {other.name!r} differ in their {what}; recipes of one cell must not."
        return ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= CHUNK_MAX
