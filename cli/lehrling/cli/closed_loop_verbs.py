"""`lehrling closed-loop`: the whole cell, from PLC to simulated robot, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehrling.cli.output import FAILED, print_json, say


def closed_loop(
    first: Annotated[Path, typer.Argument(help="Policy folder, such as runs/demo/train/policy.")],
    second: Annotated[Path, typer.Argument(help="Another policy on the same base; it fills the right pocket.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("runs/closed-loop"),
    cycles: Annotated[int, typer.Option("--cycles", min=2, help="Cycles; the policies take turns.")] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="First seed of the layouts.")] = 5000,
    limit_s: Annotated[float, typer.Option("--limit", min=1, help="Seconds after which a cycle ends.")] = 40.0,
    base: Annotated[str | None, typer.Option("--base", help="Where the base lies, if not where it lay.")] = None,
    min_success: Annotated[
        float, typer.Option("--min-success", min=0, max=1, help="Exit code 1 below this share.")
    ] = 0.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Run a PLC, a cell, a policy server with two adapters and the simulated robot, over OPC UA and ROS 2.

    Writes report.html and report.json with every cycle, its time and its path, and the audit.
    """
    from lehrling.cli.closed_loop import LoopPlan, run_closed_loop

    report = run_closed_loop(LoopPlan(out, first, second, cycles, seed, limit_s, base), say)
    told = report.to_json()
    if json_:
        print_json(told)
    say(f"{told['successes']} of {cycles} cycles succeeded. Look at {out / 'report.html'} and {out / 'report.json'}.")
    whole = report.audit["whole"] and report.audit["closed"]
    raise typer.Exit(0 if whole and told["successes"] >= min_success * cycles else FAILED)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("closed-loop")(closed_loop)
