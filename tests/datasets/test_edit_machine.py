"""Edits, undo, purges, quarantines, crashes and openings in any order give what a model in memory gives."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from edited import small_dataset
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_log import edit_log
from lehrling.datasets.edits import Labels, delete, label, restore, undo
from lehrling.datasets.errors import InputError
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.snapshots import read_snapshot, snapshot_records, take_snapshot

NAMES = ("one", "two", "three")
GONE = ("purged", "quarantined")
names = st.sets(st.sampled_from(NAMES), min_size=1)


@dataclass(frozen=True)
class Known:
    """What the model knows of an episode."""

    status: str = "sealed"
    outcome: str = "success"
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: EpisodeRecord) -> Known:
        return cls(record.status, record.outcome, record.tags)


@cache
def template() -> Path:
    return small_dataset(Path(tempfile.mkdtemp()) / "plant.zarr", NAMES, 0.05)


class Edits(RuleBasedStateMachine):
    """The dataset beside the model; `history` are edits in force, with what they replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp()) / "plant.zarr"
        shutil.copytree(template(), self.root)
        self.dataset = Dataset.open_for_writing(self.root)
        self.known = dict.fromkeys(NAMES, Known())
        self.history: list[dict[str, Known]] = []
        self.pins: dict[str, dict[str, Known]] = {}

    def _in(self, chosen: set[str], status: str) -> list[str]:
        return sorted(name for name in chosen if self.known[name].status == status)

    def _records(self, chosen: list[str]) -> list[EpisodeRecord]:
        return [self.dataset.records[name] for name in chosen]

    def _edited(self, after: dict[str, Known]) -> None:
        self.history.append({name: self.known[name] for name in after})
        self.known |= after

    @rule(chosen=names)
    def delete(self, chosen: set[str]) -> None:
        if wanted := self._in(chosen, "sealed"):
            delete(self.dataset, self._records(wanted))
            self._edited({n: Known("deleted", self.known[n].outcome, self.known[n].tags) for n in wanted})

    @rule(chosen=names)
    def restore(self, chosen: set[str]) -> None:
        if wanted := self._in(chosen, "deleted"):
            restore(self.dataset, self._records(wanted))
            self._edited({n: Known("sealed", self.known[n].outcome, self.known[n].tags) for n in wanted})

    @rule(chosen=names, outcome=st.sampled_from(["success", "failure"]), tag=st.sampled_from(["dark", "slow"]))
    def label(self, chosen: set[str], outcome: str, tag: str) -> None:
        wanted = self._in(chosen, "sealed")
        after = {n: Known("sealed", outcome, tuple(sorted({*self.known[n].tags, tag}))) for n in wanted}
        after = {name: known for name, known in after.items() if known != self.known[name]}
        if wanted:
            report = label(self.dataset, self._records(wanted), Labels(outcome, tag=(tag,)))  # type: ignore[arg-type]
            assert sorted(report.changed) == sorted(after)
        if after:
            self._edited(after)

    @rule(times=st.integers(1, 3))
    def undo(self, times: int) -> None:
        for _ in range(times):
            self._undo()

    @rule()
    def undo_once(self) -> None:
        self._undo()

    def _undo(self) -> None:
        for index in reversed(range(len(self.history))):
            before = self.history[index]
            back = {name: known for name, known in before.items() if self.known[name].status not in GONE}
            if back:
                assert sorted(undo(self.dataset).changed) == sorted(back)
                self.known |= back
                del self.history[index]
                return
        with pytest.raises(InputError, match="no edit left"):
            undo(self.dataset)

    def _none_is(self, status: str) -> bool:
        return all(known.status != status for known in self.known.values())

    @precondition(lambda self: self._none_is("purged"))
    @rule(name=st.sampled_from(NAMES))
    def purge(self, name: str) -> None:
        self.dataset.purge(name)
        self.known[name] = Known("purged", "unknown")

    @precondition(lambda self: self._none_is("quarantined"))
    @rule(name=st.sampled_from(NAMES))
    def quarantine(self, name: str) -> None:
        if self.known[name].status == "sealed":
            self.dataset.quarantine(name, "test")
            self.known[name] = Known("quarantined", self.known[name].outcome, self.known[name].tags)

    @rule()
    def pin(self) -> None:
        sealed = {name: known for name, known in self.known.items() if known.status == "sealed"}
        if sealed:
            name = f"v{len(self.pins)}"
            take_snapshot(self.dataset, name)
            self.pins[name] = sealed

    @rule(torn=st.sampled_from([b"", b'{"id": "one", "sta', b"\x00"]))
    def reopen(self, torn: bytes) -> None:
        self.dataset.close()
        with (self.root / "manifest.jsonl").open("ab") as file:
            file.write(torn)
        self.dataset = Dataset.open_for_writing(self.root)
        assert bool(self.dataset.repaired.mended) is bool(torn)

    @rule()
    def an_edit_without_its_last_line(self) -> None:
        """Crash while appending an edit of two lines."""
        path = self.root / "manifest.jsonl"
        wanted = self._in(set(NAMES), "sealed")
        if len(wanted) > 1:
            before = path.read_bytes()
            delete(self.dataset, self._records(wanted))
            lines = path.read_bytes()[len(before) :].splitlines(keepends=True)
            path.write_bytes(before + b"".join(lines[:-1]))
            self.dataset.close()
            self.dataset = Dataset.open_for_writing(self.root)
            assert path.read_bytes() == before

    @invariant()
    def readers_and_the_writer_see_what_the_model_knows(self) -> None:
        for dataset in (self.dataset, Dataset.open(self.root)):
            assert {name: Known.of(record) for name, record in dataset.records.items()} == self.known
        files = {path.name for path in (self.root / "episodes").iterdir() if path.is_dir()}
        assert files == {name for name, known in self.known.items() if known.status != "purged"}

    @invariant()
    def snapshots_hold_what_they_held_or_name_what_is_gone(self) -> None:
        for name, pinned in self.pins.items():
            if gone := [one for one in sorted(pinned) if self.known[one].status in GONE]:
                with pytest.raises(InputError, match=f"holds episode '{gone[0]}'"):
                    snapshot_records(self.dataset, name)
                assert {e.id for e in read_snapshot(self.root, name).episodes} == set(pinned)
            else:
                then = snapshot_records(self.dataset, name)
                assert {one: Known.of(record) for one, record in then.items()} == pinned

    def teardown(self) -> None:
        log = edit_log(self.root)
        assert sum(1 for e in log if e.number and e.verb != "undo" and not e.undone_by) == len(self.history)
        self.dataset.close()
        shutil.rmtree(self.root.parent)


def test_edits_in_any_order_give_what_the_model_gives() -> None:
    run_state_machine_as_test(
        Edits,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
