"""From an embodiment to axes: which elements of which action streams a guard commands, and where they are measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.embodiment import Embodiment, Stream
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axis, Unit
from lehrling.deploy.guard_claim import Claim
from lehrling.deploy.guard_events import Command
from lehrling.deploy.guard_limits import DEFAULTS, Box, Freshness, GuardConfig
from lehrling.deploy.guard_rotation import from_rotation_vector, to_rotation_vector

FloatArray = NDArray[np.float64]
Form = Literal["joints", "normalised", "pose", "twist"]
CAMERA = Freshness(hold_ms=500, stop_ms=2000)
MARGIN_SHARE = 0.02
"""Of the range, at most, so that a finger or a gripper can still close."""
IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])
POSE_AXES = ("x", "y", "z", "rx", "ry", "rz")


@dataclass(frozen=True)
class Part:
    """An action stream's place among the axes.

    Attributes:
        names: of the axes; a pose's are x, y, z and a rotation vector.
        measured: observation stream that tells where the axes are; empty where none does.
    """

    stream: Stream
    form: Form
    start: int
    names: tuple[str, ...]
    measured: str

    @property
    def place(self) -> slice:
        """Where in the command vector."""
        return slice(self.start, self.start + len(self.names))


class Layout:
    """Axes of an embodiment's action streams; turns rows of streams into command vectors and back.

    Orientations are rotation vectors from a reference: that of `refer`, or the first that is measured.

    Attributes:
        axes: in the order of the command vector.
        observed: observation streams that `measured` needs.
    """

    def __init__(self, embodiment: Embodiment, config: GuardConfig, streams: Sequence[str] | None = None) -> None:
        """Lay out the action streams, or those of them that are named.

        Raises:
            InputError: a stream cannot be commanded, or a range is missing; the message names the key.
        """
        self.embodiment = embodiment
        self.parts = _parts(embodiment, streams)
        self.axes = tuple(axis for part in self.parts for axis in _axes(part, embodiment, config))
        self.observed = tuple(dict.fromkeys(part.measured for part in self.parts if part.measured))
        self._reference: dict[str, FloatArray] = {}
        self._turned: dict[str, FloatArray] = {part.stream.name: np.zeros(3) for part in self.parts}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the axes."""
        return tuple(axis.name for axis in self.axes)

    def claim(self, statistics_hash: str = "", model_hash: str = "") -> Claim:
        """Return what clients must agree to."""
        names, units = tuple(axis.name for axis in self.axes), tuple(_said(axis) for axis in self.axes)
        return Claim(self.embodiment.contract_hash, names, units, statistics_hash, model_hash)

    def refer(self, rows: Mapping[str, FloatArray]) -> None:
        """Take the orientations of rows of the action streams as references, where there are none yet."""
        for part in self.parts:
            if part.form == "pose" and part.stream.name in rows:
                self._refer(part, rows[part.stream.name])

    def _refer(self, part: Part, row: FloatArray) -> None:
        length = float(np.linalg.norm(row[3:]))
        if 0.9 < length < 1.1:
            self._reference.setdefault(part.stream.name, row[3:] / length)

    def measured(self, rows: Mapping[str, FloatArray]) -> FloatArray:
        """Return the measured position (D,) from the latest rows of the observed streams, NaN where none tells."""
        position = _unknown(len(self.axes))
        for part in self.parts:
            row = rows.get(part.measured)
            if row is None:
                continue
            if part.form == "pose":
                self._refer(part, row)
                position[part.place] = self._pose_vector(part, row)
            else:
                places = self.embodiment.contract.stream(part.measured).names
                position[part.place] = [row[places.index(name)] if name in places else np.nan for name in part.names]
        return position

    def vector(self, rows: Mapping[str, FloatArray]) -> FloatArray:
        """Return the command vector (D,) that rows of the action streams ask for, NaN where none does."""
        target = _unknown(len(self.axes))
        for part in self.parts:
            if part.stream.name in rows:
                row = rows[part.stream.name]
                target[part.place] = self._pose_vector(part, row) if part.form == "pose" else row
        return target

    def rows(self, command: Command) -> dict[str, FloatArray]:
        """Return the rows of the action streams that a command asks for."""
        return {part.stream.name: self._row(part, command) for part in self.parts}

    def _row(self, part: Part, command: Command) -> FloatArray:
        if part.form == "twist":
            return command.velocity[part.place]
        position = command.position[part.place]
        if part.form != "pose":
            return position
        reference = self._reference.get(part.stream.name, IDENTITY)
        return np.concatenate([position[:3], from_rotation_vector(position[3:], reference)])

    def _pose_vector(self, part: Part, row: FloatArray) -> FloatArray:
        name = part.stream.name
        turned = to_rotation_vector(row[3:], self._reference.get(name, IDENTITY), self._turned[name])
        if np.isfinite(turned).all():
            self._turned[name] = turned
        return np.concatenate([row[:3], turned])


def guard_for(
    embodiment: Embodiment,
    config: GuardConfig | None = None,
    *,
    streams: Sequence[str] | None = None,
    cameras: Sequence[str] = (),
    statistics_hash: str = "",
    model_hash: str = "",
) -> tuple[Guard, Layout]:
    """Return a guard of an embodiment's action streams, and its layout.

    Args:
        embodiment: its binding's limits hold where the configuration replaces none.
        config: defaults if not given.
        streams: action streams to command; all of them if not given.
        cameras: whose images must be fresh; joints or TCP must be where there is anything to measure.
        statistics_hash: of the policy's normalisation, part of the contract check.
        model_hash: of the policy.

    Raises:
        InputError: embodiment and configuration do not fit.
    """
    config = config or GuardConfig()
    layout = Layout(embodiment, config, streams)
    sources = dict.fromkeys(cameras, CAMERA) | config.sources
    if not layout.observed:
        sources.pop("joints", None)
    space, boxes = config.space, list(embodiment.binding.limits.workspace.values())
    if len(boxes) > 1 and not space.boxes and any(axis.coordinate for axis in layout.axes):
        space = space.model_copy(update={"boxes": tuple(Box(low=low, high=high) for low, high in boxes)})
    config = config.model_copy(update={"sources": sources, "space": space})
    return Guard(config, layout.axes, layout.claim(statistics_hash, model_hash)), layout


