"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items()) or "none"


def dataset_table(facts: Mapping[str, Any]) -> Table:
    """Return a dataset's summary as a table."""
    table = Table("dataset", str(facts["path"]), show_lines=False)
    table.add_row("episodes", f"{facts['episodes']} ({_counts(facts['statuses'])})")
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


def episode_table(facts: Mapping[str, Any]) -> Table:
    """Return one episode's streams with their timing as a table."""
    title = f"{facts['id']}: {facts['instruction']} ({facts['outcome']}, {facts['duration_s']:.2f} s)"
    table = Table("stream", "meaning", "rows", "rate", "longest gap", "jitter", "latency", "dropped", title=title)
    for name, timing in facts["timing"].items():
        stream = facts["streams"][name]
        shape = " x ".join(map(str, stream["shape"])) or "ragged"
        table.add_row(
            name,
            f"{stream['role']}, {shape} {stream['unit']}".strip(),
            str(timing["count"]),
            f"{timing['rate_hz']:.2f} Hz",
            f"{timing['max_gap_ms']:.1f} ms",
            f"{timing['jitter_ms']:.2f} ms",
            f"{timing['latency_ms']:.2f} ms",
            "unknown" if timing["dropped"] < 0 else str(timing["dropped"]),
        )
    return table


def rates_table(report: Mapping[str, Any], actors: tuple[str, ...]) -> Table:
    """Return success rates with their intervals as a table."""
    table = Table("who", "successes", "rate", "95 % Wilson interval", title=f"{report['task']} with {report['robot']}")
    for actor in actors:
        rate = report[actor]
        low, high = rate["interval"]
        table.add_row(actor, f"{rate['successes']} of {rate['n']}", f"{rate['rate']:.0%}", f"{low:.1%} to {high:.1%}")
    return table
