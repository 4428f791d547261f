"""What of LeRobot's is to be trained, and the configuration that its training makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lehrling.datasets.errors import InputError
from lehrling.datasets.view import View

OWN = {
    "device": "give it with --device",
    "push_to_hub": "nothing is uploaded",
    "repo_id": "nothing is uploaded",
    "pretrained_path": "a baseline starts from its own beginning",
    "pretrained_revision": "a baseline starts from its own beginning",
    "use_peft": "a baseline is trained in full",
    "type": "give it with --policy",
    "input_features": "they are the view's",
    "output_features": "they are the view's",
}
"""Settings of LeRobot's policies that are not to be set, and why."""


@dataclass(frozen=True)
class BaselinePlan:
    """What to train.

    Attributes:
        policy: LeRobot's name of it.
        settings: of LeRobot's configuration of that policy, by name; the rest is as LeRobot has it.
        device: None takes the first GPU, else the CPU.
        save_every: steps between checkpoints; the last step always has one.
        workers: processes that read samples ahead.
    """

    dataset: Path
    view: str
    output: Path
    policy: str = "act"
    steps: int = 100_000
    batch: int = 8
    seed: int = 1000
    settings: dict[str, object] = field(default_factory=dict)
    device: str | None = None
    save_every: int = 20_000
    workers: int = 0


def _config(plan: BaselinePlan) -> Any:
    import draccus
    from lerobot.configs import PreTrainedConfig

    for name, why in OWN.items():
        if name in plan.settings:
            raise InputError(f"Expected settings of the policy {plan.policy!r}, got {name}; {why}.")
    device = plan.device or ("cuda" if torch.cuda.is_available() else "cpu")
    given = {"type": plan.policy, "device": device, "push_to_hub": False}
    try:
        config = draccus.decode(PreTrainedConfig, plan.settings | given)
    except (draccus.ParsingError, ValueError, NotImplementedError, TypeError) as error:
        why = f"{first_line(error)} ({first_line(error.__cause__)})" if error.__cause__ else first_line(error)
        known = ", ".join(sorted(PreTrainedConfig.get_known_choices()))
        raise InputError(
            f"LeRobot does not take the policy {plan.policy!r} so: {why}. The policies that it has are {known}."
        ) from error
    if config.device != device:
        raise InputError(f"Expected a device that is here, got {device!r}; LeRobot would take {config.device!r}.")
    return config


def pipeline_of(plan: BaselinePlan, view: View) -> Any:
    """Return LeRobot's configuration of a run, which its checkpoints keep.

    Raises:
        InputError: no such policy or setting, or one that is not to be set.
    """
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig

    policy = _config(plan)
    return TrainPipelineConfig(
        dataset=DatasetConfig(repo_id=f"local/{plan.view}", root=str(view.directory)),
        policy=policy,
        output_dir=plan.output,
        job_name=plan.policy,
        seed=plan.seed,
        cudnn_deterministic=True,
        num_workers=plan.workers,
        batch_size=plan.batch,
        steps=plan.steps,
        save_freq=plan.save_every,
        env_eval_freq=0,
        optimizer=policy.get_optimizer_preset(),
        scheduler=policy.get_scheduler_preset(),
    )


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, for a sentence of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:300]
