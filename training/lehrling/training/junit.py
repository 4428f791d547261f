"""JUnit XML of an evaluation, for CI systems: one test case per seed."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from lehrling.training.evaluate import EvaluationReport


def junit_xml(report: EvaluationReport) -> str:
    """Return the tuned policy's rollouts as a JUnit test suite."""
    rows = [row for row in report.rollouts if row.actor == "tuned"]
    failed = sum(not row.success for row in rows)
    name = quoteattr(f"{report.plan.task} with {report.plan.robot}")
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites><testsuite name={name} tests="{len(rows)}" failures="{failed}" errors="0">',
    ]
    for row in rows:
        head = (
            f'<testcase classname={name} name={quoteattr(f"seed {row.seed}: {row.instruction}")} time="{row.seconds}"'
        )
        if row.success:
            lines.append(f"{head}/>")
        else:
            reason = f"not done after {row.steps} steps; part {row.final_distance_m:.3f} m from its place"
            lines.append(f"{head}><failure message={quoteattr(reason)}/></testcase>")
    return "\n".join([*lines, "</testsuite></testsuites>"]) + "\n"


def write_junit(report: EvaluationReport, path: Path) -> None:
    """Write the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(junit_xml(report), encoding="utf-8")
