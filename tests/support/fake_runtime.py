"""A runtime without a robot: it loads, executes and stops in given times, and breaks when told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lehrling.deploy.runtime import Axis, Phase, Result, RuntimeState

MS = 1_000_000
DEADMAN_NS = 200 * MS


@dataclass
class FakeRuntime:
    """Executes cycles in `cycle_ns` of permitted motion at full speed.

    Attributes:
        calls: every call that changes something, oldest first; permissions and speeds only in `enabled` and `speed`.
        outcome: of the cycles.
        deaf: requests are taken and forgotten.
    """

    clock: Callable[[], int] = time.monotonic_ns
    load_ns: int = 20 * MS
    cycle_ns: int = 100 * MS
    stop_ns: int = 20 * MS
    recipes: frozenset[int] = frozenset(range(1, 1000))
    outcome: Result = Result.SUCCESS
    deaf: bool = False
    calls: list[tuple[str, object]] = field(default_factory=list)
    enabled: bool = False
    speed: float = 0.0
    phase: Phase = Phase.IDLE
    recipe: int = 0
    cycle: int = 0
    result: Result = Result.NONE
    fault: tuple[int, str] = (0, "")
    latched: bool = False
    moved_ns: float = 0.0
    closed: bool = False
    _left_ns: float = 0.0
    _seen_ns: int = 0
    _enabled_ns: int = -(10**12)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def load(self, recipe: int) -> None:
        self._called("load", recipe)
        if not self.deaf and self.phase in (Phase.IDLE, Phase.READY):
            self.phase, self.recipe, self._left_ns = Phase.LOADING, recipe, self.load_ns

    def start(self, cycle: int) -> None:
        self._called("start", cycle)
        if not self.deaf and self.phase is Phase.READY:
            self.phase, self.cycle, self.result, self._left_ns = Phase.EXECUTING, cycle, Result.NONE, self.cycle_ns

    def stop(self, cause: str) -> None:
        self._called("stop", cause)
        if not self.deaf and self.phase is Phase.EXECUTING:
            self.phase, self._left_ns = Phase.STOPPING, self.stop_ns

    def reset(self, operator: str) -> None:
        self._called("reset", operator)
        if self.phase is Phase.FAULT and not self.latched:
            self.fault = (0, "")
            self.phase = Phase.READY if self.recipe else Phase.IDLE

    def set_speed(self, share: float) -> None:
        self._advance()
        self.speed = share

    def set_enabled(self, enabled: bool) -> None:
        self._advance()
        self.enabled, self._enabled_ns = enabled, self._seen_ns

    def state(self) -> RuntimeState:
        self._advance()
        with self._lock:
            code, text = self.fault
            model = f"{self.recipe:064x}" if self.recipe else ""
            axes = {"joint1": Axis(self.moved_ns / 1e9, self.speed if self.phase is Phase.EXECUTING else 0.0)}
            return RuntimeState(
                self.phase,
                self.recipe,
                self.cycle,
                self.result,
                text,
                code,
                self.latched,
                self.speed,
                model,
                axes,
            )

    def close(self) -> None:
        self._called("close", None)
        self.closed = True

    def fail(self, code: int, text: str, *, latch: bool = False) -> None:
        """Break: a cycle that executes ends as aborted."""
        self._advance()
        if self.phase in (Phase.EXECUTING, Phase.STOPPING):
            self.result = Result.ABORTED
        self.phase, self.fault, self.latched = Phase.FAULT, (code, text), latch

    def vanish(self) -> None:
        """Hear the robot no longer."""
        self._advance()
        self.phase = Phase.OFFLINE

    def come_back(self) -> None:
        """Hear the robot again, without a recipe; somebody reset it there."""
        self._advance()
        if self.phase in (Phase.OFFLINE, Phase.FAULT):
            self.phase, self.recipe, self.fault, self.latched = Phase.IDLE, 0, (0, ""), False

    def count(self, name: str) -> int:
        """Return how often something was asked for."""
        return sum(call == name for call, _ in self.calls)

    def _called(self, name: str, argument: object) -> None:
        self._advance()
        self.calls.append((name, argument))

    def _advance(self) -> None:
        with self._lock:
            now = self.clock()
            passed, self._seen_ns = now - self._seen_ns if self._seen_ns else 0, now
            if self.phase is Phase.EXECUTING:
                may = self.enabled and now - self._enabled_ns <= DEADMAN_NS
                passed_ns = passed * self.speed if may else 0.0
                self.moved_ns += passed_ns
                self._left_ns -= passed_ns
            else:
                self._left_ns -= passed
            if self._left_ns <= 0:
                self._arrive()

    def _arrive(self) -> None:
        if self.phase is Phase.LOADING:
            known = self.recipe in self.recipes
            self.phase = Phase.READY if known else Phase.FAULT
            self.fault = (0, "") if known else (1, f"Recipe {self.recipe} is not known.")
        elif self.phase is Phase.EXECUTING:
            self.phase, self.result = Phase.READY, self.outcome
        elif self.phase is Phase.STOPPING:
            self.phase, self.result = Phase.READY, Result.ABORTED
