"""`lehrling doctor`: can this computer record without loss?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.output import FAILED, print_json, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from lehrling.collection.doctor_report import DoctorReport

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "cyan"}


def doctor(
    dataset: Annotated[
        Path, typer.Option("--dataset", help="Dataset directory, there or not yet: its disk is measured.")
    ] = Path(),
    embodiment: Annotated[
        str | None, typer.Option("--embodiment", help="Shipped embodiment or YAML file that will be recorded.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Check whether this computer can record without loss; exit 1 where something must be mended first."""
    from lehrling.collection.doctor import diagnose
    from lehrling.datasets.embodiment import load_embodiment

    report = diagnose(dataset, load_embodiment(embodiment) if embodiment is not None else None)
    if json_:
        print_json(report.to_json())
    else:
        show(_table(report))
        _tell(report)
    raise typer.Exit(FAILED if report.failed else 0)


def _table(report: DoctorReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("check", "", "found", show_lines=False)
    for finding in report.findings:
        colour = COLOURS[finding.verdict]
        found = escape(finding.measured)
        if finding.remedy:
            found += f"\n[dim]→ {escape(finding.remedy)}[/dim]"
        table.add_row(finding.name, f"[{colour}]{finding.verdict}[/{colour}]", found)
    return table


def _tell(report: DoctorReport) -> None:
    counts = {verdict: sum(f.verdict == verdict for f in report.findings) for verdict in COLOURS}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    say(f"{len(report.findings)} checks: {', '.join(parts)}")


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("doctor")(doctor)
