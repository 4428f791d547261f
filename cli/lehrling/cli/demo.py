"""The main job once: demonstrations, dataset, view, LoRA, evaluation, report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lehrling.cli.output import progress, with_loss
from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from lehrling.training.config import TrainConfig
    from lehrling.training.evaluate import EvaluationReport
    from lehrling.training.trainer import TrainResult

TASK, ROBOT = "kitting", "arm6"
RATE_HZ, IMAGE_PX = 10.0, 96
FIRST_DEMONSTRATION = 0
OWN = ("demo.zarr", "train", "evaluation", "report.html", "report.json")
MARK = ".lehrling-demo"
"""Says that a demo made what is beside it, so that the next one may delete it."""


@dataclass
class DemoPlan:
    """How much of everything; `seconds` collects what each part took."""

    out: Path
    episodes: int
    steps: int
    seeds: int
    workers: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time one part."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 2)

    @property
    def dataset(self) -> Path:
        """Where the demonstrations go."""
        return self.out / "demo.zarr"


def demo_config(plan: DemoPlan) -> TrainConfig:
    """Return the demo's training configuration."""
    from lehrling.training.config import parse_config

    return parse_config(
        {
            "dataset": str(plan.dataset),
            "view": "train",
            "output": str(plan.out / "train"),
            "base": {"path": "builtin:base"},
            "lora": {"rank": 16, "alpha": 32, "rate": 1.5e-3},
            "head": {"rate": 1e-3},
            "steps": plan.steps,
            "batch": 64,
            "state_noise": 0.02,
            "checkpoint_every": max(1, plan.steps // 4),
            "threads": 2,
        }
    )


def _demonstrate(plan: DemoPlan) -> None:
    from lehrling.sim.generate import generate

    seeds = range(FIRST_DEMONSTRATION, FIRST_DEMONSTRATION + plan.episodes)
    with plan.timed("demonstrations"), progress("demonstrations") as update:
        generate(plan.dataset, TASK, ROBOT, seeds, workers=plan.workers, image_px=IMAGE_PX, progress=update)


def _train(plan: DemoPlan) -> TrainResult:
    from lehrling.cli.views import make_view
    from lehrling.training.trainer import train

    with plan.timed("view"), progress("view") as update:
        make_view(plan.dataset, "train", RATE_HZ, IMAGE_PX, None, update)
    with plan.timed("training"), progress("features") as update:
        return train(demo_config(plan), progress=with_loss(update))


def _evaluate(plan: DemoPlan, result: TrainResult) -> tuple[EvaluationReport, list[Path]]:
    from lehrling.training.evaluate import FIRST_EVALUATION_SEED, EvaluationPlan, evaluate, film, write_report

    seeds = tuple(range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + plan.seeds))
    wanted = EvaluationPlan(result.policy, result.initial, TASK, ROBOT, seeds, workers=plan.workers)
    with plan.timed("evaluation"), progress("rollouts") as update:
        report = evaluate(wanted, progress=update)
    folder = plan.out / "evaluation"
    write_report(report, folder)
    with plan.timed("films"):
        films = film(report, folder / "films")
    return report, films


def _facts(plan: DemoPlan, result: TrainResult, report: EvaluationReport) -> dict[str, Any]:
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.inspect import summarise
    from lehrling.training.artefact import read_description

    summary = summarise(Dataset.open(plan.dataset))
    training = result.to_json()
    evaluation = report.to_json()
    rollouts = evaluation.pop("rollouts")
    return {
        "episodes": summary.episodes,
        "frames": summary.frames,
        "dataset_bytes": summary.bytes,
        "base": read_description(result.policy).base,
        "training": {
            key: training[key]
            for key in (
                "steps", "seconds", "first_loss", "last_loss", "trainable_parameters", "total_parameters", "samples_per_s",
            )
        },
        "evaluation": evaluation,
        "rollouts": rollouts,
        "seconds": plan.seconds,
    }  # fmt: skip


def _clear(out: Path) -> None:
    """Make the directory and remove an earlier demo from it; never what no demo wrote."""
    present = [out / name for name in OWN if (out / name).exists()]
    if present and not (out / MARK).is_file():
        raise InputError(
            f"Expected a new directory or an earlier demo's for --out, but {present[0]} was not made by a demo; "
            "choose another --out, or move it away."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    for path in present:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_demo(plan: DemoPlan) -> dict[str, Any]:
    """Run every part and write `report.html` and `report.json`; return the latter.

    An earlier demo in the same directory is replaced; nothing else there is touched.

    Raises:
        InputError: the directory holds something of the same name that no demo made.
    """
    from lehrling.cli.demo_report import write_html

    _clear(plan.out)
    _demonstrate(plan)
    result = _train(plan)
    report, films = _evaluate(plan, result)
    facts = _facts(plan, result, report)
    (plan.out / "report.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    write_html(plan.out, report, films, facts)
    return facts
