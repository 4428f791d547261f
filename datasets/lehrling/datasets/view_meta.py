"""What a view says of itself in its group's attributes, and the key that says whether it is current."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.representation import ActionCodec, RelativePart
from lehrling.datasets.view_spec import VIEW_FORMAT, ViewSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lehrling.datasets.manifest import EpisodeRecord
    from lehrling.datasets.statistics import Statistics

_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class ViewEpisode:
    """An episode in a view: rows start to stop (excluded).

    Attributes:
        frames: per camera, its first frame and the one after its last, among the view's.
    """

    id: str
    start: int
    stop: int
    instruction: str
    task: str
    content_hash: str
    frames: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ViewMeta:
    """A view's description.

    Attributes:
        key: see `view_key`.
        sources: names of the columns of `age_ns`.
        per_shard: frames in one shard.
        skipped: episodes without any row, and why.
        codec: what actions are relative to.
        statistics: by group: state, action, and action_chunk where actions are relative to a chunk's start.
    """

    key: str
    spec: ViewSpec
    contract_hash: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    sources: tuple[str, ...]
    per_shard: int
    episodes: tuple[ViewEpisode, ...]
    skipped: dict[str, str]
    codec: ActionCodec
    statistics: dict[str, Statistics]

    def to_json(self) -> dict[str, Any]:
        """Return the attributes of the view's group."""
        groups = {
            group: {name: [float(number) for number in values] for name, values in statistics.items()}
            for group, statistics in self.statistics.items()
        }
        return {
            "lehrling_view": VIEW_FORMAT,
            "key": self.key,
            "spec": self.spec.model_dump(mode="json"),
            "contract_hash": self.contract_hash,
            "state_names": list(self.state_names),
            "action_names": list(self.action_names),
            "sources": list(self.sources),
            "per_shard": self.per_shard,
            "episodes": [asdict(episode) for episode in self.episodes],
            "skipped": self.skipped,
            "relative": [asdict(part) for part in self.codec.parts],
            "statistics": groups,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ViewMeta:
        """Read what `to_json` gave."""
        episodes = [
            ViewEpisode(**episode | {"frames": {name: (a, b) for name, (a, b) in episode["frames"].items()}})
            for episode in data["episodes"]
        ]
        statistics = {
            group: {name: np.array(numbers, np.float32) for name, numbers in values.items()}
            for group, values in data["statistics"].items()
        }
        return cls(
            str(data["key"]),
            ViewSpec.model_validate_json(json.dumps(data["spec"])),
            str(data["contract_hash"]),
            tuple(data["state_names"]),
            tuple(data["action_names"]),
            tuple(data["sources"]),
            int(data["per_shard"]),
            tuple(episodes),
            dict(data["skipped"]),
            ActionCodec(tuple(_relative(part) for part in data["relative"])),
            statistics,
        )


def _relative(data: dict[str, Any]) -> RelativePart:
    return RelativePart(data["kind"], tuple(data["action"]), tuple(data["state"]))


def read_meta(directory: Path) -> ViewMeta:
    """Read a view's description.

    Raises:
        InputError: there is no view, or one of another format.
        DamageError: it cannot be read.
    """
    path = directory / "zarr.json"
    if not path.is_file():
        raise InputError(f"There is no view at {directory}; build it with `lehrling view`.")
    try:
        attributes = read_json(path, "view", bytes_max=_BYTES_MAX)["attributes"]
        version = attributes["lehrling_view"]
        if version == VIEW_FORMAT:
            return ViewMeta.from_json(attributes)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DamageError(
            f"Expected a view at {directory}, but its zarr.json cannot be read; build it again."
        ) from error
    raise InputError(f"Expected view format {VIEW_FORMAT} in {path}, got {version}; build the view again.")


def view_key(spec: ViewSpec, contract_hash: str, records: Sequence[EpisodeRecord]) -> str:
    """Return the sha256 that changes whenever the view's content would.

    It covers the specification, the view format, the contract, the episodes' content hashes and what a label changed.
    """
    content = [
        VIEW_FORMAT,
        spec.hash,
        contract_hash,
        [[record.id, record.content_hash, *_relabelled(record)] for record in records],
    ]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _relabelled(record: EpisodeRecord) -> list[str]:
    """Return the words that a view tells, if they are not those that were sealed."""
    return [record.task, record.instruction] if {"task", "instruction"} & record.sealed_as.keys() else []
