"""The view that fits a robot when nothing else is said, and building it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lehrling.datasets.embodiment import Contract
    from lehrling.datasets.view import EpisodeFilter, View, ViewSpec

IMAGE_LATENCY_MS, STATE_LATENCY_MS = 40.0, 5.0
"""A row waits this long for what was seen at its time to arrive, as a policy on the robot would."""


def default_spec(contract: Contract, rate_hz: float, image_px: int) -> ViewSpec:
    """Return images, joint positions and commands as a view; where no stream is said to be joint positions, all numbers seen.

    Of a pose command its position; tools that keep their orientation need no more, others name a --spec.

    Raises:
        InputError: the contract has no action stream, or nothing to see, or no view has this rate or size.
    """
    from pydantic import ValidationError

    from lehrling.datasets.view import Field, ViewSpec

    cameras = tuple(camera.name for camera in contract.cameras if camera.encoding == "rgb8")
    joints = [s.name for s in contract.streams if s.kind == "joint_position" and s.role == "observation"]
    if not joints:
        joints = [s.name for s in contract.streams if s.kind == "scalar" and s.role == "observation"]
    actions = [
        Field(stream=s.name, select=("x", "y", "z") if s.kind == "pose" else None)
        for s in contract.streams
        if s.role == "action"
    ]
    if not actions:
        raise InputError("The contract has no stream of role action to learn; name the fields with --spec.")
    state = tuple(Field(stream=name, latency_ms=STATE_LATENCY_MS) for name in joints)
    try:
        return ViewSpec(
            rate_hz=rate_hz,
            image_px=image_px,
            cameras=cameras,
            state=state,
            action=tuple(actions),
            image_latency_ms=IMAGE_LATENCY_MS,
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
        raise InputError(f"No view can be made at {rate_hz:g} Hz and {image_px} px: {reason}.") from error


def load_spec(path: Path) -> ViewSpec:
    """Read a view specification from YAML.

    Raises:
        InputError: the file is missing or has a wrong key or value; the message names it.
    """
    from lehrling.datasets.documents import read_model
    from lehrling.datasets.view import ViewSpec

    return read_model(path, ViewSpec, "a view specification")


def make_view(
    path: Path,
    name: str,
    rate_hz: float,
    image_px: int,
    spec: Path | None,
    progress: Callable[[int, int], None],
    keep: Mapping[str, str | None] | None = None,
    workers: int = 1,
    ray: str | None = None,
) -> View:
    """Build a view, or bring it up to date; `keep` are a snapshot and a filter, in addition to the specification's."""
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.fan_out import Workers
    from lehrling.datasets.view import EpisodeFilter, build_view
    from lehrling.datasets.view_select import chosen
    from lehrling.datasets.where import parse_where

    given = {key: value for key, value in (keep or {}).items() if value is not None}
    if "where" in given:
        parse_where(given["where"])
    dataset = Dataset.open(path)
    if spec is not None:
        loaded = load_spec(spec)
        return build_view(dataset, name, _narrowed(loaded, loaded.episodes, given), progress, Workers(workers, ray))
    only = EpisodeFilter.model_validate(given)
    _, contract = chosen(dataset, only)
    made = default_spec(contract, rate_hz, image_px)
    return build_view(dataset, name, _narrowed(made, made.episodes, given), progress, Workers(workers, ray))


def _narrowed(spec: ViewSpec, episodes: EpisodeFilter, given: Mapping[str, str]) -> ViewSpec:
    """Return the specification with another snapshot, whose hash is not known yet, and a further filter."""
    changes: dict[str, str | None] = dict(given)
    if "snapshot" in given:
        changes["snapshot_hash"] = None
    if "where" in given and episodes.where is not None:
        changes["where"] = f"({episodes.where}) and ({given['where']})"
    return spec.model_copy(update={"episodes": episodes.model_copy(update=changes)})
