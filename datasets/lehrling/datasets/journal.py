"""The journal: what is being recorded, in append-only MCAP files that any kill leaves readable.

`journals/<id>/meta.json` (who, what, the embodiment), one `<group>-<n>.mcap` per camera and one for all numerics, and
`end.json` once recording ended as it should. Several processes may write one journal, each the files of its own topics.
Chunks hold at most 64 KiB and carry a CRC. MCAP has no place for the
monotonic receive time and cannot say "unknown", so each chunk ends with a message on RECEIPTS: for every message before
it, in order, monotonic time, publish time and sequence as little-endian int64, -1 where unknown.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
from mcap.writer import CompressionType, Writer

from lehrling.datasets.embodiment import IMAGE_KINDS, Embodiment
from lehrling.datasets.errors import InputError, StorageError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import MANIFEST, checked_id, fsync_path, storage_error, write_durably
from lehrling.datasets.manifest import SETTLED, read_manifest
from lehrling.datasets.message_types import Types, standard

CHUNK_BYTES = 64 * 1024
FLUSH_S = 0.03
"""What is promised is 100 ms, of which the queue may take 50: the rest is for threads that a busy machine lets wait."""
RECEIPTS = "/lehrling/receipts"
META, END, RESERVE = "meta.json", "end.json", "reserve"
CHECKSUM = "crc32"
RESERVE_BYTES = 512 << 10
"""Held back while recording, so that the end can be written on a disk that recording has filled."""
NUMERIC = "numeric"
Outcome = Literal["success", "failure", "unknown"]
Origin = Literal["simulation", "robot", "import"]


@dataclass(frozen=True)
class EpisodeMeta:
    """What is known of an episode when recording begins.

    Attributes:
        origin: a `simulation` can be had again from its seed and an `import` from its source; what a `robot` did cannot.
        operator: a pseudonym.
        details: anything that explains the data and does not depend on host or time of day.
    """

    id: str
    task: str
    instruction: str
    robot: str
    origin: Origin
    seed: int | None = None
    operator: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class _File:
    """One MCAP file and the receipts of its current chunk."""

    def __init__(self, path: Path, types: Types) -> None:
        self.path, self.types = path, types
        self.stream: IO[bytes] = path.open("wb", buffering=1 << 20)
        self.writer = Writer(
            self.stream, chunk_size=1 << 30, compression=CompressionType.NONE, use_chunking=True, enable_crcs=True
        )
        self.writer.start(profile="ros2", library="lehrling")
        self.channels: dict[tuple[str, str], int] = {}
        self.receipts: list[tuple[int, int, int]] = []
        self.bytes = 0
        self.receipts_channel = self.writer.register_channel(RECEIPTS, "little-endian-int64x3", 0)

    def channel(self, topic: str, msgtype: str) -> int:
        if (topic, msgtype) not in self.channels:
            schema = self.writer.register_schema(msgtype, "ros2msg", self.types.definition(msgtype).encode())
            self.channels[topic, msgtype] = self.writer.register_channel(topic, "cdr", schema)
        return self.channels[topic, msgtype]

    def flush(self) -> None:
        if self.receipts:
            table = np.array(self.receipts, dtype="<i8").tobytes()
            self.writer.add_message(self.receipts_channel, 0, table, 0, len(self.receipts))
            self.receipts, self.bytes = [], 0
            self.writer.flush()  # type: ignore[no-untyped-call]
        self.stream.flush()

    def sync(self) -> None:
        os.fdatasync(self.stream.fileno())

    def close(self) -> None:
        self.flush()
        self.writer.finish()  # type: ignore[no-untyped-call]
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()


def begin_journal(root: Path, meta: EpisodeMeta, embodiment: Embodiment) -> Path:
    """Create `journals/<id>` with its `meta.json`, durably and at once, and return the directory.

    Raises:
        InputError: a journal of that id is there already, or an episode of a robot, which cannot be had again.
        StorageError: the disk is full or failed.
    """
    directory = root / "journals" / checked_id(meta.id)
    partial = directory.with_name(f".{meta.id}.partial")
    content = {"format": 1, "meta": asdict(meta), "embodiment": embodiment.model_dump(mode="json")}
    if directory.exists():
        raise InputError(
            f"There is a journal {meta.id!r} already; open the dataset for writing to repair or discard it."
        )
    if meta.origin == "robot" and _settled(root, meta.id):
        raise InputError(f"There is an episode {meta.id!r} already, which never changes; record under another id.")
    try:
        partial.mkdir(parents=True)
        reach("journal-begin")
        write_durably(partial / META, with_checksum(content, indent=1))
        if meta.origin == "robot":
            _hold_back(partial / RESERVE)
        partial.rename(directory)
        fsync_path(directory.parent)
    except (OSError, StorageError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise error if isinstance(error, StorageError) else storage_error(error, directory) from error
    reach("journal-begun")
    return directory


def _settled(root: Path, name: str) -> bool:
    """Whether there is an episode of that id, or was one: a journal of it would be taken for what sealing left over."""
    if (root / "episodes" / name).exists():
        return True
    known = read_manifest(root).get(name) if (root / MANIFEST).is_file() else None
    return known is not None and known.status in SETTLED


def with_checksum(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return a document that says when a bit of it was flipped."""
    data = json.loads(json.dumps(content))
    return (json.dumps({**data, CHECKSUM: checksum(data)}, indent=indent) + "\n").encode()


