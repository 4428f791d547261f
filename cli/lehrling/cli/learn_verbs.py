"""Verbs about policies: train, eval, models, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.output import FAILED, Json, check_writable, print_json, progress, say, show, with_loss

if TYPE_CHECKING:
    from lehrling.training.evaluate import EvaluationReport

models = typer.Typer(help="Backbones: families and provenance.", no_args_is_help=True)


def train(
    config: Annotated[Path, typer.Argument(help="Training configuration (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override, such as lora.rank=8.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    json_: Json = False,
) -> None:
    """Fine-tune a backbone with LoRA on a view."""
    from lehrling.training.config import load_config

    resolved = load_config(config, set_)
    if dry_run:
        print_json(resolved.model_dump(mode="json"))
        return
    from lehrling.training.trainer import train as run

    with progress("loading") as update:
        result = run(resolved, resume=resume, progress=with_loss(update))
    if json_:
        print_json(result.to_json())
    else:
        begun = "as the base brings them along" if result.warm_start else "from their beginning"
        say(
            f"{result.steps} steps in {result.seconds:.1f} s, loss {result.first_loss:.4f} to {result.last_loss:.4f}, "
            f"{result.trainable_parameters} of {result.total_parameters} parameters trained, slots and head {begun}; "
            f"policy in {result.policy}"
        )


def eval_(
    policy: Annotated[Path, typer.Argument(help="Policy directory.")],
    task: Annotated[str, typer.Option("--task", help="Task, see `lehrling sim tasks`.")],
    robot: Annotated[str, typer.Option("--robot", help="Robot.")] = "arm6",
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Number of seeds.")] = 40,
    seed: Annotated[int, typer.Option("--seed", min=0, help="First seed; never one of the demonstrations.")] = 500_000,
    execute: Annotated[int, typer.Option("--execute", min=1, help="Steps of each chunk to execute.")] = 4,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Policy before training; default: `initial` beside the policy.")
    ] = None,
    min_success: Annotated[
        float | None, typer.Option("--min-success", min=0, max=1, help="Exit 1 below this success rate.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", dir_okay=False, help="Write a JUnit XML report.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Write evaluation.json and films, failures first.")
    ] = None,
    json_: Json = False,
) -> None:
    """Let a policy act in simulation, against the policy before training and the scripted expert."""
    from lehrling.training.evaluate import EvaluationPlan, evaluate, film, write_report
    from lehrling.training.junit import write_junit

    beside = policy.parent / "initial"
    before = baseline or (beside if (beside / "policy.json").is_file() else None)
    seeds = tuple(range(seed, seed + episodes))
    plan = EvaluationPlan(policy, before, task, robot, seeds, execute, workers)
    written = [] if out is None else [out / "evaluation.json", out / "films" / "success-0.gif"]
    check_writable(*written, *([] if junit is None else [junit]))
    with progress("rollouts") as update:
        report = evaluate(plan, progress=update)
    try:
        if junit is not None:
            write_junit(report, junit)
        if out is not None:
            write_report(report, out)
            film(report, out / "films")
    finally:
        _show_evaluation(report, json_)
    reached = report.rate("tuned").rate
    if min_success is not None and reached < min_success:
        say(f"lehrling: expected a success rate of at least {min_success:.2f}, got {reached:.2f}.")
        raise typer.Exit(FAILED)


def _show_evaluation(report: EvaluationReport, json_: bool) -> None:
    if json_:
        print_json(report.to_json())
        return
    from lehrling.cli.tables import rates_table

    show(rates_table(report.to_json(), report.plan.actors))


@models.command("list")
def models_list(json_: Json = False) -> None:
    """List the families that can be a backbone."""
    from lehrling.training.families import FAMILIES

    if json_:
        print_json({f.model_type: {"maker": f.maker, "pixels": f.pixels} for f in FAMILIES.values()})
        return
    from rich.table import Table

    table = Table("model_type", "maker")
    for family in FAMILIES.values():
        table.add_row(family.model_type, family.maker)
    show(table)


@models.command("check")
def models_check(
    source: Annotated[str, typer.Argument(help="Directory, builtin:base, or hub id.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Commit of a hub id, 40 hex digits.")] = None,
    json_: Json = False,
) -> None:
    """Check a backbone by the rules that training enforces, and print its hashes."""
    from lehrling.training.models import check

    base = check(source, revision)
    facts = {"source": source, "model_type": base.model_type, "weights_sha256": base.weights_hash, "files": base.hashes}
    if json_:
        print_json(facts)
    else:
        say(f"{source}: {base.model_type}, weights {base.weights_hash}")


def demo(
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Directory for everything the demo makes.")
    ] = Path("runs/demo"),
    episodes: Annotated[int, typer.Option("--episodes", min=4, help="Demonstrations.")] = 120,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = 280,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Evaluation seeds.")] = 40,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 2,
    json_: Json = False,
) -> None:
    """Demonstrations, dataset, view, LoRA, evaluation, report: the main job once, from end to end."""
    from lehrling.cli.demo import DemoPlan, run_demo

    report = run_demo(DemoPlan(out, episodes, steps, seeds, workers))
    if json_:
        print_json(report)
        return
    from lehrling.cli.tables import rates_table
    from lehrling.training.rollout import ACTORS

    evaluation = report["evaluation"]
    show(rates_table(evaluation, tuple(actor for actor in ACTORS if actor in evaluation)))
    say(f"Look at {out / 'report.html'} and {out / 'report.json'}.")


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("train")(train)
    app.command("eval")(eval_)
    app.command("demo")(demo)
    app.add_typer(models, name="models")
