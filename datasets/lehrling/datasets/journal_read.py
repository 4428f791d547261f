"""Reading journals: complete or cut at any byte; what is damaged is reported, rows are never invented."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast, get_args

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Message, Schema
from mcap.writer import MCAP0_MAGIC

from lehrling.datasets.documents import read_json
from lehrling.datasets.embodiment import Embodiment, parse_embodiment
from lehrling.datasets.errors import DamageError, DocumentError, InputError
from lehrling.datasets.files import checked_id, unreadable
from lehrling.datasets.journal import CHECKSUM, END, META, RECEIPTS, EpisodeMeta, Outcome, checksum
from lehrling.datasets.message_types import Types, standard_names

_RECORD, _MESSAGE = struct.Struct("<BQ"), struct.Struct("<HIQQ")
RECORD_BYTES_MAX, META_BYTES_MAX = 256 << 20, 16 << 20
END_BYTES_MAX, FACTS_BYTES_MAX = 16 << 20, 256 << 10


@dataclass(frozen=True)
class Received:
    """One message as received.

    Attributes:
        monotonic_ns, publish_ns, sequence: -1 where unknown.
        msgtype: of the bytes; the declared type, or what an image was made for the journal.
    """

    cdr: bytes
    received_ns: int
    monotonic_ns: int
    publish_ns: int
    sequence: int
    msgtype: str = ""


@dataclass
class JournalContents:
    """A journal's content.

    Attributes:
        messages: per topic, in the order of receipt.
        ended: whether recording ended as it should; `losses` say what could not be read.
        facts: what the recording host said when it ended, as JSON data.
    """

    meta: EpisodeMeta
    embodiment: Embodiment
    messages: dict[str, list[Received]] = field(default_factory=dict)
    ended: bool = False
    outcome: Outcome = "unknown"
    stop_cause: str = "interrupted"
    counts: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    definitions: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def types(self) -> Types:
        """The standard message types, and those that the journal defines."""
        return Types({name: text for name, text in self.definitions.items() if name not in standard_names()})


def read_meta(directory: Path) -> tuple[EpisodeMeta, Embodiment]:
    """Read `meta.json`.

    Raises:
        DamageError: there is none that can be read.
    """
    path = directory / META
    try:
        data = _intact(read_json(path, "journal", bytes_max=META_BYTES_MAX))
        meta, embodiment = EpisodeMeta(**data["meta"]), parse_embodiment(data["embodiment"], str(path))
        if meta.id != directory.name:
            raise ValueError(f"it is of the episode {meta.id!r}")
        return meta, embodiment
    except (OSError, ValueError, TypeError, KeyError, InputError) as error:
        reason = str(error).rstrip(".")
        damage = DamageError(f"Expected a journal at {directory}, but its {META} cannot be read: {reason}.")
        raise unreadable(error, path, damage) from error


def _intact(data: Any) -> dict[str, Any]:
    """Return a document that is as it was written; earlier versions wrote none of the checksums.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(data, dict) or data.get(CHECKSUM, checksum(data)) != checksum(data):
        raise ValueError("it fails its checksum")
    return data


def read_journal(root: Path, name: str) -> JournalContents:
    """Read `journals/<name>`, as far as it goes.

    Raises:
        DamageError: `meta.json` cannot be read.
    """
    directory = root / "journals" / checked_id(name)
    meta, embodiment = read_meta(directory)
    contents = JournalContents(meta, embodiment)
    if (directory / END).is_file():
        _read_end(directory / END, contents)
    for path in sorted(directory.glob("*.mcap")):
        _read_file(path, contents)
    for topic, count in contents.counts.items():
        if (found := len(contents.messages.get(topic, []))) != count:
            contents.losses.append(f"{topic}: {count} messages were written, {found} can be read")
    return contents


def _read_end(path: Path, contents: JournalContents) -> None:
    """Add what `end.json` says; where it cannot be read, the recording counts as interrupted."""
    try:
        end = _intact(read_json(path, "journal's end", bytes_max=END_BYTES_MAX))
        counts = {str(topic): int(count) for topic, count in end["counts"].items()}
        outcome, stop_cause = _outcome(end["outcome"]), str(end["stop_cause"])
        losses = [str(loss) for loss in end.get("losses", [])]
        facts = _facts(end.get("facts", {}))
    except OSError as error:
        raise unreadable(error, path, DamageError(f"{path} is gone.")) from error
    except (DocumentError, ValueError, TypeError, KeyError, AttributeError) as error:
        contents.losses.append(f"{path.name} cannot be read ({type(error).__name__}); how recording ended is not known")
        return
    contents.ended, contents.counts, contents.losses = True, counts, losses
    contents.outcome, contents.stop_cause, contents.facts = outcome, stop_cause, facts


def _outcome(value: object) -> Outcome:
    for outcome in get_args(Outcome):
        if value == outcome:
            return cast("Outcome", outcome)
    raise ValueError(f"no outcome: {value!r}")


