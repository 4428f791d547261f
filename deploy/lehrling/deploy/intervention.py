"""An operator takes over from the policy: commands of a device, such as a leader arm, in place of the policy's targets."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Source, Stream
from lehrling.datasets.errors import LehrlingError
from lehrling.deploy.guard_link import GuardLink

FloatArray = NDArray[np.float64]
HELD_NS = 250_000_000
"""The policy goes on so long after the device's last command."""
INTERVAL_NS, SPAN_NS = 50_000_000, (10_000_000, 200_000_000)


class Intervention:
    """Hears a device on the embodiment's command topics below a prefix, and leads the guard where it says.

    Attributes:
        heard: topics to subscribe to -> message type.
        refused: why its last command could not be used; empty if it could.
    """

    def __init__(self, link: GuardLink, prefix: str) -> None:
        """Find the topics; an empty prefix hears nothing."""
        self._link, layout = link, link.layout
        sources = layout.embodiment.binding.sources
        self._feeds: dict[str, tuple[Stream, Source]] = {
            prefix + link.full(source.topic): (part.stream, source)
            for part in layout.parts
            for source in sources[part.stream.name]
            if prefix
        }
        self.heard = {topic: source.type for topic, (_, source) in self._feeds.items()}
        self.refused = ""
        self._rows: dict[str, FloatArray] = {}
        self._last_ns, self._before_ns = -HELD_NS, 0
        self._new = False

    def active(self, now_ns: int) -> bool:
        """Whether the operator has the robot."""
        return now_ns - self._last_ns < HELD_NS

    def hear(self, topic: str, cdr: bytes, now_ns: int) -> bool:
        """Take a message; return whether it is the device's."""
        if topic not in self._feeds:
            return False
        stream, source = self._feeds[topic]
        try:
            row, mask = messages.numeric_row(
                messages.decode(cdr, source.type), source, stream, self._link.layout.embodiment.contract.joint_names
            )
        except (LehrlingError, struct.error) as error:
            self.refused = str(error)
            return True
        if not mask.all():
            self.refused = f"{topic}: expected a whole command, some of its elements are missing."
            return True
        self.refused = ""
        if not self.active(now_ns):
            self._rows.clear()
        self._before_ns, self._last_ns = self._last_ns, now_ns
        self._rows[stream.name], self._new = row, True
        return True

    def lead(self, now_ns: int) -> str:
        """Submit what the device said last, once; return why the guard refuses it, or an empty string."""
        if not self._new:
            return ""
        self._new = False
        guard = self._link.guard
        target = self._link.layout.vector(self._rows)
        here = guard.position if guard.engaged else guard.measured
        held = np.where(guard.axes.is_velocity, 0.0, here)
        target = np.where(np.isnan(target), np.nan_to_num(held), target)
        interval = int(np.clip(now_ns - self._before_ns, *SPAN_NS)) if self._before_ns > 0 else INTERVAL_NS
        answer = guard.submit(now_ns, target, interval_ns=interval)
        return "" if answer else answer.text
