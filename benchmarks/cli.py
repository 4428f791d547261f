"""Time to `lehrling --help`, beside LeRobot's command line."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import Result, write

ROUNDS, PEER_ROUNDS, LIMIT_S = 11, 3, 0.4


def seconds(command: list[str], rounds: int) -> float:
    """Return the median wall time of a command."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    """Measure and write."""
    folder = Path(sys.executable).parent
    ours = seconds([str(folder / "lehrling"), "--help"], ROUNDS)
    peer = seconds([str(folder / "lerobot-train"), "--help"], PEER_ROUNDS)
    target = f"under {LIMIT_S} s"
    write(
        "cli", [Result("lehrling --help", ours, "s", "lerobot-train --help", peer, ours / peer, target, ours < LIMIT_S)]
    )


if __name__ == "__main__":
    main()
