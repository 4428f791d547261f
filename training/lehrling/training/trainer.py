"""Fine-tuning: LoRA on the backbone, slots and head in full, on batches of a view; resumes exactly."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lehrling.datasets.errors import InputError
from lehrling.datasets.files import write_durably
from lehrling.training import checkpoint
from lehrling.training.artefact import save_artefact
from lehrling.training.config import FREE_ON_RESUME, FREE_ON_RESUME_IN_BF16, TrainConfig, check_resumable
from lehrling.training.data import Batch
from lehrling.training.heads import masked_l1
from lehrling.training.metrics import Metrics, read_metrics
from lehrling.training.run import Progress, Run, precision_of, prepare, snapshot_of


@dataclass(frozen=True)
class TrainResult:
    """What a run did.

    Attributes:
        seconds: of training steps in this process, without loading and caching.
        warm_start: whether slots and head began as the base brings them along.
        policy: directory of the trained policy; `initial` of the policy as it stood before the first step.
    """

    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    trainable_parameters: int
    total_parameters: int
    samples_per_s: float
    warm_start: bool
    policy: Path
    initial: Path

    def to_json(self) -> dict[str, Any]:
        """Return the result for `--json`."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Return the schedule's factor at `step` (0-based): linear warm-up, then cosine to a twentieth."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def train_step(run: Run, batch: Batch) -> float:
    """Take one optimizer step; return the loss before it.

    Noise is drawn where the batch was made, so that a seed gives the same on every device.

    Raises:
        InputError: loss or gradient is not finite; nothing was changed.
    """
    factor = learning_rate_factor(run.step, run.config)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    if run.config.state_noise > 0:
        batch = replace(batch, state=batch.state + torch.randn_like(batch.state) * run.config.state_noise)
    batch = batch.to(run.accelerator.device)
    with run.accelerator.autocast():
        predicted = run.model(batch.images, batch.instructions, batch.state)
    loss = masked_l1(predicted.float(), batch.actions, batch.mask)
    run.optimizer.zero_grad()
    run.accelerator.backward(loss)
    norm = nn.utils.clip_grad_norm_(run.trained.values(), run.config.clip_norm)
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        raise _diverged(run.step + 1, f"loss {float(loss.detach()):g}, gradient norm {float(norm):g}")
    run.optimizer.step()
    run.step += 1
    with torch.no_grad():
        for name, parameter in run.trained.items():
            run.average[name].lerp_(parameter, 1 - min(run.config.ema, run.step / (run.step + 10)))
    return float(loss.detach())


def _diverged(step: int, found: str) -> InputError:
    return InputError(
        f"Training diverged at step {step}: {found}. Lower lora.rate and head.rate and train into another output directory; "
        "the checkpoints before stay."
    )


def _checkpoint(run: Run) -> None:
    """Write a checkpoint.

    Raises:
        InputError: a parameter is not finite; nothing was written.
    """
    for name, parameter in run.trained.items():
        if not bool(torch.isfinite(parameter).all() & torch.isfinite(run.average[name]).all()):
            raise _diverged(run.step, f"{name} is not finite")
    checkpoint.write(run.folder, snapshot_of(run), run.config.checkpoints_kept)


def _save(run: Run, directory: Path, weights: dict[str, Tensor], cost: dict[str, Any]) -> None:
    """Save the artefact with `weights` in place of the live parameters, which are put back."""
    live = {name: p.detach().clone() for name, p in run.trained.items()}
    description = replace(run.description, provenance=run.description.provenance | {"cost": cost})
    with torch.no_grad():
        for name, parameter in run.trained.items():
            parameter.copy_(weights[name])
        save_artefact(directory, run.model, description)
        for name, parameter in run.trained.items():
            parameter.copy_(live[name])


def train(config: TrainConfig, *, resume: bool = False, progress: Progress | None = None) -> TrainResult:
    """Train, or with `resume` go on from the newest checkpoint, and write the policy.

    Raises:
        InputError: the output holds a run already and `resume` is not set, or one of another configuration and it is, or
            the view does not fit, or training diverges.
        DamageError: the newest checkpoint cannot be read.
        StorageError: the disk is full or failed; the newest checkpoint stays.
    """
    _enter(config, resume)
    run = prepare(config, progress)
    if run.step <= config.steps:
        write_durably(config.output / "config.json", (config.model_dump_json(indent=1) + "\n").encode())
    initial, policy = config.output / "initial", config.output / "policy"
    if run.step == 0:
        _save(run, initial, run.average, {"steps": 0})
    metrics, begun, started = Metrics(config.output, run.step), time.perf_counter(), run.step

    def spent_s() -> float:
        return metrics.spent_s + time.perf_counter() - begun

    try:
        while run.step < config.steps:
            loss = train_step(run, next(run.batches))
            rate = (run.step - started) * config.batch / (time.perf_counter() - begun)
            facts = {"lr": run.optimizer.param_groups[0]["lr"], "samples_per_s": rate, "seconds": spent_s()}
            metrics.write({"step": run.step, "loss": loss, **facts})
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                _checkpoint(run)
            if progress is not None:
                progress("training", run.step, config.steps, loss)
    finally:
        run.batches.close()
        metrics.close()
    return _finish(run, policy, initial, spent_s(), 0 if metrics.spent_s else started)


def _enter(config: TrainConfig, resume: bool) -> None:
    """Make the output directory a run's own, or the same run's again; a run has begun once it has metrics or checkpoints."""
    stored = config.output / "config.json"
    begun = any((config.output / name).exists() for name in ("metrics.jsonl", "checkpoints"))
    if begun and not resume:
        raise InputError(f"{config.output} holds a run already; resume it with --resume or choose another output.")
    if begun and stored.is_file():
        free = FREE_ON_RESUME_IN_BF16 if precision_of(config) == "bf16" else FREE_ON_RESUME
        check_resumable(config, stored, free)
    config.output.mkdir(parents=True, exist_ok=True)


def _finish(run: Run, policy: Path, initial: Path, seconds: float, started: int) -> TrainResult:
    path = run.config.output / "metrics.jsonl"
    losses = [row["loss"] for row in read_metrics(path)]
    if not losses:
        raise InputError(f"Expected the losses of {run.step} steps in {path}, got none; restore it from a backup.")
    tail = losses[-max(1, len(losses) // 20) :]
    result = TrainResult(
        run.step,
        round(seconds, 3),
        losses[0],
        float(np.mean(tail)),
        sum(p.numel() for p in run.trained.values()),
        sum(p.numel() for p in run.model.parameters()),
        round((run.step - started) * run.config.batch / max(seconds, 1e-9), 2),
        bool(run.description.provenance["warm_start"]),
        policy,
        initial,
    )
    _save(run, policy, run.average, {"steps": run.step, "seconds": result.seconds})
    write_durably(run.config.output / "result.json", (json.dumps(result.to_json(), indent=1) + "\n").encode())
    return result