def _unknown(count: int) -> FloatArray:
    return np.full(count, np.nan)


def _said(axis: Axis) -> str:
    return f"{axis.unit}/s" if axis.is_velocity else axis.unit


def _parts(embodiment: Embodiment, wanted: Sequence[str] | None) -> tuple[Part, ...]:
    contract = embodiment.contract
    for name in wanted or ():
        contract.stream(name)
    chosen = [s for s in contract.streams if s.role == "action" and (wanted is None or s.name in wanted)]
    if not chosen:
        raise InputError(f"Expected action streams of {embodiment.name!r} to command, found none.")
    parts: list[Part] = []
    for stream in chosen:
        start = parts[-1].place.stop if parts else 0
        form = _form(stream)
        parts.append(Part(stream, form, start, _names(stream, form), _measured_by(stream, form, embodiment)))
    return tuple(parts)


def _form(stream: Stream) -> Form:
    if stream.kind == "joint_position" and stream.names:
        words = set(re.findall(r"[a-z]+", stream.unit.lower()))
        return "joints" if not words or words & {"rad", "m"} else "normalised"
    if stream.kind == "pose" and stream.shape == (7,):
        return "pose"
    if stream.kind == "twist" and stream.shape == (6,):
        return "twist"
    raise InputError(
        f"Action stream {stream.name!r} ({stream.kind}, shape {stream.shape}) cannot be commanded; expected joint "
        "positions with names, a pose of 7 or a twist of 6 elements."
    )


def _names(stream: Stream, form: Form) -> tuple[str, ...]:
    if form == "joints":
        return stream.names
    elements = POSE_AXES if form == "pose" else stream.names or ("vx", "vy", "vz", "wx", "wy", "wz")
    return tuple(f"{stream.name}_{element}" for element in elements)


def _measured_by(stream: Stream, form: Form, embodiment: Embodiment) -> str:
    kind = {"joints": "joint_position", "pose": "pose"}.get(form)
    for other in embodiment.contract.streams:
        if other.role == "observation" and other.kind == kind:
            same = set(stream.names) <= set(other.names) if form == "joints" else other.frame == stream.frame
            if same:
                return other.name
    return ""


def _axes(part: Part, embodiment: Embodiment, config: GuardConfig) -> list[Axis]:
    units = {joint.name: joint.unit for joint in embodiment.contract.joints}
    axes = [_axis(part, index, name, embodiment, units) for index, name in enumerate(part.names)]
    return [_configured(axis, config, embodiment) for axis in axes]


def _axis(part: Part, index: int, name: str, embodiment: Embodiment, units: Mapping[str, Unit]) -> Axis:
    measured = bool(part.measured)
    if part.form == "normalised":
        return Axis(name, "1", -1.0, 1.0, measured=False)
    if part.form == "joints":
        return Axis(name, units[name], measured=measured)
    unit: Unit = "m" if index < 3 else "rad"
    if part.form == "twist":
        return Axis(name, unit, is_velocity=True, measured=False)
    if unit == "rad":
        return Axis(name, unit, -2 * math.pi, 2 * math.pi, measured=measured)
    coordinates: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
    low, high = _workspace(embodiment, index)
    return Axis(name, unit, low, high, measured=measured, coordinate=coordinates[index])


def _workspace(embodiment: Embodiment, index: int) -> tuple[float, float]:
    boxes = embodiment.binding.limits.workspace.values()
    if not boxes:
        return -math.inf, math.inf
    return min(low[index] for low, _ in boxes), max(high[index] for _, high in boxes)


def _configured(axis: Axis, config: GuardConfig, embodiment: Embodiment) -> Axis:
    """Return the axis with the binding's limits, the configuration's instead of them, and defaults where neither has one."""
    limits, given = embodiment.binding.limits, config.axes.get(axis.name)
    found: dict[str, float] = {"low": axis.low, "high": axis.high}
    if axis.name in limits.position:
        found["low"], found["high"] = limits.position[axis.name]
    for row, default in zip(
        ("velocity", "acceleration", "jerk"), DEFAULTS.get(axis.unit, (math.inf,) * 3), strict=True
    ):
        found[row] = getattr(limits, row).get(axis.name, default)
    found["margin"] = {"rad": config.margin.rad, "m": config.margin.m}.get(axis.unit, 0.0)
    found["step"] = config.step.of(axis.unit)
    if axis.is_velocity or axis.name.endswith(("_rx", "_ry", "_rz")):
        found["margin"] = 0.0
    if math.isfinite(found["high"] - found["low"]):
        found["margin"] = min(found["margin"], MARGIN_SHARE * (found["high"] - found["low"]))
    if given is not None:
        found |= {key: value for key, value in given.model_dump().items() if value is not None}
    if not axis.is_velocity and not (math.isfinite(found["low"]) and math.isfinite(found["high"])):
        raise InputError(
            f"Axis {axis.name!r} of {embodiment.name!r} has no range; give `limits.position` (joints) or "
            "`limits.workspace` (TCP) in the binding, or `axes` in the guard configuration."
        )
    return Axis(
        axis.name, axis.unit, **found, is_velocity=axis.is_velocity, measured=axis.measured, coordinate=axis.coordinate
    )
