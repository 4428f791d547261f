"""Quality of service: what to ask of the publishers that are there, so that every one of them is heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lehrling.datasets.embodiment import Source
from lehrling.datasets.errors import InputError

Reliability = Literal["reliable", "best_effort"]
Durability = Literal["volatile", "transient_local"]
KEYS = {"reliability": ("reliable", "best_effort"), "durability": ("volatile", "transient_local"), "depth": ()}
DEPTH_MIN, DEPTH_MAX, DEPTH_UNKNOWN = 60, 20_000, 1000


@dataclass(frozen=True)
class Offer:
    """What one publisher offers."""

    reliability: Reliability
    durability: Durability


@dataclass(frozen=True)
class Request:
    """What a subscription asks for."""

    reliability: Reliability
    durability: Durability
    depth: int

    def heard(self, offer: Offer) -> bool:
        """Whether a publisher of this offer is heard (the middleware's compatibility rules)."""
        reliable = self.reliability == "best_effort" or offer.reliability == "reliable"
        return reliable and (self.durability == "volatile" or offer.durability == "transient_local")


def depth_for(rate_hz: float | None) -> int:
    """Return a depth that holds at least one second."""
    if rate_hz is None:
        return DEPTH_UNKNOWN
    return max(DEPTH_MIN, min(DEPTH_MAX, round(2 * rate_hz)))


def check_override(override: Mapping[str, str | int], topic: str) -> None:
    """Check a source's `qos`.

    Raises:
        InputError: an unknown key or value.
    """
    for key, value in override.items():
        if key not in KEYS:
            raise InputError(f"Topic {topic}: {key!r} is no key of qos; expected {', '.join(KEYS)}.")
        if key == "depth" and not (isinstance(value, int) and 1 <= value <= DEPTH_MAX):
            raise InputError(f"Topic {topic}: qos depth must be a number from 1 to {DEPTH_MAX}, got {value!r}.")
        if key != "depth" and value not in KEYS[key]:
            raise InputError(f"Topic {topic}: qos {key} must be {' or '.join(KEYS[key])}, got {value!r}.")


def request_for(offers: Sequence[Offer], source: Source) -> Request:
    """Return the strongest request by which every publisher is heard; the source's own words go first.

    Without publishers it is the weakest, which hears any that comes.
    """
    override: Mapping[str, Any] = source.qos
    reliable = bool(offers) and all(offer.reliability == "reliable" for offer in offers)
    latched = bool(offers) and all(offer.durability == "transient_local" for offer in offers)
    return Request(
        override.get("reliability", "reliable" if reliable else "best_effort"),
        override.get("durability", "transient_local" if latched else "volatile"),
        int(override.get("depth", depth_for(source.rate_hz))),
    )


def mismatch(request: Request, offers: Sequence[Offer], topic: str) -> str:
    """Return a sentence on publishers that are not heard or heard less well than they could be, or an empty string."""
    deaf = [offer for offer in offers if not request.heard(offer)]
    if deaf:
        return (
            f"{topic}: {len(deaf)} of {len(offers)} publishers are not heard: they offer {deaf[0].reliability}, "
            f"{deaf[0].durability}, the embodiment's qos asks for {request.reliability}, {request.durability}; correct it."
        )
    if len({offer.reliability for offer in offers}) > 1 and request.reliability == "best_effort":
        return f"{topic}: some publishers are reliable and some best effort; all are heard, but as best effort."
    if len({offer.durability for offer in offers}) > 1:
        return (
            f"{topic}: some publishers are transient local and some volatile; all are heard, but what was published before "
            "the recorder began is not; let all be transient local."
        )
    return ""
