"""Read MCAP files front to back, complete or cut at any byte, with or without index.

The container is read here record by record (MCAP specification, mcap.dev/spec), since a reader that starts from the
index at the end has nothing to start from in a file that lacks its end. Sizes are checked before anything is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Schema

from lehrling.collection.bag_records import MESSAGE_BYTES_MAX, BagChannel, BagCutError, BagMessage
from lehrling.collection.bag_unpack import CHUNK_BYTES_MAX, limit_of, unpack
from lehrling.datasets.errors import InputError

MAGIC = b"\x89MCAP0\r\n"
RECORD_BYTES_MAX = CHUNK_BYTES_MAX
_HEAD, _MESSAGE, _CHUNK = struct.Struct("<BQ"), struct.Struct("<HIQQ"), struct.Struct("<QQQII")
_USED = (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK)
_SKIPPED_PIECE = 1 << 20


def read_mcap(path: Path, name: str) -> Iterator[BagChannel | BagMessage]:
    """Yield every channel as it is declared and every message in the file's order.

    Raises:
        BagCutError: at the end of what can be read, where the file is cut or damaged.
        InputError: the file is no MCAP file, or holds a record beyond any recording.
    """
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if MAGIC.startswith(magic):
                raise BagCutError(name, len(magic), "it ends within its first bytes")
            raise InputError(f"{name} is no MCAP file: it begins with {magic!r}.")
        yield from _Scan(name).file(file)


class _RecordError(Exception):
    """A record does not hold what it says."""


@dataclass
class _Scan:
    """What a file has declared so far."""

    name: str
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, BagChannel] = field(default_factory=dict)

    def file(self, file: IO[bytes]) -> Iterator[BagChannel | BagMessage]:
        while True:
            offset = file.tell()
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                raise BagCutError(self.name, offset, "it ends without the record that ends the data")
            opcode, length = _HEAD.unpack(head)
            if opcode == Opcode.DATA_END:
                return
            try:
                yield from self._record(file, opcode, length)
            except _RecordError as error:
                raise BagCutError(self.name, offset, str(error)) from error

    def _record(self, file: IO[bytes], opcode: int, length: int) -> Iterator[BagChannel | BagMessage]:
        if opcode == 0:
            raise _RecordError("zeros where a record should begin")
        if opcode not in _USED:
            _skip(file, length)
            return
        body = file.read(min(length, RECORD_BYTES_MAX))
        if len(body) == RECORD_BYTES_MAX < length:
            raise InputError(
                f"{self.name} has a record of {length} bytes; the most is {RECORD_BYTES_MAX}, it is refused."
            )
        whole = len(body) == length
        if opcode == Opcode.CHUNK:
            yield from self._chunk(body, whole=whole)
        elif whole:
            yield from self._inner(opcode, body)
        if not whole:
            raise _RecordError(f"it ends within a record of {length} bytes")

    def _chunk(self, body: bytes, *, whole: bool) -> Iterator[BagChannel | BagMessage]:
        """Yield a chunk's content; of a chunk that is cut, the records that are whole."""
        if len(body) < _CHUNK.size:
            return
        _, _, size, crc, name_bytes = _CHUNK.unpack_from(body)
        start = _CHUNK.size + name_bytes + 8
        compression = body[_CHUNK.size : start - 8].decode(errors="replace")
        if name_bytes > 64 or len(body) < start:
            if whole:
                raise _RecordError("a chunk is shorter than its own head")
            return
        data = body[start : start + int.from_bytes(body[start - 8 : start], "little")]
        if whole and size > limit_of(len(data)):
            raise InputError(f"{self.name}: a chunk of {len(data)} bytes claims to become {size}; it is refused.")
        try:
            raw = unpack(data, compression, f"A chunk of {self.name}")
        except ValueError as error:
            raise _RecordError(f"a chunk does not decompress ({error})") from error
        if whole and (len(raw) != size or (crc and zlib.crc32(raw) != crc)):
            raise _RecordError("a chunk fails its checksum")
        yield from self._inside(raw, whole=whole)

    def _inside(self, raw: bytes, *, whole: bool) -> Iterator[BagChannel | BagMessage]:
        place = 0
        while place < len(raw):
            if place + _HEAD.size > len(raw):
                break
            opcode, length = _HEAD.unpack_from(raw, place)
            place += _HEAD.size
            if place + length > len(raw):
                break
            if opcode in _USED:
                yield from self._inner(opcode, raw[place : place + length])
            place += length
        if whole and place != len(raw):
            raise _RecordError("a chunk holds a record longer than itself")

    def _inner(self, opcode: int, body: bytes) -> Iterator[BagChannel | BagMessage]:
        if opcode == Opcode.MESSAGE:
            yield self._message(body)
        elif opcode == Opcode.SCHEMA:
            schema = _parsed(body, Schema.read)
            self.schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = _parsed(body, Channel.read)
            known = self.channels[channel.id] = self._channel(channel)
            yield known

    def _channel(self, channel: Channel) -> BagChannel:
        schema = self.schemas.get(channel.schema_id)
        readable = schema is not None and schema.encoding in ("ros2msg", "ros2idl", "omgidl")
        text = schema.data.decode(errors="replace") if schema is not None and readable else ""
        msgtype = schema.name if schema else ""
        if msgtype.count("/") == 1:
            msgtype = msgtype.replace("/", "/msg/")
        return BagChannel(channel.topic, msgtype, channel.message_encoding, text)

    def _message(self, body: bytes) -> BagMessage:
        if len(body) < _MESSAGE.size:
            raise _RecordError("a message is shorter than its own head")
        if len(body) > MESSAGE_BYTES_MAX:
            raise InputError(
                f"{self.name} has a message of {len(body)} bytes; the most is {MESSAGE_BYTES_MAX}, it is refused."
            )
        number, sequence, log_ns, publish_ns = _MESSAGE.unpack_from(body)
        channel = self.channels.get(number)
        if channel is None:
            raise _RecordError(f"a message of channel {number}, which was not declared")
        return BagMessage(channel, body[_MESSAGE.size :], log_ns, publish_ns or None, sequence or None)


def _parsed[Record](body: bytes, read: Callable[[ReadDataStream], Record]) -> Record:
    try:
        return read(ReadDataStream(BytesIO(body)))
    except Exception as error:
        raise _RecordError(f"a schema or channel cannot be read ({type(error).__name__})") from error


def _skip(file: IO[bytes], length: int) -> None:
    while length > 0:
        piece = len(file.read(min(length, _SKIPPED_PIECE)))
        if piece == 0:
            raise _RecordError("it ends within a record that is not needed")
        length -= piece
