"""`lehrling train-baseline`: LeRobot's policies on our views, to compare ours with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehrling.cli.output import print_json, progress, say, with_loss


def train_baseline(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory.")],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder of the run; must be empty or absent.")],
    view: Annotated[str, typer.Option("--view", help="Name of the view.")] = "train",
    policy: Annotated[str, typer.Option("--policy", help="LeRobot's name of the policy.")] = "act",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = 100_000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples of a step.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of weights, order and noise.")] = 1000,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the policy, such as chunk_size=20.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Such as cuda or cpu; else the first GPU if there is one.")
    ] = None,
    save_every: Annotated[
        int, typer.Option("--save-every", min=1, help="Steps between checkpoints; the last step has one.")
    ] = 20_000,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that read ahead.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Train a LeRobot policy on a view, without an export; `lehrling eval OUT` evaluates it."""
    from lehrling.training.baseline import train_baseline as run
    from lehrling.training.baseline_plan import BaselinePlan
    from lehrling.training.config import with_overrides

    settings = with_overrides({}, set_ or [])
    plan = BaselinePlan(dataset, view, out, policy, steps, batch, seed, settings, device, save_every, workers)
    with progress("loading") as update:
        result = run(plan, with_loss(update))
    for name, reason in result.left_out.items():
        say(f"{name}: left out, {reason}")
    if json_:
        print_json(result.to_json())
    else:
        say(
            f"{result.steps} steps in {result.seconds:.1f} s on {result.frames} frames of {result.episodes} episodes, loss "
            f"{result.first_loss:.4f} to {result.last_loss:.4f}, {result.parameters} parameters; policy in {result.policy}"
        )


def register(app: typer.Typer) -> None:
    """Add this verb."""
    app.command("train-baseline")(train_baseline)
