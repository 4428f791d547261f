"""What the handshake asked of the runtime and still waits for: a cycle, a recipe, a rest. Pure, in given time."""

from __future__ import annotations

from dataclasses import dataclass

from lehrling.deploy.handshake_image import U32
from lehrling.deploy.runtime import Phase, Result, RuntimeState

MOVING = (Phase.EXECUTING, Phase.STOPPING)
SETTLE_NS = 200_000_000
"""A runtime shows within this time that it took a request up, or has taken it up and is done already."""


@dataclass
class Cycle:
    """The cycle that was asked for last.

    Attributes:
        number: u32, never 0 for a cycle.
        open: asked for, and its end not seen.
        started: the runtime was seen to execute it.
        asked_ns: when it was asked for.
        stop_ns: when rest was asked for last.
        rest_ns: since when rest is due, while the robot still moves.
        timed_out: whether it was stopped for taking too long.
    """

    number: int = 0
    open: bool = False
    started: bool = False
    asked_ns: int = 0
    stop_ns: int | None = None
    rest_ns: int | None = None
    timed_out: bool = False

    def ask(self, state: RuntimeState, now_ns: int) -> int:
        """Open the next cycle; return its number."""
        self.number = ((self.number or state.cycle) + 1) % U32 or 1
        self.open, self.started, self.asked_ns = True, False, now_ns
        self.stop_ns, self.rest_ns, self.timed_out = None, None, False
        return self.number

    def see(self, state: RuntimeState, now_ns: int, answer_ns: int) -> Result | None:
        """Take the runtime's state; return how the cycle ended in this step, if it did."""
        if not self.open:
            return None
        ours = state.cycle == self.number
        self.started = self.started or (ours and state.phase in MOVING)
        if state.phase in MOVING:
            return None
        gone = state.phase in (Phase.FAULT, Phase.OFFLINE)
        over = self.started or gone or (ours and state.result is not Result.NONE)
        if not over and not self.unanswered(now_ns, answer_ns):
            return None
        self.open, self.stop_ns = False, None
        if self.timed_out:
            return Result.TIMEOUT
        trusted = ours and state.phase is not Phase.OFFLINE and (self.started or not gone)
        return state.result if trusted and state.result is not Result.NONE else Result.ABORTED

    def unanswered(self, now_ns: int, answer_ns: int) -> bool:
        """Whether the runtime never began it, and had the time, which is short once rest was asked for."""
        if not self.open or self.started:
            return False
        stopped = self.stop_ns is not None and now_ns - self.stop_ns > SETTLE_NS
        return stopped or now_ns - self.asked_ns > answer_ns

    def may_ask_stop(self, now_ns: int) -> bool:
        """Whether to ask for rest: once, and again when nothing came of it."""
        if self.stop_ns is not None and now_ns - self.stop_ns <= SETTLE_NS:
            return False
        self.stop_ns = now_ns
        self.rest_ns = now_ns if self.rest_ns is None else self.rest_ns
        return True

    def restless(self, state: RuntimeState, now_ns: int, answer_ns: int) -> bool:
        """Whether the robot still moves, so it says, though rest has been due for longer than it takes."""
        if state.phase not in MOVING:
            self.rest_ns = None
        elif state.phase is Phase.STOPPING and self.rest_ns is None:
            self.rest_ns = now_ns
        return self.rest_ns is not None and now_ns - self.rest_ns > answer_ns


@dataclass
class Loading:
    """The recipe that was asked for last.

    Attributes:
        recipe: 0 when none is waited for.
    """

    recipe: int = 0
    _asked_ns: int = 0
    _seen: bool = False

    def ask(self, recipe: int, now_ns: int) -> None:
        """Wait for a recipe."""
        self.recipe, self._asked_ns, self._seen = recipe, now_ns, False

    def see(self, state: RuntimeState, now_ns: int, answer_ns: int) -> bool:
        """Take the runtime's state; return whether it did not take the recipe up, and is no longer waited for."""
        if not self.recipe:
            return False
        self._seen = self._seen or state.phase is Phase.LOADING
        settled = self._seen or now_ns - self._asked_ns > SETTLE_NS
        loaded = state.phase is Phase.READY and state.recipe == self.recipe and settled
        if loaded or state.phase in (Phase.FAULT, Phase.OFFLINE):
            self.recipe = 0
        elif state.phase is not Phase.LOADING and now_ns - self._asked_ns > answer_ns:
            self.recipe = 0
            return True
        return False
