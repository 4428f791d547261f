"""One cycle: the steps of a recipe from its start until the robot is at rest after it, and what was recorded of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError, StorageError
from lehrling.deploy.guard_events import Command
from lehrling.training.chunk import ChunkRunner, Mode

FloatArray = NDArray[np.float64]
ROWS_MAX = 360_000
"""An hour at 100 Hz."""


@dataclass(frozen=True)
class Recipe:
    """What a number on the PLC's side means.

    Attributes:
        instruction: the goal in words, as in the demonstrations.
        adapter: the policy's name on the server.
        limit_s: a cycle that takes longer ends as `timeout`.
        execute: steps of a chunk after which the next is asked for; 0 for half of them.
        fade: steps over which the jump to a new chunk is faded out, in mode `async`.
        model_hash: of the policy that may act; empty for any.
    """

    number: int
    name: str
    instruction: str
    adapter: str
    limit_s: float = 60.0
    mode: Mode = "async"
    execute: int = 0
    fade: int = 0
    model_hash: str = ""

    def runner(self, chunk: int) -> ChunkRunner:
        """Return a chunk runtime for chunks of that length."""
        execute = self.execute or max(1, chunk // 2)
        return ChunkRunner(chunk, min(execute, chunk), self.mode, fade=min(self.fade, chunk))


@dataclass
class Trace:
    """What was asked for, what was sent after the guard, and what was measured, on the monotonic clock.

    Attributes:
        asked: (when it came, when its first step was due, targets (n, D)).
        sent: (when, position (D,), measured position (D,)) per control tick.
    """

    names: tuple[str, ...]
    interval_ns: int
    asked: list[tuple[int, int, FloatArray]] = field(default_factory=list)
    sent: list[tuple[int, FloatArray, FloatArray]] = field(default_factory=list)

    def ask(self, now_ns: int, due_ns: int, targets: FloatArray) -> None:
        """Note a chunk's targets."""
        if len(self.asked) < ROWS_MAX:
            self.asked.append((now_ns, due_ns, targets))

    def send(self, command: Command, measured: FloatArray) -> None:
        """Note a command."""
        if command.publish and len(self.sent) < ROWS_MAX:
            self.sent.append((command.now_ns, command.position, measured))

    def save(self, path: Path) -> None:
        """Write it as arrays: `names`, `asked_ns` (n,), `due_ns` (n,), `asked` (n, D), `sent_ns` (t,), `sent`, `measured` (t, D).

        Raises:
            StorageError: it cannot be written.
        """
        width = len(self.names)
        due = [first + k * self.interval_ns for _, first, targets in self.asked for k in range(len(targets))]
        came = [now for now, _, targets in self.asked for _ in range(len(targets))]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(
                path,
                names=np.array(self.names),
                asked_ns=np.array(came, dtype=np.int64),
                due_ns=np.array(due, dtype=np.int64),
                asked=np.concatenate([targets for _, _, targets in self.asked] or [np.empty((0, width))]),
                sent_ns=np.array([now for now, _, _ in self.sent], dtype=np.int64),
                sent=np.array([position for _, position, _ in self.sent]).reshape(-1, width),
                measured=np.array([measured for _, _, measured in self.sent]).reshape(-1, width),
            )
        except OSError as error:
            raise StorageError(f"The cycle's trace {path} cannot be written: {error.strerror or error}.") from error


def load_trace(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return a trace's arrays.

    Raises:
        InputError: the file is no trace.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a cycle's trace (.npz) at {path}, got what is none ({error}).") from error
