"""What an import did: episodes and their streams, topics missing and extra, messages refused, where the bag was cut."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lehrling.collection.bag_records import BagCutError


@dataclass(frozen=True)
class TopicCount:
    """A topic of the bag that the embodiment does not bind."""

    type: str
    messages: int


@dataclass(frozen=True)
class StreamTaken:
    """What one stream got: rows, and the first and last stamp [ns] in order of receipt."""

    rows: int
    first_stamp_ns: int
    last_stamp_ns: int


@dataclass(frozen=True)
class RefusedMessages:
    """Messages of one topic that do not fit, with what was said of the first."""

    topic: str
    cause: str
    messages: int
    first: str


@dataclass(frozen=True)
class ImportedEpisode:
    """An episode that came of the bag.

    Attributes:
        status: the manifest's word on it.
        new: whether this import made it; otherwise it was there already.
        losses: sentences on what is missing at its end or within.
    """

    id: str
    status: str
    new: bool
    outcome: str
    stop_cause: str
    duration_s: float
    reason: str = ""
    streams: dict[str, StreamTaken] = field(default_factory=dict)
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        missing: declared topics without a message, each with the streams that it would feed.
        extra: topics that the embodiment does not bind.
        out_of_order: per topic, messages stamped before an earlier one, as two publishers on one topic give them.
        cut: where the bag could be read no further.
    """

    source: str
    format: str
    sha256: str
    episodes: tuple[ImportedEpisode, ...]
    missing: dict[str, tuple[str, ...]]
    extra: dict[str, TopicCount]
    refused: tuple[RefusedMessages, ...] = ()
    out_of_order: dict[str, int] = field(default_factory=dict)
    cut: BagCutError | None = None

    @property
    def lossy(self) -> bool:
        """Whether something of the bag that the embodiment binds is not in the dataset."""
        made = [episode for episode in self.episodes if episode.new]
        bad = any(episode.status != "sealed" or episode.losses for episode in made)
        return bad or bool(self.refused) or bool(made and self.cut)

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        cut = self.cut
        return {
            "source": self.source,
            "format": self.format,
            "sha256": self.sha256,
            "lossy": self.lossy,
            "episodes": [asdict(episode) | {"losses": list(episode.losses)} for episode in self.episodes],
            "missing": {topic: list(streams) for topic, streams in self.missing.items()},
            "extra": {topic: asdict(found) for topic, found in self.extra.items()},
            "refused": [asdict(refused) for refused in self.refused],
            "out_of_order": self.out_of_order,
            "cut": None if cut is None else {"file": cut.file, "offset": cut.offset, "reason": cut.reason},
        }
