"""A policy of LeRobot's behind the Policy protocol, so that it is evaluated as ours are; needs the extra `lerobot`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DocumentError, InputError
from lehrling.datasets.lerobot_format import IMAGES, STATE
from lehrling.training.baseline_facts import BaselineFacts, baseline_folder, read_facts
from lehrling.training.protocol import Observation, PolicySpec

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PIPELINES = ("policy_preprocessor.json", "policy_postprocessor.json")


class LerobotPolicy:
    """LeRobot's policy with its processors; actions are in physical units, since its own processors see to that."""

    def __init__(self, policy: Any, preprocessor: Any, postprocessor: Any, facts: BaselineFacts) -> None:
        self._policy, self._before, self._after = policy.eval(), preprocessor, postprocessor
        self._spec = PolicySpec(
            facts.cameras,
            facts.image_px,
            facts.state_names,
            facts.action_names,
            policy.config.chunk_size,
            facts.rate_hz,
        )

    @property
    def spec(self) -> PolicySpec:
        """What the policy takes and gives."""
        return self._spec

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> NDArray[np.float32]:
        """Return (B, H, A) float32 actions in physical units.

        Raises:
            InputError: a camera is missing or has another shape, or the state has another length.
        """
        batch: dict[str, Any] = {f"{IMAGES}.{name}": self._images(name, observations) for name in self._spec.cameras}
        if self._spec.state_names:
            batch[STATE] = torch.from_numpy(self._states(observations))
        batch["task"] = [observation.instruction for observation in observations]
        chunks = self._after(self._policy.predict_action_chunk(self._before(batch)))
        return np.asarray(chunks.float().cpu().numpy(), np.float32)

    def _images(self, camera: str, observations: Sequence[Observation]) -> torch.Tensor:
        """Return (B, 3, h, w) in 0 to 1."""
        px, images = self._spec.image_px, []
        for observation in observations:
            image = observation.images.get(camera)
            if image is None or image.shape != (px, px, 3) or image.dtype != np.uint8:
                came = "nothing" if image is None else f"{image.shape} {image.dtype}"
                raise InputError(f"Expected camera {camera!r} as ({px}, {px}, 3) uint8, got {came}.")
            images.append(image)
        return torch.from_numpy(np.stack(images)).movedim(-1, 1).to(torch.float32) / 255.0

    def _states(self, observations: Sequence[Observation]) -> NDArray[np.float32]:
        states = [np.asarray(observation.state, np.float32) for observation in observations]
        wanted = (len(self._spec.state_names),)
        for state in states:
            if state.shape != wanted or not np.isfinite(state).all():
                raise InputError(f"Expected {wanted[0]} finite state values, got {state!r}.")
        return np.stack(states)


def load_baseline(directory: Path | str, *, device: str = "cpu") -> LerobotPolicy:
    """Load a baseline from its run, or from the policy of one of its checkpoints. Nothing is fetched.

    Raises:
        InputError: none is there, a file is missing or broken, LeRobot is not installed, or the policy looks at more than
            the present or gives no chunks, so that it cannot be run in the closed loop.
    """
    folder = baseline_folder(Path(directory))
    if folder is None:
        raise InputError(f"Expected a baseline's run, or the policy of a checkpoint of one, at {directory}.")
    facts = read_facts(folder)
    for name in (CONFIG, WEIGHTS, *PIPELINES):
        if not (folder / name).is_file():
            raise InputError(f"Expected {name} in {folder}, but it is missing; take another checkpoint.")
    for name in PIPELINES:
        _check_pipeline(folder / name)
    if facts.image_px == 0:
        raise InputError(
            f"{folder} was trained on images of the camera's own size; build the view with --size to run it."
        )
    if facts.differences:
        raise InputError(
            f"{folder} was trained on actions of {facts.differences[0]!r} as differences between rows, which the chunk "
            "runtime cannot execute; build the view with absolute ones to run it."
        )
    return _loaded(folder, facts, device)


def _check_pipeline(path: Path) -> None:
    """Refuse a pipeline that names classes to import, rather than LeRobot's registered steps."""
    try:
        steps = read_json(path, "pipeline")["steps"]
        known = all(isinstance(step.get("registry_name"), str) and "class" not in step for step in steps)
    except (DocumentError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no pipeline of LeRobot's.") from error
    if not known:
        raise InputError(f"{path} names a step that is not one of LeRobot's; it is refused.")


def _loaded(folder: Path, facts: BaselineFacts, device: str) -> LerobotPolicy:
    try:
        import draccus
        from lerobot.configs import PreTrainedConfig
        from lerobot.policies import get_policy_class, make_pre_post_processors
        from safetensors import SafetensorError
    except ImportError as error:
        raise InputError(
            f"{folder} is a policy of LeRobot's and needs {error.name}, which is not installed; "
            "install it with `pip install 'lehrling-training[lerobot]'`."
        ) from error
    try:
        config = draccus.decode(PreTrainedConfig, read_json(folder / CONFIG, "policy") | {"device": device})
        _check_runnable(config, folder)
        if hasattr(config, "pretrained_backbone_weights"):
            config.pretrained_backbone_weights = None  # they are in the checkpoint
        with redirect_stdout(sys.stderr):  # LeRobot prints where it loads from, and stdout is for reports
            made = get_policy_class(config.type)
            policy = made.from_pretrained(folder, config=config, strict=True, local_files_only=True)
        overrides = {"device_processor": {"device": device}}
        before, after = make_pre_post_processors(config, str(folder), preprocessor_overrides=overrides)
    except InputError:
        raise
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError, draccus.ParsingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"{folder} cannot be loaded as a policy of LeRobot's: {reason[:300]}.") from error
    return LerobotPolicy(policy, before, after, facts)


def _check_runnable(config: Any, folder: Path) -> None:
    if config.n_obs_steps != 1 or not isinstance(getattr(config, "chunk_size", None), int):
        raise InputError(
            f"{folder} is LeRobot's {config.type!r}, which looks at {config.n_obs_steps} observations in turn or gives no "
            "chunk of a fixed length; the closed loop takes policies such as ACT, which look at the present."
        )
