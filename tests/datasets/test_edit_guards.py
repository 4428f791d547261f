"""No edit makes damage valid, and none makes the same rows valid twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from edited import copied, files, valid
from short_episodes import record

from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.edit_archive import archive
from lehrling.datasets.edit_cut import split, trim
from lehrling.datasets.edits import EditReport, Labels, delete, label, restore, undo
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.manifest import EpisodeRecord

Cutting = Callable[[Dataset, list[EpisodeRecord]], EditReport]
CUTS: dict[str, Cutting] = {
    "trim": lambda dataset, records: trim(dataset, records, 0.0, 0.09),
    "split": lambda dataset, records: split(dataset, records, [0.05]),
    "archive": archive,
}
PLACES = {"a frame": "front/value/c/0/0/0/0", "numbers": "tcp_pose/value/c/0/0", "what it is": "zarr.json"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "plant.zarr"
    create_dataset(root)
    record(root, "one")
    record(root, "two")
    Dataset.open_for_writing(root).close()
    return root


@pytest.fixture
def plant(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "plant.zarr")


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
@pytest.mark.parametrize("verb", CUTS)
def test_a_damaged_episode_is_not_cut_into_whole_ones(plant: Path, verb: str, place: str, gone: bool) -> None:
    path = plant / "episodes/one" / place
    content = bytearray(path.read_bytes())
    content[len(content) // 8] ^= 0xFF
    path.unlink() if gone else path.write_bytes(content)
    before = files(plant / "episodes")
    with Dataset.open_for_writing(plant) as dataset:
        with pytest.raises(DamageError):
            CUTS[verb](dataset, [dataset.records["one"]])
        assert dataset.records["one"].status == "sealed"
        assert dataset.verify().problems.keys() == {"one"}
    assert files(plant / "episodes") == before


def test_the_refusal_says_what_is_damaged_and_what_to_do(plant: Path) -> None:
    (plant / "episodes/one/tcp_pose/stamp_ns/c/0").unlink()
    wanted = r"'one' is not as it was sealed: tcp_pose/stamp_ns/c/0 is missing; `lehrling repair` quarantines it"
    with Dataset.open_for_writing(plant) as dataset, pytest.raises(DamageError, match=wanted):
        trim(dataset, [dataset.records["two"], dataset.records["one"]], 0.03)
    assert valid(plant) == ["one", "two"]


def test_undo_stops_at_an_edit_under_one_that_stays_in_force(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, [dataset.records["one"]], Labels(outcome="failure"))
        trim(dataset, [dataset.records["one"], dataset.records["two"]], 0.03)
        dataset.purge("two")
        before = dict(dataset.records)
        wanted = r"Edit number 1 \(labelled one: .*\) cannot be taken back under number 2 \(trimmed 2 episodes.*\), which stays"
        with pytest.raises(InputError, match=wanted):
            undo(dataset)
        assert dataset.records == before
    assert valid(plant) == ["one.t1", "two.t1"]


def test_undo_goes_on_to_an_older_edit_of_other_episodes(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        label(dataset, [dataset.records["one"]], Labels(outcome="failure"))
        trim(dataset, [dataset.records["two"]], 0.03)
        dataset.purge("two")
        assert undo(dataset).words.startswith("took back label number 1")
        assert dataset.records["one"].outcome == "success"
    assert valid(plant) == ["one", "two.t1"]


def test_no_part_is_restored_beside_the_whole_and_no_whole_beside_a_part(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        trim(dataset, [dataset.records["one"]], 0.03)
        with pytest.raises(InputError, match=r"'one' was replaced by one\.t1"):
            restore(dataset, [dataset.records["one"]])
        undo(dataset)
        with pytest.raises(InputError, match=r"Episode 'one', which is valid, holds rows of 'one\.t1' too; delete it"):
            restore(dataset, [dataset.records["one.t1"]])
        delete(dataset, [dataset.records["one"]])
        with pytest.raises(InputError, match=r"without rows in common, got 'one' and 'one\.t1'; restore one of them"):
            restore(dataset, [dataset.records["one"], dataset.records["one.t1"]])
        restore(dataset, [dataset.records["one.t1"]])
    assert valid(plant) == ["one.t1", "two"]


def test_parts_that_hold_other_rows_are_restored_together(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        made = split(dataset, [dataset.records["one"]], [0.05]).made
        delete(dataset, [dataset.records[name] for name in made])
        restore(dataset, [dataset.records[name] for name in made])
    assert valid(plant) == sorted([*made, "two"])
