"""Success rates with their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lehrling.datasets.errors import InputError

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class SuccessRate:
    """Successes out of n, with the 95 % Wilson score interval (Wilson 1927, JASA 22)."""

    n: int
    successes: int

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.successes <= self.n:
            raise InputError(f"Expected 0 <= successes <= n and n >= 1, got {self.successes} of {self.n}.")

    @property
    def rate(self) -> float:
        """The share of successes."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval, lower and upper bound."""
        z2, p = Z_95**2 / self.n, self.rate
        centre = (p + z2 / 2) / (1 + z2)
        half = Z_95 / (1 + z2) * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n))
        low = 0.0 if self.successes == 0 else max(0.0, centre - half)
        high = 1.0 if self.successes == self.n else min(1.0, centre + half)
        return low, high

    def to_json(self) -> dict[str, int | float | list[float]]:
        """Return n, successes, rate and interval."""
        return {
            "n": self.n,
            "successes": self.successes,
            "rate": round(self.rate, 4),
            "interval": [round(bound, 4) for bound in self.interval],
        }
