"""A LeRobot dataset as it lies on disk, v3.0 or v2.1: what its metadata says, checked before anything is believed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lehrling.datasets.documents import explain, read_json
from lehrling.datasets.errors import InputError
from lehrling.datasets.lerobot_format import INDEX_FEATURES, INDEX_KEYS, INFO, NUMPY, VERSION, Feature
from lehrling.datasets.lerobot_listing import Listed, listing_v2, listing_v3
from lehrling.datasets.lerobot_paths import inside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OLDER = "v2.1"
INFO_BYTES_MAX = 4 << 20
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
ELEMENTS_MAX = 1 << 20
RANK_MAX = 5
FEATURES_MAX = 1000
SIDE_MIN, SIDE_MAX = 8, 8192
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _FeatureFacts(_Loose):
    dtype: str
    shape: tuple[Annotated[int, Field(ge=1, le=100_000)], ...]
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None


class _Info(_Loose):
    codebase_version: str
    fps: Annotated[float, Field(ge=1, le=1000)]
    features: dict[str, _FeatureFacts]
    total_episodes: Count
    total_frames: Count
    chunks_size: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    data_path: str
    video_path: str | None = None
    robot_type: str | None = None


@dataclass(frozen=True)
class Source:
    """A LeRobot dataset.

    Attributes:
        features: that can be taken, in LeRobot's order, without index columns.
        left_out: features that cannot, and why.
        tasks: text by number.
    """

    root: Path
    version: str
    fps: int
    robot_type: str | None
    frames: int
    features: tuple[Feature, ...]
    tasks: dict[int, str]
    episodes: tuple[Listed, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def cameras(self) -> tuple[Feature, ...]:
        """The features that are cameras."""
        return tuple(feature for feature in self.features if feature.camera)


def open_source(root: Path) -> Source:
    """Read a dataset's metadata.

    Raises:
        InputError: there is none, of another version, or it contradicts itself; the message names file and reason.
    """
    if not root.is_dir():
        raise InputError(f"Expected the folder of a LeRobot dataset at {root}, but there is none.")
    if not (root / INFO).is_file():
        raise InputError(f"Expected a LeRobot dataset at {root}, but it has no {INFO}.")
    info = _read_info(inside(root, INFO))
    features, left_out = _features(info)
    videos = tuple(f.key for f in features if f.dtype == "video")
    if videos and info.video_path is None:
        raise InputError(f"{root / INFO} says no video_path for the videos of {', '.join(videos)}.")
    if info.codebase_version == VERSION:
        tasks, episodes = listing_v3(root, info.data_path, info.video_path or "", videos)
    else:
        tasks, episodes = listing_v2(root, info.data_path, info.video_path or "", videos, info.chunks_size)
    _check_totals(root, info, episodes)
    return Source(
        root,
        info.codebase_version,
        round(info.fps),
        info.robot_type,
        info.total_frames,
        features,
        tasks,
        tuple(episodes),
        left_out,
    )


def _read_info(path: Path) -> _Info:
    data = read_json(path, "LeRobot info.json", bytes_max=INFO_BYTES_MAX)
    version = data.get("codebase_version") if isinstance(data, dict) else None
    if version not in (VERSION, OLDER):
        raise InputError(
            f"Expected LeRobot's format {VERSION} or {OLDER} in {path}, got {version!r}; convert it with LeRobot's own scripts."
        )
    try:
        info = _Info.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, str(path), _Info, "info.json")) from error
    if info.fps != round(info.fps):
        raise InputError(f"Expected a whole number of frames per second in {path}, got {info.fps}.")
    return info


def _features(info: _Info) -> tuple[tuple[Feature, ...], dict[str, str]]:
    """Return the features that can be taken, and why others cannot."""
    taken, left_out = [], {}
    if len(info.features) > FEATURES_MAX:
        raise InputError(f"Expected at most {FEATURES_MAX} features, info.json names {len(info.features)}.")
    for key, facts in info.features.items():
        if not KEY.fullmatch(key) or ".." in key:
            raise InputError(
                f"Expected feature keys of letters, digits, '_', '-' and '.', got {key[:80]!r} in info.json."
            )
        if key in INDEX_KEYS:
            continue
        if reason := _unfit(facts):
            left_out[key] = reason
        else:
            taken.append(Feature(key, facts.dtype, facts.shape, facts.names))
    if missing := INDEX_KEYS - set(info.features):
        raise InputError(
            f"Expected the features {', '.join(f.key for f in INDEX_FEATURES)}, info.json lacks {min(missing)}."
        )
    if not any(not feature.camera for feature in taken):
        raise InputError("Expected numbers beside the cameras, info.json names none that can be taken.")
    return tuple(taken), left_out


def _unfit(facts: _FeatureFacts) -> str:
    """Return why a feature cannot be taken, empty if it can."""
    elements = 1
    for length in facts.shape:
        elements *= length
    if facts.dtype in ("image", "video"):
        about: Mapping[str, Any] = {**(facts.video_info or {}), **(facts.info or {})}
        if about.get("is_depth_map") or about.get("video.is_depth_map"):
            return "depth maps are not taken yet"
        if len(facts.shape) != 3 or 3 not in (facts.shape[0], facts.shape[2]):
            return f"no colour image, its shape is {facts.shape}"
        sides = [length for length in facts.shape if length != 3]
        fits = len(sides) == 2 and all(SIDE_MIN <= side <= SIDE_MAX for side in sides)
        return "" if fits and elements <= 3 << 26 else f"images of {facts.shape} are too small or too large"
    if facts.dtype == "string":
        return ""
    if facts.dtype not in NUMPY:
        return f"its type {facts.dtype[:40]!r} is not known"
    if not 1 <= len(facts.shape) <= RANK_MAX or elements > ELEMENTS_MAX:
        return f"rows of shape {facts.shape} are not taken"
    return ""


def _check_totals(root: Path, info: _Info, episodes: list[Listed]) -> None:
    frames = sum(episode.length for episode in episodes)
    if len(episodes) != info.total_episodes or frames != info.total_frames:
        raise InputError(
            f"{root / INFO} says {info.total_episodes} episodes and {info.total_frames} frames, the list of episodes has "
            f"{len(episodes)} and {frames}; the dataset was not finished, or copied in part."
        )
    if not episodes:
        raise InputError(f"{root} holds no episode.")
