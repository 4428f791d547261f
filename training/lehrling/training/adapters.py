"""Several policies on one backbone in memory: each brings its adapters, slots, head and normalisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.training.artefact import Description, check_base, read_description, restore
from lehrling.training.models import load_backbone
from lehrling.training.policy import TorchPolicy, pixels_of
from lehrling.training.protocol import Observation, PolicySpec


class AdapterBank:
    """Policies of one base by name; which one acts is said with every call. To be used by one thread at a time.

    Attributes:
        descriptions: by name, what each policy's folder says of it.
    """

    def __init__(self, directories: Mapping[str, Path], *, base: str | None = None, device: str = "cpu") -> None:
        """Load the base once and every policy's own parts.

        Raises:
            InputError: no policy is named, a folder holds none, or they stand on different bases; the message names it.
        """
        if not directories:
            raise InputError("Expected at least one policy's folder, got none.")
        self.descriptions: dict[str, Description] = {n: read_description(Path(d)) for n, d in directories.items()}
        first = next(iter(self.descriptions.values()))
        backbone, tokenizer, found = load_backbone(base or first.base["source"], first.base["revision"], fetch=False)
        self._policies: dict[str, TorchPolicy] = {}
        for name, description in self.descriptions.items():
            try:
                check_base(description, found)
            except InputError as error:
                raise InputError(f"Policy {name!r} cannot be served beside the others: {error}") from error
            pixels = pixels_of(found, backbone.config)
            model = restore(Path(directories[name]), backbone, tokenizer, description, pixels, _inside(name))
            backbone = model.backbone
            self._policies[name] = TorchPolicy(model, description, device)
        self._backbone, self.active = backbone, ""

    @property
    def names(self) -> tuple[str, ...]:
        """The policies, the first is the one that acts where none is named."""
        return tuple(self._policies)

    def spec(self, name: str) -> PolicySpec:
        """Return what a policy takes and gives."""
        return self._policies[name].spec

    def switch(self, name: str) -> None:
        """Let a policy's adapters act; nothing is loaded.

        Raises:
            InputError: there is no such policy.
        """
        if name not in self._policies:
            raise InputError(f"There is no policy {name!r} here; there are {', '.join(self.names)}.")
        if name != self.active:
            self._backbone.set_adapter(_inside(name), inference_mode=True)
            self.active = name

    def act(self, name: str, observations: Sequence[Observation]) -> NDArray[np.float32]:
        """Return a policy's chunks (B, H, A) float32, in physical units.

        Raises:
            InputError: there is no such policy, or an observation does not fit it.
        """
        self.switch(name)
        return self._policies[name].act(observations)


def _inside(name: str) -> str:
    """Return an adapter's name within the backbone, where `train` and the like are taken and dots mean something."""
    return f"policy_{name.encode().hex()}"
