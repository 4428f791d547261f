"""Messages that were published and never arrived, from the publishers' sequence numbers."""

from __future__ import annotations

from dataclasses import dataclass

SENDERS_MAX = 1000


@dataclass(slots=True)
class _Sender:
    """A publisher's numbers: the newest, and since the episode began how many arrived after which."""

    newest: int
    base: int
    arrived: int = 0


class SequenceCount:
    """Counts per topic; each publisher counts its messages from 1, over all its subscribers.

    What a publisher sent before it was first heard is not counted: it may have had no subscriber yet. Numbers that arrive late
    are taken back from the loss.
    """

    def __init__(self) -> None:
        self._senders: dict[str, dict[bytes, _Sender]] = {}
        self._unknown: set[str] = set()

    def begin(self) -> None:
        """Count anew from here, as at an episode's beginning."""
        self._unknown.clear()
        for senders in self._senders.values():
            for sender in senders.values():
                sender.base, sender.arrived = sender.newest, 0

    def received(self, topic: str, sender: bytes, sequence: int | None) -> None:
        """Count a message."""
        if sequence is None:
            self._unknown.add(topic)
            return
        senders = self._senders.setdefault(topic, {})
        known = senders.get(sender)
        if known is None:
            _add(senders, sender, _Sender(sequence, sequence - 1, 1))
            return
        if sequence > known.base:
            known.arrived += 1
        known.newest = max(known.newest, sequence)

    def refused(self, topic: str, sender: bytes, count: int, first: int | None, newest: int | None) -> None:
        """Count messages that arrived and were refused for want of room: they are not missing."""
        if first is None or newest is None:
            self._unknown.add(topic)
            return
        senders = self._senders.setdefault(topic, {})
        known = senders.get(sender)
        if known is None:
            _add(senders, sender, _Sender(newest, first - 1, count))
            return
        known.arrived += count if first > known.base else min(count, max(newest - known.base, 0))
        known.newest = max(known.newest, newest)

    def newest(self, topic: str, sender: bytes) -> int:
        """Return the highest number that was heard of a publisher, 0 before the first."""
        known = self._senders.get(topic, {}).get(sender)
        return known.newest if known is not None else 0

    def counted(self, topic: str, sender: bytes, sequence: int | None) -> bool:
        """Whether this number, or a later one, was heard of this publisher since the episode began."""
        known = self._senders.get(topic, {}).get(sender)
        return known is not None and sequence is not None and known.base < sequence <= known.newest

    def senders(self, topic: str) -> int:
        """Return how many publishers were heard on a topic."""
        return len(self._senders.get(topic, {}))

    def lost(self, topic: str) -> int | None:
        """Return how many messages are missing since `begin`, None where the middleware does not tell."""
        if topic in self._unknown:
            return None
        return sum(max(s.newest - s.base - s.arrived, 0) for s in self._senders.get(topic, {}).values())


def _add(senders: dict[bytes, _Sender], name: bytes, sender: _Sender) -> None:
    if len(senders) >= SENDERS_MAX:
        senders.pop(next(iter(senders)))
    senders[name] = sender
