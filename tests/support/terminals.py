"""`lehrling teleop` in a terminal of its own, and keys that are held there."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TELEOP = """
import sys, typer
from lehrling.cli import drive_verbs
from lehrling.cli.output import guarded
app = typer.Typer()
drive_verbs.register(app)
sys.exit(guarded(lambda: app(args=sys.argv[1:], standalone_mode=False)))
"""


class Terminal:
    """`lehrling teleop` in a terminal of its own."""

    def __init__(self, state: Path, *words: str) -> None:
        self.ours, theirs = pty.openpty()
        environment = os.environ | {"XDG_STATE_HOME": str(state)}
        command = [sys.executable, "-c", TELEOP, "teleop", "--operator", "Kim", "--json", *words]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self.screen = ""

    def wait_for(self, text: str, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while text not in self.screen:
            assert time.monotonic() < until, self.screen
            self.screen += os.read(self.ours, 4096).decode(errors="replace")

    def hold(self, key: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            os.write(self.ours, key.encode())
            time.sleep(0.03)

    def end(self) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=60)
        os.close(self.ours)
        assert self.process.returncode == 0
        report = json.loads(out)
        assert isinstance(report, dict)
        return report
