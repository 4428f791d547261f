"""Which episodes of a dataset belong to a campaign, and to which of its cells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lehrling.collection.campaign_cells import Cell, Key, cells_of, variation_key
from lehrling.collection.campaign_model import Campaign
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import checked_id
from lehrling.datasets.journal import META
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.sealer import read_attributes

DETAILS = "campaign"
META_BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class Told:
    """What an episode says of its campaign: `EpisodeMeta.details["campaign"]`.

    Attributes:
        topics: of each stream, to count a topic's losses once.
    """

    name: str
    task: str
    variation: tuple[tuple[str, str], ...]
    station: str
    topics: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CampaignEpisode:
    """An episode of the campaign, and the cell it fills; None where the campaign has no such cell any more."""

    record: EpisodeRecord
    told: Told
    key: Key | None


@dataclass(frozen=True)
class Tally:
    """A campaign's episodes.

    Attributes:
        episodes: sealed ones, oldest first; `quarantined` those that were set aside as damaged.
        counted: episodes that fill a quota, per cell; `pending` those that are being recorded.
        others: sealed episodes of the dataset that belong to no, or to another, campaign.
        unreadable: ids of episodes that cannot say what they are.
    """

    cells: tuple[Cell, ...]
    episodes: tuple[CampaignEpisode, ...]
    quarantined: tuple[CampaignEpisode, ...]
    counted: dict[Key, int]
    pending: dict[Key, int]
    others: int
    unreadable: tuple[str, ...]


class Reader:
    """Reads what episodes say, each once: a sealed episode never changes."""

    def __init__(self) -> None:
        self._told: dict[str, Told | None] = {}

    def told(self, dataset: Dataset, record: EpisodeRecord) -> Told | None:
        """Return what an episode says of a campaign, None where it says nothing.

        Raises:
            DamageError: its attributes cannot be read.
        """
        if record.id not in self._told:
            attributes = read_attributes(dataset.root / "episodes" / checked_id(record.id))
            self._told[record.id] = parse(attributes.get("details"), attributes.get("embodiment"))
        return self._told[record.id]


def parse(details: Any, embodiment: Any = None) -> Told | None:
    """Return what details say of a campaign, None where nothing that can be understood."""
    said = details.get(DETAILS) if isinstance(details, dict) else None
    if not isinstance(said, dict) or not isinstance(said.get("variation"), dict):
        return None
    words = [said.get(key) for key in ("name", "task", "station")]
    variation = {str(axis): str(value) for axis, value in said["variation"].items()}
    if not all(isinstance(word, str) for word in words):
        return None
    name, task, station = map(str, words)
    return Told(name, task, variation_key(variation), station, _topics(embodiment))


def _topics(embodiment: Any) -> dict[str, str]:
    try:
        return {stream: sources[0]["topic"] for stream, sources in embodiment["binding"]["sources"].items()}
    except (KeyError, TypeError, IndexError, AttributeError):
        return {}


def tally(campaign: Campaign, dataset: Dataset, reader: Reader | None = None) -> Tally:
    """Count a campaign's episodes, from the manifest and each episode's attributes; reads no arrays."""
    reader, cells = reader or Reader(), cells_of(campaign)
    known, robots = {cell.key for cell in cells}, {s.id: s.robot for s in campaign.stations}
    per = {task.name: task.per for task in campaign.tasks}
    sealed, aside, others, unreadable = list[CampaignEpisode](), list[CampaignEpisode](), 0, list[str]()
    for record in dataset.records.values():
        if record.status not in ("sealed", "quarantined"):
            continue
        try:
            told = reader.told(dataset, record)
        except DamageError:
            unreadable.append(record.id)
            continue
        if told is None or told.name != campaign.name:
            others += record.status == "sealed"
            continue
        key = _key(told, per, robots)
        episode = CampaignEpisode(record, told, key if key in known else None)
        (sealed if record.status == "sealed" else aside).append(episode)
    counted = Counter(e.key for e in sealed if e.key is not None and fills(campaign, e.record))
    pending = Counter(key for key in (_key(t, per, robots) for t in _recording(campaign, dataset)) if key in known)
    return Tally(cells, tuple(sealed), tuple(aside), counted, pending, others, tuple(unreadable))


def fills(campaign: Campaign, record: EpisodeRecord) -> bool:
    """Whether an episode fills a quota."""
    return record.status == "sealed" and (campaign.count == "all" or record.outcome == "success")


def _key(told: Told, per: Mapping[str, str], robots: Mapping[str, str]) -> Key:
    """Return the cell's name; a station that left the campaign stands for itself."""
    holders = {"robot": robots.get(told.station, told.station), "station": told.station}
    return Key(told.task, told.variation, holders.get(per.get(told.task, ""), ""))


def _recording(campaign: Campaign, dataset: Dataset) -> list[Told]:
    """Return what the journals below the dataset say that is not sealed yet, those of other stations too."""
    found = []
    for name in dataset.unfinished():
        if name not in dataset.records:
            told = _journal(dataset.root / "journals" / name / META)
            if told is not None and told.name == campaign.name:
                found.append(told)
    return found


def _journal(path: Path) -> Told | None:
    try:
        with path.open("rb") as file:
            return parse(json.loads(file.read(META_BYTES_MAX))["meta"]["details"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
