"""The writing half of a capture process, without ROS: what is latched, and the lag while a disk holds a flush up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from record_runs import robot
from ros_rig import JOINTS
from watching import until

from lehrling.collection.capture_queue import Captured, CaptureQueue
from lehrling.collection.capture_words import (
    LAG_PROMISED_MS,
    Answer,
    Begin,
    CaptureConfig,
    End,
    Ended,
    Late,
)
from lehrling.collection.capture_writer import CaptureWriter
from lehrling.collection.subscriptions import Heard
from lehrling.datasets import journal, messages
from lehrling.datasets.journal import EpisodeMeta, begin_journal
from lehrling.datasets.message_types import standard
from lehrling.deploy.ros_qos import Request

TOPIC = "/joint_states"
VOLATILE, LATCHED = Request("reliable", "volatile", 10), Request("reliable", "transient_local", 10)


@dataclass
class Desk:
    """A writer with its queue, and what it answered."""

    root: Path
    queue: CaptureQueue = field(default_factory=CaptureQueue)
    answers: list[Answer] = field(default_factory=list)
    directory: Path = Path()

    def __post_init__(self) -> None:
        embodiment = robot(("position",), ())
        config = CaptureConfig("test", embodiment.model_dump(mode="json"), (TOPIC,), os.getpid())
        self.heard = {TOPIC: Heard(TOPIC, embodiment.binding.topics[TOPIC], request=VOLATILE)}
        self.writer = CaptureWriter(config, embodiment, standard(), self.queue, self.heard, self.answer)
        self.writer.start()

    def answer(self, answer: Answer) -> bool:
        self.answers.append(answer)
        return True

    def put(self, *numbers: int, sender: bytes = b"one") -> None:
        """Put messages; the queue is empty afterwards."""
        for number in numbers:
            cdr = messages.joint_state(JOINTS, [number, 0, 0], [], [], number)
            now = time.monotonic_ns()
            self.queue.put(Captured(TOPIC, cdr, time.time_ns(), now, time.time_ns(), number, sender))
        until(lambda: self.queue.bytes == 0)

    def begin(self, name: str) -> None:
        meta = EpisodeMeta(name, "test", "do it", "rig", "robot")
        self.directory = begin_journal(self.root, meta, robot(("position",), ()))
        self.queue.mark(Begin(self.directory))
        until(lambda: self.writer.recording)

    def end(self) -> Ended:
        self.queue.mark(End(self.directory, time.monotonic_ns(), time.time_ns(), True))
        until(lambda: isinstance(self.answers[-1], Ended) and self.answers[-1].directory == self.directory)
        answer = next(answer for answer in reversed(self.answers) if isinstance(answer, Ended))
        assert answer.stop is None
        return answer


@contextmanager
def desk(root: Path) -> Iterator[Desk]:
    made = Desk(root)
    try:
        yield made
    finally:
        made.writer.quit()
        made.writer.join(10)


def test_what_was_heard_before_the_topic_was_known_to_be_latched_is_in_the_episode_once(tmp_path: Path) -> None:
    with desk(tmp_path) as table:
        table.put(1, 2)
        table.heard[TOPIC].request = LATCHED
        table.put(1, 2)
        table.begin("a")
        assert table.end().counts == {TOPIC: 1}
        table.begin("b")
        table.put(1, 2)
        table.put(3)
        assert table.end().counts == {TOPIC: 2}


def test_a_topic_found_to_be_latched_while_recording_gives_nothing_twice_and_nothing_that_was_replaced(
    tmp_path: Path,
) -> None:
    with desk(tmp_path) as table:
        table.put(1)
        table.begin("a")
        table.put(2)
        table.heard[TOPIC].request = LATCHED
        table.put(1, 2)
        table.put(7, sender=b"two")
        ended = table.end()
        assert ended.counts == {TOPIC: 2}
        assert ended.lost_middleware == {TOPIC: 0}
        table.begin("b")
        assert table.end().counts == {TOPIC: 2}


def test_a_disk_that_holds_a_flush_up_is_told_while_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, flush = threading.Event(), journal._File.flush

    def held(file: journal._File) -> None:
        go_on.wait(20)
        flush(file)

    with desk(tmp_path) as table:
        table.begin("a")
        table.put(1)
        until(lambda: table.writer.lag_ns() == 0)
        monkeypatch.setattr(journal._File, "flush", held)
        table.put(2)
        began = time.monotonic()
        until(lambda: any(isinstance(answer, Late) for answer in table.answers), 10, 0.001)
        assert time.monotonic() - began < 5
        until(lambda: table.writer.lag_ns() > 300_000_000)
        lags = [answer.lag_ms for answer in table.answers if isinstance(answer, Late)]
        assert lags[0] > LAG_PROMISED_MS
        assert lags == sorted(lags)
        go_on.set()
        until(lambda: table.writer.lag_ns() < 50_000_000)
        ended = table.end()
    assert ended.counts == {TOPIC: 2}
    assert ended.lag_max_ms > 250
