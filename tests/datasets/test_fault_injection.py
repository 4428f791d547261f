"""The Nth file operation fails, for one N after the other: what was sealed stays, and the next opening repairs.

`make test-faults` tries every N, otherwise a sample. As SQLite's I/O error tests do
(sqlite.org/testing.html, 3.2), each failure is tried once for one operation and once for all that follow.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import figures
import pytest
from edited import copied, files
from file_operations import Operation, watched
from short_episodes import check, record, session

from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.edit_cut import trim
from lehrling.datasets.edits import delete
from lehrling.datasets.errors import LehrlingError, StorageError
from lehrling.datasets.files import MANIFEST

ALL = os.environ.get("LEHRLING_FAULTS") == "all"
OPENING, MAKING = ("read", "create"), ("create", "write", "rename", "link", "mkdir", "fsync")
ERRORS = {"ENOSPC": MAKING, "EIO": (*OPENING, *MAKING, "unlink", "truncate"), "EMFILE": OPENING}


@dataclass
class Fault:
    """Fails the Nth operation of some kinds, or all from then on."""

    code: int
    kinds: tuple[str, ...]
    number: int
    lasts: bool
    seen: list[Operation] = field(default_factory=list)
    count: int = 0

    def __call__(self, operation: Operation) -> None:
        hit = operation.kind in self.kinds and operation.path != ".lock"
        self.count += hit
        if hit and (self.count == self.number or (self.lasts and self.count > self.number)):
            raise OSError(self.code, os.strerror(self.code), operation.path)
        self.seen.append(operation)

    @property
    def synced(self) -> bool:
        """Whether the journal was synced on the way before anything failed."""
        done = [o.path for o in self.seen if o.kind == "fsync"]
        return any(p.endswith("front-0.mcap") for p in done) and any(p.endswith("numeric-0.mcap") for p in done)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    create_dataset(root)
    record(root, "one")
    Dataset.open_for_writing(root).close()
    return root


def counted(plant: Path, folder: Path, kinds: tuple[str, ...]) -> int:
    """Return how many operations of these kinds a session takes that nothing disturbs."""
    fault = Fault(0, kinds, 0, lasts=False)
    with watched(root := copied(plant, folder / "counted"), fault):
        session(root, [])
    shutil.rmtree(root)
    return fault.count


def run(plant: Path, folder: Path, fault: Fault) -> bool:
    """Run a session with a fault and check what is left; return whether the fault was met."""
    root, done = copied(plant, folder / "plant.zarr"), list[str]()
    before, text = files(root / "episodes" / "one"), ""
    with watched(root, fault):
        try:
            session(root, done)
        except LehrlingError as error:
            text = str(error)
    try:
        check(root, before, done, synced=fault.synced)
    except BaseException as error:
        error.add_note(f"{fault.code} at {fault.number}: done {done}, said {text!r}, last {fault.seen[-1:]}")
        raise
    shutil.rmtree(root)
    return fault.count >= fault.number


CASES = [(name, lasts) for name in ERRORS for lasts in (False, True)]
SHARE = 4


def sample(count: int, case: int) -> list[int]:
    """Return one number while the journal is written, and others all over, not the same ones in every case."""
    spread = [(k * len(CASES) + case) * count // (len(CASES) * (SHARE - 1)) for k in range(SHARE - 1)]
    return [3 + 4 * case, *(1 + number for number in spread)]


@pytest.mark.parametrize(("name", "lasts"), CASES)
def test_a_session_that_fails_anywhere_loses_nothing(plant: Path, tmp_path: Path, name: str, lasts: bool) -> None:
    kinds = ERRORS[name]
    for number in sample(counted(plant, tmp_path, kinds), CASES.index((name, lasts))):
        assert run(plant, tmp_path, Fault(getattr(errno, name), kinds, number, lasts))


def test_a_fault_that_is_never_met_changes_nothing(plant: Path, tmp_path: Path) -> None:
    assert not run(plant, tmp_path, Fault(errno.EIO, ERRORS["EIO"], 100_000, lasts=True))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not ALL, reason="LEHRLING_FAULTS=all asks for it")
@pytest.mark.parametrize(("name", "lasts"), CASES)
def test_a_session_that_fails_at_any_operation_loses_nothing(
    plant: Path, tmp_path: Path, name: str, lasts: bool
) -> None:
    number = 1
    while run(plant, tmp_path, Fault(getattr(errno, name), ERRORS[name], number, lasts)):
        number += 1
    assert number > 100
    figures.tried(f"{name} at one file operation{', and at all after it' if lasts else ''}", number - 1, 100)


def test_a_journal_that_cannot_be_read_for_now_is_not_given_up(plant: Path, tmp_path: Path) -> None:
    root = copied(plant, tmp_path / "plant.zarr")
    record(root, "two")
    for file in ("meta.json", "end.json", "numeric-0.mcap"):

        def refuse(operation: Operation, file: str = file) -> None:
            if operation.kind == "read" and operation.path == f"journals/two/{file}":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with watched(root, refuse), pytest.raises(StorageError, match="Too many open files; nothing was changed"):
            Dataset.open_for_writing(root)
    check(root, files(root / "episodes" / "one"), ["ended"], synced=True)


def test_a_line_that_could_not_be_taken_back_is_cut_off_before_the_next(plant: Path, tmp_path: Path) -> None:
    root = copied(plant, tmp_path / "plant.zarr")
    with Dataset.open_for_writing(root) as dataset:
        path = root / MANIFEST
        path.write_bytes(path.read_bytes() + b'{"id": "thr')
        delete(dataset, [dataset.records["one"]])
    assert Dataset.open(root).records["one"].status == "deleted"


def test_verify_names_a_file_on_a_bad_sector_and_gives_up_no_episode_for_want_of_descriptors(
    plant: Path, tmp_path: Path
) -> None:
    root = copied(plant, tmp_path / "plant.zarr")
    place = "tcp_pose/value/c/0/0"

    def refuse(operation: Operation) -> None:
        if operation.kind == "read" and operation.path == f"episodes/one/{place}":
            raise OSError(code, os.strerror(code))

    code = errno.EIO
    with watched(root, refuse):
        assert Dataset.open(root).verify().problems == {"one": [f"{place} cannot be read: Input/output error"]}
    code = errno.EMFILE
    with watched(root, refuse), Dataset.open_for_writing(root) as dataset:
        with pytest.raises(StorageError, match="Too many open files"):
            dataset.repair(deep=True)
        assert dataset.records["one"].status == "sealed"


def test_a_recording_ends_on_a_disk_that_does_not_give_its_reserve_back(plant: Path, tmp_path: Path) -> None:
    root = copied(plant, tmp_path / "plant.zarr")

    def refuse(operation: Operation) -> None:
        if operation.kind == "unlink" and operation.path == "journals/two/reserve":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with watched(root, refuse):
        record(root, "two")
    check(root, files(root / "episodes" / "one"), ["ended"], synced=True)


def test_frames_that_cannot_be_read_for_now_end_an_edit_in_a_sentence(plant: Path, tmp_path: Path) -> None:
    root = copied(plant, tmp_path / "plant.zarr")
    before = files(root / "episodes" / "one")
    number = 0

    def refuse(operation: Operation) -> None:
        nonlocal number
        if operation.kind == "read" and operation.path.startswith("episodes/one/front/value/c/"):
            number += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    wanted = pytest.raises(StorageError, match="Too many open files; nothing was changed")
    with Dataset.open_for_writing(root) as dataset, watched(root, refuse), wanted:
        trim(dataset, [dataset.records["one"]], 0.03)
    assert number == 1
    assert files(root / "episodes" / "one") == before
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["one"].status == "sealed"
