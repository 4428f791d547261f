"""Fine-tuning: LoRA on the backbone, slots and head in full, on batches of a view; resumes exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Contract
from lehrling.datasets.errors import InputError
from lehrling.datasets.sampler import EpisodeSampler
from lehrling.datasets.view import View
from lehrling.training import checkpoint
from lehrling.training.artefact import Description, describe_base, lora_facts, save_artefact
from lehrling.training.config import TrainConfig
from lehrling.training.data import Batch, TrainingData
from lehrling.training.heads import masked_l1
from lehrling.training.lora import attach, parameter_groups
from lehrling.training.metrics import Metrics, read_metrics
from lehrling.training.models import Base, load_backbone
from lehrling.training.normalise import Normaliser
from lehrling.training.policy import pixels_of
from lehrling.training.policy_model import PolicyModel
from lehrling.training.prompt import Prompt
from lehrling.training.warm_start import WarmStart, find_warm_start

Progress = Callable[[str, int, int, float], None]
"""Called with phase, done, wanted, and the latest loss (nan before the first step)."""


@dataclass(frozen=True)
class TrainResult:
    """What a run did.

    Attributes:
        seconds: of training steps in this process, without loading and caching.
        policy: directory of the trained policy; `initial` of the policy as it stood before the first step.
    """

    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    trainable_parameters: int
    total_parameters: int
    samples_per_s: float
    policy: Path
    initial: Path

    def to_json(self) -> dict[str, Any]:
        """Return the result for `--json`."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}


@dataclass
class Run:
    """A prepared run: model, data and everything that a step changes."""

    config: TrainConfig
    base: Base
    model: PolicyModel
    data: TrainingData
    sampler: EpisodeSampler
    description: Description
    accelerator: Any
    optimizer: Any
    trained: dict[str, nn.Parameter]
    average: dict[str, Tensor]
    step: int = 0

    @property
    def folder(self) -> Path:
        """Where checkpoints lie."""
        return self.config.output / "checkpoints"


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Return the schedule's factor at `step` (0-based): linear warm-up, then cosine to a twentieth."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _normalisers(view: View, warm: WarmStart | None) -> tuple[Normaliser, Normaliser]:
    """Return the warm start's normalisers, which its weights are tied to, or the view's 1 % and 99 % quantiles."""
    if warm is not None:
        return warm.state, warm.action
    state = view.statistics["state"]
    action = view.statistics["action_chunk" if view.codec.parts else "action"]
    return (
        Normaliser.from_bounds(state["q01"], state["q99"]),
        Normaliser.from_bounds(action["q01"], action["q99"]),
    )


def _describe(
    config: TrainConfig, view: View, contract: Contract, base: Base, state: Normaliser, action: Normaliser
) -> Description:
    spec = view.spec
    statistics = {
        group: {name: np.asarray(value).tolist() for name, value in values.items()}
        for group, values in view.statistics.items()
    }
    return Description(
        base=describe_base(base),
        view=spec.model_dump(mode="json"),
        contract=contract.model_dump(mode="json"),
        cameras=list(spec.cameras),
        image_px=spec.image_px,
        rate_hz=spec.rate_hz,
        chunk=config.chunk,
        prompt=config.prompt.model_dump(mode="json"),
        state_names=list(view.state_names),
        action_names=list(view.action_names),
        state=state.to_json(),
        action=action.to_json(),
        head={"kind": "regression", "hidden": config.head.hidden},
        relative=[asdict(part) for part in view.codec.parts],
        statistics=statistics,
        provenance={
            "seed": config.seed,
            "view_key": view.key,
            "contract_hash": contract.hash,
            "episodes": [{"id": e.id, "content_hash": e.content_hash} for e in view.episodes],
            "lora": lora_facts(config.lora),
            "config": config.model_dump(mode="json"),
        },
    )


def _model(config: TrainConfig, view: View, warm: WarmStart | None, loaded: tuple[Any, Any, Base]) -> PolicyModel:
    backbone, tokenizer, base = loaded
    pixels = pixels_of(base, backbone.config)
    prompt = Prompt(
        tuple(view.spec.cameras),
        pixels.tokens(view.spec.image_px),
        config.chunk,
        **config.prompt.model_dump(),
    )
    sizes = len(view.state_names), len(view.action_names)
    torch.manual_seed(config.seed)
    model = PolicyModel(backbone, tokenizer, prompt, *sizes, pixels=pixels, head_hidden=config.head.hidden)
    if warm is not None:
        warm.load_into(model)
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(requires_grad=False)
    model.backbone = attach(backbone, config.lora)
    return model


