"""Figures of long tests, noted among the benchmarks' results where `LEHRLING_FIGURES` names the file: `make` targets set it."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path


def note(metric: str, value: float, unit: str, beside: str, beside_value: float, target: str, *, met: bool) -> None:
    """Put a figure into the file, in place of an older one of that name."""
    if not (name := os.environ.get("LEHRLING_FIGURES")):
        return
    sys.path.append(str(Path(__file__).parents[2]))
    from benchmarks.common import machine

    path = Path(name)
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"results": []}
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
    rows = [*(old for old in known["results"] if old["metric"] != metric), row]
    path.write_text(json.dumps({**head, "results": sorted(rows, key=lambda r: r["metric"])}, indent=1) + "\n", "utf-8")
