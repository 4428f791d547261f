"""How a campaign stands: coverage per cell, rates of success, throughput and quality per station."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from lehrling.collection.campaign_cells import Cell
from lehrling.collection.campaign_model import Campaign
from lehrling.collection.campaign_plan import Progress, progress_of
from lehrling.collection.campaign_tally import CampaignEpisode, Tally, tally
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.manifest import EpisodeRecord


@dataclass(frozen=True)
class CellCoverage:
    """One cell.

    Attributes:
        holder: the robot or station that has to fill it; empty where any may.
        counted: episodes that fill the quota; `pending` are being recorded.
        success, failure, unknown: sealed episodes by outcome.
    """

    task: str
    variation: dict[str, str]
    holder: str
    quota: int
    counted: int
    pending: int
    success: int
    failure: int
    unknown: int

    @property
    def missing(self) -> int:
        """Episodes still to be recorded."""
        return max(self.quota - self.counted, 0)


@dataclass(frozen=True)
class Figures:
    """What one station, task or operator recorded.

    Attributes:
        success_rate: successes among the episodes with a verdict; None where none has one.
        recorded_h: length of the episodes; `worked_h` from the first to the last episode, pauses left out.
        episodes_per_hour: of work; None for fewer than two episodes.
        lost_messages: that the recorder knows of; `lost_unknown` counts episodes of which a topic's losses are unknown.
        findings: what the recorder remarked while recording, by kind, and sentences on what an episode misses.
        stop_causes: why episodes ended.
    """

    name: str
    episodes: int
    success: int
    failure: int
    unknown: int
    quarantined: int
    success_rate: float | None
    recorded_h: float
    worked_h: float
    episodes_per_hour: float | None
    lost_messages: int
    lost_unknown: int
    findings: dict[str, int]
    stop_causes: dict[str, int]


@dataclass(frozen=True)
class CampaignReport:
    """How a campaign stands.

    Attributes:
        operators: None unless the campaign switches figures per operator on.
        strays: episodes of the campaign that no cell of it asks for (any more).
        others: episodes of the dataset outside the campaign; `unreadable` those that cannot say.
    """

    name: str
    progress: Progress
    cells: tuple[CellCoverage, ...]
    tasks: tuple[Figures, ...]
    stations: tuple[Figures, ...]
    operators: tuple[Figures, ...] | None
    strays: int
    others: int
    unreadable: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        data = asdict(self)
        data["progress"]["share"] = round(self.progress.share, 4)
        for cell, coverage in zip(data["cells"], self.cells, strict=True):
            cell["missing"] = coverage.missing
        return {**data, "unreadable": list(self.unreadable)}


def coverage(campaign: Campaign, dataset: Dataset) -> CampaignReport:
    """Report how a campaign stands, from the manifest and each episode's attributes; reads no arrays."""
    found = tally(campaign, dataset)

    def grouped(names: Iterable[str], name_of: Callable[[CampaignEpisode], str]) -> tuple[Figures, ...]:
        return _grouped(found, list(names), name_of, campaign.break_min * 60)

    operators = None
    if campaign.operators.figures:
        operators = grouped([], lambda episode: episode.record.operator or "not given")
    return CampaignReport(
        campaign.name,
        progress_of(found),
        tuple(_cell(found, cell) for cell in found.cells),
        grouped((task.name for task in campaign.tasks), lambda episode: episode.told.task),
        grouped((station.id for station in campaign.stations), lambda episode: episode.told.station),
        operators,
        sum(episode.key is None for episode in found.episodes),
        found.others,
        found.unreadable,
    )


def _cell(found: Tally, cell: Cell) -> CellCoverage:
    outcomes = Counter(episode.record.outcome for episode in found.episodes if episode.key == cell.key)
    return CellCoverage(
        cell.key.task,
        dict(cell.key.variation),
        cell.key.holder,
        cell.quota,
        found.counted.get(cell.key, 0),
        found.pending.get(cell.key, 0),
        outcomes["success"],
        outcomes["failure"],
        outcomes["unknown"],
    )


def _grouped(
    found: Tally, names: list[str], name_of: Callable[[CampaignEpisode], str], break_s: float
) -> tuple[Figures, ...]:
    """Return figures of every name that is asked for or occurs."""
    groups: dict[str, tuple[list[CampaignEpisode], list[CampaignEpisode]]] = {name: ([], []) for name in names}
    for which, episodes in enumerate((found.episodes, found.quarantined)):
        for episode in episodes:
            groups.setdefault(name_of(episode), ([], []))[which].append(episode)
    return tuple(_figures(name, sealed, len(aside), break_s) for name, (sealed, aside) in groups.items())


def _figures(name: str, episodes: list[CampaignEpisode], quarantined: int, break_s: float) -> Figures:
    records = [episode.record for episode in episodes]
    outcomes = Counter(record.outcome for record in records)
    judged = outcomes["success"] + outcomes["failure"]
    losses = [lost(episode) for episode in episodes]
    worked_s = worked(records, break_s)
    return Figures(
        name,
        len(records),
        outcomes["success"],
        outcomes["failure"],
        outcomes["unknown"],
        quarantined,
        round(outcomes["success"] / judged, 4) if judged else None,
        round(sum(record.duration_s for record in records) / 3600, 4),
        round(worked_s / 3600, 4),
        round(len(records) / worked_s * 3600, 2) if len(records) > 1 and worked_s > 0 else None,
        sum(count for count, _ in losses),
        sum(not known for _, known in losses),
        dict(sum((findings(record) for record in records), Counter[str]())),
        dict(Counter(record.stop_cause or "not told" for record in records)),
    )


def worked(records: Iterable[EpisodeRecord], break_s: float) -> float:
    """Return seconds of work: each episode's length, and the time since the one before where that is no break."""
    spans = sorted((_ended_s(record), record.duration_s) for record in records)
    total, before = 0.0, None
    for end, duration in spans:
        since = duration if before is None or end - duration - before > break_s else end - before
        total, before = total + since, end
    return total


def _ended_s(record: EpisodeRecord) -> float:
    try:
        return datetime.fromisoformat(record.written_at).timestamp()
    except ValueError:
        return 0.0


def lost(episode: CampaignEpisode) -> tuple[int, bool]:
    """Return how many messages an episode misses, and whether that is known of every topic.

    The recorder's own count is taken where there is one; else the gaps in the sequence numbers, each topic once.
    """
    told = [episode.record.facts.get(key) for key in ("lost_queue", "lost_middleware")]
    counts = [value for group in told if isinstance(group, Mapping) for value in group.values()]
    if not counts:
        topics: dict[str, int] = {}
        for stream, timing in episode.record.timing.items():
            topic = episode.told.topics.get(stream, stream)
            topics[topic] = max(topics.get(topic, -1), timing.dropped)
        counts = [count if count >= 0 else None for count in topics.values()]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known), len(known) == len(counts)


def findings(record: EpisodeRecord) -> Counter[str]:
    """Count what the recorder remarked, by kind, and the sentences on what is missing."""
    told = record.facts.get("findings")
    kinds = Counter(_kind(finding) for finding in (told if isinstance(told, list) else []))
    if record.losses:
        kinds["losses"] += len(record.losses)
    return kinds


def _kind(finding: object) -> str:
    kind = finding.get("kind") if isinstance(finding, Mapping) else None
    return kind if isinstance(kind, str) else "finding"
