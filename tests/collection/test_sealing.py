"""Sealing goes on in another process; whatever becomes of that one, the recorder lives and the journal stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import record

import lehrling.collection.sealing as sealing_module
from lehrling.collection.sealing import Result, Sealing
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.sealer import seal

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    with Dataset.open_for_writing(tmp_path / "d.zarr", create=True) as opened:
        yield opened


def results(sealing: Sealing, count: int) -> list[Result]:
    found: list[Result] = []
    until = time.monotonic() + 120
    while len(found) < count:
        assert time.monotonic() < until
        found += sealing.results()
        time.sleep(0.01)
    return found


def worker(sealing: Sealing) -> int:
    (pid,) = sealing._processes()._processes
    return int(pid)


def test_episodes_are_sealed_and_discarded_in_order_in_one_other_process(dataset: Dataset) -> None:
    sealing = Sealing(dataset)
    for name in ("one", "two", "three"):
        record(dataset.root, name, seconds=0.1)
    sealing.prepare()
    sealing.seal("one")
    sealing.discard("two", "camera was covered")
    sealing.seal("three")
    found = results(sealing, 3)
    assert [name for name, _ in found] == ["one", "two", "three"]
    assert [r.status for _, r in found if isinstance(r, EpisodeRecord)] == ["sealed", "discarded", "sealed"]
    assert worker(sealing) != os.getpid()
    sealing.close()
    assert dataset.unfinished() == []
    assert dataset.verify().whole
    assert {e.id for e in Dataset.open(dataset.root).episodes()} == {"one", "three"}


def test_closing_does_what_waits(dataset: Dataset) -> None:
    record(dataset.root, "one", seconds=0.1)
    sealing = Sealing(dataset)
    sealing.seal("one")
    sealing.close()
    ((name, found),) = sealing.results()
    assert isinstance(found, EpisodeRecord)
    assert (name, found.status, sealing.results()) == ("one", "sealed", [])


def test_a_process_that_was_killed_once_is_replaced(dataset: Dataset) -> None:
    record(dataset.root, "one", seconds=0.1)
    record(dataset.root, "two", seconds=0.1)
    sealing = Sealing(dataset)
    sealing.seal("one")
    results(sealing, 1)
    first = worker(sealing)
    os.kill(first, signal.SIGKILL)
    sealing.seal("two")
    ((_, found),) = results(sealing, 1)
    assert isinstance(found, EpisodeRecord)
    assert found.status == "sealed"
    assert worker(sealing) != first
    sealing.close()


def test_sealing_that_is_always_killed_leaves_the_recorder_and_the_journal(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(dataset.root, "one", seconds=0.1)
    sealing = Sealing(dataset)
    with monkeypatch.context() as patch:
        patch.setenv("LEHRLING_KILL_AT", "seal-written")
        sealing.seal("one")
        ((name, found),) = results(sealing, 1)
    assert name == "one"
    assert isinstance(found, StorageError)
    assert "was ended by the system 2 times" in str(found)
    assert dataset.unfinished() == ["one"]
    assert "one" not in dataset.records
    sealing.seal("one")
    ((_, again),) = results(sealing, 1)
    assert isinstance(again, EpisodeRecord)
    sealing.close()
    assert dataset.verify().whole


def test_what_does_not_seal_is_quarantined_and_said(dataset: Dataset) -> None:
    record(dataset.root, "one", seconds=0.1)
    (dataset.root / "journals" / "one" / "meta.json").write_text("{")
    sealing = Sealing(dataset)
    sealing.seal("one")
    ((_, found),) = results(sealing, 1)
    sealing.close()
    assert isinstance(found, EpisodeRecord)
    assert found.status == "quarantined"
    assert "meta.json cannot be read" in found.reason


@pytest.mark.parametrize(
    ("kind", "error"), [("StorageError", StorageError), ("DamageError", DamageError), ("X", InputError)]
)
def test_errors_come_back_as_what_they_were(kind: str, error: type[Exception], dataset: Dataset) -> None:
    class Broken:
        def submit(self, *_arguments: object) -> Broken:
            return self

        def result(self) -> tuple[str, str]:
            return kind, "the words"

        def shutdown(self) -> None:
            pass

    sealing = Sealing(dataset)
    sealing._pool = Broken()  # type: ignore[assignment]
    with pytest.raises(error, match="the words"):
        sealing._elsewhere(dataset.root, "one")
    sealing.close()


def test_an_error_that_nobody_thought_of_ends_no_recorder(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Sealing, _root: Path, _name: str) -> EpisodeRecord:
        raise ZeroDivisionError("by zero")

    record(dataset.root, "one", seconds=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(Sealing, "_elsewhere", broken)
        sealing = Sealing(dataset)
        sealing.seal("one")
        ((_, found),) = results(sealing, 1)
    assert isinstance(found, DamageError)
    assert "Finishing one failed (ZeroDivisionError: by zero); its journal stays" in str(found)
    monkeypatch.setattr(Sealing, "_elsewhere", staticmethod(seal))
    sealing.seal("one")
    assert isinstance(results(sealing, 1)[0][1], EpisodeRecord)
    sealing.close()


def test_an_error_of_sealing_is_told_by_its_class_and_words(tmp_path: Path) -> None:
    create_dataset(tmp_path / "d.zarr")
    told = sealing_module._seal(tmp_path / "d.zarr", "none")
    assert isinstance(told, tuple)
    assert told[0] == "DamageError"
    assert "Expected a journal at" in told[1]


ORPHAN = """
    import sys, time
    from pathlib import Path
    from lehrling.collection.sealing import Sealing
    from lehrling.datasets.dataset import Dataset
    from recordings import record
    if __name__ == "__main__":
        with Dataset.open_for_writing(sys.argv[1], create=True) as dataset:
            record(dataset.root, "one", seconds=0.1)
            sealing = Sealing(dataset)
            sealing.seal("one")
            while not sealing.results():
                time.sleep(0.01)
            print(*sealing._processes()._processes, flush=True)
            time.sleep(60)
"""


def test_the_other_process_dies_with_the_recorder(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(textwrap.dedent(ORPHAN))
    environment = os.environ | {"PYTHONPATH": str(SUPPORT)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "d.zarr")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    other = int(process.stdout.readline())
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while Path(f"/proc/{other}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{other}").exists()
