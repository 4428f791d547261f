"""Whatever a kill or a power cut leaves of the file operations: the dataset repairs, and keeps what was synced.

`make test-faults` replays every prefix and reorders everywhere, otherwise a sample of both.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import figures
import pytest
from edited import copied, files
from file_operations import Operation, watched
from short_episodes import check, record, session
from write_order import Choose, Disk, at_random, contents_only, everything, names_only, nothing, put, torn

from lehrling.datasets.dataset import Dataset, create_dataset

ALL = os.environ.get("LEHRLING_FAULTS") == "all"
LOSSES: dict[str, Choose] = {
    "nothing unsynced": nothing,
    "names only": names_only,
    "contents only": contents_only,
    "torn writes": torn,
}


class Marks(list[str]):
    """Notes after how many operations each thing was done."""

    def __init__(self, operations: list[Operation]) -> None:
        super().__init__()
        self.operations, self.at = operations, dict[str, int]()

    def append(self, word: str, /) -> None:
        """Note it."""
        self.at[word] = len(self.operations)
        super().append(word)


@dataclass
class Recording:
    """The operations of a session.

    Attributes:
        marks: after how many of them what was promised.
    """

    disk: Disk
    operations: list[Operation]
    marks: dict[str, int]
    before: dict[str, bytes]

    @property
    def count(self) -> int:
        return len(self.operations)

    def look(self, folder: Path, count: int, choose: Choose, told: str) -> None:
        """Repair what may be left after so many operations, and look at it."""
        root = folder / "plant.zarr"
        put(root, self.disk.after(count, choose))
        done = [word for word, at in self.marks.items() if at <= count and word != "synced"]
        try:
            check(root, self.before, done, synced=self.marks["synced"] <= count)
        except BaseException as error:
            last = [f"{o.kind} {o.path}" for o in self.operations[max(0, count - 3) : count]]
            error.add_note(f"after {count} of {self.count} operations ({last}), {told}; promised: {done}")
            raise
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    create_dataset(root)
    record(root, "one")
    Dataset.open_for_writing(root).close()
    was = copied(root, root.parent / "was")
    operations: list[Operation] = []
    marks = Marks(operations)
    with watched(root, lambda o: operations.append(o) if o.kind != "read" else None):
        session(root, marks)
    synced = next(k for k, o in enumerate(operations) if o.kind == "fsync" and o.path.endswith(".mcap"))
    whole = next(k for k, o in enumerate(operations) if k > synced and (o.kind, o.path) == ("fsync", "journals/two"))
    return Recording(
        Disk.of(was, operations), operations, {"synced": whole + 1, **marks.at}, files(root / "episodes" / "one")
    )


def borders(operations: list[Operation]) -> list[int]:
    """Return after how many operations the journal, the manifest or the plan of an edit changed, or a name in `episodes`."""
    names = ("journals", "manifest.jsonl", "edit.json", ".edit.json")
    changed = [o.path.startswith(names) or (o.kind == "rename" and o.other.count("/") == 1) for o in operations]
    return sorted({k + after for k, found in enumerate(changed) if found for after in (0, 1)})


def spread(numbers: list[int], size: int, seed: int) -> Iterator[int]:
    """Yield one number out of each of `size` equal shares."""
    rng = random.Random(seed)
    for k in range(size):
        share = numbers[k * len(numbers) // size : (k + 1) * len(numbers) // size]
        if share:
            yield rng.choice(share)


def test_the_model_of_the_disk_gives_what_the_disk_holds(recording: Recording, tmp_path: Path) -> None:
    state = recording.disk.after(recording.count, everything)
    put(tmp_path / "all", state)
    with Dataset.open_for_writing(tmp_path / "all") as dataset:
        assert dataset.verify().whole
        assert dataset.repaired.mended == ()
        assert [e.id for e in dataset.episodes()] == ["one", "two.t1"]
    assert recording.disk.after(0, nothing).keys() < state.keys()
    assert sum(step.synced is None for step in recording.disk.steps) > 10


def test_a_kill_after_any_operation_loses_nothing(recording: Recording, tmp_path: Path) -> None:
    for count in spread(borders(recording.operations), 8, 1):
        recording.look(tmp_path, count, everything, "killed")
    for count in spread(list(range(recording.count + 1)), 4, 2):
        recording.look(tmp_path, count, everything, "killed")


@pytest.mark.parametrize("loss", LOSSES)
def test_a_power_cut_that_loses_what_was_not_synced_loses_no_more(
    recording: Recording, tmp_path: Path, loss: str
) -> None:
    for count in spread(borders(recording.operations), 4, len(loss)):
        recording.look(tmp_path, count, LOSSES[loss], loss)


def test_a_power_cut_that_leaves_any_part_of_what_was_not_synced_loses_no_more(
    recording: Recording, tmp_path: Path
) -> None:
    for seed, count in enumerate(spread(borders(recording.operations), 8, 3)):
        recording.look(tmp_path, count, at_random(seed), f"any part, seed {seed}")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not ALL, reason="LEHRLING_FAULTS=all asks for it")
@pytest.mark.parametrize("loss", ["killed", *LOSSES, "any part"])
def test_every_state_that_a_kill_or_a_power_cut_may_leave_repairs(
    recording: Recording, tmp_path: Path, loss: str
) -> None:
    for count in range(recording.count + 1):
        choose = at_random(count) if loss == "any part" else {"killed": everything, **LOSSES}[loss]
        recording.look(tmp_path, count, choose, f"{loss}, seed {count}")
    what = "a kill" if loss == "killed" else f"a power cut that leaves {loss}"
    figures.tried(f"{what} after one file operation", recording.count + 1, 100)
