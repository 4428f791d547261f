"""A capture process: one rclpy node that only subscribes, one thread that takes, one that writes."""

from __future__ import annotations

import contextlib
import select
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_queue import CaptureQueue
from lehrling.collection.capture_words import Answer, CaptureConfig, End, Failed, Late, Quit, Ready, Status
from lehrling.collection.capture_writer import CaptureWriter
from lehrling.collection.ros_types import types_for
from lehrling.collection.subscriptions import Subscriptions
from lehrling.collection.take_loop import take_loop
from lehrling.datasets.embodiment import parse_embodiment
from lehrling.datasets.processes import die_with_parent


class _Answers:
    """Sends answers from several threads; a recorder that is gone is no error here.

    A status or a lag is left out where the recorder does not read: recording must not wait for it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def __call__(self, answer: Answer) -> bool:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if not isinstance(answer, Status | Late) or select.select([], [self._connection], [], 0)[1]:
                self._connection.send(answer)
                return True
        return False


def capture_main(connection: Connection, config: CaptureConfig) -> None:
    """Capture until told to quit; ends with the recorder, however that ends."""
    die_with_parent(config.parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    answer = _Answers(connection)
    try:
        _capture(connection, config, answer)
    except Exception as error:  # noqa: BLE001 — the recorder says it and ends
        answer(Failed(config.name, str(error) or type(error).__name__))


def _capture(connection: Connection, config: CaptureConfig, answer: _Answers) -> None:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    embodiment = parse_embodiment(config.embodiment, config.name)
    bound = BoundTopics(embodiment)
    types = types_for(bound.types[topic] for topic in config.topics)
    queue = CaptureQueue(config.queue_bytes)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(config.name, enable_rosout=False, start_parameter_services=False)
    subscriptions = Subscriptions(node, bound, config.topics, queue, sim_time=config.sim_time)
    writer = CaptureWriter(config, embodiment, types, queue, subscriptions.heard, answer)
    stopping = threading.Event()
    listener = threading.Thread(
        target=_listen, args=(connection, queue, writer, stopping), name="capture-words", daemon=True
    )
    writer.start()
    listener.start()
    answer(Ready(config.name))
    subscriptions.run(take_loop(node, config.loop), stopping.is_set, lambda: writer.recording)
    writer.quit()
    writer.join(timeout=10)
    node.destroy_node()
    rclpy.try_shutdown()


def _listen(connection: Connection, queue: CaptureQueue, writer: CaptureWriter, stopping: threading.Event) -> None:
    """Pass the recorder's words on, in order with the messages; without a recorder there is nothing to do."""
    while not stopping.is_set():
        try:
            word: Any = connection.recv()
        except (EOFError, OSError):
            word = Quit()
        if isinstance(word, Quit):
            stopping.set()
            return
        if isinstance(word, End):
            writer.end_at(word)
            time.sleep(writer.settle_s)
        queue.mark(word)
