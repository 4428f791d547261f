"""The queue between middleware and journal: bounded in bytes, in order, and every message taken or counted."""

from __future__ import annotations

import threading
import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lehrling.collection.capture_queue import OVERHEAD_BYTES, Captured, CaptureQueue, Item, Lost, Mark, Refused


def message(topic: str, size: int, sequence: int | None = None, sender: bytes = b"") -> Captured:
    return Captured(topic, bytes(size), 0, time.monotonic_ns(), sequence=sequence, sender=sender)


def drain(queue: CaptureQueue) -> list[Item]:
    items = []
    while (item := queue.take(0)) is not None:
        items.append(item)
    return items


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 400), st.booleans(), st.booleans()), max_size=200),
    st.integers(0, 3000),
)
def test_every_message_is_taken_in_order_or_counted_and_the_bytes_stay_in_bounds(
    steps: list[tuple[str, int, bool, bool]], bytes_max: int
) -> None:
    queue = CaptureQueue(bytes_max)
    taken: list[Item] = []
    accepted: list[Captured] = []
    put: Counter[str] = Counter()
    for number, (topic, size, mark, take) in enumerate(steps):
        sent = message(topic, size, number)
        put[topic] += 1
        if queue.put(sent):
            accepted.append(sent)
        if mark:
            queue.mark(number)
        if take and (item := queue.take(0)) is not None:
            taken.append(item)
        assert 0 <= queue.bytes <= bytes_max
    taken += drain(queue)
    assert queue.bytes == 0
    assert [item for item in taken if isinstance(item, Captured)] == accepted
    refused: Counter[str] = Counter()
    for item in taken:
        if isinstance(item, Lost):
            refused.update({topic: found.count for (topic, _), found in item.by_sender.items()})
    assert put == Counter(item.topic for item in accepted) + refused
    assert +refused == Counter(queue.lost)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 50)), min_size=1, max_size=60))
def test_what_is_refused_in_a_row_is_one_item_that_knows_each_publishers_numbers(sent: list[tuple[bytes, int]]) -> None:
    queue = CaptureQueue(0)
    for sender, sequence in sent:
        assert not queue.put(message("t", 10, sequence, sender))
    (item,) = drain(queue)
    assert isinstance(item, Lost)
    for sender in {sender for sender, _ in sent}:
        numbers = [sequence for other, sequence in sent if other == sender]
        assert item.by_sender["t", sender] == Refused(len(numbers), min(numbers), max(numbers))


def test_an_item_of_refused_messages_that_was_taken_is_never_added_to() -> None:
    queue = CaptureQueue(0)
    queue.put(message("t", 10, 1))
    first = queue.take(0)
    queue.put(message("t", 10, 2))
    (second,) = drain(queue)
    assert isinstance(first, Lost)
    assert isinstance(second, Lost)
    assert first.by_sender["t", b""] == Refused(1, 1, 1)
    assert second.by_sender["t", b""] == Refused(1, 2, 2)


def test_a_number_that_is_not_known_makes_the_refused_numbers_unknown_but_not_their_count() -> None:
    queue = CaptureQueue(0)
    for sequence in (4, None, 6):
        queue.put(message("t", 10, sequence))
    (item,) = drain(queue)
    assert isinstance(item, Lost)
    assert item.by_sender["t", b""] == Refused(3, None, None)


def test_a_mark_comes_after_what_was_put_before_it_and_always_fits() -> None:
    queue = CaptureQueue(2 * OVERHEAD_BYTES)
    queue.put(message("a", 50))
    queue.put(message("b", 500))
    queue.mark("end")
    queue.put(message("c", 50))
    kinds = [type(item) for item in drain(queue)]
    assert kinds == [Captured, Lost, Mark, Lost]


def test_lag_is_the_age_of_the_oldest_message() -> None:
    queue = CaptureQueue()
    assert queue.lag_ns() == 0
    queue.put(Captured("a", b"", 0, time.monotonic_ns() - 70_000_000))
    queue.put(message("a", 1))
    assert 70_000_000 <= queue.lag_ns() < 5_000_000_000
    drain(queue)
    assert queue.lag_ns() == 0


def test_taking_waits_for_a_message_and_no_longer_than_told() -> None:
    queue = CaptureQueue()
    began = time.monotonic()
    assert queue.take(0.05) is None
    assert time.monotonic() - began >= 0.045
    timer = threading.Timer(0.05, lambda: queue.put(message("a", 1)))
    timer.start()
    item = queue.take(20)
    assert isinstance(item, Captured)
    assert time.monotonic() - began < 10
    timer.join()


def test_nothing_is_lost_between_two_threads() -> None:
    queue, sent, got, counted = CaptureQueue(20_000), 30_000, 0, 0
    finished = threading.Event()

    def produce() -> None:
        for number in range(sent):
            queue.put(message("t", 100, number))
        finished.set()

    thread = threading.Thread(target=produce)
    thread.start()
    newest = -1
    while not finished.is_set() or queue.bytes or counted < queue.lost.get("t", 0):
        item = queue.take(0.01)
        if isinstance(item, Captured):
            assert item.sequence is not None
            assert item.sequence > newest
            got, newest = got + 1, item.sequence
        elif isinstance(item, Lost):
            counted += item.by_sender["t", b""].count
    thread.join()
    assert counted == queue.lost.get("t", 0)
    assert got + counted == sent
