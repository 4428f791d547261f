"""Limits in numbers: what each row of the guard defaults to, and the configuration that changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lehrling.datasets.documents import explain, read_yaml
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_events import Cause

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0, le=600_000)]

DEFAULTS: dict[str, tuple[float, float, float]] = {"rad": (1.0, 5.0, 50.0), "m": (0.25, 1.0, 10.0)}
"""Velocity, acceleration and jerk by unit, where neither binding nor configuration gives one."""

LATCHING = (
    Cause.REQUEST,
    Cause.CLAMPS,
    Cause.WORKSPACE,
    Cause.COLLISION,
    Cause.OBSERVATION,
    Cause.FOLLOWING,
    Cause.CLOCK,
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AxisLimits(_Strict):
    """What replaces an axis's limits; absent keys leave them as they are."""

    low: float | None = None
    high: float | None = None
    velocity: Positive | None = None
    acceleration: Positive | None = None
    jerk: Positive | None = None
    margin: Annotated[float, Field(ge=0)] | None = None
    step: Positive | None = None


class Freshness(_Strict):
    """How old an observation may be before the robot holds, and before it stops."""

    hold_ms: Milliseconds
    stop_ms: Milliseconds


class ByUnit(_Strict):
    """A length for axes in rad and one for axes in m."""

    rad: Positive
    m: Positive

    def of(self, unit: str) -> float:
        """Return the length for a unit, infinite for normalised axes."""
        return {"rad": self.rad, "m": self.m}.get(unit, float("inf"))


class Margin(_Strict):
    """Distance that targets keep from the ends of the range, at most 2 % of it; MoveIt Servo keeps 0.1 rad."""

    rad: Annotated[float, Field(ge=0)] = 0.1
    m: Annotated[float, Field(ge=0)] = 0.0


class Box(_Strict):
    """A box [m] in the frame of the kinematic chain or of the commanded TCP."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


class LinkConfig(_Strict):
    """One link: where it sits on its parent at joint value 0, and how its joint moves it.

    Attributes:
        parent: an earlier link; empty for the base.
        xyz, rpy: fixed transform from parent to joint frame [m, rad], as in a URDF origin.
        joint: name of the axis that moves it; empty where it is fixed.
        axis: of rotation or translation, in the joint frame.
    """

    name: str
    parent: str = ""
    xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0)
    joint: str = ""
    kind: Literal["revolute", "prismatic", "fixed"] = "revolute"
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)


class CapsuleConfig(_Strict):
    """A capsule on a link: a segment from a to b [m, link frame] and a radius [m]."""

    link: str
    a: tuple[float, float, float]
    b: tuple[float, float, float]
    radius: Positive


class SpaceConfig(_Strict):
    """Where the robot may be.

    Attributes:
        links, tcp: kinematic chain of the joints and the link whose origin must stay in `boxes`; without links, `boxes`
            hold for the commanded TCP.
        boxes: the TCP must be in one of them; none allows all.
        keep_out: the TCP must be in none of them.
        capsules: no two may come closer than `clearance_m`, except those on one link, on a link and its parent, and `ignore`.
        sample: largest change of an axis [rad or m] between two checked positions.
    """

    links: tuple[LinkConfig, ...] = ()
    tcp: str = ""
    boxes: tuple[Box, ...] = ()
    keep_out: tuple[Box, ...] = ()
    capsules: tuple[CapsuleConfig, ...] = ()
    ignore: tuple[tuple[str, str], ...] = ()
    clearance_m: Annotated[float, Field(ge=0)] = 0.01
    sample: Positive = 0.02


class GuardConfig(_Strict):
    """Every row of the guard; `docs/guard.md` explains each with its reason.

    Attributes:
        rate_hz: control rate; one command per period.
        axes: limits by axis name that replace those of the binding, `margin` and `step`.
        margin: what targets keep from the ends of an axis's range.
        clamps_max, clamp_window_s: so many targets beyond the range itself within so long stop the robot.
        step: largest change from one target to the next.
        first_move: largest distance of the first target from the measured position.
        following: largest distance of the measured position from the commanded one.
        blend: how far the path may stay away from a target on a sharp turn.
        catch_up: share of the nominal speed by which it may be exceeded, within all limits and at full speed override
            only, until the time is made up for that the limits cost; never with axes of velocities.
        sources: by name of an observation (`joints`, cameras), how old it may be.
        action_timeout_ms: without a target for so long, the action is stale: the robot holds.
        chunk_age_ms: a chunk made from an older observation than this is refused.
        client_timeout_ms, deadman_timeout_ms: presence and enabling signal must be renewed within; None switches off.
        let_go_ms: after holding for so long, targets are dropped and the first-move check holds again.
        stall_ms: a longer gap between steps means that the robot came to rest by itself: commands go on from rest, after
            `let_go_ms` only with new targets.
        latching: causes whose stop is latched until a local operator resets it.
        latch_path: file that keeps a latched stop over restarts.
    """

    rate_hz: Annotated[float, Field(ge=1, le=1000)] = 100.0
    axes: dict[str, AxisLimits] = {}
    margin: Margin = Margin()
    clamps_max: Annotated[int, Field(ge=1, le=100_000)] = 20
    clamp_window_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    step: ByUnit = ByUnit(rad=0.5, m=0.1)
    first_move: ByUnit = ByUnit(rad=0.2, m=0.05)
    following: ByUnit | None = ByUnit(rad=0.5, m=0.2)
    blend: ByUnit = ByUnit(rad=0.003, m=0.001)
    catch_up: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    sources: dict[str, Freshness] = {"joints": Freshness(hold_ms=200, stop_ms=1000)}
    action_timeout_ms: Milliseconds = 100
    chunk_age_ms: Milliseconds = 1000
    client_timeout_ms: Milliseconds | None = 500
    deadman_timeout_ms: Milliseconds | None = 200
    let_go_ms: Milliseconds = 1000
    stall_ms: Milliseconds = 100
    chunk_max: Annotated[int, Field(ge=1, le=4096)] = 1024
    latching: tuple[Cause, ...] = LATCHING
    latch_path: Path | None = None
    space: SpaceConfig = SpaceConfig()

    @property
    def period_ns(self) -> int:
        """The control period."""
        return round(1e9 / self.rate_hz)


def load_guard_config(path: Path) -> GuardConfig:
    """Read a configuration from a YAML file.

    Raises:
        InputError: naming file and key.
    """
    if not path.is_file():
        raise InputError(f"Expected a guard configuration (YAML), but there is no file {path}.")
    data = read_yaml(path, "guard configuration")
    try:
        return GuardConfig.model_validate({} if data is None else data)
    except ValidationError as error:
        raise InputError(explain(error, str(path), GuardConfig, "a guard configuration")) from error
