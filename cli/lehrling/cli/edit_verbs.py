"""`lehrling edit`: change what is valid. All but purge can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.output import Json, confirmed, print_json, progress, say, show

if TYPE_CHECKING:
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.edits import EditReport
    from lehrling.datasets.manifest import EpisodeRecord

edit = typer.Typer(help="Change what is valid; all but purge can be taken back.", no_args_is_help=True)
DatasetPath = Annotated[Path, typer.Argument(help="Dataset directory.")]
Episodes = Annotated[list[str] | None, typer.Argument(help="Episode ids; or choose with --where.")]
WhereText = Annotated[
    str | None,
    typer.Option("--where", help="Filter instead of ids: \"outcome == 'failure' and duration_s < 3\"."),
]
IDS_SHOWN = 5
Work = Callable[["Dataset", "list[EpisodeRecord]", Callable[..., None]], "EditReport"]


@edit.callback()
def _edit() -> None:
    """Change what is valid; all but purge can be taken back."""


def _edited(
    dataset: Path, ids: list[str] | None, where: str | None, status: tuple[str, ...], work: Work, *, bar: bool = False
) -> EditReport:
    """Choose episodes of a dataset open for writing and edit them."""
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.edits import select
    from lehrling.datasets.where import parse_where

    condition = parse_where(where) if where is not None else None
    with Dataset.open_for_writing(dataset) as opened, progress("editing", quiet=not bar) as update:
        return work(opened, select(opened, ids or [], condition, status), update)


def _tell(report: EditReport, json_: bool) -> None:
    if json_:
        print_json(report.to_json())
        return
    for name, reason in report.skipped.items():
        say(f"{name} {reason}")
    number = f" (edit {report.number}; `lehrling edit undo` takes it back)" if report.number else ""
    say(f"{report.words}{number if report.verb != 'undo' else ''}")


@edit.command("delete")
def delete(
    dataset: DatasetPath,
    episodes: Episodes = None,
    where: WhereText = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who wonder later.")] = "",
    json_: Json = False,
) -> None:
    """Take episodes out; their files stay until they are purged."""
    from lehrling.datasets import edits

    work: Work = lambda opened, records, _: edits.delete(opened, records, reason)  # noqa: E731
    _tell(_edited(dataset, episodes, where, ("sealed",), work), json_)


@edit.command("restore")
def restore(dataset: DatasetPath, episodes: Episodes = None, where: WhereText = None, json_: Json = False) -> None:
    """Bring deleted, replaced or quarantined episodes back, if their files are as they were sealed."""
    from lehrling.datasets import edits

    work: Work = lambda opened, records, _: edits.restore(opened, records)  # noqa: E731
    _tell(_edited(dataset, episodes, where, edits.RESTORABLE if episodes else ("deleted",), work), json_)


@edit.command("label")
def label(
    dataset: DatasetPath,
    episodes: Episodes = None,
    where: WhereText = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="success, failure or unknown.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Name of the task.")] = None,
    instruction: Annotated[str | None, typer.Option("--instruction", help="What the robot was told.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Add a tag; may be repeated.")] = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", help="Remove a tag; may be repeated.")] = None,
    json_: Json = False,
) -> None:
    """Put outcome, task, instruction and tags on episodes."""
    from lehrling.datasets import edits

    labels = edits.Labels(outcome, task, instruction, tuple(tag or ()), tuple(untag or ()))  # type: ignore[arg-type]
    work: Work = lambda opened, records, _: edits.label(opened, records, labels)  # noqa: E731
    _tell(_edited(dataset, episodes, where, ("sealed",), work), json_)


@edit.command("trim")
def trim(
    dataset: DatasetPath,
    episodes: Episodes = None,
    where: WhereText = None,
    start_s: Annotated[
        float, typer.Option("--from", help="Seconds from the first receipt; negative ones from the last.")
    ] = 0.0,
    stop_s: Annotated[float | None, typer.Option("--to", help="As --from; what was received then is left out.")] = None,
    json_: Json = False,
) -> None:
    """Keep a part of each episode, as a new episode (`.t1`) that replaces it; frames are copied as they are."""
    from lehrling.datasets.edit_cut import trim as trimmed

    work: Work = lambda opened, records, update: trimmed(opened, records, start_s, stop_s, update)  # noqa: E731
    _tell(_edited(dataset, episodes, where, ("sealed",), work, bar=True), json_)


@edit.command("split")
def split(
    dataset: DatasetPath,
    episodes: Episodes = None,
    where: WhereText = None,
    at_s: Annotated[
        list[float] | None, typer.Option("--at", help="Seconds as in trim; may be repeated.", show_default=False)
    ] = None,
    json_: Json = False,
) -> None:
    """Cut episodes into new ones (`.s1`, `.s2` …) that replace them; frames are copied as they are."""
    from lehrling.datasets.edit_cut import split as parted

    work: Work = lambda opened, records, update: parted(opened, records, at_s or (), update)  # noqa: E731
    _tell(_edited(dataset, episodes, where, ("sealed",), work, bar=True), json_)


@edit.command("archive")
def archive(
    dataset: DatasetPath,
    episodes: Episodes = None,
    camera: Annotated[list[str] | None, typer.Option("--camera", help="Camera to keep as video; repeatable.")] = None,
    crf: Annotated[int, typer.Option("--crf", min=0, max=51, help="Quality of x264; lower is better.")] = 20,
    where: WhereText = None,
    json_: Json = False,
) -> None:
    """Keep cameras as H.264 from now on, a fraction of the size, at a loss; purge the former episodes to free their space."""
    from lehrling.datasets.edit_archive import archive as run

    report = _edited(
        dataset,
        episodes,
        where,
        ("sealed",),
        lambda opened, chosen, bar: run(opened, chosen, camera, crf, bar),
        bar=True,
    )
    _tell(report, json_)


@edit.command("merge")
def merge(
    dataset: DatasetPath,
    sources: Annotated[list[Path], typer.Argument(help="Datasets whose episodes are brought in.")],
    where: WhereText = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow robots of other contracts.")] = False,
    json_: Json = False,
) -> None:
    """Bring other datasets' episodes into this one, made if it is not there, byte for byte.

    All of them or none. One that was interrupted goes on where it was when it is asked for again.
    """
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.dataset_root import check_root
    from lehrling.datasets.edit_merge import merge as merged
    from lehrling.datasets.where import parse_where

    condition = parse_where(where) if where is not None else None
    for source in sources:
        check_root(source)
    with Dataset.open_for_writing(dataset, create=True) as opened, progress("merging bytes") as update:
        report = merged(opened, sources, condition, mixed=mixed, progress=update)
    _tell(report, json_)


@edit.command("undo")
def undo(
    dataset: DatasetPath,
    times: Annotated[int, typer.Option("--times", min=1, help="How many edits.")] = 1,
    json_: Json = False,
) -> None:
    """Take back the last edit that is in force; what was purged stays purged."""
    from lehrling.datasets import edits
    from lehrling.datasets.dataset import Dataset

    with Dataset.open_for_writing(dataset) as opened:
        reports = [edits.undo(opened) for _ in range(times)]
    if json_:
        print_json([report.to_json() for report in reports])
        return
    for report in reports:
        _tell(report, json_=False)


@edit.command("log")
def log(dataset: DatasetPath, json_: Json = False) -> None:
    """List the edits, the oldest first."""
    from lehrling.datasets.dataset_root import check_root
    from lehrling.datasets.edit_log import edit_log
    from lehrling.datasets.edit_pending import pending_edit

    check_root(dataset)
    entries, pending = edit_log(dataset), pending_edit(dataset)
    if pending is not None and not any(entry.number == pending.number for entry in entries):
        say(
            f"a {pending.verb} of {len(pending.ids)} episodes is at work or was interrupted; `lehrling repair` drops it"
        )
    if json_:
        print_json([entry.to_json() for entry in entries])
        return
    from lehrling.cli.version_tables import log_table

    show(log_table(entries))


@edit.command("purge")
def purge(
    dataset: DatasetPath,
    episodes: Episodes = None,
    where: WhereText = None,
    family: Annotated[
        bool, typer.Option("--family", help="Those that they were cut from, or into, too: these hold the same frames.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; this cannot be undone.")] = False,
    json_: Json = False,
) -> None:
    """Delete episodes' files for good, whether they are valid or not; the manifest keeps tombstones."""
    from lehrling.datasets.dataset import Dataset

    names, others = _doomed(Dataset.open(dataset), episodes or [], where)
    if family:
        names, others = [*names, *others], []
    _warn_of_pins(dataset, names)
    told = ", ".join(names[:IDS_SHOWN]) + (f" and {len(names) - IDS_SHOWN} more" if len(names) > IDS_SHOWN else "")
    if not yes and not confirmed(f"Delete {told} from {dataset} for good?"):
        raise typer.Abort
    with Dataset.open_for_writing(dataset) as opened:
        for name in names:
            opened.purge(name)
    if json_:
        print_json({"purged": names, "left": others})
        return
    say(f"{told} {'is' if len(names) == 1 else 'are'} deleted; views that held it are gone, build them again")
    if others:
        say(f"rows of it are in {', '.join(others)} too; purge these as well, or use --family")


def _doomed(dataset: Dataset, ids: list[str], where: str | None) -> tuple[list[str], list[str]]:
    """Return the episodes to purge, and others that hold rows of them."""
    from lehrling.datasets.edits import PURGEABLE, relatives, select
    from lehrling.datasets.files import checked_id
    from lehrling.datasets.where import parse_where

    if ids and where is None:
        names = list(dict.fromkeys(map(checked_id, ids)))
        dataset.check_purgeable(names)
    else:
        condition = parse_where(where) if where is not None else None
        names = [record.id for record in select(dataset, ids, condition, PURGEABLE)]
    others = [other for name in names for other in relatives(dataset, name)]
    return names, [other for other in dict.fromkeys(others) if other not in names]


def _warn_of_pins(dataset: Path, names: list[str]) -> None:
    from lehrling.datasets.snapshots import snapshots_of

    if pins := snapshots_of(dataset, names):
        say(f"pinned in {', '.join(pins)}: no view can be built from these snapshots any more")


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.add_typer(edit, name="edit")
