"""Read rosbag2's SQLite files, with SQLite where they are whole and from their pages where they are cut."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from lehrling.collection.bag_records import MESSAGE_BYTES_MAX, BagChannel, BagCutError, BagMessage
from lehrling.collection.sqlite_pages import MAGIC, Cell, PageFile, layout, values
from lehrling.datasets.errors import DamageError, InputError

_MESSAGE_COLUMNS = 4
_TABLES = ("messages", "topics")


def read_sqlite(path: Path, name: str) -> Iterator[BagChannel | BagMessage]:
    """Yield every topic, then every message in the order in which they were written.

    A write-ahead log beside the file, which a killed recorder leaves, is taken into account.

    Raises:
        BagCutError: at the end of what can be read, where the file is cut or damaged.
        InputError: the file is no bag, or holds a message beyond any recording.
    """
    with path.open("rb") as file:
        head = file.read(100)
    if not head.startswith(MAGIC) and not MAGIC.startswith(head):
        raise InputError(f"{name} is no SQLite file: it begins with {head[:8]!r}.")
    log = path.with_name(path.name + "-wal")
    if log.is_file() and log.stat().st_size:
        with TemporaryDirectory() as folder:
            copy = Path(shutil.copy(path, folder))
            shutil.copy(log, folder)
            yield from _whole(copy, name, immutable=False)
    elif _cut(path, head):
        yield from _salvaged(path, name)
    else:
        yield from _whole(path, name, immutable=True)


def _cut(path: Path, head: bytes) -> bool:
    """Whether the file has fewer bytes than it says."""
    if len(head) < 100:
        return True
    page = int.from_bytes(head[16:18], "big")
    return path.stat().st_size < int.from_bytes(head[28:32], "big") * (65536 if page == 1 else page)


def _whole(path: Path, name: str, *, immutable: bool) -> Iterator[BagChannel | BagMessage]:
    mode = "mode=ro&immutable=1" if immutable else "mode=rw"
    read = 0
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as database:
            channels = _channels(database, name)
            yield from channels.values()
            query = "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
            for topic, received_ns, data in database.execute(query):
                message = _message(channels.get(topic), received_ns, data)
                if message is None:
                    raise BagCutError(name, -1, f"message {read + 1} names no topic or holds no bytes")
                read += 1
                yield message
    except (sqlite3.Error, ValueError, TypeError) as error:
        if "too big" in str(error):
            raise InputError(f"{name} has a message of more than {MESSAGE_BYTES_MAX} bytes; it is refused.") from error
        raise BagCutError(name, -1, f"SQLite says {str(error)!r} after {read} messages") from error


def _channels(database: sqlite3.Connection, name: str) -> dict[int, BagChannel]:
    """Read the topics by id; only plain tables are trusted, since a view could compute for ever."""
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MESSAGE_BYTES_MAX)
    database.execute("PRAGMA trusted_schema = OFF")
    tables = {
        row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0")
    }
    if missing := [table for table in _TABLES if table not in tables]:
        raise InputError(f"{name} is no bag: it has no table {missing[0]!r}.")
    texts: dict[str, str] = {}
    if "message_definitions" in tables:
        rows = database.execute("SELECT topic_type, encoded_message_definition FROM message_definitions")
        texts = {str(msgtype): str(text) for msgtype, text in rows}
    found = database.execute("SELECT id, name, type, serialization_format FROM topics ORDER BY id")
    return {
        int(number): BagChannel(str(topic), str(msgtype), str(encoding), texts.get(str(msgtype), ""))
        for number, topic, msgtype, encoding in found
    }


def _message(channel: BagChannel | None, received_ns: object, data: object) -> BagMessage | None:
    if channel is None or not isinstance(received_ns, int) or not isinstance(data, bytes):
        return None
    return BagMessage(channel, data, received_ns)


def _salvaged(path: Path, name: str) -> Iterator[BagChannel | BagMessage]:
    size = path.stat().st_size
    try:
        file = PageFile(path)
    except DamageError as error:
        raise BagCutError(name, size, "it ends within its first page") from error
    with closing(file):
        channels, cells = _survey(file)
        yield from channels.values()
        for _, cell in sorted(cells.items()):
            record = file.record(cell)
            row = values(record) if record is not None else []
            message = _message(channels.get(_topic(row)), row[2], row[3]) if len(row) == _MESSAGE_COLUMNS else None
            if message is None:
                break
            yield message
        raise BagCutError(name, size, f"it ends {file.declared_bytes - size} bytes too early")


def _topic(row: list[int | float | str | bytes | None]) -> int:
    return row[1] if isinstance(row[1], int) else -1


def _survey(file: PageFile) -> tuple[dict[int, BagChannel], dict[int, Cell]]:
    """Return the topics by id, and the cells that hold messages by row id."""
    topics: dict[int, tuple[str, str, str]] = {}
    texts: dict[str, str] = {}
    messages: dict[int, Cell] = {}
    for cell in file.cells():
        found = layout(file.head(cell))
        if found is None or not found.codes or found.codes[0] != 0:
            continue
        if _is_message(found.codes):
            messages.setdefault(cell.row_id, cell)
        elif (record := file.record(cell)) is not None:
            words = [value for value in values(record)[1:] if isinstance(value, str)]
            if len(words) >= 3 and words[0].startswith("/"):
                topics[cell.row_id] = words[0], words[1], words[2]
            elif len(words) >= 3 and words[1] in ("ros2msg", "ros2idl"):
                texts[words[0]] = words[2]
    channels = {number: BagChannel(*words, texts.get(words[1], "")) for number, words in sorted(topics.items())}
    return channels, messages


def _is_message(codes: tuple[int, ...]) -> bool:
    """Whether a record is (id, integer, integer, blob), which only rows of `messages` are."""
    integers = (1, 2, 3, 4, 5, 6, 8, 9)
    return len(codes) == _MESSAGE_COLUMNS and codes[1] in integers and codes[2] in integers and _is_blob(codes[3])


def _is_blob(code: int) -> bool:
    return code >= 12 and code % 2 == 0
