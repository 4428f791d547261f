"""A view specification resolved against a contract: which element of which stream is which column."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lehrling.datasets.errors import InputError
from lehrling.datasets.representation import ActionCodec, RelativePart

if TYPE_CHECKING:
    from lehrling.datasets.align import Rule
    from lehrling.datasets.embodiment import Contract, Stream
    from lehrling.datasets.view_spec import Field, ViewSpec

_NOT_NUMERIC = ("colour_image", "depth_image", "ragged", "raw")
_WITH_QUATERNION = ("pose", "imu")
_QUATERNION = ("qx", "qy", "qz", "qw")
_USUAL_NAMES = {
    "pose": ("x", "y", "z", *_QUATERNION),
    "imu": (*_QUATERNION, "wx", "wy", "wz", "ax", "ay", "az"),
}
"""Of the elements of streams whose contract does not name them, so that what turns is known to turn."""


@dataclass(frozen=True)
class Columns:
    """A field's columns.

    Attributes:
        field: the field of the specification.
        rule: how it is aligned.
        picks: elements of the stream's flattened row, in order.
        names: `stream.element` per column.
    """

    field: Field
    rule: Rule
    picks: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.field.stream


@dataclass(frozen=True)
class Layout:
    """Columns of state and action, cameras, and what actions are relative to.

    Attributes:
        sizes: height and width of each camera's images.
    """

    spec: ViewSpec
    state: tuple[Columns, ...]
    action: tuple[Columns, ...]
    codec: ActionCodec
    sizes: dict[str, tuple[int, int]]

    @property
    def state_names(self) -> tuple[str, ...]:
        """The state's columns, (S,)."""
        return tuple(name for part in self.state for name in part.names)

    @property
    def action_names(self) -> tuple[str, ...]:
        """The action's columns, (A,)."""
        return tuple(name for part in self.action for name in part.names)

    @property
    def sources(self) -> tuple[str, ...]:
        """What has an age, in the order of `age_ns`' columns: state/stream, image/camera, action/stream."""
        state = [f"state/{part.stream}" for part in self.state]
        images = [f"image/{camera}" for camera in self.spec.cameras]
        return (*state, *images, *(f"action/{part.stream}" for part in self.action))

    @property
    def observed(self) -> int:
        """How many of `sources` are observations; they come first."""
        return len(self.state) + len(self.spec.cameras)


def resolve(contract: Contract, spec: ViewSpec) -> Layout:
    """Find the columns of a specification in a contract.

    Raises:
        InputError: an unknown stream, element or camera, or one that cannot be used so.
    """
    for camera in spec.cameras:
        kind = contract.stream(camera).kind
        if kind != "colour_image":
            raise InputError(f"Expected a colour camera of the contract, got {camera!r}, which is {kind}.")
    state = tuple(_columns(contract, field, spec.state_rule(field)) for field in spec.state)
    action = tuple(_columns(contract, field, spec.action_rule(field)) for field in spec.action)
    for part in state:
        if contract.stream(part.stream).role == "action":
            raise InputError(
                f"Expected observations in the state, got the action {part.stream!r}; a policy that sees "
                "its own command copies it."
            )
    sizes = {camera: _image_size(contract.stream(camera), spec) for camera in spec.cameras}
    layout = Layout(spec, state, action, _codec(contract, state, action), sizes)
    for names in (layout.state_names, layout.action_names):
        if len(set(names)) != len(names):
            raise InputError(f"Expected each column once, got {', '.join(names)}.")
    return layout


def _image_size(camera: Stream, spec: ViewSpec) -> tuple[int, int]:
    if spec.image_px:
        return spec.image_px, spec.image_px
    height, width = camera.shape[:2]
    return height, width


def _columns(contract: Contract, field: Field, rule: Rule) -> Columns:
    stream = contract.stream(field.stream)
    if stream.kind in _NOT_NUMERIC:
        raise InputError(f"Expected a numeric stream, got {stream.name!r}, which is {stream.kind}.")
    names = _element_names(stream)
    chosen = names if field.select is None else field.select
    if unknown := [name for name in chosen if name not in names]:
        raise InputError(f"Expected elements of {stream.name!r} ({', '.join(names)}), got {unknown[0]!r}.")
    if rule.alignment == "linear" and stream.kind in _WITH_QUATERNION and _turns(chosen):
        raise InputError(
            f"Expected a stream without a quaternion to interpolate linearly, got {stream.name!r}; use "
            "slerp, previous or nearest, or select its position only."
        )
    if rule.alignment == "slerp":
        rule = replace(rule, quaternions=(_quaternion(stream, chosen),))
    picks = tuple(names.index(name) for name in chosen)
    return Columns(field, rule, picks, tuple(f"{stream.name}.{name}" for name in chosen))


def _quaternion(stream: Stream, chosen: tuple[str, ...]) -> tuple[int, ...]:
    """Return where among the chosen elements x, y, z and w of the quaternion are."""
    if stream.kind not in _WITH_QUATERNION or not all(name in chosen for name in _QUATERNION):
        raise InputError(
            f"Expected a pose with its whole quaternion for slerp, got {stream.name!r} ({', '.join(chosen)}); use linear "
            "for what does not turn."
        )
    return tuple(chosen.index(name) for name in _QUATERNION)


def _turns(names: tuple[str, ...]) -> bool:
    return any(name in _QUATERNION for name in names)


def _element_names(stream: Stream) -> tuple[str, ...]:
    size = 1
    for length in stream.shape:
        size *= length
    usual = _USUAL_NAMES.get(stream.kind, ())
    return stream.names or (usual if len(usual) == size else tuple(str(place) for place in range(size)))


def _codec(contract: Contract, state: tuple[Columns, ...], action: tuple[Columns, ...]) -> ActionCodec:
    starts = {part.stream: start for part, start in zip(state, _starts(state), strict=True)}
    sizes = {part.stream: len(part.picks) for part in state}
    parts = []
    for part, start in zip(action, _starts(action), strict=True):
        kind, reference = part.field.representation, part.field.reference
        if reference is None or kind in ("absolute", "delta"):
            continue
        if reference not in starts:
            raise InputError(f"Expected a state field as reference of {part.stream!r}, got {reference!r}.")
        if kind == "end_effector" and contract.stream(part.stream).kind != "pose":
            raise InputError(f"Expected a pose for end_effector actions, got {part.stream!r}.")
        columns = tuple(range(start, start + len(part.picks)))
        origin = tuple(range(starts[reference], starts[reference] + sizes[reference]))
        parts.append(RelativePart("end_effector" if kind == "end_effector" else "chunk_relative", columns, origin))
    return ActionCodec(tuple(parts))


def _starts(parts: tuple[Columns, ...]) -> list[int]:
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part.picks)
    return starts
