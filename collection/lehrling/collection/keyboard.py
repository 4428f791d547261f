"""Keys as they are pressed, in a terminal of any kind, over SSH too; lines where there is no terminal."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

REPEAT_S = 0.7
"""A key that is held down comes again after at most this (X11: 0.66 s), then faster."""
SEQUENCE_S = 0.1
SEQUENCE = re.compile("\x1b(?:[\\[O][0-?]*[ -/]*[@-~]|[^\\[O])")
"""An arrow or function key, or one with Alt: the left arrow ends in D, and must discard nothing (ECMA-48, 5.4)."""
BEGUN = re.compile("\x1b(?:[\\[O][0-?]*[ -/]*)?$")
DISABLED = b"\x00"


class Keyboard:
    """Reads single keys from stdin without waiting; a context manager, since the terminal is put back at the end.

    In a terminal a key held down counts once, and neither suspends the recorder (Ctrl-Z) nor stops its output (Ctrl-S).
    Without a terminal (a pipe, a service) the characters of the input are the keys; at its end, in the background, or with
    no input at all, there are no keys.
    """

    def __init__(self, descriptor: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._descriptor, self._clock = _stdin() if descriptor is None else descriptor, clock
        self._before: list[object] | None = None
        self._begun, self._begun_s = "", 0.0
        self._pressed_s: dict[str, float] = {}

    @property
    def terminal(self) -> bool:
        """Whether a person can press keys here."""
        return self._descriptor >= 0 and os.isatty(self._descriptor)

    def __enter__(self) -> Self:
        if self.terminal and self._foreground():
            self._prepare()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before, self._before = self._before, None
        if before is not None and self._descriptor >= 0 and self._foreground():
            import termios

            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)  # type: ignore[arg-type]

    def _foreground(self) -> bool:
        """Whether the terminal is ours to read; the kernel stops whoever reads it from the background."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return True

    def _prepare(self) -> None:
        """Give single keys, and take their meaning from those that would stop the recorder."""
        import termios
        import tty

        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        mode = termios.tcgetattr(self._descriptor)
        mode[0] &= ~termios.IXON
        for key in (termios.VSUSP, termios.VQUIT):
            mode[6][key] = DISABLED
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)

    def pressed(self) -> str:
        """Return the keys pressed since the last call."""
        if not self.terminal:
            return self._read()
        if not self._foreground():
            return ""
        if self._before is None:
            self._prepare()
        return "".join(key for key in self._plain(self._read()) if not self._held(key))

    def _read(self) -> str:
        if self._descriptor < 0:
            return ""
        try:
            ready, _, _ = select.select([self._descriptor], [], [], 0)
            pressed = os.read(self._descriptor, 64) if ready else None
        except (OSError, ValueError):
            pressed = b""
        if pressed == b"":
            self._descriptor = -1
        return (pressed or b"").decode(errors="ignore")

    def _plain(self, text: str) -> str:
        """Leave out what keys without a character send, also where it comes in two parts."""
        if self._begun and not text:
            return ""
        if self._clock() - self._begun_s < SEQUENCE_S:
            text = self._begun + text
        text = SEQUENCE.sub("", text)
        cut = BEGUN.search(text)
        self._begun, self._begun_s = (cut[0], self._clock()) if cut else ("", 0.0)
        return (text[: cut.start()] if cut else text).replace("\x1b", "")

    def _held(self, key: str) -> bool:
        """Whether a key only comes again because it is held down."""
        now, before = self._clock(), self._pressed_s.get(key, float("-inf"))
        self._pressed_s[key] = now
        return now - before < REPEAT_S


def _stdin() -> int:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return -1
