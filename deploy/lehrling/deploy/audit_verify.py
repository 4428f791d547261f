"""Verify an audit: what of its chain was changed, removed, moved, inserted or cut off."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lehrling.datasets.errors import DocumentError, InputError
from lehrling.datasets.files import sha256_file
from lehrling.deploy.audit_record import (
    HASH,
    LINE_BYTES_MAX,
    START,
    Head,
    Kind,
    Record,
    audit_files,
    decode,
    torn_files,
)

FINDINGS_MAX = 100
Fault = Literal["changed", "removed", "moved", "inserted", "torn", "cut"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written.

    Attributes:
        line: in the file, from 1; 0 for the audit as a whole.
    """

    fault: Fault
    file: str
    line: int
    text: str


@dataclass(frozen=True)
class AuditReport:
    """What was verified.

    Attributes:
        records: that fit their own hash.
        head: of the last such record; compare it with one that was kept elsewhere.
        first, last: wall-clock times, "" where there is no record.
        kinds: how many records of each kind.
        closed: whether it ends as `close` ends it; after a crash, or where the end was cut off, it does not.
        after: records after the head that was asked for; None where none was.
        findings: the first `FINDINGS_MAX`; `faults` counts all.
    """

    files: tuple[str, ...]
    records: int
    head: Head
    first: str
    last: str
    kinds: dict[str, int]
    closed: bool
    after: int | None
    findings: tuple[Finding, ...]
    faults: int

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return self.faults == 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {"whole": self.whole, **asdict(self)}


def verify(path: Path, *, head: str | None = None) -> AuditReport:
    """Verify an audit and the full files before it; in one that is being written, the newest line can look torn.

    `head` is the hash of a record, as `AuditLog.close` returned it and somebody kept it: without one, records missing at
    the end, and a chain written anew, cannot be told from a shorter or another audit.

    Raises:
        InputError: there is no audit, or `head` is no hash.
        OSError: it cannot be read.
    """
    if head is not None and not HASH.fullmatch(head):
        raise InputError(f"Expected 64 hexadecimal digits as the head, got {head[:80]!r}.")
    files = audit_files(path)
    if not files:
        raise InputError(f"Expected an audit (JSONL) at {path}, but there is no such file.")
    chain = _Chain(path, head)
    for file in files:
        for line, content in enumerate(_lines(file), 1):
            chain.take(file, line, content)
    return chain.report(files)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of an audit that fit their own hash, oldest first, whether the chain holds or not.

    Raises:
        InputError: there is no audit.
        OSError: it cannot be read.
    """
    files = audit_files(path)
    if not files:
        raise InputError(f"Expected an audit (JSONL) at {path}, but there is no such file.")
    for file in files:
        for line, content in enumerate(_lines(file), 1):
            try:
                yield decode(content, f"{file}, line {line},")
            except DocumentError:
                continue


class _Chain:
    """Goes along the lines and notes where one does not follow."""

    def __init__(self, path: Path, wanted: str | None) -> None:
        self._path, self._wanted = path, wanted
        self._head, self._last = START, START
        self._sure = True
        self._seen: set[int] = set()
        self._kinds: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self._faults, self._records = 0, 0
        self._first, self._wall, self._kind = "", "", ""
        self._at: int | None = None

    def take(self, file: Path, line: int, content: bytes) -> None:
        """Look at the next line."""
        if not content.endswith(b"\n") and len(content) <= LINE_BYTES_MAX:
            self._find(
                "torn", file, line, f"ends within record {self._head.next}; opening it to write keeps that aside"
            )
            self._sure = False
            return
        try:
            record = decode(content, f"line {line}")
        except DocumentError as error:
            self._find("changed", file, line, f"{str(error).rstrip('.')}; record {self._head.next} was expected")
            self._head, self._sure = Head(self._head.next, ""), False
            return
        self._follow(file, line, record)
        self._note(record)

    def _follow(self, file: Path, line: int, record: Record) -> None:
        expected = self._head.next
        if record.sequence > expected:
            missing = (
                f"record {expected}"
                if record.sequence == expected + 1
                else f"records {expected} to {record.sequence - 1}"
            )
            self._find("removed", file, line, f"{missing} missing before record {record.sequence}")
        elif record.sequence in self._seen:
            self._find("inserted", file, line, f"record {record.sequence} is there a second time")
            return
        elif record.sequence < expected:
            self._find("moved", file, line, f"record {record.sequence} comes after record {expected - 1}")
            return
        elif self._sure and not hmac.compare_digest(record.previous, self._head.hash):
            self._find("changed", file, line, f"record {record.sequence} does not follow what stands before it")
        self._head, self._sure = Head(record.sequence, record.hash), True

    def _note(self, record: Record) -> None:
        self._seen.add(record.sequence)
        self._records += 1
        self._kinds[record.kind] += 1
        self._first, self._wall = self._first or record.wall, record.wall
        if record.sequence > self._last.sequence:
            self._last, self._kind = Head(record.sequence, record.hash), record.kind
        if self._wanted is not None and hmac.compare_digest(record.hash, self._wanted):
            self._at = self._records
        if record.kind == Kind.TORN:
            self._check_torn(record)

    def _check_torn(self, record: Record) -> None:
        """Compare what was kept of torn lines with what the record says of it."""
        said = {file.name: file for file in torn_files(self._path, record.sequence)}
        kept = record.facts.get("kept")
        for fact in kept if isinstance(kept, list) else []:
            name, digest = (fact.get("file"), fact.get("sha256")) if isinstance(fact, dict) else (None, None)
            if (file := said.get(str(name))) is None:
                text = f"is missing; record {record.sequence} says that it keeps a torn line"
                self._find("removed", self._path.with_name(f"{self._path.name}.torn-{record.sequence:09d}"), 0, text)
            elif sha256_file(file) != digest:
                self._find("changed", file, 0, f"is not what record {record.sequence} says of it")

    def _find(self, fault: Fault, file: Path, line: int, text: str) -> None:
        self._faults += 1
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(Finding(fault, str(file), line, text))

    def report(self, files: list[Path]) -> AuditReport:
        """Return what was found."""
        if not self._records:
            self._find("cut", self._path, 0, "holds no record")
        if self._wanted is not None and self._at is None:
            text = "the head that was kept is not in it: its end was cut off, or it was written anew"
            self._find("cut", self._path, 0, text)
        return AuditReport(
            tuple(map(str, files)),
            self._records,
            self._last,
            self._first,
            self._wall,
            dict(sorted(self._kinds.items())),
            self._kind == Kind.CLOSED,
            None if self._at is None else self._records - self._at,
            tuple(self._findings),
            self._faults,
        )


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines; one that is longer than any of ours comes in pieces, which are no records."""
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES_MAX + 1):
            yield line
