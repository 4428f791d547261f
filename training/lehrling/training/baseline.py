"""LeRobot's own policies, trained by LeRobot's own code on a view, to be compared with ours; needs the extra `lerobot`.

Policy, processors, optimizer, schedule, data order, update and checkpoints are LeRobot 0.6.1's. Only the loop around them is
here, because `lerobot_train.train` makes its dataset itself from files. The same seed and settings give the weights that
`lerobot-train` gives on an export with embedded pictures, bit for bit on one machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.view import View
from lehrling.training.baseline_facts import BaselineFacts, write_facts
from lehrling.training.baseline_plan import BaselinePlan, first_line, pipeline_of
from lehrling.training.lerobot_data import LerobotViewDataset, ViewMetadata, frame_table
from lehrling.training.metrics import Metrics

# isort: split
from lerobot.common.train_utils import (
    get_step_checkpoint_dir,
    save_checkpoint,
    should_save_checkpoint,
    update_last_checkpoint,
)
from lerobot.datasets import EpisodeAwareSampler
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.optim.factory import make_optimizer_and_scheduler
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.scripts.lerobot_train import update_policy
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker
from lerobot.utils.random_utils import set_seed

Progress = Callable[[str, int, int, float], None]
"""Called with phase, done, total and loss (nan before the first step)."""


@dataclass(frozen=True)
class BaselineResult:
    """What a run did.

    Attributes:
        policy: directory of the last checkpoint's policy, as LeRobot's `from_pretrained` and `lehrling eval` take it.
        left_out: episodes without a whole frame, and why.
    """

    policy: Path
    steps: int
    frames: int
    episodes: int
    parameters: int
    seconds: float
    first_loss: float
    last_loss: float
    left_out: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the result for `--json`."""
        return asdict(self) | {"policy": str(self.policy)}


def train_baseline(plan: BaselinePlan, progress: Progress | None = None) -> BaselineResult:
    """Train a LeRobot policy on a view, and write LeRobot's checkpoints below `output/checkpoints`.

    Raises:
        InputError: no such view, policy or setting, a policy whose own packages or weights are missing, or an output that
            holds something.
    """
    if plan.output.exists() and (not plan.output.is_dir() or any(plan.output.iterdir())):
        raise InputError(f"{plan.output} holds something already; name a folder that does not.")
    dataset = Dataset.open(plan.dataset)
    view = View.open(dataset, plan.view)
    meta = ViewMetadata(frame_table(dataset, view))
    run = _prepare(plan, pipeline_of(plan, view), meta)
    return _Training(plan, run, view, progress).run()


@dataclass
class _Run:
    """A run's parts, all of them LeRobot's but the dataset."""

    config: Any
    data: LerobotViewDataset
    accelerator: Any
    policy: Any
    preprocessor: Any
    postprocessor: Any
    optimizer: Any
    schedule: Any
    batches: Iterator[Any]


def _prepare(plan: BaselinePlan, config: Any, meta: ViewMetadata) -> _Run:
    """Make everything in the order in which LeRobot's training makes it, so that a seed means the same."""
    from accelerate import Accelerator

    accelerator = Accelerator(step_scheduler_with_optimizer=False, cpu=config.policy.device == "cpu")
    set_seed(plan.seed, accelerator=accelerator)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    data = LerobotViewDataset(meta, resolve_delta_timestamps(config.policy, meta))
    policy = _policy(config, meta)
    preprocessor, postprocessor = make_pre_post_processors(config.policy, dataset_stats=meta.stats, dataset_meta=meta)
    optimizer, schedule = make_optimizer_and_scheduler(config, policy)
    policy, optimizer, loader, schedule = accelerator.prepare(policy, optimizer, _loader(config, data), schedule)
    policy.train()
    batches = (batch for epoch in repeat(loader) for batch in epoch)
    return _Run(config, data, accelerator, policy, preprocessor, postprocessor, optimizer, schedule, batches)


