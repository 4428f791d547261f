"""Writing what a black box held as an episode, through the journal and the sealer of datasets."""

from __future__ import annotations

import multiprocessing as mp
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import DamageError, InputError, LehrlingError, MessageError, StorageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.message_types import Types
from lehrling.datasets.processes import die_with_parent, out_of_reach
from lehrling.datasets.row_reader import RowReader
from lehrling.datasets.sealer import seal

NAME = re.compile(r"stop-\d{8}T\d{9}Z(-\d+)?")
FLUSH_S, FSYNC_S = 0.5, 5.0
NICENESS = 10
ERRORS: dict[str, type[LehrlingError]] = {"DamageError": DamageError, "StorageError": StorageError}


class Held(NamedTuple):
    """A message as it came or went, with its CDR bytes."""

    topic: str
    cdr: bytes
    received_ns: int
    monotonic_ns: int
    publish_ns: int | None
    sequence: int | None
    msgtype: str | None


@dataclass(frozen=True)
class Stopped:
    """A stop to be kept: its episode's id, why, what the robot was doing, and how many messages were given up before."""

    name: str
    cause: str
    text: str
    task: str
    instruction: str
    dropped: int


def write_episode(
    root: Path, embodiment: Embodiment, types: Types, stopped: Stopped, held: Sequence[Held], episodes_max: int
) -> dict[str, object]:
    """Write, seal and commit an episode; delete the oldest stops beyond `episodes_max`. Return facts for the audit.

    Messages that do not fit the embodiment, which may well be why the robot stopped, are left out and said.

    Raises:
        LockedError: another process is writing the dataset.
        StorageError: the disk is full or failed; what was written is repaired with the next stop.
        DamageError: what was sealed does not pass; its journal is in quarantine.
    """
    with Dataset.open_for_writing(root, create=True) as dataset:
        name = _free(dataset, stopped.name)
        taken = _write_journal(root, embodiment, types, stopped, held, name)
        record = dataset.finish(name, _seal_elsewhere)
        deleted = _purge_oldest(dataset, episodes_max)
    if record.status != "sealed":
        raise DamageError(f"it is {record.status}: {record.reason}")
    return {
        "sealed_as": name,
        "content_hash": record.content_hash,
        "messages": sum(taken.values()),
        "left_out": len(held) - sum(taken.values()),
        "dropped": stopped.dropped,
        "deleted": deleted,
    }


def _free(dataset: Dataset, name: str) -> str:
    """Return the id, with a number where a clock that was set back gave it before."""
    names = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    return next(free for free in names if free not in dataset.records)


def _write_journal(
    root: Path, embodiment: Embodiment, types: Types, stopped: Stopped, held: Sequence[Held], name: str
) -> dict[str, int]:
    details = {"black_box": {"text": stopped.text}}
    meta = EpisodeMeta(
        name, stopped.task, stopped.instruction, embodiment.name, "robot", operator=None, details=details
    )
    check = _Check(embodiment, types)
    with JournalWriter(root, meta, embodiment, FLUSH_S, FSYNC_S, types) as journal:
        for message in sorted(held, key=lambda message: message.received_ns):
            time.sleep(0)  # lets the control loop's thread run, which may otherwise wait 5 ms for the interpreter
            if check.fits(message):
                journal.write(
                    message.topic,
                    message.cdr,
                    received_ns=message.received_ns,
                    publish_ns=message.publish_ns,
                    monotonic_ns=message.monotonic_ns,
                    sequence=message.sequence,
                    msgtype=message.msgtype,
                )
        facts = {"black_box": {"dropped": stopped.dropped, "left_out": sum(check.refused.values())}}
        journal.close("unknown", stopped.cause, check.losses, facts)
    return journal.counts


def _seal_elsewhere(root: Path, name: str) -> EpisodeRecord:
    """Seal in another process, so that the control loop of this one is not held up."""
    try:
        with out_of_reach(), ProcessPoolExecutor(1, mp.get_context("spawn"), _start, (os.getpid(),)) as pool:
            result = pool.submit(_seal, root, name).result()
    except BrokenProcessPool as error:
        text = f"Sealing {name} was ended by the system; its journal stays, and is sealed with the next stop."
        raise StorageError(text) from error
    if isinstance(result, EpisodeRecord):
        return result
    kind, text = result
    raise ERRORS.get(kind, InputError)(text)


def _start(parent: int) -> None:
    die_with_parent(parent)
    os.nice(NICENESS)


def _seal(root: Path, name: str) -> EpisodeRecord | tuple[str, str]:
    """Seal in this process; an error comes back as its class and words."""
    try:
        return seal(root, name)
    except LehrlingError as error:
        return type(error).__name__, str(error)


def _purge_oldest(dataset: Dataset, episodes_max: int) -> list[str]:
    there = ("sealed", "quarantined")
    stops = sorted(n for n, record in dataset.records.items() if NAME.fullmatch(n) and record.status in there)
    oldest = stops[:-episodes_max]
    for name in oldest:
        dataset.purge(name)
    return oldest


class _Check:
    """Reads every message as the sealer will, so that one that does not fit cannot spoil the episode."""

    def __init__(self, embodiment: Embodiment, types: Types) -> None:
        self._types = embodiment.binding.topics
        self._readers: dict[str, list[RowReader]] = defaultdict(list)
        joints = embodiment.contract.joint_names
        for stream in embodiment.contract.all_streams:
            for source in embodiment.binding.sources[stream.name]:
                self._readers[source.topic].append(RowReader(types, source, stream, joints))
        self.refused: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def fits(self, message: Held) -> bool:
        """Whether a message can be sealed; it is counted where it cannot."""
        if message.topic not in self._types:
            return self._refuse(message, "not bound", "The embodiment binds no such topic.")
        try:
            for reader in self._readers[message.topic]:
                reader.read(message.cdr, message.msgtype or self._types[message.topic])
        except MessageError as error:
            return self._refuse(message, error.cause, str(error))
        except DamageError as error:
            return self._refuse(message, "damaged message", str(error))
        return True

    def _refuse(self, message: Held, cause: str, text: str) -> bool:
        key = message.topic, cause
        self.refused[key] += 1
        self._first.setdefault(key, text)
        return False

    @property
    def losses(self) -> list[str]:
        """Sentences on what was left out, the first of its kind in full."""
        return [
            f"{count} messages on {topic} left out ({cause}): {self._first[topic, cause]}"
            for (topic, cause), count in self.refused.items()
        ]
