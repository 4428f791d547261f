"""What publishers sent and nobody received, counted exactly where that is possible."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from lehrling.collection.sequences import SENDERS_MAX, SequenceCount

TOPIC = "/joint_states"


@dataclass(frozen=True)
class Fate:
    """What becomes of a published message: it arrives after those of up to `delay` later ones, or never."""

    lost: bool
    delay: int


FATES = st.lists(st.builds(Fate, st.sampled_from([False, False, False, True]), st.integers(0, 4)), max_size=80)


def arrivals(fates: list[Fate], first: int = 1) -> list[int]:
    """Return the numbers that arrive, in the order of arrival."""
    kept = [
        (first + k + fate.delay + 0.5 * (fate.delay > 0), first + k) for k, fate in enumerate(fates) if not fate.lost
    ]
    return [number for _, number in sorted(kept)]


def missing(numbers: list[int], base: int) -> int:
    """Return how many numbers above `base` are missing below the newest."""
    above = {number for number in numbers if number > base}
    return max(above, default=base) - base - len(above)


@given(FATES)
def test_the_loss_of_one_publisher_is_what_lies_between_its_first_and_newest_number(fates: list[Fate]) -> None:
    count, numbers = SequenceCount(), arrivals(fates)
    for number in numbers:
        count.received(TOPIC, b"a", number)
    assert count.lost(TOPIC) == (missing(numbers, numbers[0] - 1) if numbers else 0)


@given(FATES, FATES)
def test_each_episode_counts_its_own_losses_and_late_numbers_are_the_last_ones(
    before: list[Fate], fates: list[Fate]
) -> None:
    count = SequenceCount()
    numbers = arrivals(before + fates)
    first, then = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    for number in first:
        count.received(TOPIC, b"a", number)
    count.begin()
    assert count.lost(TOPIC) == 0
    for number in then:
        count.received(TOPIC, b"a", number)
    base = max(first) if first else (then[0] - 1 if then else 0)
    assert count.lost(TOPIC) == missing(then, base)


@given(st.dictionaries(st.binary(min_size=1, max_size=2), FATES, max_size=4), st.randoms())
def test_publishers_on_one_topic_are_counted_one_by_one(senders: dict[bytes, list[Fate]], random: Random) -> None:
    count, expected = SequenceCount(), 0
    waiting = {sender: arrivals(fates) for sender, fates in senders.items()}
    expected = sum(missing(numbers, numbers[0] - 1) for numbers in waiting.values() if numbers)
    heard = sum(bool(numbers) for numbers in waiting.values())
    while any(waiting.values()):
        sender = random.choice([s for s, numbers in waiting.items() if numbers])
        count.received(TOPIC, sender, waiting[sender].pop(0))
    assert count.lost(TOPIC) == expected
    assert count.senders(TOPIC) == heard


@given(st.lists(FATES, max_size=4))
def test_a_publisher_that_starts_again_is_a_new_one_and_hides_no_loss(runs: list[list[Fate]]) -> None:
    count, expected = SequenceCount(), 0
    for run, fates in enumerate(runs):
        numbers = arrivals(fates)
        expected += missing(numbers, numbers[0] - 1) if numbers else 0
        for number in numbers:
            count.received(TOPIC, str(run).encode(), number)
    assert count.lost(TOPIC) == expected


@given(FATES, st.lists(st.booleans(), min_size=80, max_size=80))
def test_what_the_queue_refused_is_not_what_the_middleware_lost(fates: list[Fate], fits: list[bool]) -> None:
    """Refused messages come in runs; whatever their runs, only what never arrived is missing."""
    count, numbers = SequenceCount(), arrivals(fates)
    run: list[int] = []
    for number, fit in zip(numbers, fits, strict=False):
        if not fit:
            run.append(number)
            continue
        if run:
            count.refused(TOPIC, b"a", len(run), min(run), max(run))
            run = []
        count.received(TOPIC, b"a", number)
    if run:
        count.refused(TOPIC, b"a", len(run), min(run), max(run))
    if numbers == sorted(numbers):
        assert count.lost(TOPIC) == (missing(numbers, numbers[0] - 1) if numbers else 0)
    else:
        assert (count.lost(TOPIC) or 0) >= 0


def test_without_numbers_the_loss_is_unknown_until_the_next_episode() -> None:
    count = SequenceCount()
    count.received(TOPIC, b"a", 1)
    count.received(TOPIC, b"", None)
    assert count.lost(TOPIC) is None
    assert count.lost("/other") == 0
    count.begin()
    assert count.lost(TOPIC) == 0
    count.refused(TOPIC, b"", 3, None, None)
    assert count.lost(TOPIC) is None


def test_what_was_sent_before_a_publisher_was_heard_is_not_missing() -> None:
    count = SequenceCount()
    for number in (500, 501, 503):
        count.received(TOPIC, b"a", number)
    assert count.lost(TOPIC) == 1


def test_the_newest_number_of_a_publisher_is_its_highest() -> None:
    count = SequenceCount()
    assert count.newest(TOPIC, b"a") == 0
    for number in (3, 5, 4):
        count.received(TOPIC, b"a", number)
    assert count.newest(TOPIC, b"a") == 5
    assert count.newest(TOPIC, b"b") == 0


def test_publishers_that_come_and_go_do_not_fill_the_memory() -> None:
    count = SequenceCount()
    for run in range(SENDERS_MAX + 500):
        count.received(TOPIC, str(run).encode(), 1)
        count.refused(TOPIC, f"{run} refused".encode(), 1, 1, 1)
    assert count.senders(TOPIC) <= SENDERS_MAX
