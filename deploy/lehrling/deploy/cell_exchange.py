"""Where a cell's threads meet: the command image on its way in, status and robot's state on their way out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from lehrling.deploy.handshake_image import U32, Command, Commands, Status
from lehrling.deploy.handshake_link import newer
from lehrling.deploy.runtime import RuntimeState


@dataclass(frozen=True, slots=True)
class Shown:
    """What everybody may read, all of one step."""

    status: Status = field(default_factory=Status)
    state: RuntimeState = field(default_factory=RuntimeState)
    commands: Commands = field(default_factory=Commands)


class Exchange:
    """Holds the two images; every method may be called from any thread, and none waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commands, self._shown = Commands(), Shown()

    def commands(self) -> Commands:
        """Return what the PLC says."""
        with self._lock:
            return self._commands

    def write(self, **fields: int | bool) -> None:
        """Change fields of what the PLC says, all at once."""
        with self._lock:
            self._commands = replace(self._commands, **fields)  # type: ignore[arg-type]

    def command(self, command: Command, recipe: int | None = None) -> int:
        """Put a command into the image, with a number newer than what stands there and was handled; return that number."""
        with self._lock:
            last, acked = self._commands.seq, self._shown.status.ack_seq
            seq = ((last if newer(last, acked, U32) else acked) + 1) % U32
            told = self._commands.recipe if recipe is None else recipe
            self._commands = replace(self._commands, command=command, recipe=told, seq=seq)
            return seq

    def show(self, shown: Shown) -> None:
        """Take what a step came to."""
        self._shown = shown

    def shown(self) -> Shown:
        """Return what the last step came to."""
        return self._shown
