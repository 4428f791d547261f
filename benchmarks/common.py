"""What benchmarks share: results with a peer's figure beside ours, written as JSON and shown as a table."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One figure beside the peer's, measured in the same run.

    Attributes:
        ratio: ours over the peer's.
        target: what was aimed at, in words.
    """

    metric: str
    value: float
    unit: str
    peer: str
    peer_value: float
    ratio: float
    target: str
    met: bool


def machine() -> str:
    """Describe this machine without naming it."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} cores ({model}), {pages * size / 2**30:.0f} GiB, Python {platform.python_version()}"


def write(name: str, results: list[Result]) -> Path:
    """Write `benchmarks/results/NAME.json` and print the table."""
    from rich.console import Console
    from rich.table import Table

    RESULTS.mkdir(exist_ok=True)
    head = {"benchmark": name, "machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    path = RESULTS / f"{name}.json"
    content = {**head, "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    table = Table(
        "metric", "value", "peer", "ratio", "target", "met", title=f"{name}: {head['machine']}, {head['date']}"
    )
    for r in results:
        ours, theirs = f"{r.value:.4g} {r.unit}", f"{r.peer}: {r.peer_value:.4g} {r.unit}"
        table.add_row(r.metric, ours, theirs, f"{r.ratio:.3f}", r.target, "yes" if r.met else "no")
    Console().print(table)
    return path
