"""Import a bag: any rosbag2 or MCAP recording through the journal and the sealer, without ROS installed.

The embodiment file is the mapping. Messages keep their bytes, stamps and receive times. The first message that does not fit
the contract, or the place where the bag is cut, ends the episode; everything before it is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lehrling.collection.bag_episode import EpisodeWriter
from lehrling.collection.bag_files import Bag, open_bag
from lehrling.collection.bag_records import BagCutError, BagMessage
from lehrling.collection.bag_report import ImportedEpisode, ImportReport, RefusedMessages
from lehrling.collection.bag_survey import Gaps, Survey, check_topics, survey
from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.message_check import MessageCheck
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError
from lehrling.datasets.journal import EpisodeMeta, Outcome
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.message_types import Types

END, GAP, CUT = "end of bag", "gap in the bag", "source truncated"
PROGRESS_EVERY = 256
Progress = Callable[[int, int], None]
"""Called with messages read and messages in the bag."""


@dataclass(frozen=True)
class ImportOptions:
    """How a bag is taken.

    Attributes:
        instruction: what the robot was told to do; `instruction_topic` (std_msgs/msg/String) takes it from the bag.
        outcome: of episodes that are there to their end; one that ends early is `unknown`.
        allow_missing: take a bag that lacks topics of observations or actions.
        skip_bad: leave out messages that do not fit, instead of ending the episode there.
        split_gap_s: a pause of all bound topics longer than this ends an episode; None makes the bag one episode.
    """

    instruction: str = ""
    instruction_topic: str = ""
    task: str = "imported"
    outcome: Outcome = "unknown"
    operator: str | None = None
    allow_missing: bool = False
    skip_bad: bool = False
    split_gap_s: float | None = None


def import_bag(
    source: Path,
    dataset: Path,
    embodiment: Embodiment,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a bag into the dataset at `dataset`, which is created if absent; a bag that is there is kept.

    Raises:
        InputError: no bag, or not this robot's, or nothing of it can be taken.
        LockedError: another process is writing.
        StorageError: the disk is full or failed.
    """
    wanted = options or ImportOptions()
    if wanted.instruction and wanted.instruction_topic:
        raise InputError("Expected an instruction or a topic to take it from, got both.")
    bound = BoundTopics(embodiment)
    with open_bag(source) as bag:
        found = survey(bag, bound, wanted.split_gap_s, wanted.instruction_topic)
        types = check_topics(found, bound, allow_missing=wanted.allow_missing)
        if not found.bound:
            why = f" {found.cut}" if found.cut else ""
            raise InputError(
                f"{source} has no message on a topic that the embodiment binds; nothing was imported.{why}"
            )
        with Dataset.open_for_writing(dataset, create=True) as opened:
            job = _Job(opened, bag, embodiment, wanted, bound, types, found)
            episodes = job.run(progress)
    return ImportReport(
        str(source),
        bag.format,
        bag.sha256,
        tuple(episodes),
        found.missing(bound),
        found.unbound(bound),
        tuple(job.refused),
        job.out_of_order,
        found.cut,
    )


def bag_id(bag: Bag, embodiment: Embodiment) -> str:
    """Return the id of a bag's episode, which its content and the contract determine."""
    digest = hashlib.sha256(f"{bag.sha256}\n{embodiment.contract_hash}".encode()).hexdigest()
    return f"bag-{digest[:16]}"


