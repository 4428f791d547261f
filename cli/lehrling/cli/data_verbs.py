"""Verbs about datasets: inspect, verify, repair, edit purge, view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehrling.cli.output import FAILED, LOSS, print_json, progress, say, show

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
DatasetPath = Annotated[Path, typer.Argument(help="Dataset directory.")]
edit = typer.Typer(help="Change what is valid.", no_args_is_help=True)


def inspect(
    dataset: DatasetPath,
    episode: Annotated[str | None, typer.Argument(help="Episode id; without one, the whole dataset.")] = None,
    json_: Json = False,
) -> None:
    """Look at a dataset or one episode."""
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.inspect import summarise, summarise_episode

    opened = Dataset.open(dataset)
    facts = summarise(opened).to_json() if episode is None else summarise_episode(opened, episode)
    if json_:
        print_json(facts)
        return
    from lehrling.cli.tables import dataset_table, episode_table

    show(dataset_table(facts) if episode is None else episode_table(facts))


def verify(dataset: DatasetPath, json_: Json = False) -> None:
    """Check every file of every sealed episode; exit 1 where one is damaged."""
    from lehrling.datasets.dataset import Dataset

    with progress("verifying") as update:
        report = Dataset.open(dataset).verify(update)
    if json_:
        print_json(report.to_json())
    else:
        for name, problems in report.problems.items():
            say(f"{name}: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
        state = "whole" if report.whole else f"{len(report.problems)} damaged"
        say(f"{report.episodes} episodes, {report.files} files, {report.bytes / 1e6:.1f} MB: {state}")
    raise typer.Exit(0 if report.whole else FAILED)


def repair(dataset: DatasetPath, json_: Json = False) -> None:
    """Finish what was interrupted and set aside what is damaged; exit 3 where something is lost."""
    from lehrling.datasets.dataset import Dataset

    with Dataset.open_for_writing(dataset) as opened:
        first = opened.repaired
        report = opened.repair(deep=True)
    facts = first.merged(report).to_json()
    if json_:
        print_json(facts)
    else:
        say(
            f"sealed {len(facts['sealed'])}, discarded {len(facts['discarded'])} interrupted simulations, "
            f"quarantined {len(facts['quarantined'])}"
        )
        for line in [*facts["mended"], *facts["losses"], *map(str, facts["quarantined"].values())]:
            say(f"  {line}")
    raise typer.Exit(LOSS if first.lossy or report.lossy else 0)


@edit.callback()
def _edit() -> None:
    """Change what is valid."""


@edit.command("purge")
def purge(
    dataset: DatasetPath,
    episode: Annotated[str, typer.Argument(help="Episode id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; this cannot be undone.")] = False,
    json_: Json = False,
) -> None:
    """Delete an episode's files for good; the manifest keeps a tombstone."""
    from lehrling.datasets.dataset import Dataset

    if not yes:
        typer.confirm(f"Delete {episode} from {dataset} for good?", abort=True, err=True)
    with Dataset.open_for_writing(dataset) as opened:
        opened.purge(episode)
    if json_:
        print_json({"purged": episode})
    else:
        say(f"{episode} is deleted; views that held it are gone, build them again")


def view(
    dataset: DatasetPath,
    name: Annotated[str, typer.Option("--name", help="The view's name.")] = "train",
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=1000, help="Rows per second.")] = 10.0,
    size: Annotated[int, typer.Option("--size", min=8, max=4096, help="Images, pixels.")] = 96,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="View specification (YAML) instead of the task robots' default.")
    ] = None,
    json_: Json = False,
) -> None:
    """Build, or bring up to date, what training reads."""
    from lehrling.cli.views import make_view

    with progress("view") as update:
        built = make_view(dataset, name, rate, size, spec, update)
    facts = {"view": name, "rows": len(built.state), "episodes": len(built.episodes), "key": built.key}
    if json_:
        print_json(facts)
    else:
        say(f"view {name}: {facts['rows']} rows of {facts['episodes']} episodes, key {built.key[:12]}")


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    for verb in (inspect, verify, repair, view):
        app.command(verb.__name__)(verb)
    app.add_typer(edit, name="edit")
