"""The demo's report as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.cli import page, plots
from lehrling.datasets.dataset import Dataset
from lehrling.training.metrics import read_metrics

if TYPE_CHECKING:
    from lehrling.datasets.episode import Episode
    from lehrling.training.evaluate import EvaluationReport

LEAD = (
    "A scripted expert demonstrated the task in simulation; the demonstrations went through ROS 2 messages and a journal "
    "into a Zarr dataset; a LoRA adapter and an action head were trained on them; the policy then acted on layouts that "
    "it had never seen, from images, joint positions and the instruction alone."
)


def _strip(episode: Episode, count: int = 6) -> bytes:
    rows = []
    for camera in ("front", "wrist"):
        stream = episode.stream(camera)
        picks = np.linspace(0, len(stream) - 1, count).astype(int)
        rows.append([stream.frame(int(i)) for i in picks])
    return plots.film_strip(rows)


def _joints(episode: Episode) -> bytes:
    joints = episode.stream("joint_position")
    seconds = (joints.stamp_ns - joints.stamp_ns[0]) / 1e9
    return plots.joint_plot(seconds, joints.value, joints.stream.names)


def _rate_card(name: str, rate: dict[str, Any]) -> tuple[str, str]:
    low, high = rate["interval"]
    return f"{name}: successes, 95 % interval {low:.0%} to {high:.0%}", f"{rate['rate']:.0%}"


def _cards(facts: dict[str, Any]) -> str:
    training, evaluation = facts["training"], facts["evaluation"]
    trained = training["trainable_parameters"]
    return page.cards(
        [
            _rate_card("tuned policy", evaluation["tuned"]),
            _rate_card("before training", evaluation["untrained"]),
            _rate_card("scripted expert", evaluation["expert"]),
            ("demonstrations", f"{facts['episodes']}"),
            ("camera frames", f"{facts['frames']}"),
            ("dataset", f"{facts['dataset_bytes'] / 1e6:.1f} MB"),
            ("parameters trained", f"{trained / 1e3:.0f} k of {training['total_parameters'] / 1e6:.2f} M"),
            ("training", f"{training['steps']} steps, {training['seconds']:.0f} s"),
        ]
    )  # fmt: skip


def _seeds(report: EvaluationReport) -> str:
    by_seed: dict[int, dict[str, Any]] = {}
    for row in report.rollouts:
        by_seed.setdefault(row.seed, {})[row.actor] = row
    rows: list[list[str | bool]] = []
    for seed, actors in by_seed.items():
        tuned = actors["tuned"]
        cells: list[str | bool] = [str(seed), tuned.instruction, tuned.success, f"{tuned.seconds:.1f} s"]
        rows.append([*cells, *(actors[a].success for a in report.plan.actors if a != "tuned")])
    rows.sort(key=lambda row: (row[2], row[0]))
    others = [a for a in report.plan.actors if a != "tuned"]
    return page.table(["seed", "instruction", "tuned", "time", *others], rows, scroll=True)


def write_html(out: Path, report: EvaluationReport, films: list[Path], facts: dict[str, Any]) -> Path:
    """Write `report.html` into `out`."""
    episode = Dataset.open(out / "demo.zarr").episodes()[0]
    metrics = read_metrics(out / "train" / "metrics.jsonl")
    curve = plots.loss_curve([int(row["step"]) for row in metrics], [row["loss"] for row in metrics])
    rates = {str(actor): report.rate(actor) for actor in report.plan.actors}
    shown = "".join(page.figure(p.read_bytes(), p.stem.replace("-", ", seed "), kind="image/gif") for p in films)
    times = page.table(["part", "seconds"], [[name, f"{value:.1f}"] for name, value in facts["seconds"].items()])
    caption = f"{report.plan.task}, {len(report.plan.seeds)} seeds"
    sections = [
        ("In short", _cards(facts)),
        ("Success rates", page.figure(plots.success_bars(rates), caption, plot=True)),
        ("Rollouts of the tuned policy, failures first", f'<div class="grid">{shown}</div>'),
        ("A demonstration", page.figure(_strip(episode), f"{episode.record.instruction}: front and wrist camera")),
        ("Joints of that demonstration", page.figure(_joints(episode), "as recorded at 100 Hz", plot=True)),
        ("Training", page.figure(curve, f"base {facts['base']['source']}", plot=True)),
        ("Every seed", _seeds(report)),
        ("Where the time went", times),
    ]  # fmt: skip
    path = out / "report.html"
    title = f"Lehrling demo: {report.plan.task} with {report.plan.robot}"
    path.write_text(page.page(title, LEAD, sections), encoding="utf-8")
    return path
