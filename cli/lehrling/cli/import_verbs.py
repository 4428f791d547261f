"""`lehrling import`: recordings made by other tools, into a dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.output import LOSS, Json, print_json, progress, say

if TYPE_CHECKING:
    from lehrling.collection.bag_report import ImportedEpisode, ImportReport

import_ = typer.Typer(help="Import recordings that other tools made.", no_args_is_help=True)


class _Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@import_.callback()
def _import() -> None:
    """Import recordings that other tools made."""


@import_.command("bag")
def bag(
    source: Annotated[Path, typer.Argument(help="rosbag2 directory, .mcap or .db3 file, compressed or not.")],
    dataset: Annotated[Path, typer.Argument(help="Dataset directory; created if absent.")],
    embodiment: Annotated[str, typer.Option("--embodiment", help="Shipped embodiment or YAML file: the mapping.")],
    instruction: Annotated[str, typer.Option("--instruction", help="What the robot was told to do.")] = "",
    instruction_topic: Annotated[
        str, typer.Option("--instruction-topic", help="Topic (std_msgs/msg/String) to take it from.")
    ] = "",
    task: Annotated[str, typer.Option("--task", help="Name of the task.")] = "imported",
    outcome: Annotated[_Outcome, typer.Option("--outcome", help="How it went.")] = _Outcome.UNKNOWN,
    split_gap: Annotated[
        float | None, typer.Option("--split-gap", min=0.001, help="A pause of this many seconds ends an episode.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Take a bag that lacks topics of observations or actions.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out messages that do not fit; else the first ends the episode.")
    ] = False,
    json_: Json = False,
) -> None:
    """Import a rosbag2 or MCAP recording; a bag that is there already is kept.

    Exit code 3 says that something of it could not be taken; the report says what.
    """
    from lehrling.collection.bag_import import ImportOptions, import_bag
    from lehrling.datasets.embodiment import load_embodiment

    options = ImportOptions(
        instruction,
        instruction_topic,
        task,
        outcome.value,
        allow_missing=allow_missing,
        skip_bad=skip_bad,
        split_gap_s=split_gap,
    )
    with progress("importing") as update:
        report = import_bag(source, dataset, load_embodiment(embodiment), options, update)
    if json_:
        print_json({"dataset": str(dataset), **report.to_json()})
    else:
        _tell(report, dataset)
    raise typer.Exit(LOSS if report.lossy else 0)


def _tell(report: ImportReport, dataset: Path) -> None:
    for episode in report.episodes:
        say(_line(episode))
        for loss in episode.losses if episode.new else ():
            say(f"  {loss}")
    for topic, streams in report.missing.items():
        say(f"  no messages on {topic}: {', '.join(streams)} stay empty")
    if report.extra:
        found = ", ".join(f"{topic} ({extra.type}, {extra.messages})" for topic, extra in report.extra.items())
        say(f"  topics that the embodiment does not bind, left out: {found}")
    made = sum(episode.new for episode in report.episodes)
    say(f"{made} new episodes, {len(report.episodes) - made} kept, in {dataset}")


def _line(episode: ImportedEpisode) -> str:
    if not episode.new:
        return f"{episode.id}: imported before, {episode.status}; kept as it is"
    if episode.status != "sealed":
        return f"{episode.id}: {episode.status}: {episode.reason}"
    rows = ", ".join(f"{name} {taken.rows}" for name, taken in episode.streams.items())
    return f"{episode.id}: {episode.duration_s:.2f} s, {episode.outcome}, {episode.stop_cause}: {rows}"


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.add_typer(import_, name="import")
