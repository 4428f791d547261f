"""`lehrling record` as people run it, in a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ros_rig import rig
from watching import alive, children, command, doing, until

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment

SCRIPT = str(Path(sys.executable).with_name("lehrling"))


def robot(streams: Sequence[str] = ("position",), cameras: Sequence[str] = (), **rates_hz: float) -> Embodiment:
    """Return a robot with some of the rig's streams and cameras, and the rates of some of them."""
    whole = rig().model_dump(mode="json")
    contract, sources = whole["contract"], whole["binding"]["sources"]
    contract["streams"] = [stream for stream in contract["streams"] if stream["name"] in streams]
    contract["cameras"] = [camera for camera in contract["cameras"] if camera["name"] in cameras]
    whole["binding"]["sources"] = {name: sources[name] for name in (*streams, *cameras)}
    for name, rate_hz in rates_hz.items():
        whole["binding"]["sources"][name][0]["rate_hz"] = rate_hz
    return Embodiment.model_validate(whole)


def robot_file(
    path: Path, streams: Sequence[str] = ("position",), cameras: Sequence[str] = (), **rates_hz: float
) -> Path:
    """Write the embodiment of such a robot."""
    path.write_text(robot(streams, cameras, **rates_hz).model_dump_json())
    return path


class RecordRun:
    """A run of `lehrling record`; `terminal` gives it one, whose other end is `person`."""

    def __init__(self, root: Path, robot: Path, *arguments: str, terminal: bool = False) -> None:
        words = [
            SCRIPT,
            "record",
            str(root),
            "--embodiment",
            str(robot),
            "--min-free",
            "0",
            "--warmup",
            "0",
            *arguments,
        ]
        self.root, self.person = root, -1
        if terminal:
            self.person, ours = pty.openpty()
            self.process = subprocess.Popen(
                words,
                stdin=ours,
                stdout=ours,
                stderr=ours,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 — no thread of ours is running yet
            )
            os.close(ours)
        else:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
            )
        self._read: list[bytes] = []
        self._gone = threading.Event()
        source = self.person if terminal else self.process.stderr.fileno() if self.process.stderr else -1
        self._reader = threading.Thread(target=self._drain, args=(source,), daemon=True)
        self._reader.start()

    def _drain(self, descriptor: int) -> None:
        try:
            while not self._gone.is_set():
                if select.select([descriptor], [], [], 0.05)[0]:
                    part = os.read(descriptor, 65536)
                    if not part:
                        return
                    self._read.append(part)
        except OSError:
            pass

    def hang_up(self) -> None:
        """Take its terminal away; a descriptor that is being read stays open until it has been."""
        self._gone.set()
        self._reader.join()
        os.close(self.person)
        self.person = -1

    @property
    def told(self) -> str:
        """What it said on stderr, or in its terminal."""
        return b"".join(self._read).decode(errors="replace")

    def journal(self, number: int = 1) -> Path:
        """Wait for the journal of the n-th episode and return it."""
        seen: set[Path] = set()

        def there() -> bool:
            assert self.process.poll() is None, self.told
            seen.update(path.parent for path in self.root.glob("journals/[!.]*/meta.json"))
            return len(seen) >= number

        try:
            until(there)
        except TimeoutError:
            raise AssertionError(f"no journal: {self.told}") from None
        return max(seen, key=lambda path: path.stat().st_mtime_ns if path.exists() else 0)

    def captures(self) -> list[int]:
        """Return its capture processes, oldest first."""
        own = [pid for pid in children(self.process.pid) if "spawn_main" in command(pid)]
        return sorted(own)

    def press(self, keys: str) -> None:
        os.write(self.person, keys.encode())

    def end(self, timeout_s: float = 60.0) -> tuple[int, Any]:
        """Wait for the end; return exit code and report, if there is one on stdout."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; it said {self.told[-2000:]!r}\n{doing(self.process.pid)}") from None
        self._reader.join(5)
        out = self.process.stdout.read().decode() if self.process.stdout else ""
        return code, json.loads(out) if out.strip().startswith("{") else None

    def kill(self) -> None:
        """End it, whatever state it is in."""
        if alive(self.process.pid):
            self.process.kill()
        self.process.wait()
        if self.person >= 0:
            os.close(self.person)

    def dataset(self) -> Dataset:
        return Dataset.open(self.root)
