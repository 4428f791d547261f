"""A prepared run: model, data, optimizer, and everything else that a step changes; from a checkpoint where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Contract
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.loader import Loader
from lehrling.datasets.sampler import EpisodeSampler, SamplerState
from lehrling.datasets.view import View
from lehrling.training import checkpoint
from lehrling.training.artefact import Description, PromptFacts, RelativeFacts, describe_base
from lehrling.training.config import TrainConfig
from lehrling.training.data import Batch, TrainingData
from lehrling.training.lora import attach, parameter_groups
from lehrling.training.models import Base, is_local, load_backbone
from lehrling.training.normalise import Normaliser
from lehrling.training.policy import pixels_of
from lehrling.training.policy_model import PolicyModel
from lehrling.training.prompt import Prompt
from lehrling.training.tensors import difference
from lehrling.training.warm_start import WarmStart, find_warm_start

Progress = Callable[[str, int, int, float], None]
"""Called with phase, done, wanted, and the latest loss (nan before the first step)."""


@dataclass
class Run:
    """A prepared run: model, data and everything that a step changes."""

    config: TrainConfig
    base: Base
    model: PolicyModel
    data: TrainingData
    batches: Loader[NDArray[np.int64], SamplerState, Batch]
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

    @property
    def made_of(self) -> dict[str, str]:
        """What a checkpoint belongs to besides its configuration: the hashes of view and base, and the precision."""
        return {"view": self.data.view.key, "base": self.base.weights_hash, "precision": precision_of(self.config)}


def prepare(config: TrainConfig, progress: Progress | None = None) -> Run:
    """Load everything, cache features, and restore the newest checkpoint of the output directory if there is one."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.base.revision is not None and is_local(config.base.path):
        raise InputError(
            f"Expected base.revision for a hub id alone, got it for {config.base.path}, which is on this machine; "
            "leave it out, or move the directory away."
        )
    accelerator = _accelerator(config)
    dataset, view = open_data(config)
    _check_view(view)
    contract = dataset.episode(view.episodes[0].id).contract
    loaded = load_backbone(config.base.path, config.base.revision)
    warm = find_warm_start(loaded[2], view, config)
    state, action = _normalisers(view, warm)
    model = _model(config, view, warm, loaded).to(accelerator.device)
    data = TrainingData(view, config.chunk, state, action)
    if config.cache_features:
        data.cache_features(model, progress=_phase(progress, "features"))
    sampler = EpisodeSampler(data.rows, config.batch, config.seed)
    batches = Loader(data.batch, sampler, workers=0 if config.cache_features else config.loader_threads)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _, optimizer = accelerator.prepare(model, _optimizer(config, trained))
    description = _describe(config, view, contract, loaded[2], state, action, warm is not None)
    average = {name: p.detach().clone() for name, p in trained.items()}
    run = Run(config, loaded[2], model, data, batches, description, accelerator, optimizer, trained, average)
    _restore(run)
    return run


def open_data(config: TrainConfig) -> tuple[Dataset, View]:
    """Open a run's dataset and view, on disk or in an object store.

    Raises:
        InputError: there is no such dataset or view; or what the view needs is not there any more.
        StorageError: the object store does not answer, or refuses.
    """
    if isinstance(config.dataset, str):
        from lehrling.datasets.remote import open_remote

        return open_remote(config.dataset, config.view, config.cache.directory, bytes_max=config.cache.bytes_max)
    dataset = Dataset.open(config.dataset)
    return dataset, View.open(dataset, config.view)


def _normalisers(view: View, warm: WarmStart | None) -> tuple[Normaliser, Normaliser]:
    """Return the warm start's normalisers, which its weights are tied to, or the view's 1 % and 99 % quantiles."""
    if warm is not None:
        return warm.state, warm.action
    action = "action_chunk" if view.codec.parts else "action"
    return Normaliser.from_statistics(view.statistics["state"]), Normaliser.from_statistics(view.statistics[action])


