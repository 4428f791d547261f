"""Reading journals: complete or cut at any byte; what is damaged is reported, rows are never invented."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, Message
from mcap.stream_reader import StreamReader, breakup_chunk

from lehrling.datasets.embodiment import Embodiment, parse_embodiment
from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import checked_id
from lehrling.datasets.journal import END, META, RECEIPTS, EpisodeMeta, Outcome

RECORD_BYTES_MAX = 256 << 20


@dataclass(frozen=True)
class Received:
    """One message as received.

    Attributes:
        monotonic_ns, publish_ns, sequence: -1 where unknown.
    """

    cdr: bytes
    received_ns: int
    monotonic_ns: int
    publish_ns: int
    sequence: int


@dataclass
class JournalContents:
    """A journal's content.

    Attributes:
        messages: per topic, in the order of receipt.
        ended: whether recording ended as it should; `losses` say what could not be read.
    """

    meta: EpisodeMeta
    embodiment: Embodiment
    messages: dict[str, list[Received]] = field(default_factory=dict)
    ended: bool = False
    outcome: Outcome = "unknown"
    stop_cause: str = "interrupted"
    counts: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)


def read_meta(directory: Path) -> tuple[EpisodeMeta, Embodiment]:
    """Read `meta.json`.

    Raises:
        DamageError: there is none that can be read.
    """
    path = directory / META
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return EpisodeMeta(**data["meta"]), parse_embodiment(data["embodiment"], str(path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamageError(f"Expected a journal at {directory}, but its {META} cannot be read: {error}.") from error


def read_journal(root: Path, name: str) -> JournalContents:
    """Read `journals/<name>`, as far as it goes.

    Raises:
        DamageError: `meta.json` cannot be read.
    """
    directory = root / "journals" / checked_id(name)
    meta, embodiment = read_meta(directory)
    contents = JournalContents(meta, embodiment)
    end = directory / END
    if end.is_file():
        facts = json.loads(end.read_text(encoding="utf-8"))
        contents.ended, contents.counts = True, facts["counts"]
        contents.outcome, contents.stop_cause = facts["outcome"], facts["stop_cause"]
    for path in sorted(directory.glob("*.mcap")):
        _read_file(path, contents)
    for topic, count in contents.counts.items():
        if (found := len(contents.messages.get(topic, []))) != count:
            contents.losses.append(f"{topic}: {count} messages were written, {found} can be read")
    return contents


def _read_file(path: Path, contents: JournalContents) -> None:
    """Add a file's whole chunks; stop at the first that is cut or fails its checksum.

    A file that simply ends early is what an interrupted recording leaves, and no loss beyond what was promised.
    """
    channels: dict[int, str] = {}
    with path.open("rb") as stream:
        reader = StreamReader(stream, emit_chunks=True, record_size_limit=RECORD_BYTES_MAX)
        try:
            for record in reader.records:
                if isinstance(record, Chunk):
                    _read_chunk(record, channels, contents)
        except Exception as error:  # noqa: BLE001 — damaged bytes raise anything
            if contents.ended or stream.read(1):
                contents.losses.append(f"{path.name}: {type(error).__name__} after {stream.tell()} bytes")


def _read_chunk(chunk: Chunk, channels: dict[int, str], contents: JournalContents) -> None:
    pending: list[Message] = []
    for record in breakup_chunk(chunk, validate_crc=True):
        if isinstance(record, Channel):
            channels[record.id] = record.topic
        elif isinstance(record, Message) and channels.get(record.channel_id) == RECEIPTS:
            _accept(pending, record.data, channels, contents)
            pending = []
        elif isinstance(record, Message):
            pending.append(record)
    if pending:
        raise McapError(f"{len(pending)} messages without receipts")


def _accept(pending: list[Message], receipts: bytes, channels: dict[int, str], contents: JournalContents) -> None:
    table = np.frombuffer(receipts, dtype="<i8").reshape(-1, 3)
    if len(table) != len(pending):
        raise McapError(f"{len(pending)} messages, {len(table)} receipts")
    for message, (monotonic, publish, sequence) in zip(pending, table.tolist(), strict=True):
        row = Received(message.data, message.log_time, monotonic, publish, sequence)
        contents.messages.setdefault(channels[message.channel_id], []).append(row)
