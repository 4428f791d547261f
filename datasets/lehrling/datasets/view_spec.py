"""The view specification: at which rate, from which streams, how aligned, resized and represented."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic import Field as Setting

from lehrling.datasets.align import INTERPOLATING, Alignment, Rule
from lehrling.datasets.where import parse_where

VIEW_FORMAT = 1
"""Raised whenever the same episodes and specification would give other rows."""

Representation = Literal["absolute", "delta", "chunk_relative", "end_effector"]
Fit = Literal["crop", "pad", "stretch"]
Outcome = Literal["success", "failure", "unknown"]

_Names = Annotated[tuple[str, ...], Setting(strict=False)]
_Milliseconds = Annotated[float, Setting(ge=0, le=60_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Field(_Part):
    """Columns of the state or the action: a stream, and of it all elements or those selected, in that order.

    Attributes:
        stream: the contract's stream.
        select: element names; None takes all in the contract's order.
        alignment: None means `previous` for a state field and `nearest` for an action field.
        latency_ms: rows received up to this long after t still count for t.
        delay_ms: interpolating alignments of a state field look back this far, which makes them causal.
        max_age_ms: older rows make the view's row not valid. None means `observation_max_age_ms` for a state
            field and no limit for an action field. For `drop` it is the tolerance.
        max_gap_ms: interpolating alignments (`linear`; `slerp` for poses) are valid only between rows stamped at most so far
            apart; None is no limit.
        representation: what an action is relative to. `delta`: the row before. `chunk_relative`: the state
            `reference` at the start of the chunk. `end_effector`: the same for poses (xyz, quaternion), in
            the frame of the referenced pose. The last two are applied to chunks, by `ActionCodec`.
        reference: the state field's stream that the action is relative to.
    """

    stream: str
    select: _Names | None = None
    alignment: Alignment | None = None
    latency_ms: _Milliseconds = 0.0
    delay_ms: _Milliseconds = 0.0
    max_age_ms: _Milliseconds | None = None
    max_gap_ms: _Milliseconds | None = None
    representation: Representation = "absolute"
    reference: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        relative = self.representation in ("chunk_relative", "end_effector")
        if relative != (self.reference is not None):
            raise ValueError(
                "Expected a reference exactly where an action is relative to a state, got "
                f"{self.reference!r} for {self.representation} in field {self.stream!r}; name a state."
            )
        if self.select is not None and len(set(self.select)) != len(self.select):
            raise ValueError(f"Expected each element of {self.stream!r} once, got {self.select}.")
        if self.max_gap_ms is not None and self.alignment not in INTERPOLATING:
            raise ValueError(
                f"Expected max_gap_ms only where values are interpolated, got it for {self.stream!r}; use linear or slerp."
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, give: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not asked for, so that specifications from before there were gap limits keep their hashes."""
        given: dict[str, Any] = give(self)
        return {name: value for name, value in given.items() if value is not None or name != "max_gap_ms"}


class Crop(_Part):
    """A rectangle of the camera's image in pixels, taken before resizing."""

    top: int = Setting(ge=0)
    left: int = Setting(ge=0)
    height: int = Setting(ge=1)
    width: int = Setting(ge=1)


