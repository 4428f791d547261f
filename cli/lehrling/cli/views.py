"""The view that fits a robot when nothing else is said, and building it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lehrling.datasets.embodiment import Contract
    from lehrling.datasets.view import View, ViewSpec

SPEC_BYTES_MAX = 1 << 20
IMAGE_LATENCY_MS, STATE_LATENCY_MS = 40.0, 5.0
"""A row waits this long for what was seen at its time to arrive, as a policy on the robot would."""


def default_spec(contract: Contract, rate_hz: float, image_px: int) -> ViewSpec:
    """Return images, joint positions and commands as a view.

    Of a pose command its position; tools that keep their orientation need no more, others name a --spec.

    Raises:
        InputError: the contract has no action stream.
    """
    from lehrling.datasets.view import Field, ViewSpec

    cameras = tuple(camera.name for camera in contract.cameras if camera.encoding == "rgb8")
    joints = [s.name for s in contract.streams if s.kind == "joint_position" and s.role == "observation"]
    actions = [
        Field(stream=s.name, select=("x", "y", "z") if s.kind == "pose" else None)
        for s in contract.streams
        if s.role == "action"
    ]
    if not actions:
        raise InputError("The contract has no stream of role action to learn; name the fields with --spec.")
    state = tuple(Field(stream=name, latency_ms=STATE_LATENCY_MS) for name in joints)
    return ViewSpec(
        rate_hz=rate_hz,
        image_px=image_px,
        cameras=cameras,
        state=state,
        action=tuple(actions),
        image_latency_ms=IMAGE_LATENCY_MS,
    )


def load_spec(path: Path) -> ViewSpec:
    """Read a view specification from YAML.

    Raises:
        InputError: the file is missing or has a wrong key or value; the message names it.
    """
    import yaml
    from pydantic import ValidationError

    from lehrling.datasets.view import ViewSpec

    if not path.is_file() or path.stat().st_size > SPEC_BYTES_MAX:
        raise InputError(f"Expected a view specification (YAML) at {path}, but there is no such file of that size.")
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ViewSpec.model_validate(data)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(f"{path}: {key}: {first['msg']}.") from error


def make_view(
    path: Path, name: str, rate_hz: float, image_px: int, spec: Path | None, progress: Callable[[int, int], None]
) -> View:
    """Build a view, or bring it up to date."""
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.view import build_view

    dataset = Dataset.open(path)
    chosen = load_spec(spec) if spec is not None else default_spec(dataset.contract(), rate_hz, image_px)
    return build_view(dataset, name, chosen, progress)
