"""Limits of the quality gates, from YAML; every gate can be moved, made strict or switched off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lehrling.datasets.documents import read_model

Level = Literal["off", "warn", "refuse"]


class Gate(BaseModel):
    """One gate: its limit, and what a value beyond it means. `refuse` quarantines where asked to."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    limit: Annotated[float, Field(ge=0)]
    level: Level = "warn"


class QualityLimits(BaseModel):
    """All gates.

    Attributes:
        gap_periods: longest silence of a stream, in its nominal periods.
        dropped_share: of a stream's messages, lost on the way.
        freeze_s: longest time for which a camera showed the same picture.
        saturation_share: of rows with a joint within `saturation_margin` of its range's end.
        jerk: 99th percentile of |jerk| of a stream's jerkiest element, over that of the median episode.
        idle_share: of the time in which nothing moved faster than `idle_speed` (rad/s or m/s).
        offset_ms: by which the state follows its command.
        black_share: of pictures darker than `black_level` (of 255).
        blurred_share: of pictures less sharp than `blurred_of_median` of what that camera shows in the median episode.
        duration_deviations: distance of log duration from its task's median, in robust standard deviations.
        imbalance: how many times as often the most frequent task (outcome, instruction) comes as the rarest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    gap_periods: Gate = Gate(limit=15, level="refuse")
    dropped_share: Gate = Gate(limit=0.01)
    freeze_s: Gate = Gate(limit=1.0, level="refuse")
    saturation_share: Gate = Gate(limit=0.2)
    jerk: Gate = Gate(limit=3.0)
    idle_share: Gate = Gate(limit=0.6)
    offset_ms: Gate = Gate(limit=500)
    black_share: Gate = Gate(limit=0.02, level="refuse")
    blurred_share: Gate = Gate(limit=0.3)
    duration_deviations: Gate = Gate(limit=5)
    imbalance: Gate = Gate(limit=5)
    saturation_margin: Annotated[float, Field(ge=0, le=0.5)] = 0.005
    idle_speed: Annotated[float, Field(gt=0)] = 0.02
    black_level: Annotated[float, Field(ge=0, le=255)] = 12
    blurred_of_median: Annotated[float, Field(ge=0, le=1)] = 0.25
    frames_per_camera: Annotated[int, Field(ge=1, le=10_000)] = 60
    """Pictures of an episode that are looked at, evenly spread."""

    def gates(self) -> Iterator[tuple[str, Gate]]:
        """Return the gates by name."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Gate):
                yield name, value


def load_limits(path: Path | None) -> QualityLimits:
    """Read limits; None gives the defaults.

    Raises:
        InputError: no such file, or it breaks the schema; the message names the key.
    """
    if path is None:
        return QualityLimits()
    return read_model(path, QualityLimits, "quality limits")
