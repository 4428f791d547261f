"""What a dataset holds, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import IMAGE_KINDS
from lehrling.datasets.episode import Episode
from lehrling.datasets.where import Where


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset in figures.

    Attributes:
        ids: of the sealed episodes, oldest first.
        frames: camera images of all sealed episodes, all cameras together.
        rates_hz: mean measured rate per stream.
        unfinished: journals that are being recorded or need repair.
    """

    path: str
    episodes: int
    ids: list[str]
    statuses: dict[str, int]
    outcomes: dict[str, int]
    tasks: dict[str, int]
    robots: dict[str, int]
    frames: int
    rows: int
    duration_s: float
    bytes: int
    rates_hz: dict[str, float]
    contracts: dict[str, int]
    views: list[str]
    unfinished: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the summary for `--json`."""
        return asdict(self)


def summarise(dataset: Dataset, where: Where | None = None) -> DatasetSummary:
    """Summarise a dataset, or the episodes of it that a filter passes, from its manifest; opens no arrays.

    Statuses are of all episodes that the filter passes, everything else is of the sealed ones.
    """
    known = [record for record in dataset.records.values() if where is None or where.matches(record)]
    sealed = [dataset.episode_of(record) for record in known if record.status == "sealed"]
    records = [episode.record for episode in sealed]
    cameras: dict[str, set[str]] = {}
    for episode in sealed:
        if episode.record.contract_hash not in cameras:
            names = {s.name for s in episode.contract.all_streams if s.kind in IMAGE_KINDS}
            cameras[episode.record.contract_hash] = names
    frames = sum(n for r in records for name, n in r.lengths.items() if name in cameras[r.contract_hash])
    rates: dict[str, list[float]] = {}
    for record in records:
        for name, timing in record.timing.items():
            if timing.count > 1:
                rates.setdefault(name, []).append(timing.rate_hz)
    views = dataset.root / "views"
    return DatasetSummary(
        str(dataset.root),
        len(records),
        [record.id for record in records],
        dict(Counter(record.status for record in known)),
        dict(Counter(record.outcome for record in records)),
        dict(Counter(record.task for record in records)),
        dict(Counter(record.robot for record in records)),
        frames,
        sum(sum(record.lengths.values()) for record in records),
        round(sum(record.duration_s for record in records), 3),
        sum(record.bytes for record in records),
        {name: round(sum(values) / len(values), 3) for name, values in rates.items()},
        dict(Counter(record.contract_hash for record in records)),
        sorted(p.name for p in views.iterdir() if p.is_dir() and not p.name.startswith(".")) if views.is_dir() else [],
        dataset.unfinished(),
    )


def summarise_episode(dataset: Dataset, name: str) -> dict[str, Any]:
    """Return everything the manifest says of one sealed episode, and its streams' meaning and sources.

    Raises:
        InputError: there is no such episode, or it is not sealed.
    """
    return episode_facts(dataset.episode(name))


def episode_facts(episode: Episode) -> dict[str, Any]:
    """Return everything the manifest says of a sealed episode, and its streams' meaning and sources."""
    sources = episode.binding.model_dump(mode="json")["sources"]
    streams = {
        s.name: s.model_dump(mode="json", exclude={"name"}) | {"sources": sources[s.name]}
        for s in episode.contract.all_streams
    }
    return {**episode.record.to_json(), "streams": streams, "details": episode.attributes["details"]}
