"""`lehrling export lerobot`, `import lerobot`, `import hdf5` and `import replay`: datasets of other tools, without these tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.import_verbs import import_
from lehrling.cli.output import LOSS, Json, print_json, progress, say

if TYPE_CHECKING:
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.frame_import import FrameOptions, FrameReport
    from lehrling.datasets.lerobot_export import ExportOptions, ExportReport
    from lehrling.datasets.lerobot_import import LerobotReport
    from lehrling.datasets.view_spec import EpisodeFilter

export = typer.Typer(help="Write datasets in other tools' formats.", no_args_is_help=True)
OWN_SIZE_PX = 0


class _Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


Imported = Annotated[Path, typer.Argument(help="Dataset directory; created if absent.")]
Checked = Annotated[
    str, typer.Option("--embodiment", help="YAML file to check the source against; else derived from it.")
]
Told = Annotated[str, typer.Option("--instruction", help="What the robot was told to do.")]
Task = Annotated[str, typer.Option("--task", help="Name of the task.")]
Went = Annotated[_Outcome, typer.Option("--outcome", help="How it went.")]
Bgr = Annotated[bool, typer.Option("--bgr", help="Images are blue, green, red.")]


@export.callback()
def _export() -> None:
    """Write datasets in other tools' formats."""


@export.command("lerobot")
def export_lerobot(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; must not be there.")],
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=1, max=1000, help="Frames per second; episodes from LeRobot keep theirs without."),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="View specification (YAML): columns, alignment and rate.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Embed pictures instead of encoding videos; JPEGs keep their bytes.")
    ] = False,
    size: Annotated[
        int | None, typer.Option("--size", min=8, max=4096, help="Square images of so many pixels; else as recorded.")
    ] = None,
    failures: Annotated[bool, typer.Option("--failures", help="Take episodes that failed, too.")] = False,
    where: Annotated[str | None, typer.Option("--where", help="Only episodes that pass this filter.")] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", help="Episodes as this snapshot holds them, whatever was edited since.")
    ] = None,
    json_: Json = False,
) -> None:
    """Export to a LeRobot v3.0 dataset: videos or pictures, tables, exact statistics, stamps and ages.

    Exit code 3 says that an episode gave no frame; the report says why.
    """
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.lerobot_export import export_lerobot as run

    opened = Dataset.open(dataset)
    keep = _filter(where, snapshot, failures=failures)
    options = _options(opened, rate, spec, size, keep, images=images)
    with progress("exporting") as update:
        report = run(opened, out, options, update)
    if json_:
        print_json(report.to_json())
    else:
        _tell(report)
    raise typer.Exit(LOSS if report.skipped else 0)


def _options(
    dataset: Dataset, rate: float | None, spec: Path | None, size: int | None, keep: EpisodeFilter, *, images: bool
) -> ExportOptions:
    from lehrling.cli.views import default_spec, load_spec
    from lehrling.datasets.errors import InputError
    from lehrling.datasets.lerobot_export import ExportOptions
    from lehrling.datasets.view_select import chosen

    if rate is not None and spec is not None:
        raise InputError("Expected --rate or --spec, which has a rate of its own, got both.")
    if spec is not None and size is not None:
        raise InputError("Expected the size in the specification (image_px), got --size beside --spec.")
    if spec is not None:
        loaded = load_spec(spec)
        asked = keep.model_dump(exclude_defaults=True)
        return ExportOptions(loaded.model_copy(update={"episodes": loaded.episodes.model_copy(update=asked)}), images)
    if rate is None:
        if size is not None:
            raise InputError("Expected a --rate beside --size; episodes that go back as they came keep their size.")
        return ExportOptions(None, images, keep)
    _, contract = chosen(dataset, keep)
    found = default_spec(contract, rate, size or OWN_SIZE_PX).model_copy(update={"episodes": keep})
    return ExportOptions(found, images)


def _filter(where: str | None, snapshot: str | None, *, failures: bool) -> EpisodeFilter:
    from lehrling.datasets.view_spec import EpisodeFilter
    from lehrling.datasets.where import parse_where

    if where is not None:
        parse_where(where)
    kept = EpisodeFilter(where=where, snapshot=snapshot)
    return kept.model_copy(update={"outcomes": ("success", "failure", "unknown")}) if failures else kept


@import_.command("lerobot")
def import_lerobot(
    source: Annotated[Path, typer.Argument(help="Folder of a LeRobot dataset, format v3.0 or v2.1.")],
    dataset: Imported,
    embodiment: Checked = "",
    write_embodiment: Annotated[
        Path | None,
        typer.Option("--write-embodiment", dir_okay=False, help="Write the derived embodiment here, import nothing."),
    ] = None,
    instruction: Annotated[str, typer.Option("--instruction", help="Instead of the dataset's tasks.")] = "",
    task: Task = "imported",
    outcome: Annotated[
        _Outcome | None, typer.Option("--outcome", help="How it went; else as our own export says, or unknown.")
    ] = None,
    json_: Json = False,
) -> None:
    """Import a LeRobot dataset; episodes that are there already are kept.

    Exit code 3 says that an episode or a feature could not be taken; the report says why.
    """
    from lehrling.datasets.embodiment import load_embodiment
    from lehrling.datasets.lerobot_import import LerobotOptions
    from lehrling.datasets.lerobot_import import import_lerobot as run

    if write_embodiment is not None:
        _write_embodiment(source, write_embodiment)
        return
    robot = load_embodiment(embodiment) if embodiment else None
    options = LerobotOptions(robot, instruction, task, None if outcome is None else outcome.value)
    with progress("importing") as update:
        report = run(source, dataset, options, update)
    if json_:
        print_json({"dataset": str(dataset), **report.to_json()})
    else:
        _tell_import(report, dataset)
    raise typer.Exit(LOSS if report.lossy else 0)


