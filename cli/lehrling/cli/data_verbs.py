"""Verbs about datasets: inspect, verify, repair, view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.output import FAILED, LOSS, Json, print_json, progress, say, show

if TYPE_CHECKING:
    from lehrling.datasets.dataset import Dataset

DatasetPath = Annotated[Path, typer.Argument(help="Dataset directory.")]


def inspect(
    dataset: DatasetPath,
    episode: Annotated[str | None, typer.Argument(help="Episode id; without one, the whole dataset.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw timing (.png, .html) or quality (.html) into this file.")
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Judge by the quality gates; exit 1 where an episode is refused.")
    ] = False,
    limits: Annotated[Path | None, typer.Option("--limits", help="Limits of the quality gates (YAML).")] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Calibrate latencies of streams, states and cameras from all episodes.")
    ] = False,
    campaign: Annotated[
        Path | None, typer.Option("--campaign", help="Show how far this campaign (YAML) has come instead.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="Only episodes that pass: \"outcome == 'failure'\".")
    ] = None,
    json_: Json = False,
) -> None:
    """Look at a dataset or one episode: what came, how late, by whose clock, what is missing."""
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.inspect import summarise, summarise_episode
    from lehrling.datasets.where import parse_where

    if campaign is not None:
        from lehrling.cli.campaign_view import show_campaign

        show_campaign(dataset, campaign, json_)
        return
    if quality:
        from lehrling.cli.quality_view import show_quality

        raise typer.Exit(0 if show_quality(dataset, episode, limits, plot, json_) else FAILED)
    if latency:
        from lehrling.cli.quality_view import show_latency

        show_latency(dataset, json_)
        return
    opened = Dataset.open(dataset)
    if plot is not None:
        _plot(opened, episode, plot)
    condition = parse_where(where) if where is not None else None
    facts = summarise(opened, condition).to_json() if episode is None else summarise_episode(opened, episode)
    if json_:
        print_json(facts)
        return
    from lehrling.cli.episode_tables import episode_report
    from lehrling.cli.tables import dataset_table

    show(dataset_table(facts) if episode is None else episode_report(facts))


def _plot(dataset: Dataset, episode: str | None, path: Path) -> None:
    from lehrling.cli.timing_plot import write_plot
    from lehrling.datasets.errors import InputError

    if episode is None:
        raise InputError("Expected an episode to draw with --plot, got none; name one after the dataset.")
    write_plot(dataset.episode(episode), path)
    say(f"timing drawn into {path}")


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
        aside = [f"{name}: {reason}" for name, reason in facts["quarantined"].items()]
        for line in [*facts["mended"], *facts["losses"], *aside]:
            say(f"  {line}")
    raise typer.Exit(LOSS if first.lossy or report.lossy else 0)


def view(
    dataset: DatasetPath,
    name: Annotated[str, typer.Option("--name", help="The view's name.")] = "train",
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=1000, help="Rows per second.")] = 10.0,
    size: Annotated[
        int, typer.Option("--size", min=0, max=4096, help="Images, pixels; 0 keeps them as recorded.")
    ] = 96,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="View specification (YAML) instead of the task robots' default.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", help="Episodes as this snapshot holds them, whatever was edited since.")
    ] = None,
    where: Annotated[str | None, typer.Option("--where", help="Only episodes that pass this filter.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes on this machine.")] = 1,
    ray: Annotated[
        str | None, typer.Option("--ray", help="Ray cluster that does the work: ray://head:10001, auto, or local.")
    ] = None,
    json_: Json = False,
) -> None:
    """Build, or bring up to date, what training reads; what was done before an interruption is kept."""
    from lehrling.cli.views import make_view

    with progress("view") as update:
        built = make_view(dataset, name, rate, size, spec, update, {"snapshot": snapshot, "where": where}, workers, ray)
    facts: dict[str, object] = {
        "view": name, "rows": len(built.state), "episodes": len(built.episodes), "key": built.key,
    }  # fmt: skip
    if snapshot is not None:
        facts["snapshot"] = {"name": snapshot, "hash": built.spec.episodes.snapshot_hash}
    if json_:
        print_json(facts)
    else:
        say(f"view {name}: {facts['rows']} rows of {facts['episodes']} episodes, key {built.key[:12]}")


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    for verb in (inspect, verify, repair, view):
        app.command(verb.__name__)(verb)
