"""Recorders without ROS that a test may kill at any moment: session, queue, capture writer, journal, sealer and manifest.

A nursery that has loaded everything forks one after another, so that a kill costs no start of Python. Whatever a recorder
acknowledged it has noted in a file before it goes on, since nothing else tells a test what the dead one knew.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watching import until

EPISODE_S, LIFE_S = 0.35, 30
RATES = {"/joint_states": 500, "/front/compressed": 30}
BASE_NS = 10**18


@dataclass(frozen=True)
class Note:
    """What a recorder noted: `kind` (ack, begin, save, saved, sealed, lag), what of it, and when on the monotonic clock [ns]."""

    kind: str
    what: str
    number: int
    at_ns: int


@dataclass
class Life:
    """One recorder's life, as its notes tell.

    Attributes:
        died_ns: when it was killed, or last seen alive where it killed itself.
    """

    died_ns: int
    notes: list[Note] = field(default_factory=list)

    def of(self, kind: str, what: str = "") -> list[Note]:
        """Return the notes of a kind, about one thing where it is named."""
        return [note for note in self.notes if note.kind == kind and what in ("", note.what)]

    @property
    def stalled_ns(self) -> int:
        """The longest that the machine kept the source waiting in its last 0.4 s, beyond the 2 ms it sleeps."""
        times = [note.at_ns for note in self.of("ack", "/joint_states") if note.at_ns > self.died_ns - 400_000_000]
        return max((b - a for a, b in zip(times, [*times[1:], self.died_ns], strict=True)), default=0)

    @property
    def lag_ms(self) -> int:
        """The largest lag that was reported in the last 0.5 s."""
        return max((note.number for note in self.of("lag") if note.at_ns > self.died_ns - 500_000_000), default=0)


class Nursery:
    """Starts recorders and lets them be killed."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def _ask(self, **words: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def live(self, root: Path, notes: Path, *, kill_at: str = "", after_s: float = 0.0) -> Life:
        """Let a recorder live until a named place, or kill it so long after it began to record."""
        pid = self._ask(root=str(root), notes=str(notes), kill_at=kill_at)["pid"]
        died_ns = 0
        if not kill_at:
            until(lambda: notes.exists() and b"\n" in notes.read_bytes(), LIFE_S, 0.002)
            time.sleep(after_s)
            died_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
        ended_by = self._ask(wait=pid)["signal"]
        assert ended_by == signal.SIGKILL, f"the recorder ended by itself ({ended_by})"
        found = [_note(line) for line in notes.read_text().splitlines(keepends=True) if line.endswith("\n")]
        notes.unlink()
        return Life(died_ns or max(note.at_ns for note in found), found)

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def _note(line: str) -> Note:
    kind, what, number, at_ns = line.split()
    return Note(kind, what, int(number), int(at_ns))


def _main() -> None:
    """Fork a recorder for each line that asks for one; tell how it ended when asked."""
    import lehrling.collection.capture_writer
    import lehrling.collection.session
    import lehrling.datasets.sealer  # noqa: F401

    for line in sys.stdin:
        words = json.loads(line)
        if "wait" in words:
            _, status = os.waitpid(words["wait"], 0)
            answer = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)}
        else:
            pid = os.fork()
            if pid == 0:
                _be_recorder(words)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _be_recorder(words: dict[str, str]) -> None:
    """Record until killed; whatever goes wrong is told on stderr and ends the process."""
    signal.alarm(LIFE_S)
    os.environ["LEHRLING_KILL_AT"] = words["kill_at"]
    try:
        _record(Path(words["root"]), Path(words["notes"]))
    except BaseException:  # noqa: BLE001 — a fork must never go on as its nursery
        traceback.print_exc()
    os._exit(1)


class _Notes:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, kind: str, what: str, number: int = 0, at_ns: int | None = None) -> None:
        at = time.monotonic_ns() if at_ns is None else at_ns
        os.write(self._descriptor, f"{kind} {what} {number} {at}\n".encode())