@dataclass
class _Job:
    """The second reading: messages into journals, journals into episodes."""

    dataset: Dataset
    bag: Bag
    embodiment: Embodiment
    options: ImportOptions
    bound: BoundTopics
    types: Types
    found: Survey
    refused: list[RefusedMessages] = field(default_factory=list)
    out_of_order: dict[str, int] = field(default_factory=dict)
    episodes: list[ImportedEpisode] = field(default_factory=list)
    begun: int = 0

    def run(self, progress: Progress | None) -> list[ImportedEpisode]:
        """Read the bag into episodes; those that are in the dataset already are kept.

        Raises:
            InputError: nothing fits, or the bag is in the dataset, split otherwise.
        """
        wanted = [self._id(number) for number in range(len(self.found.instructions))]
        kept = self._kept(wanted)
        if set(wanted) == set(kept):
            return [_imported(record, new=False) for record in kept.values()]
        gaps, writer, read = Gaps(self.options.split_gap_s), self._next(), 0
        try:
            for message, topic in self._messages():
                if gaps.before(message.received_ns) and read:
                    self._finish(writer, GAP, kept)
                    writer = self._next()
                if writer.meta.id not in kept:
                    writer.take(message, topic, skip_bad=self.options.skip_bad)
                read += 1
                if progress is not None and (read % PROGRESS_EVERY == 0 or read == self.found.bound):
                    progress(read, self.found.bound)
        except BaseException:
            writer.abandon()
            raise
        self._finish(writer, CUT if self.found.cut else END, kept)
        if not self.episodes:
            reason = self.refused[0].first if self.refused else "No message fits the embodiment."
            raise InputError(f"Nothing was imported. {reason}")
        return self.episodes

    def _id(self, number: int) -> str:
        base = bag_id(self.bag, self.embodiment)
        return base if self.options.split_gap_s is None else f"{base}-{number:04d}"

    def _kept(self, wanted: list[str]) -> dict[str, EpisodeRecord]:
        """Return the bag's episodes that are in the dataset; one that was deleted may come again, one purged may not."""
        base = bag_id(self.bag, self.embodiment)
        there = {name: r for name, r in self.dataset.records.items() if name == base or name.startswith(f"{base}-")}
        kept = {name: record for name, record in there.items() if record.status != "discarded"}
        if other := sorted(set(kept) - set(wanted)):
            raise InputError(f"This bag is in the dataset already, split otherwise: {other[0]}. Delete that first.")
        return kept

    def _messages(self) -> Iterator[tuple[BagMessage, str]]:
        """Yield the messages on bound topics with the embodiment's names of these."""
        with contextlib.suppress(BagCutError):
            for record in self.bag.records():
                if not isinstance(record, BagMessage):
                    continue
                topic = self.bound.declared(record.channel.topic)
                if topic is not None:
                    yield record, topic

    def _next(self) -> EpisodeWriter:
        number = self.begun
        self.begun += 1
        meta = EpisodeMeta(
            self._id(number),
            self.options.task,
            self.options.instruction or self.found.instructions[number],
            self.embodiment.name,
            "import",
            operator=self.options.operator,
            details={"source": {"format": self.bag.format, "sha256": self.bag.sha256, "bytes": self.bag.bytes}},
        )
        check = MessageCheck(self.embodiment, self.bound, self.types)
        return EpisodeWriter(self.dataset.root, meta, self.embodiment, self.types, check)

    def _finish(self, writer: EpisodeWriter, cause: str, kept: dict[str, EpisodeRecord]) -> None:
        """Close, seal and commit an episode."""
        if writer.meta.id in kept:
            self.episodes.append(_imported(kept[writer.meta.id], new=False))
            return
        self.refused += writer.tally.refused.values()
        for topic, count in writer.check.out_of_order.items():
            self.out_of_order[topic] = self.out_of_order.get(topic, 0) + count
        if writer.tally.refused and self._useless(writer):
            writer.undo()
        if writer.empty:
            return
        early = writer.stopped is not None or cause == CUT
        cut = str(self.found.cut) if cause == CUT else ""
        stop_cause = cause if writer.stopped is None else writer.stopped.cause
        writer.close("unknown" if early else self.options.outcome, stop_cause, writer.losses(cut))
        self.episodes.append(_imported(self.dataset.finish(writer.meta.id), new=True, writer=writer))

    def _useless(self, writer: EpisodeWriter) -> bool:
        """Whether not one message of a needed topic fits: then the embodiment is wrong, not the recording."""
        missing = self.found.missing(self.bound)
        needed = {topic for topic in self.bound.feeds if self.bound.needed(topic) and topic not in missing}
        return not needed <= writer.tally.topics


def _imported(record: EpisodeRecord, *, new: bool, writer: EpisodeWriter | None = None) -> ImportedEpisode:
    return ImportedEpisode(
        record.id,
        record.status,
        new,
        record.outcome,
        record.stop_cause,
        record.duration_s,
        record.reason,
        dict(writer.tally.streams) if writer is not None else {},
        record.losses,
    )