def prepare(config: TrainConfig, progress: Progress | None = None) -> Run:
    """Load everything, cache features, and restore the newest checkpoint of the output directory if there is one."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    dataset = Dataset.open(config.dataset)
    view = View.open(dataset, config.view)
    _check_view(view)
    contract = dataset.episode(view.episodes[0].id).contract
    loaded = load_backbone(config.base.path, config.base.revision)
    warm = find_warm_start(loaded[2], view, config) if config.head.warm_start else None
    state, action = _normalisers(view, warm)
    model = _model(config, view, warm, loaded)
    data = TrainingData(view, config.chunk, state, action)
    if config.cache_features:
        data.cache_features(model, progress=_phase(progress, "features"))
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=_precision(config))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adapters = [name for name in trained if name.startswith("backbone.")]
    groups = parameter_groups([trained[n] for n in adapters], adapters, config.lora, config.weight_decay)
    own = [p for name, p in trained.items() if name not in adapters]
    groups.append({"params": own, "lr": config.head.rate, "weight_decay": config.weight_decay})
    for group in groups:
        group["peak"] = group["lr"]
    wrapped, optimizer = accelerator.prepare(model, torch.optim.AdamW(groups, betas=(0.9, 0.98)))
    del wrapped
    sampler = EpisodeSampler(data.rows, config.batch, config.seed)
    description = _describe(config, view, contract, loaded[2], state, action)
    average = {name: p.detach().clone() for name, p in trained.items()}
    run = Run(config, loaded[2], model, data, sampler, description, accelerator, optimizer, trained, average)
    _restore(run)
    return run


def _check_view(view: View) -> None:
    if view.stale:
        raise InputError(f"{view.stale}")
    delta = [field.stream for field in view.spec.action if field.representation == "delta"]
    if delta:
        raise InputError(
            f"The view gives actions of {delta[0]!r} as differences between rows, which the chunk runtime cannot execute; "
            "use absolute, chunk_relative or end_effector."
        )


def _precision(config: TrainConfig) -> str:
    return "bf16" if config.precision == "bf16" else "no"


def _phase(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, wanted: progress(name, done, wanted, math.nan)


def _restore(run: Run) -> None:
    snapshot = checkpoint.read(run.folder)
    if snapshot is None:
        return
    missing = set(run.trained) ^ set(snapshot.trained)
    if missing:
        raise InputError(
            f"The checkpoint in {run.folder} is of another configuration (it differs in {min(missing)}); "
            "train into another output directory."
        )
    with torch.no_grad():
        for name, parameter in run.trained.items():
            parameter.copy_(snapshot.trained[name])
    run.average = {name: tensor.clone() for name, tensor in snapshot.average.items()}
    checkpoint.restore_optimizer(run.optimizer, snapshot.optimizer)
    torch.set_rng_state(snapshot.random)
    run.sampler.load_state_dict(snapshot.sampler)  # type: ignore[arg-type]
    run.step = snapshot.step


def _snapshot(run: Run) -> checkpoint.Snapshot:
    return checkpoint.Snapshot(
        run.step,
        {name: p.detach() for name, p in run.trained.items()},
        run.average,
        checkpoint.optimizer_tensors(run.optimizer),
        torch.get_rng_state(),
        dict(run.sampler.state_dict()),
    )


def train_step(run: Run, batch: Batch) -> float:
    """Take one optimizer step; return the loss before it."""
    factor = learning_rate_factor(run.step, run.config)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    state = batch.state
    if run.config.state_noise > 0:
        state = state + torch.randn_like(state) * run.config.state_noise
    with run.accelerator.autocast():
        predicted = run.model(batch.images, batch.instructions, state)
    loss = masked_l1(predicted.float(), batch.actions, batch.mask)
    run.optimizer.zero_grad()
    run.accelerator.backward(loss)
    nn.utils.clip_grad_norm_(run.trained.values(), run.config.clip_norm)
    run.optimizer.step()
    run.step += 1
    with torch.no_grad():
        for name, parameter in run.trained.items():
            run.average[name].lerp_(parameter, 1 - min(run.config.ema, run.step / (run.step + 10)))
    return float(loss.detach())


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
        InputError: the output holds a run already and `resume` is not set, or the view does not fit.
    """
    if not resume and (config.output / "metrics.jsonl").exists():
        raise InputError(f"{config.output} holds a run already; resume it with --resume or choose another output.")
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / "config.json").write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    run = prepare(config, progress)
    initial, policy = config.output / "initial", config.output / "policy"
    if run.step == 0:
        _save(run, initial, run.average, {"steps": 0})
    metrics, begun, started = Metrics(config.output, run.step), time.perf_counter(), run.step
    try:
        while run.step < config.steps:
            loss = train_step(run, run.data.batch(next(run.sampler)))
            rate = (run.step - started) * config.batch / (time.perf_counter() - begun)
            row = {"step": run.step, "loss": loss, "lr": run.optimizer.param_groups[0]["lr"], "samples_per_s": rate}
            metrics.write(row)
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                checkpoint.write(run.folder, _snapshot(run), config.checkpoints_kept)
            if progress is not None:
                progress("training", run.step, config.steps, loss)
    finally:
        metrics.close()
    return _finish(run, policy, initial, time.perf_counter() - begun, started)


def _finish(run: Run, policy: Path, initial: Path, seconds: float, started: int) -> TrainResult:
    losses = [row["loss"] for row in read_metrics(run.config.output / "metrics.jsonl")]
    tail = losses[-max(1, len(losses) // 20) :]
    result = TrainResult(
        run.step,
        round(seconds, 3),
        losses[0],
        float(np.mean(tail)),
        sum(p.numel() for p in run.trained.values()),
        sum(p.numel() for p in run.model.parameters()),
        round((run.step - started) * run.config.batch / max(seconds, 1e-9), 2),
        policy,
        initial,
    )
    _save(run, policy, run.average, {"steps": run.step, "seconds": result.seconds})
    (run.config.output / "result.json").write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    return result
