"""A journal cut at any byte, or with any bit flipped: what is damaged is reported, and no row is invented.

`make test-faults` cuts at every byte of the last 64 KiB and flips a bit of every byte, otherwise of a sample.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import figures
import pytest
from mcap.opcode import Opcode
from recordings import ARM6, meta, write_rows
from short_episodes import ROWS, record

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.journal_read import JournalContents, Received, read_journal

ALL = os.environ.get("LEHRLING_FAULTS") == "all"
LAST = 64 << 10
slow = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not ALL, reason="LEHRLING_FAULTS=all asks for it"),
]


@dataclass(frozen=True)
class Journal:
    """A journal of several chunks a file, and what was written to it."""

    root: Path
    whole: dict[str, list[Received]]
    meta: EpisodeMeta

    @property
    def directory(self) -> Path:
        return self.root / "journals" / "two"

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(self.directory.glob("*.mcap"))}

    def read(self) -> JournalContents:
        return read_journal(self.root, "two")


@pytest.fixture
def journal(root: Path) -> Journal:
    with JournalWriter(root, meta("two"), ARM6, flush_s=60, fsync_s=60) as writer:
        for part in range(8):
            write_rows(writer, 0.4, start_ns=10**18 + part * 400_000_000)
            writer._flush()
        writer.close("success", "operator")
    return Journal(root, read_journal(root, "two").messages, meta("two"))


def rows_of(contents: JournalContents, whole: dict[str, list[Received]]) -> dict[str, int]:
    """Return how many rows of each topic there are, which must be the first that were written."""
    assert contents.messages.keys() <= whole.keys()
    for topic, rows in contents.messages.items():
        assert rows == whole[topic][: len(rows)]
    return {topic: len(contents.messages.get(topic, ())) for topic in whole}


def cut_everywhere(journal: Journal, path: Path, sizes: Iterator[int]) -> set[int]:
    """Cut a file at sizes, from the largest; return the numbers of rows that were found, which never grow."""
    found, before = set(), 1 << 62
    for size in sizes:
        os.truncate(path, size)
        count = sum(rows_of(journal.read(), journal.whole).values())
        assert count <= before
        found.add(count)
        before = count
    return found


def sizes_of(content: bytes, step: int) -> Iterator[int]:
    return iter(range(len(content) - 1, max(0, len(content) - LAST) - 1, -step))


@pytest.mark.parametrize("step", [1499, pytest.param(1, marks=slow)])
@pytest.mark.parametrize("name", ["numeric-0.mcap", "front-0.mcap"])
def test_an_interrupted_journal_cut_at_any_byte_gives_a_prefix(journal: Journal, name: str, step: int) -> None:
    (journal.directory / "end.json").unlink()
    path = journal.directory / name
    content = path.read_bytes()
    assert len(content) > LAST // 2
    found = cut_everywhere(journal, path, sizes_of(content, step))
    assert len(found) > 3
    assert max(found) == sum(map(len, journal.whole.values()))
    if step == 1:
        figures.tried(f"{name} of an interrupted journal cut at a byte", min(len(content), LAST), LAST // 2)


@pytest.mark.parametrize("step", [2999, pytest.param(1, marks=slow)])
def test_an_ended_journal_that_lacks_rows_says_how_many(journal: Journal, step: int) -> None:
    path = journal.directory / "numeric-0.mcap"
    content = path.read_bytes()
    for size in sizes_of(content, step):
        os.truncate(path, size)
        contents = journal.read()
        for topic, count in rows_of(contents, journal.whole).items():
            told = f"{topic}: {len(journal.whole[topic])} messages were written, {count} can be read"
            assert (told in contents.losses) is (count < len(journal.whole[topic]))
    if step == 1:
        figures.tried("numeric-0.mcap of an ended journal cut at a byte", min(len(content), LAST), LAST // 2)


def places(content: bytes, count: int, seed: int) -> Iterator[int]:
    """Yield places of bits: of every byte once, or of `count` bytes and those of the first records."""
    rng = random.Random(seed)
    chosen = (
        range(len(content)) if not count else [*range(0, 64, 5), *(rng.randrange(len(content)) for _ in range(count))]
    )
    return (byte * 8 + rng.randrange(8) for byte in chosen)


@pytest.mark.parametrize("count", [30, pytest.param(0, marks=slow)])
@pytest.mark.parametrize("name", ["numeric-0.mcap", "front-0.mcap"])
def test_a_flipped_bit_anywhere_is_reported_where_rows_are_lost_and_invents_none(
    journal: Journal, name: str, count: int
) -> None:
    path = journal.directory / name
    content = path.read_bytes()
    lossy = 0
    for bit in places(content, count, len(name)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        contents = journal.read()
        rows = rows_of(contents, journal.whole)
        lost = [topic for topic, found in rows.items() if found < len(journal.whole[topic])]
        assert all(any(loss.startswith(f"{topic}: ") for loss in contents.losses) for topic in lost), bit
        lossy += bool(lost)
    assert lossy > 10
    if not count:
        figures.tried(f"{name} with a bit of one byte flipped", len(content), 1000)


@pytest.mark.parametrize("name", ["numeric-0.mcap", "front-0.mcap"])
def test_no_flipped_bit_of_an_opcode_which_no_checksum_covers_loses_a_row(journal: Journal, name: str) -> None:
    (journal.directory / "end.json").unlink()
    path = journal.directory / name
    content = path.read_bytes()
    at, opcodes = 8, []
    while at < len(content) and content[at] != Opcode.DATA_END:
        opcodes.append(at)
        at += 9 + int.from_bytes(content[at + 1 : at + 9], "little")
    assert sum(content[place] == Opcode.CHUNK for place in opcodes) == 8
    for number, place in enumerate(opcodes):
        flipped = bytearray(content)
        flipped[place] ^= 1 << number % 8
        path.write_bytes(flipped)
        assert rows_of(journal.read(), journal.whole) == {topic: len(rows) for topic, rows in journal.whole.items()}


@pytest.mark.parametrize("count", [25, pytest.param(0, marks=slow)])
@pytest.mark.parametrize("name", ["meta.json", "end.json"])
def test_a_flipped_bit_in_what_a_journal_says_of_itself_invents_no_row(journal: Journal, name: str, count: int) -> None:
    path = journal.directory / name
    content = path.read_bytes()
    for bit in places(content, count, len(name)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        try:
            contents = journal.read()
        except DamageError:
            assert name == "meta.json"
            continue
        assert rows_of(contents, journal.whole) == {topic: len(found) for topic, found in journal.whole.items()}
        assert (contents.meta, contents.embodiment) == (journal.meta, ARM6)
        told = any("end.json cannot be read" in loss for loss in contents.losses)
        said = (contents.outcome, contents.stop_cause, contents.losses)
        assert told or said == ("success", "operator", [])
    if not count:
        figures.tried(f"{name} with a bit of one byte flipped", len(content), 100)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_journal_seals_with_what_is_left_and_says_so_or_is_set_aside_whole(root: Path, seed: int) -> None:
    record(root, "one")
    Dataset.open_for_writing(root).close()
    record(root, "two")
    rng = random.Random(seed)
    path = root / "journals" / "two" / ("numeric-0.mcap", "front-0.mcap", "meta.json")[seed % 3]
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with Dataset.open_for_writing(root) as dataset:
        found = dataset.records["two"]
        assert dataset.verify().problems.keys() <= {"two"}
        if found.status == "quarantined":
            kept = root / "quarantine" / "two"
            assert {p.name: p.read_bytes() for p in kept.iterdir()} == before
        else:
            assert found.status == "sealed"
            assert all(n <= {"tcp_pose": ROWS}.get(name, ROWS) for name, n in found.lengths.items())


def test_a_journal_that_says_to_be_another_episode_is_set_aside_whole(root: Path) -> None:
    record(root, "two")
    (root / "journals" / "two").rename(root / "journals" / "three")
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["three"].status == "quarantined"
        assert "it is of the episode 'two'" in dataset.records["three"].reason
    assert (root / "quarantine" / "three" / "meta.json").is_file()


def test_a_journal_of_an_earlier_version_without_checksums_is_read(journal: Journal) -> None:
    for name in ("meta.json", "end.json"):
        data = json.loads((journal.directory / name).read_text())
        assert len(data.pop("crc32")) == 8
        (journal.directory / name).write_text(json.dumps(data))
    contents = journal.read()
    assert (contents.outcome, contents.losses, contents.meta) == ("success", [], journal.meta)


def test_details_that_json_writes_otherwise_do_not_fail_the_checksum(root: Path) -> None:
    details = {10: "ten", 2: "two", "nan": float("nan"), "pair": (1, 2.5), "word": "Lehrling ü"}
    known = EpisodeMeta("two", "kitting", "", "arm6", "robot", details=details)  # type: ignore[arg-type]
    with JournalWriter(root, known, ARM6) as writer:
        writer.close("success", "operator", facts={10: 1, 2: 1})  # type: ignore[dict-item]
    contents = read_journal(root, "two")
    assert (contents.losses, contents.meta.details["word"]) == ([], "Lehrling ü")
