"""The manifest: the append-only list of what is valid, one JSON line per word said about an episode."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import checked_id, fsync_path, storage_error

MANIFEST = "manifest.jsonl"
MANIFEST_BYTES_MAX = 1 << 30
Status = Literal["sealed", "discarded", "quarantined", "purged"]


@dataclass(frozen=True)
class StreamTiming:
    """How a stream's rows came.

    Attributes:
        rate_hz: rows over their span; 0 for fewer than two.
        jitter_ms: standard deviation of the gaps between stamps.
        latency_ms: mean of receipt minus stamp.
        dropped: missing sequence numbers, -1 where the middleware gives none.
    """

    count: int
    rate_hz: float
    mean_gap_ms: float
    max_gap_ms: float
    jitter_ms: float
    latency_ms: float
    dropped: int


@dataclass(frozen=True)
class EpisodeRecord:
    """The manifest's word on one episode.

    Attributes:
        content_hash: sha256 over its arrays and data attributes; host facts and wall-clock times are only here.
        losses: what a repair could not save, sentence by sentence.
        reason: why it was discarded, quarantined or purged.
    """

    id: str
    status: Status
    task: str = ""
    instruction: str = ""
    robot: str = ""
    origin: str = ""
    seed: int | None = None
    operator: str | None = None
    outcome: str = "unknown"
    stop_cause: str = ""
    duration_s: float = 0.0
    lengths: dict[str, int] = field(default_factory=dict)
    timing: dict[str, StreamTiming] = field(default_factory=dict)
    bytes: int = 0
    content_hash: str = ""
    contract_hash: str = ""
    binding_hash: str = ""
    losses: tuple[str, ...] = ()
    reason: str = ""
    code_version: str = ""
    written_at: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        return asdict(self) | {"losses": list(self.losses)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EpisodeRecord:
        """Read what `to_json` gave; keys of later versions are left out."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["timing"] = {name: StreamTiming(**t) for name, t in values.get("timing", {}).items()}
        values["losses"] = tuple(values.get("losses", ()))
        checked_id(values["id"])
        return cls(**values)


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, content and whether the line is whole."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, line, line.endswith(b"\n")


def read_manifest(root: Path) -> dict[str, EpisodeRecord]:
    """Return the last word on each episode, in the order of their first; a torn last line is left out.

    Raises:
        DamageError: a whole line is no record.
    """
    path = root / MANIFEST
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise DamageError(f"{path} is larger than {MANIFEST_BYTES_MAX} bytes; that is no manifest.")
    records: dict[str, EpisodeRecord] = {}
    for number, line, whole in _lines(path):
        if not whole:
            break
        try:
            record = EpisodeRecord.from_json(json.loads(line))
        except Exception as error:
            raise DamageError(
                f"Line {number} of {path} is no record ({type(error).__name__}); restore the file from a backup, or "
                "remove the line and run `lehrling verify`."
            ) from error
        records[record.id] = record
    return records


def mend_manifest(root: Path) -> bool:
    """Cut a torn last line, which a crash while appending leaves; return whether there was one."""
    path = root / MANIFEST
    keep = 0
    for _, line, whole in _lines(path):
        keep += len(line) if whole else 0
    if keep == path.stat().st_size:
        return False
    with path.open("r+b") as file:
        file.truncate(keep)
        os.fsync(file.fileno())
    return True


def append_record(root: Path, record: EpisodeRecord) -> None:
    """Append one record: one write, one fsync.

    Raises:
        StorageError: the disk is full or failed; a torn line is cut off again.
    """
    path = root / MANIFEST
    line = (json.dumps(record.to_json(), sort_keys=True) + "\n").encode()
    before = path.stat().st_size
    try:
        with path.open("ab", buffering=0) as file:
            written = file.write(line)
            if written != len(line):
                file.truncate(before)
                raise OSError(28, "No space left on device")
            os.fsync(file.fileno())
    except OSError as error:
        os.truncate(path, before)
        raise storage_error(error, path) from error
    fsync_path(root)