def checksum(content: Mapping[str, Any]) -> str:
    """Return the CRC-32, in hex, of the other keys of a document as JSON reads it."""
    others = {key: value for key, value in content.items() if key != CHECKSUM}
    return f"{zlib.crc32(json.dumps(others, sort_keys=True).encode()):08x}"


def _hold_back(path: Path) -> None:
    """Hold space back where the file system can."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise


def end_journal(
    directory: Path,
    outcome: Outcome,
    stop_cause: str,
    counts: Mapping[str, int],
    losses: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Say in `end.json` how the recording ended; every part must be closed.

    `counts` are messages written per topic, `losses` sentences on what is known to be missing, `facts` JSON data of host and
    recording for the manifest.
    """
    end = {"outcome": outcome, "stop_cause": stop_cause, "counts": dict(counts), "losses": list(losses)}
    reach("journal-end")
    with contextlib.suppress(OSError):  # a disk that refuses it may still take the end
        (directory / RESERVE).unlink(missing_ok=True)
    write_durably(directory / END, with_checksum(end | {"facts": dict(facts or {})}))
    reach("journal-ended")


class JournalPart:
    """Writes the files of some of a journal's topics; one thread flushes, another makes durable.

    After a process kill every message written more than `flush_s` earlier is there, after power loss more than `fsync_s`
    earlier, unless the disk holds a flush up.

    Attributes:
        counts: messages written per topic.
        unflushed_ns: when the oldest message that is not flushed was received, on the monotonic clock; 0 where there is none.
    """

    def __init__(
        self,
        directory: Path,
        embodiment: Embodiment,
        flush_s: float = FLUSH_S,
        fsync_s: float = 1.0,
        types: Types | None = None,
    ) -> None:
        """Take a directory from `begin_journal`; `types` are needed where the embodiment binds types that are not standard."""
        self.directory = directory
        self._types, self._definitions = embodiment.binding.topics, types or standard()
        images = {s.name for s in embodiment.contract.all_streams if s.kind in IMAGE_KINDS}
        self._groups = {
            source.topic: name if name in images else NUMERIC
            for name, sources in embodiment.binding.sources.items()
            for source in sources
        }
        self._files: dict[str, _File] = {}
        self._made = False
        self.counts: dict[str, int] = {}
        self.unflushed_ns = 0
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._failure: OSError | None = None
        self._threads = [
            threading.Thread(target=self._every, args=(flush_s, self._flush), name="journal-flush", daemon=True),
            threading.Thread(target=self._every, args=(fsync_s, self._sync), name="journal-sync", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def write(
        self,
        topic: str,
        cdr: bytes,
        *,
        received_ns: int,
        publish_ns: int | None = None,
        monotonic_ns: int | None = None,
        sequence: int | None = None,
        msgtype: str | None = None,
    ) -> None:
        """Append one message; `msgtype` is given where it is not the declared one, as of an image made a JPEG.

        Raises:
            InputError: the embodiment binds no such topic, or the type's definition is not known.
            StorageError: the disk is full or failed; what was written before stays.
        """
        if topic not in self._types:
            raise InputError(f"The embodiment binds no topic {topic!r}; it binds {', '.join(sorted(self._types))}.")
        try:
            with self._lock:
                self._raise_failure()
                known = (monotonic_ns, publish_ns, sequence)
                self._append(topic, msgtype or self._types[topic], cdr, received_ns, known)
        except OSError as error:
            raise storage_error(error, self.directory) from error

    def _append(self, topic: str, msgtype: str, cdr: bytes, received_ns: int, known: tuple[int | None, ...]) -> None:
        file = self._file(self._groups[topic])
        channel = file.channel(topic, msgtype)
        if file.bytes and file.bytes + len(cdr) > CHUNK_BYTES:
            file.flush()
        monotonic, publish, sequence = (-1 if value is None else value for value in known)
        reach("journal-write")
        if not self.unflushed_ns and monotonic > 0:
            self.unflushed_ns = monotonic
        file.writer.add_message(channel, received_ns, cdr, max(publish, 0), max(sequence, 0))
        file.receipts.append((monotonic, publish, sequence))
        file.bytes += len(cdr) + 64
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def _file(self, group: str) -> _File:
        if group not in self._files:
            self._files[group] = _File(self.directory / f"{group}-0.mcap", self._definitions)
            self._made = True
            reach("journal-file")
        return self._files[group]

    def _every(self, period_s: float, action: Callable[[], None]) -> None:
        while not self._stopping.wait(period_s):
            try:
                action()
            except (OSError, ValueError) as error:
                if not self._stopping.is_set():
                    self._failure = error if isinstance(error, OSError) else OSError(str(error))
                return

    def _flush(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.flush()
            self.unflushed_ns = 0
        reach("journal-flush")

    def _sync(self) -> None:
        with self._lock:
            files, made, self._made = list(self._files.values()), self._made, False
        for file in files:
            file.sync()
        if made:
            fsync_path(self.directory)
        reach("journal-sync")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def finish(self) -> dict[str, int]:
        """Close the files, everything durable; return the number of messages per topic.

        Raises:
            StorageError: the disk is full or failed; what was written before stays.
        """
        self._stop()
        try:
            self._raise_failure()
            for file in self._files.values():
                file.close()
                reach("journal-closed")
            fsync_path(self.directory)
        except OSError as error:
            raise storage_error(error, self.directory) from error
        return self.counts

    def abandon(self) -> None:
        """Stop without an end, as a crash would; what can still be written is."""
        self._stop()
        for file in self._files.values():
            with contextlib.suppress(OSError, ValueError):
                file.flush()
            with contextlib.suppress(OSError):
                file.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._stopping.is_set():
            self.abandon()


class JournalWriter(JournalPart):
    """Writes one episode's journal, all topics in one process.

    Many processes may each write a journal of their own below the same dataset.
    """

    def __init__(
        self,
        root: Path,
        meta: EpisodeMeta,
        embodiment: Embodiment,
        flush_s: float = FLUSH_S,
        fsync_s: float = 1.0,
        types: Types | None = None,
    ) -> None:
        """Create `journals/<id>`.

        Raises:
            InputError: a journal of that id is there already.
        """
        super().__init__(begin_journal(root, meta, embodiment), embodiment, flush_s, fsync_s, types)

    def close(
        self, outcome: Outcome, stop_cause: str, losses: Sequence[str] = (), facts: Mapping[str, Any] | None = None
    ) -> None:
        """End the recording: everything durable, then `end.json` says how it ended."""
        end_journal(self.directory, outcome, stop_cause, self.finish(), losses, facts)
