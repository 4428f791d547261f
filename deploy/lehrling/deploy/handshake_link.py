"""Whether the PLC is there, which of its commands are new, and which of its permissions hold: each pure, in given time."""

from __future__ import annotations

from dataclasses import dataclass

from lehrling.deploy.handshake_image import U16, U32


def newer(number: int, than: int, size: int) -> bool:
    """Whether a counter that wraps at `size` has gone on, by less than half its range (RFC 1982)."""
    return 0 < (number - than) % size < size // 2


@dataclass
class Heartbeat:
    """Watches a u16 that has to go on.

    Attributes:
        up: whether the PLC is there.
        lost: whether it was there, and its loss has not been taken yet; the reader clears it.
    """

    timeout_ns: int
    beats_needed: int
    up: bool = False
    lost: bool = False
    _last: int | None = None
    _last_ns: int = 0
    _beats: int = 0

    def see(self, beat: int, now_ns: int) -> None:
        """Take the heartbeat as it reads now; a gap longer than the timeout is a loss even if the beat is new."""
        if self._last is None:
            self._last, self._last_ns = beat, now_ns
            return
        late = now_ns - self._last_ns > self.timeout_ns
        if late:
            self.lost = self.lost or self.up
            self.up, self._beats = False, 0
        # Without a link any change counts: a PLC that restarted begins anew, below where it was.
        if newer(beat, self._last, U16) or (late and beat != self._last):
            self._last, self._last_ns = beat, now_ns
            self._beats += 1
            self.up = self.up or self._beats >= self.beats_needed


@dataclass
class Sequence:
    """Tells new commands from repeated and reordered ones, by a u32 that wraps.

    Attributes:
        acked: the last number that was handled.
    """

    acked: int = 0
    _seen: bool = False

    def take(self, seq: int, linked: bool) -> bool:
        """Whether a command is new; it is then acknowledged.

        What stands there at the beginning is no command. Without a link the counter may begin anew, so that any other
        number is new.
        """
        if not self._seen:
            self.acked, self._seen = seq % U32, True
            return False
        if seq != self.acked if not linked else newer(seq, self.acked, U32):
            self.acked = seq % U32
            return True
        return False


@dataclass
class Permissive:
    """A permission that has to hold for a while before it counts, and is lost at once.

    Attributes:
        held: whether it counts.
    """

    debounce_ns: int
    held: bool = False
    _since_ns: int | None = None
    _lost_ns: int | None = None

    def see(self, given: bool, now_ns: int) -> None:
        """Take the permission as it reads now."""
        if not given:
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = now_ns
        self.held = self._since_ns is not None and now_ns - self._since_ns >= self.debounce_ns
        if self.held:
            self._lost_ns = None
        elif self._lost_ns is None:
            self._lost_ns = now_ns

    def gone(self, now_ns: int) -> bool:
        """Whether it has not counted for longer than a contact bounces."""
        return self._lost_ns is not None and now_ns - self._lost_ns > 3 * self.debounce_ns
