"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

IDS_SHOWN = 4


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items()) or "none"


def dataset_table(facts: Mapping[str, Any]) -> Table:
    """Return a dataset's summary as a table."""
    table = Table("dataset", str(facts["path"]), show_lines=False)
    table.add_row("episodes", f"{facts['episodes']} ({_counts(facts['statuses'])})")
    ids = facts["ids"]
    shown = ids if len(ids) <= IDS_SHOWN else [*ids[: IDS_SHOWN - 1], "…", ids[-1]]
    table.add_row("ids", ", ".join(shown) or "none")
    for name in ("outcomes", "tasks", "robots"):
        table.add_row(name, _counts(facts[name]))
    table.add_row("length", f"{facts['duration_s']:.1f} s, {facts['frames']} camera frames, {facts['rows']} rows")
    table.add_row("size", f"{facts['bytes'] / 1e6:.1f} MB")
    table.add_row("rates", ", ".join(f"{name} {rate:g} Hz" for name, rate in facts["rates_hz"].items()))
    table.add_row("contracts", ", ".join(f"{name[:12]} ({count})" for name, count in facts["contracts"].items()))
    table.add_row("views", ", ".join(facts["views"]) or "none")
    if facts["unfinished"]:
        table.add_row("unfinished", f"{', '.join(facts['unfinished'])}: recording, or needs `lehrling repair`")
    return table


def rates_table(report: Mapping[str, Any], actors: tuple[str, ...]) -> Table:
    """Return success rates with their intervals as a table."""
    table = Table("who", "successes", "rate", "95 % Wilson interval", title=f"{report['task']} with {report['robot']}")
    for actor in actors:
        rate = report[actor]
        low, high = rate["interval"]
        table.add_row(actor, f"{rate['successes']} of {rate['n']}", f"{rate['rate']:.0%}", f"{low:.1%} to {high:.1%}")
    return table
