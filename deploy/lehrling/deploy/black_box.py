"""The black box: the newest messages of a robot in memory, kept as an episode when it stops."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.datasets.message_types import Types, standard
from lehrling.deploy.audit import AuditLog
from lehrling.deploy.audit_record import Kind
from lehrling.deploy.black_box_episode import Held, Stopped, write_episode

WAITING_MAX = 1


@dataclass(frozen=True)
class BoxLimits:
    """How much a black box holds, in memory and on disk.

    Attributes:
        seconds: age of the oldest message held, against the newest.
        bytes_max: of all messages held; while stops are written, up to two more times as much is in memory.
        episodes_max: stops kept on disk; the oldest beyond are deleted for good.
    """

    seconds: float = 30.0
    bytes_max: int = 512 << 20
    episodes_max: int = 20

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.bytes_max > 0 and self.episodes_max > 0):
            raise InputError(f"Expected limits of a black box above 0, got {self}.")


class BlackBox:
    """Holds the newest messages; `take` and `keep` return at once and never raise for what the disk does.

    What was kept, or could not be, is written to the audit and told, by the thread that writes.

    Attributes:
        dropped: messages given up for lack of room, though they were recent enough; oldest first.
    """

    def __init__(
        self,
        root: Path,
        embodiment: Embodiment,
        limits: BoxLimits | None = None,
        *,
        audit: AuditLog | None = None,
        tell: Callable[[str], None] | None = None,
        types: Types | None = None,
    ) -> None:
        """Prepare to keep stops in the dataset at `root`, which is made with the first and best left to the black box.

        `tell` is called with a sentence about each stop; `types` are needed where the robot's messages are not standard.
        """
        self.root, self.limits = root, limits or BoxLimits()
        self.dropped = 0
        self._embodiment, self._types = embodiment, types or standard()
        self._audit, self._tell = audit, tell
        self._held: deque[Held] = deque()
        self._size = 0
        self._mutex = threading.Lock()
        self._newest = datetime.min.replace(tzinfo=UTC)
        self._waiting: queue.Queue[tuple[Stopped, list[Held]] | None] = queue.Queue(WAITING_MAX + 1)
        self._thread = threading.Thread(target=self._write_all, name="black-box", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return how many messages are held."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """The size of the messages held."""
        return self._size

    def take(
        self,
        topic: str,
        cdr: bytes,
        *,
        received_ns: int,
        monotonic_ns: int,
        publish_ns: int | None = None,
        sequence: int | None = None,
        msgtype: str | None = None,
    ) -> None:
        """Hold a message that was received or sent, by the embodiment's name of its topic.

        `msgtype` is given where it is not the one that the embodiment says.
        """
        message = Held(topic, bytes(cdr), received_ns, monotonic_ns, publish_ns, sequence, msgtype)
        with self._mutex:
            self._held.append(message)
            self._size += len(message.cdr)
            oldest_ns = monotonic_ns - round(self.limits.seconds * 1e9)
            while self._held and self._held[0].monotonic_ns < oldest_ns:
                self._drop()
            while self._size > self.limits.bytes_max:
                self._drop()
                self.dropped += 1

    def keep(self, cause: str, text: str = "", *, task: str = "stop", instruction: str = "") -> str:
        """Keep what is held, in the background; return the episode's id, "" where too many stops wait to be written."""
        with self._mutex:
            held, dropped, name = list(self._held), self.dropped, self._name()
        stopped = Stopped(name, cause, text, task, instruction, dropped)
        try:
            if self._waiting.qsize() >= WAITING_MAX or not self._thread.is_alive():
                raise queue.Full
            self._waiting.put_nowait((stopped, held))
        except queue.Full:
            self._say(
                Kind.LOST, name, f"The stop {name} ({cause}) is not kept: stops before it are still being written."
            )
            return ""
        return name

    def close(self, timeout_s: float = 60.0) -> bool:
        """Write what waits and end; return whether that was done in time."""
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=timeout_s)
            except queue.Full:
                return False
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _drop(self) -> None:
        self._size -= len(self._held.popleft().cdr)

    def _name(self) -> str:
        """Return an id of the time, to the millisecond; no two stops have the same."""
        now = datetime.now(UTC)
        self._newest = max(now, self._newest + timedelta(milliseconds=1))
        return f"stop-{self._newest:%Y%m%dT%H%M%S}{self._newest.microsecond // 1000:03d}Z"

    def _write_all(self) -> None:
        while (job := self._waiting.get()) is not None:
            self._write(*job)

    def _write(self, stopped: Stopped, held: list[Held]) -> None:
        try:
            facts = write_episode(self.root, self._embodiment, self._types, stopped, held, self.limits.episodes_max)
        except (LehrlingError, OSError) as error:
            self._say(Kind.LOST, stopped.name, f"The stop {stopped.name} ({stopped.cause}) could not be kept: {error}")
        except Exception as error:  # noqa: BLE001 (the thread must outlive whatever a stop brings)
            text = f"The stop {stopped.name} ({stopped.cause}) could not be kept: {type(error).__name__}: {error}"
            self._say(Kind.LOST, stopped.name, text)
        else:
            self._say(Kind.KEPT, stopped.name, f"The stop {stopped.name} ({stopped.cause}) is kept.", facts)

    def _say(self, kind: Kind, name: str, text: str, facts: dict[str, object] | None = None) -> None:
        """Audit and tell; a failing audit is told, and raises where the robot's own loop writes to it next."""
        if self._audit is not None:
            try:
                self._audit.write(kind, {"episode": name, "text": text, **(facts or {})})
            except LehrlingError as error:
                text = f"{text} {error}"
        if self._tell is not None:
            self._tell(text)
