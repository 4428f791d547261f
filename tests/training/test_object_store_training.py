"""Training from an object store is training from disk, step by step; what is wrong with the store is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_store import ObjectStore, object_store

from lehrling.datasets.errors import InputError, StorageError
from lehrling.training.artefact import read_description
from lehrling.training.config import TrainConfig
from lehrling.training.metrics import read_metrics
from lehrling.training.trainer import train

pytest.importorskip("obstore")


def losses(config: TrainConfig) -> list[float]:
    return [row["loss"] for row in read_metrics(config.output / "metrics.jsonl")]


@pytest.fixture(scope="module")
def store(demonstrations: Path) -> Iterator[ObjectStore]:
    with object_store() as made, pytest.MonkeyPatch.context() as patched:
        for name, value in made.environment.items():
            patched.setenv(name, value)
        made.upload(demonstrations, "demo.zarr")
        yield made


def moved(
    config: TrainConfig, address: str, cache: Path, gib_max: float | None = None, **changes: object
) -> TrainConfig:
    """Return a configuration whose dataset lies elsewhere, read as from YAML."""
    place = {"dataset": address, "cache": {"directory": str(cache), "gib_max": gib_max}}
    data = config.model_dump(mode="json") | place | changes
    return TrainConfig.model_validate(data)


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_from_an_object_store_has_the_losses_of_one_from_disk_and_resumes(
    store: ObjectStore, run_of_twelve: Callable[[Path], TrainConfig], tmp_path: Path, cached: bool
) -> None:
    changes = {"steps": 6, "checkpoint_every": 3, "cache_features": cached}
    here = run_of_twelve(tmp_path / "here").model_copy(update=changes)
    train(here)
    there = moved(
        run_of_twelve(tmp_path / "there"), f"{store.url}/demo.zarr", tmp_path / "cache", **changes | {"steps": 3}
    )
    train(there)
    longer = there.model_copy(update={"steps": 6})
    train(longer, resume=True)
    assert losses(longer) == losses(here)
    description = read_description(longer.output / "policy")
    assert description.provenance["config"]["dataset"] == f"{store.url}/demo.zarr"
    assert description.provenance["episodes"] == read_description(here.output / "policy").provenance["episodes"]
    assert description.provenance["view_key"] == read_description(here.output / "policy").provenance["view_key"]
    assert "test" not in str(description.provenance["config"]["cache"]).replace(str(tmp_path), "")
    assert list((tmp_path / "cache").rglob("c/**/*"))


def test_a_cache_that_may_hold_little_changes_no_result(
    store: ObjectStore, run_of_twelve: Callable[[Path], TrainConfig], tmp_path: Path
) -> None:
    changes = {"steps": 3, "cache_features": False}
    here = run_of_twelve(tmp_path / "here").model_copy(update=changes)
    train(here)
    there = moved(run_of_twelve(tmp_path / "there"), f"{store.url}/demo.zarr", tmp_path / "cache", 1e-5, **changes)
    train(there)
    assert losses(there) == losses(here)


@pytest.mark.parametrize(
    ("place", "kind", "problem"),
    [
        ("s3://plant/none.zarr", InputError, "none.zarr"),
        ("s3://no-such-bucket/demo.zarr", (InputError, StorageError), "no-such-bucket"),
    ],
)
def test_a_dataset_that_is_not_there_is_said(
    store: ObjectStore,
    run_of_twelve: Callable[[Path], TrainConfig],
    tmp_path: Path,
    place: str,
    kind: type[Exception],
    problem: str,
) -> None:
    with pytest.raises(kind, match=problem):
        train(moved(run_of_twelve(tmp_path / "run"), place, tmp_path / "cache"))


def test_a_store_that_stops_answering_ends_the_run_in_one_sentence(
    store: ObjectStore, run_of_twelve: Callable[[Path], TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehrling.datasets.remote import Remote

    read = Remote.read

    def cut(self: Remote, path: str, bytes_max: int) -> bytes:
        if "/images/" in path:
            raise StorageError(f"Reading {self.url}/{path} failed: connection closed.")
        return read(self, path, bytes_max)

    monkeypatch.setattr(Remote, "read", cut)
    with pytest.raises(StorageError, match="connection closed"):
        train(moved(run_of_twelve(tmp_path / "run"), f"{store.url}/demo.zarr", tmp_path / "cache"))


def test_an_address_stays_one_and_a_path_a_path() -> None:
    made = TrainConfig.model_validate({"dataset": "s3://bucket/plant.zarr", "output": "o"})
    assert made.dataset == "s3://bucket/plant.zarr"
    assert TrainConfig.model_validate(made.model_dump(mode="json")) == made
    assert TrainConfig.model_validate({"dataset": "plant.zarr", "output": "o"}).dataset == Path("plant.zarr")
