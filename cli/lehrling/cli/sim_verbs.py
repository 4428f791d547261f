"""`lehrling sim`: list tasks, generate demonstrations, serve a robot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehrling.cli import sim_serve_verbs
from lehrling.cli.output import LOSS, Json, print_json, progress, say, show

sim = typer.Typer(help="Simulate: tasks and demonstrations.", no_args_is_help=True)


@sim.command("tasks")
def tasks(json_: Json = False) -> None:
    """List the tasks and the robots that can do them."""
    from lehrling.sim.catalogue import ALL_ROBOTS, OFFERS

    if json_:
        summaries = {name: offer.summary for name, offer in sorted(OFFERS.items())}
        can = {name: list(offer.robots) for name, offer in sorted(OFFERS.items())}
        print_json({"tasks": summaries, "robots": list(ALL_ROBOTS), "robots_of_task": can})
        return
    from rich.table import Table

    table = Table("task", "what is to be done", "time limit", "robots")
    for name, offer in sorted(OFFERS.items()):
        table.add_row(name, offer.summary, f"{offer.time_limit_s:g} s", ", ".join(offer.robots))
    show(table)


@sim.command("generate")
def generate_(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory; created if absent.")],
    task: Annotated[str, typer.Option("--task", help="Task, see `lehrling sim tasks`.")],
    robot: Annotated[str, typer.Option("--robot", help="Robot.")] = "arm6",
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Number of episodes.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="First seed; one episode per seed from here.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    size: Annotated[int, typer.Option("--size", min=16, max=1024, help="Camera images, pixels.")] = 96,
    json_: Json = False,
) -> None:
    """Let the scripted expert demonstrate; seeds that are there already are kept.

    Exit code 3 says that some were quarantined, deleted or purged; they are not made again.
    """
    from lehrling.sim.generate import generate

    with progress("demonstrations") as update:
        seeds = range(seed, seed + episodes)
        report = generate(dataset, task, robot, seeds, workers=workers, image_px=size, progress=update)
    if json_:
        facts = {"made": list(report.made), "kept": list(report.kept), "gone": dict(report.gone)}
        print_json({"dataset": str(dataset), **facts, "successes": report.successes})
    else:
        say(f"{len(report.made)} new episodes ({report.successes} successful), {len(report.kept)} kept, in {dataset}")
    if report.gone:
        for name, status in report.gone.items():
            say(f"  {name} is {status}")
        say(
            f"{len(report.gone)} are gone and not made again; take further seeds with --seed instead, "
            "or bring deleted ones back with `lehrling edit restore`."
        )
        raise typer.Exit(LOSS)


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    sim_serve_verbs.register(sim)
    app.add_typer(sim, name="sim")
