"""The closed loop's report as one HTML file: cycles, times, and what was asked, sent and measured in each."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lehrling.cli import page, plots
from lehrling.deploy.cycle import load_trace

if TYPE_CHECKING:
    from lehrling.cli.closed_loop import CycleReport, LoopReport

LEAD = (
    "A PLC ran cycles over OPC UA; each recipe number chose one of two adapters on one backbone in memory; the policy saw the "
    "simulated robot's cameras and joints over ROS 2 and moved it through the guard; everything was audited."
)


def write_report(out: Path, report: LoopReport) -> None:
    """Write `report.html` into a directory."""
    told = report.to_json()
    times = told["cycle_s"]
    cards = page.cards(
        [
            ("parts handled", f"{told['successes']} of {len(report.cycles)}"),
            ("median cycle", f"{times['median']:.1f} s" if times else "–"),
            ("adapters on one backbone", str(len(told["adapters"]))),
            ("audit records, chain whole", f"{report.audit['records']}, {'yes' if report.audit['whole'] else 'NO'}"),
        ]
    )
    head = ("cycle", "recipe", "what", "adapter", "success", "result", "cycle time [s]", "load to start [s]", "model")
    rows = [
        (
            str(c.cycle),
            str(c.recipe),
            c.instruction,
            c.adapter,
            c.result == "success",
            c.result,
            f"{c.seconds:.2f}",
            f"{c.load_s:.2f}",
            c.model_hash[:12],
        )
        for c in report.cycles
    ]
    kinds = [(kind, str(count)) for kind, count in sorted(report.audit["kinds"].items())]
    sections = [
        ("Cycles", cards + page.table(head, rows, scroll=True) + f"<p>{html.escape(report.control)}</p>"),
        ("Asked, sent, measured", "".join(_figure(c) for c in report.cycles if c.trace)),
        ("Audit", page.table(("kind", "records"), kinds)),
    ]
    (out / "report.html").write_text(page.page("Closed loop", LEAD, sections), encoding="utf-8")


def _figure(cycle: CycleReport) -> str:
    trace = load_trace(Path(cycle.trace))
    names = [str(name) for name in trace["names"]]
    chosen = [names.index(f"tcp_command_{axis}") for axis in "xyz"]
    sent_ns, sent, measured, due_ns, asked = (
        trace[key].astype(np.float64) for key in ("sent_ns", "sent", "measured", "due_ns", "asked")
    )
    if not len(sent_ns):
        return ""
    zero = sent_ns[0]
    picture = plots.path_plot(
        ((sent_ns - zero) / 1e9, sent[:, chosen], measured[:, chosen]), ((due_ns - zero) / 1e9, asked[:, chosen])
    )
    return page.figure(picture, f"cycle {cycle.cycle}: {cycle.instruction} – {cycle.result}", plot=True)
