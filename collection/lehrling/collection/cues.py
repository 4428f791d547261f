"""Spoken cues, where the machine can speak: an operator's eyes are on the robot."""

from __future__ import annotations

import shutil
import subprocess

SPEAKERS = (("spd-say", "--wait"), ("espeak-ng",), ("espeak",), ("say",))


class Cues:
    """Says a few words without waiting; one at a time, the newest waits for none."""

    def __init__(self, *, speak: bool) -> None:
        self._command = next(((shutil.which(c[0]) or "", *c[1:]) for c in SPEAKERS if shutil.which(c[0])), None)
        self._speak = speak and self._command is not None
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def silent_because(self) -> str:
        """Why nothing is spoken, or an empty string."""
        names = ", ".join(command[0] for command in SPEAKERS)
        return "" if self._command is not None else f"nothing speaks here: none of {names} is installed"

    def say(self, words: str) -> None:
        """Speak, if that was asked for and the last cue is over."""
        if not self._speak or not words or (self._running is not None and self._running.poll() is None):
            return
        assert self._command is not None
        try:
            quiet = subprocess.DEVNULL
            self._running = subprocess.Popen([*self._command, words], stdin=quiet, stdout=quiet, stderr=quiet)
        except OSError:
            self._speak = False