class _Capture:
    """The capture of one process, without ROS."""

    def __init__(self, robot: Any, notes: _Notes) -> None:
        from lehrling.collection.capture_queue import CaptureQueue
        from lehrling.collection.capture_words import CaptureConfig
        from lehrling.collection.capture_writer import CaptureWriter
        from lehrling.collection.subscriptions import Heard
        from lehrling.datasets.message_types import standard
        from lehrling.deploy.ros_qos import Request

        topics = tuple(robot.binding.topics)
        config = CaptureConfig("test", robot.model_dump(mode="json"), topics, os.getpid(), fsync_s=0.1)
        request = Request("reliable", "volatile", 10)
        heard = {topic: Heard(topic, robot.binding.topics[topic], request=request) for topic in topics}
        self.queue, self._ended, self._notes = CaptureQueue(), queue.SimpleQueue[Any](), notes
        self._writer = CaptureWriter(config, robot, standard(), self.queue, heard, self._answer)
        self._writer.start()
        self._directory = Path()

    def _answer(self, answer: Any) -> bool:
        from lehrling.collection.capture_words import Ended, Failed, Late, Status

        if isinstance(answer, Ended):
            self._ended.put(answer)
        elif isinstance(answer, Failed):
            self._notes("failed", answer.text.replace(" ", "_"))
        elif isinstance(answer, Status | Late):
            self._notes("lag", "queue", round(answer.lag_ms))
        return True

    def begin(self, directory: Path) -> None:
        from lehrling.collection.capture_words import Begin

        self._directory = directory
        self.queue.mark(Begin(directory))

    def end(self, *, keep: bool = True) -> Any:
        from lehrling.collection.capture_group import CaptureReport
        from lehrling.collection.capture_words import End

        word = End(self._directory, time.monotonic_ns(), time.time_ns(), keep)
        self._writer.end_at(word)
        time.sleep(0.01)
        self.queue.mark(word)
        ended = self._ended.get()
        return CaptureReport(ended.counts, ended.stop, (), {})

    def poll(self, timeout_s: float = 0.0) -> list[Any]:
        time.sleep(timeout_s)
        return []

    def stop(self) -> None:
        return None

    def unready(self) -> str:
        return ""

    def revive(self) -> list[str]:
        return []


def _source(capture: _Capture, notes: _Notes) -> None:
    """Publish for ever; each message says its number, and is noted once the queue has taken it."""
    from recordings import jpeg
    from ros_rig import JOINTS

    from lehrling.collection.capture_queue import Captured
    from lehrling.datasets import messages

    frames = [jpeg(number) for number in range(8)]
    began, sent = time.monotonic(), dict.fromkeys(RATES, 0)
    while True:
        for topic, rate_hz in RATES.items():
            number = sent[topic]
            if time.monotonic() - began < number / rate_hz:
                continue
            stamp = BASE_NS + number
            if topic == "/joint_states":
                cdr = messages.joint_state(JOINTS, [number, 0, 0], [], [], stamp)
            else:
                cdr = messages.compressed_image(frames[number % 8], stamp, "front")
            now = time.monotonic_ns()
            capture.queue.put(Captured(topic, cdr, time.time_ns(), now, sequence=number + 1, sender=b"test"))
            notes("ack", topic, number, now)
            sent[topic] += 1
        time.sleep(0.002)


def _record(root: Path, path: Path) -> None:
    """Record one episode after another, and seal each while the next one is recorded, until killed."""
    from record_runs import robot

    from lehrling.collection.sealing import Sealing
    from lehrling.collection.session import Plan, Session, SessionOptions
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.sealer import seal

    Sealing._elsewhere = staticmethod(seal)  # type: ignore[assignment, method-assign]
    notes = _Notes(path)
    dataset = Dataset.open_for_writing(root, create=True)
    capture = _Capture(robot(("position",), ("front",)), notes)
    threading.Thread(target=_source, args=(capture, notes), daemon=True).start()
    options = SessionOptions(min_free_bytes=0, allow_missing=True)
    session = Session(dataset, robot(("position",), ("front",)), capture, Plan("test", "do it"), options)
    while True:
        name = session.start()
        notes("begin", name)
        until_s = time.monotonic() + EPISODE_S
        while time.monotonic() < until_s:
            session.tick()
            time.sleep(0.01)
        notes("save", name)
        session.save("success")
        notes("saved", name)
        for record in session.sealed:
            notes("sealed", record.id)
        session.sealed.clear()


if __name__ == "__main__":
    _main()