def _policy(config: Any, meta: ViewMetadata) -> Any:
    try:
        return make_policy(config.policy, ds_meta=meta)
    except ImportError as error:
        raise InputError(
            f"LeRobot's policy {config.policy.type!r} needs a package of its own: {first_line(error)}."
        ) from error
    except OSError as error:
        raise InputError(
            f"LeRobot's policy {config.policy.type!r} begins with weights that could not be fetched ({first_line(error)}); "
            "give it access once, or begin without, for ACT by --set pretrained_backbone_weights=null."
        ) from error
    except ValueError as error:
        raise InputError(
            f"The view does not fit LeRobot's policy {config.policy.type!r}: {first_line(error)}."
        ) from error


def _loader(config: Any, data: LerobotViewDataset) -> Any:
    episodes = data.meta.episodes
    try:
        sampler = EpisodeAwareSampler(
            episodes["dataset_from_index"],
            episodes["dataset_to_index"],
            drop_n_last_frames=getattr(config.policy, "drop_n_last_frames", 0),
            shuffle=True,
            seed=config.seed,
        )
    except ValueError as error:
        raise InputError(f"The view's episodes are too short for this policy: {first_line(error)}.") from error
    return torch.utils.data.DataLoader(
        data,
        batch_size=config.batch_size,
        sampler=sampler,
        num_workers=config.num_workers,
        pin_memory=config.policy.device == "cuda",
        persistent_workers=config.num_workers > 0,
        multiprocessing_context="spawn" if config.num_workers else None,
    )


class _Training:
    """The loop."""

    def __init__(self, plan: BaselinePlan, run: _Run, view: View, progress: Progress | None) -> None:
        self._plan, self._run, self._view, self._progress = plan, run, view, progress
        names = {"loss": ":.3f", "grad_norm": ":.3f", "lr": ":0.1e", "update_s": ":.3f"}
        if torch.cuda.is_available():
            names["gpu_mem_gb"] = ":.2f"
        meters = {name: AverageMeter(name, layout) for name, layout in names.items()}
        self._tracker = MetricsTracker(
            plan.batch, run.data.num_frames, run.data.num_episodes, meters, accelerator=run.accelerator
        )

    def run(self) -> BaselineResult:
        """Take every step."""
        plan, run = self._plan, self._run
        metrics, losses, begun = Metrics(plan.output, 0), list[float](), time.perf_counter()
        self._tell(0, math.nan)
        try:
            for step in range(1, plan.steps + 1):
                losses.append(self._step())
                rate = step * plan.batch / (time.perf_counter() - begun)
                metrics.write({"step": step, "loss": losses[-1], "lr": self._tracker.lr.val, "samples_per_s": rate})
                if should_save_checkpoint(step, plan.save_every, plan.steps):
                    saved = self._save(step)
                self._tell(step, losses[-1])
        finally:
            metrics.close()
        tail = losses[-max(1, len(losses) // 20) :]
        return BaselineResult(
            saved,
            plan.steps,
            run.data.num_frames,
            run.data.num_episodes,
            sum(p.numel() for p in run.policy.parameters()),
            round(time.perf_counter() - begun, 3),
            losses[0],
            sum(tail) / len(tail),
            run.data.meta.table.left_out,
        )

    def _step(self) -> float:
        run = self._run
        batch = next(run.batches)
        for camera in run.data.meta.camera_keys:
            batch[camera] = batch[camera].to(torch.float32) / 255.0
        batch = run.preprocessor(batch)
        clip = run.config.optimizer.grad_clip_norm
        update_policy(self._tracker, run.policy, batch, run.optimizer, clip, run.accelerator, run.schedule)
        return float(self._tracker.loss.val)

    def _save(self, step: int) -> Path:
        run = self._run
        folder: Path = get_step_checkpoint_dir(self._plan.output, self._plan.steps, step)
        policy = run.accelerator.unwrap_model(run.policy)
        parts = (run.optimizer, run.schedule, run.preprocessor, run.postprocessor)
        save_checkpoint(folder, step, run.config, policy, *parts, num_processes=1, batch_size=self._plan.batch)
        write_facts(folder / PRETRAINED_MODEL_DIR, BaselineFacts.of(self._view, self._plan.seed, step))
        update_last_checkpoint(folder)
        return folder / str(PRETRAINED_MODEL_DIR)

    def _tell(self, step: int, loss: float) -> None:
        if self._progress is not None:
            self._progress("training", step, self._plan.steps, loss)