class EpisodeFilter(_Part):
    """Which sealed episodes enter; None means all.

    Attributes:
        outcomes: by default everything that did not fail.
        tasks, robots, ids: names to keep.
        contract: hash (or its beginning) of the contract, for a dataset that holds several.
        where: a filter expression, see `where`.
        snapshot: a snapshot's name; its episodes as they were labelled then, instead of those valid at the moment.
        snapshot_hash: the snapshot's hash, so that no other of that name is taken; filled in when a view is built.
    """

    outcomes: Annotated[tuple[Outcome, ...], Setting(strict=False, min_length=1)] = ("success", "unknown")
    tasks: _Names | None = None
    robots: _Names | None = None
    ids: _Names | None = None
    contract: str | None = None
    where: str | None = None
    snapshot: str | None = None
    snapshot_hash: str | None = None

    @field_validator("where")
    @classmethod
    def _where(cls, text: str | None) -> str | None:
        if text is not None:
            parse_where(text)
        return text

    @model_serializer(mode="wrap")
    def _as_before(self, give: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not asked for, so that specifications from before there were snapshots keep their hashes."""
        given: dict[str, Any] = give(self)
        later = ("where", "snapshot", "snapshot_hash")
        return {name: value for name, value in given.items() if value is not None or name not in later}


class ViewSpec(_Part):
    """What a policy sees and does; carried by every policy trained on the view.

    Attributes:
        rate_hz: rows per second.
        image_px: height and width of every image; 0 keeps images as they were recorded, at the camera's own size.
        cameras: cameras in order.
        state, action: columns in order.
        fit: how an image that is not square becomes so: `crop` its centre, `pad` with black, or `stretch`.
        crops: rectangles per camera, taken first.
        jpeg_quality: of images that had to be resized; others keep their bytes.
        image_latency_ms, image_max_age_ms: as in `Field`.
        observation_max_age_ms: for state fields without a limit of their own; None is no limit.
        statistics_horizon: chunk length for the statistics of actions relative to the start of their chunk.
        episodes: which episodes enter.
        view_format: the format of the rows; other versions are refused.
    """

    rate_hz: float = Setting(gt=0, le=1000)
    image_px: int = Setting(ge=0, le=4096)
    cameras: _Names = ()
    state: Annotated[tuple[Field, ...], Setting(strict=False)] = ()
    action: Annotated[tuple[Field, ...], Setting(strict=False, min_length=1)]
    fit: Fit = "crop"
    crops: dict[str, Crop] = {}
    jpeg_quality: int = Setting(default=92, ge=50, le=100)
    image_latency_ms: _Milliseconds = 0.0
    image_max_age_ms: _Milliseconds | None = 500.0
    observation_max_age_ms: _Milliseconds | None = 500.0
    statistics_horizon: int = Setting(default=16, ge=1, le=1000)
    episodes: EpisodeFilter = EpisodeFilter()
    view_format: int = VIEW_FORMAT

    @field_validator("state")
    @classmethod
    def _state(cls, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        return tuple(_causal(field.model_copy(update=_default(field, "previous"))) for field in fields)

    @field_validator("action")
    @classmethod
    def _action(cls, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        return tuple(field.model_copy(update=_default(field, "nearest")) for field in fields)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.cameras and not self.state:
            raise ValueError("Expected at least one camera or state field, got none.")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"Expected each camera once, got {self.cameras}.")
        unknown = set(self.crops) - set(self.cameras)
        if unknown:
            raise ValueError(f"Expected crops of the view's cameras {self.cameras}, got {sorted(unknown)}.")
        if self.image_px < 8 and (self.image_px or self.crops):
            got = f"crops of {sorted(self.crops)}" if self.image_px == 0 else f"{self.image_px}"
            raise ValueError(
                f"Expected image_px of 8 or more, or 0 for images as recorded and without crops, got {got}."
            )
        if self.view_format != VIEW_FORMAT:
            raise ValueError(
                f"Expected view format {VIEW_FORMAT}, got {self.view_format}; use the version that "
                "wrote it, or build the view again and train anew."
            )
        return self

    @property
    def canonical_json(self) -> str:
        """The specification as JSON with sorted keys and every default written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def hash(self) -> str:
        """The sha256 of `canonical_json`, in hex."""
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()

    def state_rule(self, field: Field) -> Rule:
        """Return how a state field is aligned: causally."""
        limit = self.observation_max_age_ms if field.max_age_ms is None else field.max_age_ms
        return _rule(field, causal=True, limit_ms=limit)

    def action_rule(self, field: Field) -> Rule:
        """Return how an action field is aligned."""
        return _rule(field, causal=field.alignment == "previous", limit_ms=field.max_age_ms)

    @property
    def image_rule(self) -> Rule:
        """How images are aligned: the newest received."""
        return Rule("previous", True, _ns(self.image_latency_ms) or 0, 0, _ns(self.image_max_age_ms))


def _default(field: Field, alignment: Alignment) -> dict[str, Alignment]:
    return {"alignment": field.alignment or alignment}


def _causal(field: Field) -> Field:
    if field.alignment in ("nearest", *INTERPOLATING) and field.delay_ms == 0:
        raise ValueError(
            f"Expected a causal alignment for the observation {field.stream!r}, got {field.alignment}, which "
            "looks ahead; use previous, or declare a delay_ms that covers the stream's period and latency."
        )
    if field.representation != "absolute":
        raise ValueError(
            f"Expected an absolute state field, got {field.representation} for {field.stream!r}; only "
            "actions are relative."
        )
    return field


def _rule(field: Field, *, causal: bool, limit_ms: float | None) -> Rule:
    latency, delay = _ns(field.latency_ms) or 0, _ns(field.delay_ms) or 0
    return Rule(field.alignment or "previous", causal, latency, delay, _ns(limit_ms), _ns(field.max_gap_ms))


def _ns(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1e6)
