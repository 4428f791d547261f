"""The demo's time and success rates, read from the report that `make demo` left; runs the demo where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.common import Result, write

REPORT, LIMIT_S, AIM = Path("runs/demo/report.json"), 360.0, 0.8


def main() -> None:
    """Measure, or read what was measured, and write."""
    if not REPORT.is_file():
        subprocess.run([str(Path(sys.executable).with_name("lehrling")), "demo"], check=True)
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    evaluation, seconds = report["evaluation"], sum(report["seconds"].values())
    tuned, untrained = evaluation["tuned"], evaluation["untrained"]
    expert = evaluation["expert"]["rate"]
    low, high = tuned["interval"][0], untrained["interval"][1]
    n = tuned["n"]
    write(
        "demo",
        [
            Result(
                f"success rate of the tuned policy on {n} unseen layouts", tuned["rate"], "", "scripted expert", expert,
                tuned["rate"] / max(expert, 1e-9), f"at least {AIM:.0%}", tuned["rate"] >= AIM,
            ),
            Result(
                "its lower 95 % Wilson bound", low, "", "upper bound of the policy before training", high,
                low / max(high, 1e-9), "above it", low > high,
            ),
            Result(
                "`make demo` after set-up", seconds, "s", "of which training", report["seconds"]["training"],
                seconds / report["seconds"]["training"], f"at most {LIMIT_S:.0f} s", seconds <= LIMIT_S,
            ),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
