"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def until(done: Callable[[], object], timeout_s: float = 60.0, period_s: float = 0.01) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > limit:
            raise TimeoutError
        time.sleep(period_s)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def doing(pid: int) -> str:
    """Say what each thread of a process and of its children waits for."""
    lines = []
    for each in [pid, *children(pid)]:
        lines.append(f"{each}: {command(each)[:80]}")
        for task in Path(f"/proc/{each}/task").iterdir():
            words = [(task / name).read_text().strip() for name in ("comm", "wchan", "syscall")]
            lines.append(f"  {task.name}: {' '.join(words)[:90]}")
    return "\n".join(lines)


def command(pid: int) -> str:
    """Return a process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def resident_kib(pid: int) -> int:
    """Return a process's memory that is in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
