"""What a monitor finds, and the list of it that an episode keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

FINDINGS_MAX = 200
Severity = Literal["warning", "error"]
Kind = Literal["missing", "stale", "rate", "frozen", "loss", "sequence", "qos", "clock", "stamp", "lag", "more"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        topic: "" where it concerns this computer, not a topic.
        since_ns, until_ns: on this computer's realtime clock; None while it lasts.
        severity: an `error` spoils data, a `warning` may.
        text: what was expected, what came, and what to do.
    """

    kind: Kind
    topic: str
    since_ns: int
    until_ns: int | None
    severity: Severity
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON data."""
        return asdict(self)


class FindingLog:
    """An episode's findings: at most one of a kind and topic lasts at a time."""

    def __init__(self) -> None:
        self._open: dict[tuple[Kind, str], Finding] = {}
        self._ended: list[Finding] = []
        self._left_out: Counter[str] = Counter()

    def lasts(self, kind: Kind, topic: str) -> bool:
        """Whether such a finding has begun and not ended."""
        return (kind, topic) in self._open

    def update(self, seen: Iterable[Finding], now_ns: int) -> list[Finding]:
        """Take all that is seen now, with until_ns where it is over already; return what is new or has ended.

        What lasted and is not seen any more has ended. A finding that goes on takes the newest text.
        """
        told: list[Finding] = []
        still = set()
        for finding in seen:
            key = finding.kind, finding.topic
            known = self._open.get(key)
            current = replace(finding, since_ns=known.since_ns) if known is not None else finding
            if finding.until_ns is not None:
                self._open.pop(key, None)
                told.append(self._end(current))
                continue
            still.add(key)
            self._open[key] = current
            if known is None:
                told.append(current)
        over = [key for key in self._open if key not in still]
        return told + [self._end(replace(self._open.pop(key), until_ns=now_ns)) for key in over]

    def _end(self, finding: Finding) -> Finding:
        if len(self._ended) < FINDINGS_MAX:
            self._ended.append(finding)
        else:
            self._left_out[f"{finding.kind} {finding.topic}".strip()] += 1
        return finding

    def begin(self) -> None:
        """Forget what has ended; what lasts goes on into the new episode."""
        self._ended.clear()
        self._left_out.clear()

    def all(self) -> list[Finding]:
        """Return what ended and what lasts, oldest first, and how many more there were."""
        found = sorted([*self._ended, *self._open.values()], key=lambda finding: finding.since_ns)
        if self._left_out:
            last = self._ended[-1]
            counts = ", ".join(f"{name} {count}" for name, count in self._left_out.most_common(20))
            text = f"{sum(self._left_out.values())} more findings were left out: {counts}."
            found.append(Finding("more", "", last.since_ns, last.until_ns, "warning", text))
        return found
