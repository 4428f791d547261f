"""What must be renewed again and again: observations, the client, the enabling signal."""

from __future__ import annotations

from dataclasses import dataclass, field

MS = 1_000_000


@dataclass
class Renewed:
    """A signal that counts for a while after it was given.

    A time far in the future counts as little as one far in the past, so that a wrong clock cannot keep a signal alive.
    """

    timeout_ns: int | None
    at_ns: int | None = None

    def renew(self, now_ns: int) -> None:
        """Give the signal."""
        self.at_ns = now_ns

    def withdraw(self) -> None:
        """Take it back."""
        self.at_ns = None

    def fresh(self, now_ns: int) -> bool:
        """Whether it still counts; always where no timeout is set."""
        if self.timeout_ns is None:
            return True
        return self.at_ns is not None and abs(now_ns - self.at_ns) <= self.timeout_ns


@dataclass
class Source:
    """An observation's freshness.

    The age runs from the stamp, so that a message that is sent again and again, or comes late, does not look fresh.
    """

    hold_ns: int
    stop_ns: int
    stamp_ns: int | None = None

    def age_ns(self, now_ns: int) -> int | None:
        """Return the age, or None where nothing came yet."""
        return None if self.stamp_ns is None else abs(now_ns - self.stamp_ns)


@dataclass
class Watch:
    """All sources by name."""

    sources: dict[str, Source] = field(default_factory=dict)

    def saw(self, name: str, now_ns: int, stamp_ns: int) -> bool:
        """Note an observation; return whether it counts: newer than the last, and not from the future."""
        source = self.sources.get(name)
        if source is None or stamp_ns - now_ns > source.hold_ns:
            return False
        if source.stamp_ns is not None and stamp_ns <= source.stamp_ns:
            return False
        source.stamp_ns = stamp_ns
        return True

    def stale(self, now_ns: int, *, stop: bool) -> str:
        """Say which observation is too old to go on, or to do without a stop; an empty string if none is."""
        for name, source in self.sources.items():
            age, limit = source.age_ns(now_ns), source.stop_ns if stop else source.hold_ns
            if age is None:
                return f"No observation of {name!r} came yet."
            if age > limit:
                return f"The observation of {name!r} is {age / MS:.0f} ms old, more than {limit / MS:.0f} ms."
        return ""

    def forget(self) -> None:
        """Forget all stamps."""
        for source in self.sources.values():
            source.stamp_ns = None
