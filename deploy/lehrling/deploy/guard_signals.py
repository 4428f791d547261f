"""What a guard is told besides targets: observations, the client's presence, the enabling switch, the speed override."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lehrling.deploy.guard_axes import Axes
from lehrling.deploy.guard_claim import Claim, check_claim
from lehrling.deploy.guard_events import Cause, EventLog
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_screen import as_targets
from lehrling.deploy.guard_watch import MS, Renewed, Source, Watch

FloatArray = NDArray[np.float64]


class Signals:
    """Keeps every signal and tells whether it still counts; the base of `Guard`."""

    def __init__(self, config: GuardConfig, axes: Axes, claim: Claim | None) -> None:
        self.config, self.axes, self.claim = config, axes, claim
        self._watch = Watch({name: Source(_ns(s.hold_ms), _ns(s.stop_ms)) for name, s in config.sources.items()})
        self._client = Renewed(_ns_or_none(config.client_timeout_ms))
        self._enabled = Renewed(_ns_or_none(config.deadman_timeout_ms))
        self._log = EventLog()
        self._measured: FloatArray = np.full(len(axes), np.nan)
        self._override, self._accepted = 1.0, claim is None

    @property
    def counts(self) -> Counter[Cause]:
        """How often each cause came up."""
        return self._log.counts

    @property
    def measured(self) -> FloatArray:
        """The last measured position (D,), NaN where none is known."""
        return self._measured.copy()

    def accept(self, claim: Claim) -> None:
        """Check what a client's commands mean; valid until it goes.

        Raises:
            ContractError: saying what differs; nothing that is submitted will be taken.
        """
        self._accepted = self.claim is None
        if self.claim is not None:
            check_claim(self.claim, claim)
            self._accepted = True

    def observe(self, now_ns: int, position: ArrayLike, stamp_ns: int, source: str = "joints") -> bool:
        """Take a measured position (D,), NaN for axes that are not measured; return whether it counts."""
        rows = as_targets(position, len(self.axes), 1)
        if isinstance(rows, str) or not np.isfinite(rows[0, self.axes.measured]).all():
            self._log.add(now_ns, Cause.NOT_FINITE, f"The measured position of {source!r} is no finite vector.")
            return False
        if not self._watch.saw(source, now_ns, stamp_ns):
            return False
        self._measured = rows[0]
        return True

    def saw(self, now_ns: int, source: str, stamp_ns: int) -> bool:
        """Note that an observation without a position came, such as an image; return whether it counts."""
        return self._watch.saw(source, now_ns, stamp_ns)

    def enable(self, now_ns: int) -> None:
        """Renew the enabling signal: the deadman switch is held."""
        self._enabled.renew(now_ns)

    def release(self) -> None:
        """Withdraw the enabling signal at once."""
        self._enabled.withdraw()

    def client(self, now_ns: int) -> None:
        """Renew the client's presence."""
        self._client.renew(now_ns)

    def leave(self) -> None:
        """Note that the client is gone, such as by a closed connection."""
        self._client.withdraw()
        self._accepted = self.claim is None

    def override(self, now_ns: int, percent: float) -> bool:
        """Set the speed override, 0 to 100 %: it scales time; the path stays. Return whether it is taken."""
        if not 0 <= percent <= 100:
            self._log.add(now_ns, Cause.OVERRIDE, f"Expected a speed override from 0 to 100 %, got {percent}.")
            return False
        self._override = percent / 100
        return True

    def _absent(self, now_ns: int, *, engaged: bool) -> tuple[Cause, str] | None:
        """Return which signal is missing to take targets, or None; a robot that is engaged may wait for the switch."""
        if not self._accepted:
            return Cause.CONTRACT, "The client has not shown that its commands fit this robot's contract."
        if not self._client.fresh(now_ns):
            return Cause.CLIENT, "The client's presence was not renewed."
        if not engaged and not self._enabled.fresh(now_ns):
            return Cause.DEADMAN, "The enabling switch is not held."
        if stale := self._watch.stale(now_ns, stop=False):
            return Cause.OBSERVATION, stale
        return None

    def _alarming(self, now_ns: int) -> tuple[Cause, str] | None:
        """Return which signal is missing so that the robot must stop, or None."""
        if not self._client.fresh(now_ns):
            return Cause.CLIENT, "The client's presence was not renewed."
        if stale := self._watch.stale(now_ns, stop=True):
            return Cause.OBSERVATION, stale
        return None

    def _withheld(self, now_ns: int) -> tuple[Cause, str] | None:
        """Return which signal is missing so that the robot must hold, or None."""
        if not self._enabled.fresh(now_ns):
            return Cause.DEADMAN, "The enabling switch was released."
        if stale := self._watch.stale(now_ns, stop=False):
            return Cause.OBSERVATION, stale
        return None


def _ns(milliseconds: float) -> int:
    return round(milliseconds * MS)


def _ns_or_none(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else _ns(milliseconds)
