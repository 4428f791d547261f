"""Running a trained policy: physical units in, physical units out."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lehrling.datasets.errors import InputError
from lehrling.training.artefact import Description, check_base, read_description, restore
from lehrling.training.images import PixelSpec
from lehrling.training.models import Base, load_backbone, pixel_statistics
from lehrling.training.policy_model import PolicyModel, pixel_spec
from lehrling.training.protocol import Observation, PolicySpec


class TorchPolicy:
    """A PolicyModel behind the Policy protocol, in fp32 so that a seed gives the same actions everywhere."""

    def __init__(self, model: PolicyModel, description: Description, device: str = "cpu") -> None:
        self._model = model.to(device).eval()
        self._state, self._action = description.normalisers
        self._codec = description.codec
        self._device = torch.device(device)
        self._spec = PolicySpec(
            tuple(description.cameras),
            description.image_px,
            tuple(description.state_names),
            tuple(description.action_names),
            description.chunk,
            description.rate_hz,
        )

    @property
    def spec(self) -> PolicySpec:
        """What the policy takes and gives."""
        return self._spec

    def _images(self, observation: Observation) -> NDArray[np.uint8]:
        px, images = self._spec.image_px, []
        for camera in self._spec.cameras:
            image = observation.images.get(camera)
            if image is None or image.shape != (px, px, 3) or image.dtype != np.uint8:
                came = "nothing" if image is None else f"{image.shape} {image.dtype}"
                raise InputError(f"Expected camera {camera!r} as ({px}, {px}, 3) uint8, got {came}.")
            images.append(image)
        return np.stack(images)

    def _state_of(self, observation: Observation) -> NDArray[np.float32]:
        state, count = np.asarray(observation.state, dtype=np.float32), len(self._spec.state_names)
        if state.shape != (count,) or not np.isfinite(state).all():
            raise InputError(f"Expected {count} finite state values, got {reprlib.repr(state.tolist())}.")
        return state

    def _predict(self, images: Tensor, instructions: list[str], state: Tensor) -> Tensor:
        """Return normalised chunks (B, H, A)."""
        return self._model(images, instructions, state)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> NDArray[np.float32]:
        """Return (B, H, A) float32 actions in physical units.

        Raises:
            InputError: there is no observation, a camera is missing or has another shape, the state has another length, or
                the instruction is none that a prompt can hold.
        """
        if not observations:
            raise InputError("Expected at least one observation, got none.")
        images = torch.from_numpy(np.stack([self._images(o) for o in observations])).to(self._device)
        states = np.stack([self._state_of(o) for o in observations])
        state = torch.from_numpy(self._state.forward(states)).to(self._device)
        predicted = self._predict(images, [o.instruction for o in observations], state)
        return self._codec.decode(self._action.inverse(predicted.float().cpu().numpy()), states)


def pixels_of(base: Base, config: object) -> PixelSpec:
    """Return the base's pixel geometry, normalised as its own processor configuration says."""
    found = pixel_statistics(base)
    return pixel_spec(config, *found) if found else pixel_spec(config)


def load_policy(directory: Path | str, *, base: str | None = None, device: str = "cpu") -> TorchPolicy:
    """Load a policy's artefact onto its base; `base` overrides where the base lies, not which one it is.

    Nothing is downloaded: what is missing or broken is refused.

    Raises:
        InputError: no policy there, files that are broken or do not fit, or a base of other weights than it was trained on.
    """
    path = Path(directory)
    description = read_description(path)
    source = base or description.base["source"]
    backbone, tokenizer, found = load_backbone(source, description.base["revision"], fetch=False)
    check_base(description, found)
    model = restore(path, backbone, tokenizer, description, pixels_of(found, backbone.config))
    return TorchPolicy(model, description, device)
