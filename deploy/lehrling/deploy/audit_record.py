"""One record of an audit: a line of canonical JSON that carries the hash of the line before it and its own."""

from __future__ import annotations

import glob
import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from lehrling.datasets.documents import parse_json
from lehrling.datasets.errors import DocumentError, InputError

FORMAT = 1
GENESIS = "0" * 64
"""What the first record of a chain names as the hash before it."""
LINE_BYTES_MAX = 64 << 10
FACTS_BYTES_MAX = 48 << 10
DEPTH_MAX = 8
NAME = re.compile(r"[a-z][a-z0-9 _.-]{0,63}")
HASH = re.compile(r"[0-9a-f]{64}")
_KEYS = frozenset({"seq", "kind", "wall", "mono_ns", "facts", "prev", "hash"})
_INTEGER_MAX = 1 << 63


class Kind(StrEnum):
    """What is recorded; others may be named as well, in the same letters."""

    OPENED = "opened"
    CLOSED = "closed"
    CONTINUED = "continued"
    TORN = "torn line kept"
    STATE = "state change"
    CLAMPS = "clamp burst"
    STOP = "stop"
    ADAPTER = "adapter load"
    CONFIG = "config change"
    RESET = "operator reset"
    KEPT = "black box kept"
    LOST = "black box lost"


@dataclass(frozen=True)
class Record:
    """A record as it stands in the file.

    Attributes:
        sequence: 0 for the first of the chain, then one more each.
        wall: UTC, ISO 8601 with microseconds.
        mono_ns: the writer's monotonic clock, comparable from one `opened` to the next only.
        previous: hash of the record before, in hex; `GENESIS` for the first.
    """

    sequence: int
    kind: str
    wall: str
    mono_ns: int
    facts: Mapping[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True)
class Head:
    """The end of a chain: who keeps it elsewhere can tell later that nothing before it was cut off."""

    sequence: int
    hash: str

    @property
    def next(self) -> int:
        """The sequence number of the record that comes after."""
        return self.sequence + 1


START = Head(-1, GENESIS)


def encode(head: Head, kind: str, facts: Mapping[str, object], mono_ns: int, now: datetime | None = None) -> bytes:
    """Return the line of the record after `head`, its newline included.

    Facts that JSON has no word for (NaN, arrays, paths) are written as text; too many are cut, with their size and hash.

    Raises:
        InputError: the kind is not a name.
    """
    if not NAME.fullmatch(kind):
        raise InputError(f"Expected a kind of small letters, digits and spaces, got {kind[:80]!r}.")
    wall = (now or datetime.now(UTC)).isoformat(timespec="microseconds")
    body = {
        "seq": head.next,
        "kind": str(kind),
        "wall": wall,
        "mono_ns": mono_ns,
        "facts": _bounded(facts),
        "prev": head.hash,
    }
    return _canonical(body | {"hash": _digest(head.hash, body)}) + b"\n"


def decode(line: bytes, where: str) -> Record:
    """Read a line that `encode` wrote; any other byte in it is refused.

    Raises:
        DocumentError: the line is no record, or its hash does not fit it.
    """
    data = parse_json(line, where)
    if not isinstance(data, dict) or data.keys() != _KEYS or not _typed(data):
        raise DocumentError(f"{where} is no audit record.")
    body = {key: value for key, value in data.items() if key != "hash"}
    try:
        fits = _canonical(data) + b"\n" == line and hmac.compare_digest(_digest(data["prev"], body), data["hash"])
    except ValueError:  # NaN and lone halves of characters, which `encode` never writes
        fits = False
    if not fits:
        raise DocumentError(f"{where} does not fit its hash.")
    return Record(data["seq"], data["kind"], data["wall"], data["mono_ns"], data["facts"], data["prev"], data["hash"])


def audit_files(path: Path) -> list[Path]:
    """Return the files of an audit, oldest first: `NAME.000001`, `NAME.000002` …, then NAME, which is written."""
    names = path.parent.glob(f"{glob.escape(path.name)}.[0-9][0-9][0-9][0-9][0-9][0-9]")
    return [*sorted(names), *([path] if path.exists() else [])]


def next_file(path: Path) -> Path:
    """Return the name that the file takes which is full; never one that is taken."""
    rotated = [file for file in audit_files(path) if file != path]
    number = int(rotated[-1].name[-6:]) + 1 if rotated else 1
    return path.with_name(f"{path.name}.{number:06d}")


def torn_files(path: Path, sequence: int) -> list[Path]:
    """Return what was kept of lines that a crash tore where record `sequence` belongs."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.torn-{sequence:09d}*"))


def _typed(data: Mapping[str, Any]) -> bool:
    whole = all(isinstance(data[key], int) and not isinstance(data[key], bool) for key in ("seq", "mono_ns"))
    words = all(isinstance(data[key], str) for key in ("kind", "wall", "prev", "hash"))
    hashes = words and all(HASH.fullmatch(data[key]) for key in ("prev", "hash"))
    return whole and hashes and isinstance(data["facts"], dict)


def _digest(previous: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(previous.encode() + _canonical(body)).hexdigest()


def _canonical(data: Mapping[str, Any]) -> bytes:
    """Return JSON as this module writes it: keys in order, no blanks, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _bounded(facts: Mapping[str, object]) -> dict[str, Any]:
    plain: dict[str, Any] = {str(key): _plain(value, DEPTH_MAX) for key, value in facts.items()}
    text = _canonical(plain)
    if len(text) <= FACTS_BYTES_MAX:
        return plain
    return {"cut": text[:4096].decode(), "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


def _plain(value: object, depth: int) -> Any:
    """Return a value as JSON can say it; a stop must not go unrecorded because a fact of it is odd."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -_INTEGER_MAX <= value < _INTEGER_MAX:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping) and depth:
        return {str(key): _plain(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and depth:
        return [_plain(inner, depth - 1) for inner in value]
    return str(value)