def _write_embodiment(source: Path, path: Path) -> None:
    import yaml

    from lehrling.datasets.errors import InputError
    from lehrling.datasets.lerobot_import import lerobot_embodiment

    if path.exists():
        raise InputError(f"{path} is there already; name another file.")
    facts = lerobot_embodiment(source).model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True), encoding="utf-8")
    say(f"{path}: add units, frames and joints, then import with --embodiment {path}")


@import_.command("hdf5")
def import_hdf5(
    source: Annotated[Path, typer.Argument(help="robomimic's file, or a file or folder of ALOHA's.")],
    dataset: Imported,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, max=1000, help="Frames per second; else as the file says.")
    ] = None,
    embodiment: Checked = "",
    instruction: Told = "",
    task: Task = "imported",
    outcome: Went = _Outcome.UNKNOWN,
    bgr: Bgr = False,
    json_: Json = False,
) -> None:
    """Import HDF5 demonstrations of robomimic's or ALOHA's; episodes that are there already are kept.

    Exit code 3 says that an episode or an array could not be taken; the report says why.
    """
    from lehrling.datasets.hdf5_import import import_hdf5 as run

    options = _frame_options(rate, instruction, task, outcome, embodiment, bgr=bgr)
    with progress("importing") as update:
        report = run(source, dataset, options, update)
    _end_frames(report, dataset, json_=json_)


@import_.command("replay")
def import_replay(
    source: Annotated[Path, typer.Argument(help="Zarr folder or .zarr.zip of diffusion_policy's or UMI's.")],
    dataset: Imported,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, max=1000, help="Frames per second; must be said.")
    ] = None,
    embodiment: Checked = "",
    instruction: Told = "",
    task: Task = "imported",
    outcome: Went = _Outcome.UNKNOWN,
    bgr: Bgr = False,
    json_: Json = False,
) -> None:
    """Import a replay buffer of diffusion_policy's or UMI's; episodes that are there already are kept.

    Exit code 3 says that an episode or an array could not be taken; the report says why.
    """
    from lehrling.datasets.replay_import import import_replay as run

    options = _frame_options(rate, instruction, task, outcome, embodiment, bgr=bgr)
    with progress("importing") as update:
        report = run(source, dataset, options, update)
    _end_frames(report, dataset, json_=json_)


def _frame_options(
    rate: float | None, instruction: str, task: str, outcome: _Outcome, embodiment: str, *, bgr: bool
) -> FrameOptions:
    from lehrling.datasets.embodiment import load_embodiment
    from lehrling.datasets.frame_import import FrameOptions

    robot = load_embodiment(embodiment) if embodiment else None
    return FrameOptions(rate, instruction, task, outcome.value, robot, bgr=bgr)


def _end_frames(report: FrameReport, dataset: Path, *, json_: bool) -> None:
    if json_:
        print_json({"dataset": str(dataset), **report.to_json()})
    else:
        _tell_frames(report, dataset)
    raise typer.Exit(LOSS if report.lossy else 0)


def _tell_frames(report: FrameReport, dataset: Path) -> None:
    for name, reason in report.refused.items():
        say(f"{name} was not taken: {reason}")
    for name, reason in report.left_out.items():
        say(f"{name} was left out: {reason}")
    made = sum(episode.new for episode in report.episodes)
    frames = sum(episode.frames for episode in report.episodes if episode.new)
    say(
        f"{made} new episodes of {frames} frames at {report.rate_hz:g} Hz, {len(report.episodes) - made} kept, in {dataset}: "
        + ", ".join(report.streams.values())
    )


def _tell_import(report: LerobotReport, dataset: Path) -> None:
    for index, reason in report.refused.items():
        say(f"episode {index} was not taken: {reason}")
    for episode in report.episodes:
        if episode.status != "sealed":
            say(f"{episode.id}: {episode.status}: {episode.reason}")
    for key, reason in report.left_out.items():
        say(f"{key} was left out: {reason}")
    made = sum(episode.new for episode in report.episodes)
    frames = sum(episode.frames for episode in report.episodes if episode.new)
    say(
        f"{made} new episodes of {frames} frames at {report.fps} Hz, {len(report.episodes) - made} kept, in {dataset}: "
        + ", ".join(f"{key} as {stream}" for key, stream in report.streams.items())
    )


def _tell(report: ExportReport) -> None:
    for name, reason in report.skipped.items():
        say(f"{name}: left out, {reason}")
    for name, rows in report.doubtful.items():
        say(f"{name}: {rows} frames from sources older than the limit; lehrling.valid is false there")
    say(
        f"{report.episodes} episodes, {report.frames} frames at {report.fps} Hz, {report.tasks} tasks, "
        f"{report.bytes / 1e6:.1f} MB in {report.path}: {', '.join(report.features)}"
    )


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.add_typer(export, name="export")