def _describe(
    config: TrainConfig, view: View, contract: Contract, base: Base, state: Normaliser, action: Normaliser, warm: bool
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
        prompt=PromptFacts(order=config.prompt.order, instruction_tokens_max=config.prompt.instruction_tokens_max),
        state_names=list(view.state_names),
        action_names=list(view.action_names),
        state=state.to_json(),
        action=action.to_json(),
        head={"kind": "regression", "hidden": config.head.hidden},
        relative=[RelativeFacts(kind=p.kind, action=list(p.action), state=list(p.state)) for p in view.codec.parts],
        statistics=statistics,
        provenance={
            "seed": config.seed,
            "warm_start": warm,
            "precision": precision_of(config),
            "view_key": view.key,
            "contract_hash": contract.hash,
            "episodes": [{"id": e.id, "content_hash": e.content_hash} for e in view.episodes],
            **_snapshot(view),
            "config": config.model_dump(mode="json"),
        },
    )


def _snapshot(view: View) -> dict[str, dict[str, str | None]]:
    """Return which snapshot of the dataset the view is of, if it is of one."""
    keep = view.spec.episodes
    return {"snapshot": {"name": keep.snapshot, "hash": keep.snapshot_hash}} if keep.snapshot else {}


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


def precision_of(config: TrainConfig) -> Literal["fp32", "bf16"]:
    """Return the precision that a configuration means on this machine."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")) else "fp32"


def _accelerator(config: TrainConfig) -> Any:
    """Return accelerate's handle on the device, new for every run, so that one process can train in both precisions."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    precision = {"fp32": "no", "bf16": "bf16"}[precision_of(config)]
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
    if accelerator.num_processes > 1:
        raise InputError(
            f"Expected to train in one process, got {accelerator.num_processes}; start it without `torchrun` and "
            "`accelerate launch`."
        )
    return accelerator


def _optimizer(config: TrainConfig, trained: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Return AdamW over adapters, slots and head; `peak` of each group is what the schedule scales."""
    adapters = [name for name in trained if name.startswith("backbone.")]
    groups = parameter_groups([trained[n] for n in adapters], adapters, config.lora, config.weight_decay)
    own = [p for name, p in trained.items() if name not in adapters]
    groups.append({"params": own, "lr": config.head.rate, "weight_decay": config.weight_decay})
    for group in groups:
        group["peak"] = group["lr"]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def _check_view(view: View) -> None:
    if view.stale:
        raise InputError(f"{view.stale}")
    if view.spec.image_px == 0:
        raise InputError(
            "The view keeps images as recorded; models take square ones: build one with `lehrling view … --size`."
        )
    delta = [field.stream for field in view.spec.action if field.representation == "delta"]
    if delta:
        raise InputError(
            f"The view gives actions of {delta[0]!r} as differences between rows, which the chunk runtime cannot execute; "
            "use absolute, chunk_relative or end_effector."
        )


def _phase(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, wanted: progress(name, done, wanted, math.nan)


def _restore(run: Run) -> None:
    snapshot = checkpoint.read(run.folder)
    if snapshot is None:
        return
    for name, hashed in run.made_of.items():
        if snapshot.made_of.get(name) != hashed:
            raise InputError(
                f"The checkpoint in {run.folder} is of another {name} ({snapshot.made_of.get(name, 'none')[:12]}) than "
                f"came now ({hashed[:12]}); resume with the former, or train into another output directory."
            )
    for found in (snapshot.trained, snapshot.average):
        if differs := difference(run.trained, found):
            raise DamageError(f"The checkpoint in {run.folder} does not fit its own configuration: {differs}.")
    with torch.no_grad():
        for name, parameter in run.trained.items():
            parameter.copy_(snapshot.trained[name])
            run.average[name].copy_(snapshot.average[name])
    checkpoint.restore_optimizer(run.optimizer, snapshot.optimizer)
    checkpoint.restore_random(snapshot.random)
    run.batches.load_state_dict(snapshot.sampler)
    run.step = snapshot.step


def snapshot_of(run: Run) -> checkpoint.Snapshot:
    """Return what a checkpoint keeps of a run."""
    return checkpoint.Snapshot(
        run.step,
        {name: p.detach() for name, p in run.trained.items()},
        run.average,
        checkpoint.optimizer_tensors(run.optimizer),
        checkpoint.random_states(),
        run.batches.state_dict(),
        run.made_of,
    )
