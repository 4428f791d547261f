"""Rows of a SQLite file that is cut: read from its pages, since SQLite itself refuses such a file.

Only what a bag needs of the format (sqlite.org/fileformat2.html): table leaf pages, their cells, overflow chains and
record headers. A bag is only ever appended to, so a page belongs to one row's content for good, and pages before the cut
are whole. Inner pages are not needed: they lie anywhere in the file, and row ids tell the order.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lehrling.datasets.errors import DamageError

MAGIC = b"SQLite format 3\x00"
TABLE_LEAF = 13
RECORD_BYTES_MAX = 64 << 20
Value = int | float | str | bytes | None
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Cell(NamedTuple):
    """Where a row lies.

    Attributes:
        size: of its record in bytes.
        local: bytes of it on its own page, from `start`; the others are in a chain of pages that begins at `overflow`.
    """

    row_id: int
    size: int
    start: int
    local: int
    overflow: int


class PageFile:
    """A SQLite file as pages; a page that is not wholly there does not exist."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            DamageError: its first page is no beginning of a database.
        """
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(100)
            if len(head) < 100 or not head.startswith(MAGIC):
                raise DamageError(f"{path.name} ends within its first 100 bytes, or is no SQLite file.")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        declared = int.from_bytes(head[16:18], "big")
        self.page_bytes = 65536 if declared == 1 else declared
        self._usable = self.page_bytes - head[20]
        if self.page_bytes < 512 or self.page_bytes & (self.page_bytes - 1) or self._usable < 480:
            raise DamageError(f"{path.name} declares pages of {declared} bytes, which SQLite does not have.")
        self.pages = size // self.page_bytes
        self.declared_bytes = int.from_bytes(head[28:32], "big") * self.page_bytes

    def close(self) -> None:
        """Unmap the file."""
        self._data.close()

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of all table leaf pages, page by page."""
        for page in range(self.pages):
            start = page * self.page_bytes + (100 if page == 0 else 0)
            if self._data[start] == TABLE_LEAF:
                yield from self._page_cells(page * self.page_bytes, start)

    def _page_cells(self, page: int, header: int) -> Iterator[Cell]:
        count = int.from_bytes(self._data[header + 3 : header + 5], "big")
        for place in range(header + 8, min(header + 8 + 2 * count, page + self.page_bytes - 1), 2):
            at = page + int.from_bytes(self._data[place : place + 2], "big")
            size, at = self._varint(at)
            row_id, at = self._varint(at)
            local = self._local(size)
            if at + local + 4 * (local < size) > page + self._usable:
                continue
            overflow = int.from_bytes(self._data[at + local : at + local + 4], "big") if local < size else 0
            yield Cell(row_id, size, at, local, overflow)

    def _local(self, size: int) -> int:
        """Return how many bytes of a record stay on its leaf page."""
        most, least = self._usable - 35, (self._usable - 12) * 32 // 255 - 23
        if size <= most:
            return size
        part = least + (size - least) % (self._usable - 4)
        return part if part <= most else least

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for place in range(at, at + 8):
            byte = self._byte(place)
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, place + 1
        return value << 8 | self._byte(at + 8), at + 9

    def _byte(self, at: int) -> int:
        return self._data[at] if at < len(self._data) else 0

    def record(self, cell: Cell) -> bytes | None:
        """Return a row's record, or None where a page of it is missing or it claims more than a row of a bag."""
        if cell.size > RECORD_BYTES_MAX:
            return None
        parts, have, page = [self._data[cell.start : cell.start + cell.local]], cell.local, cell.overflow
        while have < cell.size:
            if not 1 <= page <= self.pages:
                return None
            at = (page - 1) * self.page_bytes
            page = int.from_bytes(self._data[at : at + 4], "big")
            part = self._data[at + 4 : at + min(self._usable, 4 + cell.size - have)]
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def head(self, cell: Cell) -> bytes:
        """Return the part of a row's record that is on its own page."""
        return self._data[cell.start : cell.start + cell.local]


@dataclass(frozen=True)
class Layout:
    """A record's columns: type codes and where the values begin."""

    codes: tuple[int, ...]
    start: int


def layout(record: bytes) -> Layout | None:
    """Read a record's header, or None where it is none."""
    size, at = _varint(record, 0)
    codes = []
    while at < size <= len(record):
        code, at = _varint(record, at)
        codes.append(code)
    return Layout(tuple(codes), size) if at == size and size <= len(record) else None


def values(record: bytes) -> list[Value]:
    """Return a whole record's columns; an INTEGER PRIMARY KEY is None, its value is the row id."""
    found = layout(record)
    if found is None:
        return []
    out: list[Value] = []
    at = found.start
    for code in found.codes:
        size = _INTEGER_BYTES.get(code, 8 if code == 7 else (code - 12) // 2 if code >= 12 else 0)
        out.append(_value(code, record[at : at + size]))
        at += size
    return out if at <= len(record) else []


def _value(code: int, data: bytes) -> Value:
    if code in _INTEGER_BYTES:
        return int.from_bytes(data, "big", signed=True)
    if code in (8, 9):
        return code - 8
    if code < 12:
        return None
    return data if code % 2 == 0 else data.decode(errors="replace")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(at, min(at + 8, len(data))):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:
            return value, place + 1
    return (value << 8 | data[at + 8], at + 9) if at + 8 < len(data) else (value, len(data) + 1)
