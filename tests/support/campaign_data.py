"""Datasets of episodes that say what campaign they belong to: manifest and attributes, no arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from lehrling.collection.campaign import load_campaign
from lehrling.collection.campaign_model import Campaign
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.manifest import EpisodeRecord, append_record

BEGUN = datetime(2026, 11, 24, 8, 0, tzinfo=UTC).timestamp()
SMALL: dict[str, Any] = {
    "name": "small_parts",
    "tasks": [
        {
            "name": "kitting",
            "instruction": "put the {object} into the {pocket} pocket",
            "variations": {"object": ["red part", "blue part"], "pocket": ["left", "right"]},
            "episodes": 2,
        }
    ],
    "stations": [{"id": "cell-a", "robot": "arm6"}, {"id": "cell-b", "robot": "arm6"}],
}


def write_campaign(folder: Path, content: Mapping[str, Any] = SMALL, **changes: Any) -> Path:
    """Write a campaign file with some keys changed."""
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")
    return path


def campaign_of(folder: Path, content: Mapping[str, Any] = SMALL, **changes: Any) -> Campaign:
    return load_campaign(write_campaign(folder, content, **changes))


def one_task(**changes: Any) -> dict[str, Any]:
    """Return the campaign with its task changed; None takes a key away."""
    task = {**SMALL["tasks"][0], **changes}
    return {**SMALL, "tasks": [{key: value for key, value in task.items() if value is not None}]}


class Recorded:
    """A dataset to which episodes are added."""

    def __init__(self, root: Path) -> None:
        self.root, self._ended_s = root, BEGUN
        root.mkdir(exist_ok=True)
        create_dataset(root)

    @property
    def dataset(self) -> Dataset:
        return Dataset.open(self.root)

    def add(
        self,
        details: Mapping[str, Any] | None = None,
        *,
        outcome: str = "success",
        status: Any = "sealed",
        minutes_later: float = 2.0,
        **record: Any,
    ) -> str:
        """Add an episode of 60 s that ended some minutes after the one before; return its id."""
        self._ended_s += minutes_later * 60
        name = f"e{len(Dataset.open(self.root).records):04d}"
        folder = self.root / "episodes" / name
        folder.mkdir()
        attributes = {"lehrling_episode": 1, "details": dict(details or {})}
        (folder / "zarr.json").write_text(json.dumps({"attributes": attributes}), encoding="utf-8")
        at = datetime.fromtimestamp(self._ended_s, UTC).isoformat(timespec="seconds")
        kept = {"task": "kitting", "stop_cause": "operator", "duration_s": 60.0, **record}
        append_record(self.root, EpisodeRecord(name, status, outcome=outcome, written_at=at, **kept))
        return name

    def add_cell(self, thing: str = "red part", pocket: str = "left", station: str = "cell-a", **options: Any) -> str:
        """Add an episode of a cell of the small campaign."""
        return self.add(told({"object": thing, "pocket": pocket}, station), **options)

    def begin(self, name: str, details: Mapping[str, Any]) -> None:
        """Leave a journal as a recording that goes on."""
        folder = self.root / "journals" / name
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(json.dumps({"meta": {"details": details}}), encoding="utf-8")


def told(variation: Mapping[str, Any], station: str = "cell-a", name: str = "small_parts") -> dict[str, Any]:
    """Return an episode's details."""
    return {"campaign": {"name": name, "task": "kitting", "variation": dict(variation), "station": station}}
