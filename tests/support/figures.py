"""Figures of long tests, noted among the benchmarks' results where `LEHRLING_FIGURES` names the file: `make` targets set it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path


def note(metric: str, value: float, unit: str, beside: str, beside_value: float, target: str, *, met: bool) -> None:
    """Put a figure into the file, in place of an older one of that name."""
    if not (name := os.environ.get("LEHRLING_FIGURES")):
        return
    sys.path.append(str(Path(__file__).parents[2]))
    from benchmarks.common import machine

    path = Path(name)
    ratio = value / beside_value if beside_value else float(value > 0)
    row = {
        "metric": metric,
        "value": value,
        "unit": unit,
        "peer": beside,
        "peer_value": beside_value,
        "ratio": ratio,
        "target": target,
        "met": met,
    }
    head = {"benchmark": path.stem, "machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    with _alone(path):
        _put(path, head, row)


def tried(metric: str, count: int, least: int) -> None:
    """Note after how many tries nothing was damaged; a test calls it at its end, where none of them was."""
    note(f"{metric}: tried, none damaged anything", count, "", "least", least, "all there are", met=count >= least)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for the other test processes that note figures."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _put(path: Path, head: dict[str, str], row: dict[str, object]) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"results": []}
    rows = [*(old for old in known["results"] if old["metric"] != row["metric"]), row]
    path.write_text(json.dumps({**head, "results": sorted(rows, key=lambda r: r["metric"])}, indent=1) + "\n", "utf-8")
