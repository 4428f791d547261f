"""The manifest: the append-only list of what is valid, one JSON line per word said about an episode."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any, Literal

from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.failpoints import die, reach, reached
from lehrling.datasets.files import MANIFEST, checked_id, fsync_path, storage_error, unreadable

MANIFEST_BYTES_MAX = 1 << 30
LINE_BYTES_MAX = 8 << 20
Status = Literal["sealed", "discarded", "quarantined", "purged", "deleted", "replaced"]
SETTLED = ("sealed", "quarantined", "purged", "deleted", "replaced")
"""Statuses of episodes whose files are, or were, sealed: nothing is recorded under their ids again."""


@dataclass(frozen=True)
class StreamTiming:
    """How a stream's rows came. None: not measured, as in lines of earlier versions, or not to be told.

    Attributes:
        rate_hz: rows over their span; 0 for fewer than two.
        mean_gap_ms, max_gap_ms: intervals between stamps.
        jitter_ms: standard deviation of the intervals between stamps.
        latency_ms: mean of receipt minus stamp, whatever the two clocks say; its p50, p99 and max likewise.
        dropped: missing sequence numbers, -1 where the middleware gives none or they are not one publisher's.
        gaps: intervals longer than 1.5 usual ones; `max_gap_at_s`: when the longest began.
        starts_s, ends_s: silence from the episode's first receipt to the stream's, and from its last to the episode's.
        clock_offset_ms: sender's clock ahead of the receiver's when the stream began, if its shortest latency is what the
            binding says (`latency_ms`).
        clock_drift_ppm, clock_drift_error_ppm: how much faster the sender's clock runs.
        clock_step_ms: by how much the sender's clock was set on the way.
        frozen: camera frames that equal the one before; `max_freeze_frames`: longest run of them, and when it began.
        out_of_order: rows stamped before one received earlier; `duplicates`: rows whose stamp was there already.
    """

    count: int
    rate_hz: float
    mean_gap_ms: float
    max_gap_ms: float
    jitter_ms: float
    latency_ms: float
    dropped: int
    gaps: int | None = None
    max_gap_at_s: float | None = None
    starts_s: float | None = None
    ends_s: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_max_ms: float | None = None
    clock_offset_ms: float | None = None
    clock_drift_ppm: float | None = None
    clock_drift_error_ppm: float | None = None
    clock_step_ms: float | None = None
    frozen: int | None = None
    max_freeze_frames: int | None = None
    max_freeze_at_s: float | None = None
    out_of_order: int | None = None
    duplicates: int | None = None


@dataclass(frozen=True)
class CameraSkew:
    """How far apart the closest frames of two cameras are stamped [ms].

    Attributes:
        mean_ms, p99_ms: of the magnitude.
        bias_ms: mean of the second camera's stamp minus the first's.
    """

    mean_ms: float
    p99_ms: float
    bias_ms: float


@dataclass(frozen=True)
class Parent:
    """Of which episode one was cut: its rows received from `start_s` until before `stop_s` [s], from its first receipt."""

    id: str
    content_hash: str
    start_s: float
    stop_s: float


@dataclass(frozen=True)
class EditMark:
    """Which edit wrote a line.

    Attributes:
        number: edits of a dataset count from 1.
        verb: delete, restore, label, trim, split, merge or undo.
        part, parts: which line of how many; an edit counts only once all its lines are there.
        undoes: number of the edit that an undo took back, otherwise 0.
        words: what was done, for people.
        at: when, ISO 8601.
    """

    number: int
    verb: str
    part: int
    parts: int
    undoes: int = 0
    words: str = ""
    at: str = ""


@dataclass(frozen=True)
class EpisodeRecord:
    """The manifest's word on one episode.

    Attributes:
        content_hash: sha256 over its arrays and data attributes; host facts and wall-clock times are only here.
        skew: per pair of cameras, `front/wrist`.
        clock_jump_ms: by how much the receiver's realtime clock was set while recording; None where not known.
        facts: what the recording host said when it ended: findings, losses per topic, QoS, doctor's verdict.
        losses: what a repair could not save, sentence by sentence.
        reason: why it is not sealed any more.
        tags: words given by `label`.
        sealed_as: task, instruction and outcome as sealed, of those that a label changed since.
        parent: of a trimmed or split episode.
        edit: which edit wrote this line; None for recording, repair and purge.
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
    skew: dict[str, CameraSkew] = field(default_factory=dict)
    clock_jump_ms: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    sealed_as: dict[str, str] = field(default_factory=dict)
    parent: Parent | None = None
    edit: EditMark | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        return vars(self) | {
            "lengths": dict(self.lengths),
            "timing": {name: dict(vars(timing)) for name, timing in self.timing.items()},
            "skew": {pair: dict(vars(skew)) for pair, skew in self.skew.items()},
            "losses": list(self.losses),
            "tags": list(self.tags),
            "facts": copy.deepcopy(self.facts),
            "sealed_as": dict(self.sealed_as),
            "parent": dict(vars(self.parent)) if self.parent else None,
            "edit": dict(vars(self.edit)) if self.edit else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EpisodeRecord:
        """Read what `to_json` gave; keys of later versions are left out."""
        values = dict(_known(cls, data))
        timing, skew = values.get("timing", {}), values.get("skew", {})
        values["timing"] = {name: StreamTiming(**_known(StreamTiming, t)) for name, t in timing.items()}
        values["skew"] = {pair: CameraSkew(**_known(CameraSkew, s)) for pair, s in skew.items()}
        values["losses"], values["tags"] = tuple(values.get("losses", ())), tuple(values.get("tags", ()))
        for name, kind in (("parent", Parent), ("edit", EditMark)):
            if values.get(name) is not None:
                values[name] = kind(**_known(kind, values[name]))
        checked_id(values["id"])
        return cls(**values)


_KINDS: tuple[type[Any], ...] = (EpisodeRecord, StreamTiming, CameraSkew, Parent, EditMark)
_NAMES = {kind: frozenset(f.name for f in fields(kind)) for kind in _KINDS}
_ONLY_IF_SAID = ("tags", "sealed_as", "parent", "edit")


def _known(kind: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    """Return what a dataclass of this version holds of the data."""
    names = _NAMES[kind]
    if data.keys() <= names:
        return data
    return {key: value for key, value in data.items() if key in names}


def _line(record: EpisodeRecord) -> bytes:
    """Return a record's line; what is not known of a stream's timing is left out, to keep it short."""
    data = {key: value for key, value in record.to_json().items() if value or key not in _ONLY_IF_SAID}
    data["timing"] = {
        name: {key: value for key, value in timing.items() if value is not None}
        for name, timing in data["timing"].items()
    }
    return (json.dumps(data, sort_keys=True) + "\n").encode()


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, content and whether the line is whole.

    Raises:
        DamageError: the file or a line is larger than any of ours.
    """
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size > MANIFEST_BYTES_MAX:
            raise DamageError(f"{path} is larger than {MANIFEST_BYTES_MAX} bytes; that is no manifest.")
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""), start=1):
            if len(line) > LINE_BYTES_MAX:
                raise DamageError(
                    f"Line {number} of {path} is larger than {LINE_BYTES_MAX} bytes; that is no manifest."
                )
            yield number, line, line.endswith(b"\n")


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(error, path, DamageError(f"{path} is gone; restore it from a backup.")) from error


@dataclass(frozen=True)
class Said:
    """A line of the manifest, not yet read in full: most of what a long history holds is not in force any more.

    Attributes:
        id, status, edit: as in `EpisodeRecord`.
        written_at: when it was sealed, discarded, quarantined or purged.
        content: its bytes, or what they say, for who is going to read most of it anyway; `where` names it in errors.
    """

    id: str
    status: str
    edit: EditMark | None
    written_at: str
    content: bytes | dict[str, Any]
    where: str

    @classmethod
    def read(cls, line: bytes, where: str, *, parsed: bool) -> Said:
        """Read what says which line it is.

        Raises:
            DamageError: it is no record.
        """
        try:
            data = json.loads(line)
            mark = EditMark(**_known(EditMark, data["edit"])) if data.get("edit") else None
            name, status, at = checked_id(data["id"]), str(data["status"]), str(data.get("written_at", ""))
            return cls(name, status, mark, at, data if parsed else line, where)
        except Exception as error:
            raise _damage(where, error) from error

    def record(self) -> EpisodeRecord:
        """Read all of it.

        Raises:
            DamageError: it is no record.
        """
        try:
            data = json.loads(self.content) if isinstance(self.content, bytes) else self.content
            return EpisodeRecord.from_json(data)
        except Exception as error:
            raise _damage(self.where, error) from error


def _damage(where: str, error: Exception) -> DamageError:
    return DamageError(
        f"{where} is no record ({type(error).__name__}); restore the file from a backup, or "
        "remove the line and run `lehrling verify`."
    )


def units(path: Path, *, parsed: bool = False) -> Iterator[tuple[list[Said], int]]:
    """Yield what was said at once, one line or all lines of one edit, and where it ends in the file [bytes].

    A torn last line is left out, and so is an edit that lacks lines: it never came into force.

    Raises:
        DamageError: a whole line is no record.
    """
    unit, end = list[Said](), 0
    for number, line, whole in _lines(path):
        if not whole:
            return
        end += len(line)
        said = Said.read(line, f"Line {number} of {path}", parsed=parsed)
        mark = said.edit
        if mark is None or mark.part == 1:
            unit = []
        elif not unit or unit[-1].edit != replace(mark, part=mark.part - 1):
            unit = []
            continue
        unit.append(said)
        if mark is None or mark.part == mark.parts:
            yield unit, end
            unit = []


def read_manifest(root: Path) -> dict[str, EpisodeRecord]:
    """Return the last word on each episode, in the order of their first.

    Raises:
        DamageError: a whole line is no record.
    """
    last = {said.id: said for unit, _ in units(root / MANIFEST, parsed=True) for said in unit}
    return {name: said.record() for name, said in last.items()}


def mend_manifest(root: Path) -> bool:
    """Cut what a crash while appending leaves, a torn line or an edit without its last lines; return whether there was any."""
    path = root / MANIFEST
    keep, last = 0, b""
    for _, line, whole in _lines(path):
        if whole:
            keep, last = keep + len(line), line
    if _unfinished(last):
        keep = max((end for _, end in units(path)), default=0)
    if keep == path.stat().st_size:
        return False
    try:
        with path.open("r+b") as file:
            file.truncate(keep)
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(error, path) from error
    return True


def _unfinished(line: bytes) -> bool:
    """Whether a line is of an edit and not its last."""
    if b'"edit": {' not in line:
        return False
    try:
        mark = json.loads(line)["edit"]
        return bool(mark["part"] < mark["parts"])
    except (ValueError, KeyError, TypeError):
        return False


def _tear(file: IO[bytes], lines: Sequence[bytes]) -> None:
    """Die with half of it written, where a test asks for it."""
    content = b"".join(lines)
    if reached("manifest-torn"):
        file.write(content[: len(content) // 2])
        die()
    if len(lines) > 1 and reached("edit-torn"):
        file.writelines(lines[:-1])
        die()


def append_record(root: Path, record: EpisodeRecord) -> None:
    """Append one record: one write, one fsync.

    Raises:
        StorageError: the disk is full or failed; a torn line is cut off again.
    """
    append_records(root, [record])


def append_records(root: Path, records: Sequence[EpisodeRecord]) -> None:
    """Append records that come into force together, if they are of one edit: one write, one fsync.

    Raises:
        InputError: a record is larger than the manifest takes.
        StorageError: the disk is full or failed; what was written is cut off again.
    """
    path = root / MANIFEST
    lines = [_line(record) for record in records]
    if max(map(len, lines), default=0) > LINE_BYTES_MAX:
        raise InputError(f"Expected a record of at most {LINE_BYTES_MAX} bytes for {path}, got a larger one.")
    _cut_torn_line(root)
    content, before = b"".join(lines), path.stat().st_size
    try:
        with path.open("ab", buffering=0) as file:
            _tear(file, lines)
            written = file.write(content)
            if written != len(content):
                file.truncate(before)
                raise OSError(28, "No space left on device")
            reach("manifest-append")
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(path, before)
        raise storage_error(error, path) from error
    try:
        fsync_path(root)
    except OSError as error:
        raise storage_error(error, path) from error


def _cut_torn_line(root: Path) -> None:
    """Cut off what an earlier failure wrote and could not take back: appended to, it would be damage."""
    with _opened(root / MANIFEST) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = file.read(1) not in (b"\n", b"")
    if torn:
        mend_manifest(root)
