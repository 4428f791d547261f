"""`lehrling audit verify` and `audit show`: whether an audit is as it was written, and what it says."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.output import FAILED, Json, print_json, say, show

if TYPE_CHECKING:
    from lehrling.deploy.audit_record import Record
    from lehrling.deploy.audit_verify import AuditReport

audit = typer.Typer(help="Verify and read what a robot's software recorded of itself.", no_args_is_help=True)
AuditPath = Annotated[
    Path, typer.Argument(help="Audit (JSONL), the file that is written; full ones are found beside it.")
]


@audit.callback()
def _audit() -> None:
    """Verify and read what a robot's software recorded of itself."""


@audit.command("verify")
def audit_verify(
    file: AuditPath,
    head: Annotated[
        str | None, typer.Option("--head", help="Hash that was kept elsewhere: finds a cut end, too.")
    ] = None,
    json_: Json = False,
) -> None:
    """Find changed, removed, moved and inserted records; exit code 1 where there are any."""
    from lehrling.deploy.audit_verify import verify

    report = verify(file, head=head)
    if json_:
        print_json(report.to_json())
    else:
        _tell(report, head)
    raise typer.Exit(0 if report.whole else FAILED)


def _tell(report: AuditReport, head: str | None) -> None:
    for finding in report.findings:
        where = f"{finding.file}:{finding.line}" if finding.line else finding.file
        say(f"{finding.fault}: {where}: {finding.text}")
    if not report.whole:
        say(f"not whole: {report.faults} fault{'s' if report.faults > 1 else ''} in {_count(report)}")
        return
    say(f"whole: {_count(report)}, {report.first} to {report.last}")
    if head is None:
        say("without --head, records missing at the end and an audit written anew are not found")
    else:
        say(f"the head that was kept is in it, {report.after} records come after it")
    if not report.closed:
        say("the audit was not closed: it is being written, its writer crashed, or its end is missing")
    say(f"head: {report.head.hash}")


def _count(report: AuditReport) -> str:
    files = f" in {len(report.files)} files" if len(report.files) > 1 else ""
    return f"{report.records} records{files}"


@audit.command("show")
def audit_show(
    file: AuditPath,
    last: Annotated[int, typer.Option("--last", min=0, help="So many records, the newest; 0 shows all.")] = 50,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only of this kind, such as stop.")] = None,
    json_: Json = False,
) -> None:
    """Show the newest records; those that do not fit their hash are left out, which `verify` tells."""
    from lehrling.deploy.audit_verify import read_records

    wanted = set(kind or ())
    chosen = deque((r for r in read_records(file) if not wanted or r.kind in wanted), maxlen=last or None)
    if json_:
        print_json([_plain(record) for record in chosen])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("record", "when (UTC)", "kind", "facts")
    for record in chosen:
        table.add_row(str(record.sequence), _moment(record.wall), _word(record.kind), Text(_words(record)))
    show(table)


def _plain(record: Record) -> dict[str, object]:
    words = {"sequence": record.sequence, "kind": record.kind, "wall": record.wall, "mono_ns": record.mono_ns}
    return {**words, "facts": dict(record.facts), "hash": record.hash}


def _moment(wall: str) -> str:
    return _word(wall[:23].replace("T", " "))


def _words(record: Record) -> str:
    """Return facts on a line, hashes shortened; control characters of foreign text stay escaped."""
    return ", ".join(f"{_word(key)}: {_word(value)}" for key, value in record.facts.items())


def _word(value: object) -> str:
    if isinstance(value, str) and len(value) == 64 and value.isalnum():
        return value[:12]
    text = json.dumps(value)
    return text[1:-1] if isinstance(value, str) else text


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.add_typer(audit, name="audit")
