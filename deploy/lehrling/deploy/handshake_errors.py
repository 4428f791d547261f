"""Errors of the handshake: the first one stays until it is acknowledged with its cause gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lehrling.deploy.runtime import FAULTS, Phase, RuntimeState

LATCHED, HEARTBEAT, CONTROLLER, OTHER = 5, 6, 8, 99


@dataclass
class Errors:
    """What is wrong now, and what is still to be acknowledged.

    Attributes:
        active: causes that hold now, by code.
        code: of the error that is shown; 0 where there is none.
        text: of that error.
    """

    active: Mapping[int, str] = field(default_factory=dict)
    code: int = 0
    text: str = ""
    _ack_before: bool = True

    @property
    def pending(self) -> bool:
        """Whether an error is still to be acknowledged."""
        return self.code != 0

    def see(self, active: Mapping[int, str]) -> bool:
        """Take what is wrong now; return whether an error came up that is shown from now on."""
        self.active = active
        return any(self.add(code, text) for code, text in active.items())

    def add(self, code: int, text: str) -> bool:
        """Take an error; return whether it is shown, which it is unless an earlier one is pending."""
        if self.pending:
            return False
        self.code, self.text = code, text
        return True

    def acknowledge(self, level: bool, counts: bool) -> bool:
        """Take the level of `fault_ack`; return whether its rising edge cleared the error that was shown.

        `counts`: whether an edge counts now. A cause that still holds is shown again.
        """
        rising = level and not self._ack_before and counts
        self._ack_before = level
        if not rising or not self.pending:
            return False
        shown = self.code
        if self.code not in self.active:
            self.code, self.text = 0, ""
            self.see(self.active)
        return self.code != shown


def runtime_causes(state: RuntimeState, was_online: bool) -> dict[int, str]:
    """Return what is wrong with the robot's side, by code."""
    causes: dict[int, str] = {}
    if state.phase is Phase.FAULT or state.fault_code or state.fault:
        causes[state.fault_code or (LATCHED if state.latched else OTHER)] = state.fault
    if state.latched:
        causes.setdefault(LATCHED, state.fault)
    if was_online and state.phase is Phase.OFFLINE:
        causes.setdefault(CONTROLLER, "")
    return {code: text or FAULTS.get(code, FAULTS[OTHER]) for code, text in causes.items()}
