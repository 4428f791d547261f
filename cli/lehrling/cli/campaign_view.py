"""How a campaign stands, for people and programs: what `lehrling inspect --campaign FILE` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lehrling.cli.output import print_json, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from lehrling.collection.campaign_report import CampaignReport, CellCoverage, Figures

BAR = 10


def show_campaign(dataset: Path, file: Path, json_: bool) -> None:
    """Show coverage per cell, and figures per task, station and, where the campaign allows it, operator.

    Raises:
        InputError: the campaign or the dataset cannot be used.
    """
    from lehrling.collection.campaign import load_campaign
    from lehrling.collection.campaign_report import coverage
    from lehrling.datasets.dataset import Dataset

    report = coverage(load_campaign(file), Dataset.open(dataset))
    if json_:
        print_json(report.to_json())
        return
    show(_cells(report))
    for title, figures in (("task", report.tasks), ("station", report.stations), ("operator", report.operators)):
        if figures:
            show(_figures(title, figures))
    _tell(report)


def _cells(report: CampaignReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    progress = report.progress
    title = f"{report.name}: {progress.counted} of {progress.quota} episodes, {progress.share:.0%}"
    table = Table(title=title, title_justify="left", padding=(0, 0))
    table.add_column("task", no_wrap=True)
    table.add_column("variation")
    for head in ("have", "of", "rate"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for cell in report.cells:
        values = ", ".join([*cell.variation.values(), *([f"on {cell.holder}"] if cell.holder else [])]) or "–"
        have = f"{cell.counted}+{cell.pending}" if cell.pending else str(cell.counted)
        table.add_row(escape(cell.task), escape(values), have, str(cell.quota), _rate(cell), _bar(cell))
    return table


def _rate(cell: CellCoverage) -> str:
    judged = cell.success + cell.failure
    return f"{cell.success / judged:.0%}" if judged else "–"


def _bar(cell: CellCoverage) -> str:
    full = min(BAR, BAR * cell.counted // cell.quota)
    colour = "green" if full == BAR else "yellow" if full else "red"
    return f"[{colour}]{'█' * full}[/{colour}]{'░' * (BAR - full)}"


def _figures(title: str, figures: Sequence[Figures]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(padding=(0, 0))
    table.add_column(title, no_wrap=True, max_width=20)
    for head in ("episodes", "success", "rate", "per hour", "lost", "findings"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in figures:
        table.add_row(
            escape(one.name),
            str(one.episodes),
            str(one.success),
            "–" if one.success_rate is None else f"{one.success_rate:.0%}",
            "–" if one.episodes_per_hour is None else f"{one.episodes_per_hour:g}",
            f"{one.lost_messages}{'?' if one.lost_unknown else ''}",
            str(sum(one.findings.values()) + one.quarantined),
        )
    return table


def _tell(report: CampaignReport) -> None:
    """Say what the tables leave out."""
    progress = report.progress
    say(f"{progress.cells_full} of {progress.cells} cells are full")
    if report.strays:
        say(f"{report.strays} episodes of the campaign fit no cell of it (any more)")
    if report.others:
        say(f"{report.others} other episodes in the dataset")
    if report.unreadable:
        say(f"{len(report.unreadable)} episodes cannot be read; run `lehrling verify`")
    if any(one.lost_unknown for one in report.stations):
        say("lost: '?' where the middleware does not tell of every topic")
