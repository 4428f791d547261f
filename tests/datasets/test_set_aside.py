"""What cannot be sealed is set aside with every byte, whatever happens meanwhile and whatever lies there already."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from edited import files
from short_episodes import SMALL, record

from lehrling.datasets import dataset as datasets
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError, StorageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.sealer import seal


@pytest.fixture
def damaged(root: Path) -> dict[str, bytes]:
    """A journal whose beginning cannot be read; its files."""
    record(root, "one")
    path = root / "journals/one/meta.json"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    return files(root / "journals/one")


def aside(root: Path, name: str = "one") -> dict[str, bytes]:
    return files(root / "quarantine" / name)


class Killed(BaseException):
    """Nothing catches it."""


def test_a_journal_whose_setting_aside_was_interrupted_is_set_aside_by_the_next_opening(
    root: Path, damaged: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "set_aside", kill)
        with pytest.raises(Killed):
            Dataset.open_for_writing(root)
    assert Dataset.open(root).records["one"].status == "quarantined"
    assert files(root / "journals/one") == damaged
    Dataset.open_for_writing(root).close()
    assert aside(root) == damaged
    assert not (root / "journals/one").exists()


def test_a_journal_goes_beside_what_was_set_aside_under_its_name(root: Path, damaged: dict[str, bytes]) -> None:
    (root / "quarantine/one").mkdir(parents=True)
    (root / "quarantine/one/note.txt").write_text("of last year")
    Dataset.open_for_writing(root).close()
    assert aside(root) == {"note.txt": b"of last year"}
    assert aside(root, "one.2") == damaged


def test_a_quarantine_that_cannot_be_written_keeps_the_journal_where_it_is(
    root: Path, damaged: dict[str, bytes]
) -> None:
    (root / "quarantine").write_text("a file")
    for _ in range(2):
        with pytest.raises(StorageError, match="quarantine failed"):
            Dataset.open_for_writing(root)
        assert files(root / "journals/one") == damaged
    (root / "quarantine").unlink()
    Dataset.open_for_writing(root).close()
    assert aside(root) == damaged


def test_an_error_that_nobody_foresaw_sets_one_journal_aside_and_want_of_memory_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(root, "one")
    record(root, "two")
    whole = files(root / "journals/one")

    def sealer(root: Path, name: str, error: Exception) -> EpisodeRecord:
        if name == "one":
            raise error
        return seal(root, name)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset._settle, "__defaults__", (partial(sealer, error=MemoryError()),))
        with pytest.raises(StorageError, match="not enough memory to seal 'one'; its journal stays"):
            Dataset.open_for_writing(root)
        assert files(root / "journals/one") == whole
        patch.setattr(Dataset._settle, "__defaults__", (partial(sealer, error=ZeroDivisionError("by 0")),))
        with Dataset.open_for_writing(root) as dataset:
            assert dataset.records["one"].reason == "sealing failed (ZeroDivisionError: by 0)"
            assert dataset.records["two"].status == "sealed"
    assert aside(root) == whole


@pytest.mark.parametrize("ends", ["purge", "quarantine"])
def test_no_robot_is_recorded_under_an_id_that_had_an_episode(root: Path, ends: str) -> None:
    record(root, "one")
    with Dataset.open_for_writing(root) as dataset:
        dataset.purge("one") if ends == "purge" else dataset.quarantine("one", "a test")
    with pytest.raises(InputError, match="There is an episode 'one' already, which never changes; record under"):
        JournalWriter(root, EpisodeMeta("one", "kitting", "put it there", "arm6", "robot"), SMALL)


def test_folders_that_are_no_journals_and_no_episodes_do_not_keep_a_dataset_from_being_written(root: Path) -> None:
    (root / "journals/lost+found").mkdir(parents=True)
    for _ in range(2):
        (root / "episodes/stray").mkdir()
        with Dataset.open_for_writing(root) as dataset:
            assert dataset.unfinished() == []
    assert sorted(path.name for path in (root / "quarantine").iterdir()) == ["stray", "stray.2"]


def test_what_a_failed_write_left_is_removed_while_its_threads_still_write(root: Path) -> None:
    """One of zarr's writes fails, the others go on for a moment."""
    partial = root / "episodes/.two.partial"
    stop = threading.Event()

    def write() -> None:
        for number in count():
            if stop.is_set() or number > 60:
                return
            with suppress(OSError):
                partial.mkdir(exist_ok=True)
                (partial / f"{number}.json").write_text("{}")
                (partial / f"{number // 2}.json").unlink(missing_ok=True)

    for _ in range(20):
        stop.clear()
        partial.mkdir(exist_ok=True)
        writing = threading.Thread(target=write)
        writing.start()
        Dataset.open_for_writing(root).close()
        stop.set()
        writing.join()
    Dataset.open_for_writing(root).close()
    assert not partial.exists()
