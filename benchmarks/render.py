"""Write `docs/benchmarks.md` from `benchmarks/results/*.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench-docs` from `benchmarks/results/*.json`; `make bench-NAME` measures one again. Every figure stands
beside a peer's from the same run on the same machine. *Ratio* is ours over the peer's.
"""
COMMANDS = {"reliability": "`make test-slow`, `make test-faults` and `make test-soak`"}
COLUMNS = ("what", "ours", "peer", "peer's", "ratio", "target", "met")


def row(result: dict[str, Any]) -> str:
    """Return one figure as a line of the table."""
    unit = result["unit"]
    cells = (
        result["metric"], f"{result['value']:.4g} {unit}", result["peer"], f"{result['peer_value']:.4g} {unit}",
        f"{result['ratio']:.3g}", result["target"], "yes" if result["met"] else "**no**",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def section(content: dict[str, Any]) -> str:
    """Return one benchmark's section."""
    name = content["benchmark"]
    lines = [
        f"## {name}",
        "",
        f"{COMMANDS.get(name, f'`make bench-{name}`')}, {content['date']}, {content['machine']}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *map(row, content["results"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text("\n".join([HEAD, *map(section, contents)]), encoding="utf-8")


if __name__ == "__main__":
    main()
