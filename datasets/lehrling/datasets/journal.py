"""The journal: what is being recorded, in append-only MCAP files that any kill leaves readable.

`journals/<id>/meta.json` (who, what, the embodiment), one `<group>-<n>.mcap` per camera and one for all numerics, and
`end.json` once recording ended as it should. Chunks hold at most 64 KiB and carry a CRC. MCAP has no place for the
monotonic receive time and cannot say "unknown", so each chunk ends with a message on RECEIPTS: for every message before
it, in order, monotonic time, publish time and sequence as little-endian int64, -1 where unknown.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
from mcap.writer import CompressionType, Writer

from lehrling.datasets.embodiment import IMAGE_KINDS, Embodiment
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import checked_id, fsync_path, storage_error, write_durably
from lehrling.datasets.messages import definition

CHUNK_BYTES = 64 * 1024
RECEIPTS = "/lehrling/receipts"
META, END = "meta.json", "end.json"
NUMERIC = "numeric"
Outcome = Literal["success", "failure", "unknown"]


@dataclass(frozen=True)
class EpisodeMeta:
    """What is known of an episode when recording begins.

    Attributes:
        origin: a `simulation` can be had again from its seed; what a `robot` did cannot.
        operator: a pseudonym.
        details: anything that explains the data and does not depend on host or time of day.
    """

    id: str
    task: str
    instruction: str
    robot: str
    origin: Literal["simulation", "robot"]
    seed: int | None = None
    operator: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class _File:
    """One MCAP file and the receipts of its current chunk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: IO[bytes] = path.open("wb", buffering=1 << 20)
        self.writer = Writer(
            self.stream, chunk_size=1 << 30, compression=CompressionType.NONE, use_chunking=True, enable_crcs=True
        )
        self.writer.start(profile="ros2", library="lehrling")
        self.channels: dict[str, int] = {}
        self.receipts: list[tuple[int, int, int]] = []
        self.bytes = 0
        self.receipts_channel = self.writer.register_channel(RECEIPTS, "little-endian-int64x3", 0)

    def channel(self, topic: str, msgtype: str) -> int:
        if topic not in self.channels:
            schema = self.writer.register_schema(msgtype, "ros2msg", definition(msgtype).encode())
            self.channels[topic] = self.writer.register_channel(topic, "cdr", schema)
        return self.channels[topic]

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


class JournalWriter:
    """Writes one episode's journal; a thread of its own flushes and syncs.

    After a process kill every message written more than `flush_s` earlier is there, after power loss more than `fsync_s`
    earlier. Many processes may each write a journal of their own below the same dataset.
    """

    def __init__(
        self, root: Path, meta: EpisodeMeta, embodiment: Embodiment, flush_s: float = 0.05, fsync_s: float = 1.0
    ) -> None:
        """Create `journals/<id>`.

        Raises:
            InputError: a journal of that id is there already.
        """
        self.directory = root / "journals" / checked_id(meta.id)
        self._types = embodiment.binding.topics
        images = {s.name for s in embodiment.contract.all_streams if s.kind in IMAGE_KINDS}
        self._groups = {
            source.topic: name if name in images else NUMERIC
            for name, sources in embodiment.binding.sources.items()
            for source in sources
        }
        self._flush_s, self._fsync_s = flush_s, fsync_s
        self._files: dict[str, _File] = {}
        self.counts: dict[str, int] = {}
        self._create(meta, embodiment)
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._failure: OSError | None = None
        self._synced = time.monotonic()
        self._thread = threading.Thread(target=self._maintain, name=f"journal-{meta.id}", daemon=True)
        self._thread.start()

    def _create(self, meta: EpisodeMeta, embodiment: Embodiment) -> None:
        content = {"format": 1, "meta": asdict(meta), "embodiment": embodiment.model_dump(mode="json")}
        try:
            self.directory.parent.mkdir(exist_ok=True)
            self.directory.mkdir()
        except FileExistsError:
            raise InputError(
                f"There is a journal {meta.id!r} already; open the dataset for writing to repair or discard it."
            ) from None
        except OSError as error:
            raise storage_error(error, self.directory) from error
        write_durably(self.directory / META, (json.dumps(content, indent=1) + "\n").encode())
        fsync_path(self.directory.parent)

    def write(
        self,
        topic: str,
        cdr: bytes,
        *,
        received_ns: int,
        publish_ns: int | None = None,
        monotonic_ns: int | None = None,
        sequence: int | None = None,
    ) -> None:
        """Append one message.

        Raises:
            InputError: the embodiment binds no such topic.
            StorageError: the disk is full or failed; what was written before stays.
        """
        if topic not in self._types:
            raise InputError(f"The embodiment binds no topic {topic!r}; it binds {', '.join(sorted(self._types))}.")
        try:
            with self._lock:
                self._raise_failure()
                self._append(topic, cdr, received_ns, (monotonic_ns, publish_ns, sequence))
        except OSError as error:
            raise storage_error(error, self.directory) from error

    def _append(self, topic: str, cdr: bytes, received_ns: int, known: tuple[int | None, ...]) -> None:
        file = self._file(self._groups[topic])
        channel = file.channel(topic, self._types[topic])
        if file.bytes and file.bytes + len(cdr) > CHUNK_BYTES:
            file.flush()
        monotonic, publish, sequence = (-1 if value is None else value for value in known)
        file.writer.add_message(channel, received_ns, cdr, max(publish, 0), max(sequence, 0))
        file.receipts.append((monotonic, publish, sequence))
        file.bytes += len(cdr) + 64
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def _file(self, group: str) -> _File:
        if group not in self._files:
            self._files[group] = _File(self.directory / f"{group}-0.mcap")
            fsync_path(self.directory)
        return self._files[group]

    def _maintain(self) -> None:
        while not self._stopping.wait(self._flush_s):
            try:
                with self._lock:
                    files = list(self._files.values())
                    for file in files:
                        file.flush()
                if time.monotonic() - self._synced >= self._fsync_s:
                    for file in files:
                        file.sync()
                    self._synced = time.monotonic()
            except (OSError, ValueError) as error:
                if not self._stopping.is_set():
                    self._failure = error if isinstance(error, OSError) else OSError(str(error))
                return

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _stop(self) -> None:
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def close(self, outcome: Outcome, stop_cause: str) -> None:
        """End the recording: everything durable, then `end.json` says how it ended."""
        self._stop()
        try:
            self._raise_failure()
            for file in self._files.values():
                file.close()
        except OSError as error:
            raise storage_error(error, self.directory) from error
        end = {"outcome": outcome, "stop_cause": stop_cause, "counts": self.counts}
        write_durably(self.directory / END, (json.dumps(end) + "\n").encode())

    def abandon(self) -> None:
        """Stop without an end record, as a crash would; repair decides what becomes of the journal."""
        self._stop()
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.flush()
            with contextlib.suppress(OSError):
                file.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._stopping.is_set():
            self.abandon()
