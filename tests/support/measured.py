"""What a call costs, measured in a process of its own that may not take the machine down."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Measured:
    """How a call ended.

    Attributes:
        error, text: the exception's class and words, empty if there was none.
        seconds: elapsed time.
        bytes: by how much the process's memory grew at most.
    """

    error: str
    text: str
    seconds: float
    bytes: int


def measured(action: Callable[[], object]) -> Measured:
    """Run an action in a forked process that may take 1 GiB and ten seconds of CPU more than it has."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.write(writer, json.dumps(_run(action)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not said:
        return Measured(f"killed by {-code}", "", 0.0, 0)
    return Measured(*json.loads(said))


def _run(action: Callable[[], object]) -> tuple[str, str, float, int]:
    most = _status("VmSize") + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _status("VmRSS"), time.perf_counter()
    error, text = "", ""
    try:
        action()
    except Exception as problem:  # noqa: BLE001 — whatever it is, the test judges it
        error, text = type(problem).__name__, str(problem)
    return error, text[:2000], time.perf_counter() - start, _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