def _facts(value: Any) -> dict[str, Any]:
    """Return host facts that are fit for a line of the manifest; what is no number there is null here."""
    if not isinstance(value, dict):
        return {}
    text = json.dumps(value)
    if len(text) > FACTS_BYTES_MAX:
        return {"left_out": f"facts of {len(text)} bytes; at most {FACTS_BYTES_MAX} are kept"}
    return dict(json.loads(text, parse_constant=lambda _number: None))


def _read_file(path: Path, contents: JournalContents) -> None:
    """Add a file's whole chunks; stop at the first that is cut or fails its checksum.

    A file that simply ends early is what an interrupted recording leaves, and no loss beyond what was promised.
    """
    with _opened(path) as stream:
        try:
            _read_chunks(stream, contents)
        except OSError as error:
            raise unreadable(error, path, DamageError(f"{path} is gone.")) from error
        except Exception as error:  # noqa: BLE001 — damaged bytes raise anything
            if contents.ended or stream.read(1):
                contents.losses.append(f"{path.name}: {type(error).__name__} after {stream.tell()} bytes")


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(error, path, DamageError(f"{path} is gone.")) from error


def _read_chunks(stream: IO[bytes], contents: JournalContents) -> None:
    """Add the chunks of a file: a header, and chunks that are each followed by an index of every channel in them.

    Its place tells what a record is, not its opcode, which no checksum covers: a flipped bit there would pass a chunk over.

    Raises:
        McapError: the file ends before its end, or a chunk fails its checksum.
    """
    channels: dict[int, tuple[str, str]] = {}
    if stream.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
        raise McapError("no MCAP file")
    others = 1
    while True:
        head = stream.read(_RECORD.size)
        if len(head) < _RECORD.size:
            raise McapError("the file ends before its end")
        opcode, length = _RECORD.unpack(head)
        if length > RECORD_BYTES_MAX:
            raise McapError(f"a record of {length} bytes")
        if len(content := stream.read(length)) < length:
            raise McapError("a record is cut")
        if others:
            others -= 1
        elif opcode == Opcode.DATA_END:
            return
        else:
            others = _read_chunk(Chunk.read(ReadDataStream(BytesIO(content))), channels, contents)


def _read_chunk(chunk: Chunk, channels: dict[int, tuple[str, str]], contents: JournalContents) -> int:
    """Add a chunk's messages; `channels` are topic and type by id, as far as the file has told.

    Returns the number of channels with messages in it.
    """
    pending: list[Message] = []
    schemas: dict[int, str] = {}
    used: set[int] = set()
    for record in chunk_records(chunk):
        if isinstance(record, Schema):
            schemas[record.id] = record.name
            contents.definitions[record.name] = record.data.decode()
        elif isinstance(record, Channel):
            channels[record.id] = record.topic, schemas.get(record.schema_id, "")
        elif channels[record.channel_id][0] == RECEIPTS:
            used |= {record.channel_id, *(message.channel_id for message in pending)}
            _accept(pending, record.data, channels, contents)
            pending = []
        else:
            pending.append(record)
    if pending:
        raise McapError(f"{len(pending)} messages without receipts")
    return len(used)


def chunk_records(chunk: Chunk) -> Iterator[Schema | Channel | Message]:
    """Yield a chunk's records, as `mcap.stream_reader.breakup_chunk` does, in a third of its time.

    Journals are not compressed; what says otherwise is no journal, and is not unpacked. Source: MCAP specification, Records.

    Raises:
        McapError: another checksum than the chunk says, a compressed chunk, or a record that reaches beyond its end.
    """
    if chunk.compression:
        raise McapError(f"chunk compressed by {chunk.compression!r}, which no journal is")
    data, at = memoryview(chunk.data), 0
    if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
        raise McapError("a chunk fails its checksum")
    while at < len(data):
        opcode, length = _RECORD.unpack_from(data, at)
        at, end = at + _RECORD.size, at + _RECORD.size + length
        if end > len(data):
            raise McapError("a record reaches beyond its chunk")
        if opcode == Opcode.MESSAGE:
            channel, sequence, logged, published = _MESSAGE.unpack_from(data, at)
            yield Message(channel, logged, bytes(data[at + _MESSAGE.size : end]), published, sequence)
        elif opcode == Opcode.SCHEMA:
            yield Schema.read(ReadDataStream(BytesIO(data[at:end])))
        elif opcode == Opcode.CHANNEL:
            yield Channel.read(ReadDataStream(BytesIO(data[at:end])))
        at = end


def _accept(
    pending: list[Message], receipts: bytes, channels: dict[int, tuple[str, str]], contents: JournalContents
) -> None:
    table = np.frombuffer(receipts, dtype="<i8").reshape(-1, 3)
    if len(table) != len(pending):
        raise McapError(f"{len(pending)} messages, {len(table)} receipts")
    for message, (monotonic, publish, sequence) in zip(pending, table.tolist(), strict=True):
        topic, msgtype = channels[message.channel_id]
        row = Received(message.data, message.log_time, monotonic, publish, sequence, msgtype)
        contents.messages.setdefault(topic, []).append(row)
