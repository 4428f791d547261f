from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from object_store import ObjectStore, object_store
from view_robots import arm_messages, record

from lehrling.datasets import remote
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.loader import Loader
from lehrling.datasets.remote import Remote, is_remote, open_remote
from lehrling.datasets.sampler import EpisodeSampler
from lehrling.datasets.samples import SampleReader
from lehrling.datasets.view import Field, View, ViewSpec, build_view

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("obstore")
SPEC = ViewSpec(
    rate_hz=20,
    image_px=64,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position"),),
    action=(Field(stream="tcp_command", select=("x", "y", "z")),),
)
CHUNK = 4


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    record(root, "a", arm_messages(1))
    record(root, "b", arm_messages(2, steps=30))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lehrling.datasets.view_build.frames_per_shard", lambda _: 16)
        build_view(Dataset.open(root), "policy", SPEC)
    return root


@pytest.fixture(scope="module")
def served() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture
def store(served: ObjectStore, plant: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The plant in a folder of this test's own."""
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    folder = "".join(c for c in request.node.name if c.isalnum())
    served.upload(plant, folder)
    return folder


def local(plant: Path) -> View:
    return View.open(Dataset.open(plant), "policy")


def files(cache: Path) -> list[Path]:
    """Image files in the cache."""
    return [path for path in cache.rglob("images/*/c/**/*") if path.is_file()]


def test_samples_from_an_object_store_are_those_on_disk_bit_for_bit(
    served: ObjectStore, store: str, plant: Path, tmp_path: Path
) -> None:
    dataset, view = open_remote(f"{served.url}/{store}", "policy", tmp_path)
    assert view.stale == ""
    here, there = SampleReader(local(plant), CHUNK), SampleReader(view, CHUNK)
    ours, theirs = there.batch(there.rows), here.batch(here.rows)
    for name in ("state", "action", "is_pad", "row"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for camera in SPEC.cameras:
        np.testing.assert_array_equal(ours.images[camera], theirs.images[camera])
    assert dataset.episode("a").contract == Dataset.open(plant).episode("a").contract


def test_only_what_is_read_is_fetched_and_only_once(
    served: ObjectStore, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = Remote.read

    def counted(self: Remote, path: str, bytes_max: int) -> bytes:
        asked.append(path)
        return read(self, path, bytes_max)

    monkeypatch.setattr(Remote, "read", counted)
    _, view = open_remote(f"{served.url}/{store}", "policy", tmp_path)
    assert not any("images" in path for path in asked)
    view.images("front")[0]
    assert [path for path in asked if "/c/" in path and "images" in path] == ["views/policy/images/front/c/0/0/0/0"]
    _, again = open_remote(f"{served.url}/{store}", "policy", tmp_path)
    asked.clear()
    again.images("front")[0]
    assert asked == []


def test_workers_in_threads_and_processes_share_the_cache(served: ObjectStore, store: str, tmp_path: Path) -> None:
    _, view = open_remote(f"{served.url}/{store}", "policy", tmp_path)
    reader = SampleReader(view, CHUNK)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        parts = list(pool.map(reader.batch, [reader.rows[:9], reader.rows[:9]], timeout=120))
    np.testing.assert_array_equal(parts[0].images["wrist"], parts[1].images["wrist"])
    with Loader(reader.batch, EpisodeSampler(reader.rows, 8), workers=3) as loader:
        for _ in range(20):
            next(loader)
    assert not list(tmp_path.rglob(".coming-*"))
    assert pickle.loads(pickle.dumps(view)).images("front")[3].shape == (64, 64, 3)


def test_a_cache_stays_within_its_limit(served: ObjectStore, store: str, plant: Path, tmp_path: Path) -> None:
    limit = 3 * max(path.stat().st_size for path in (plant / "views" / "policy" / "images").rglob("c/*/*/*/*"))
    _, view = open_remote(f"{served.url}/{store}", "policy", tmp_path, bytes_max=limit)
    expected = local(plant).images("front")
    for row in range(len(view)):
        np.testing.assert_array_equal(view.images("front")[row], expected[row])
        assert sum(path.stat().st_size for path in files(tmp_path)) <= limit
    _, again = open_remote(f"{served.url}/{store}", "policy", tmp_path, bytes_max=limit)
    np.testing.assert_array_equal(again.images("front")[0], expected[0])


def test_a_view_built_anew_is_another_version(served: ObjectStore, store: str, plant: Path, tmp_path: Path) -> None:
    url = f"{served.url}/{store}"
    _, old = open_remote(url, "policy", tmp_path / "cache")
    root = tmp_path / "copy.zarr"
    shutil.copytree(plant, root)
    record(root, "c", arm_messages(3))
    build_view(Dataset.open(root), "policy", SPEC)
    served.upload(root, store)
    with pytest.raises(DamageError, match="was built anew meanwhile"):
        old.images("front")[0]
    _, new = open_remote(url, "policy", tmp_path / "cache")
    assert len(new) > len(old)
    np.testing.assert_array_equal(new.state, View.open(Dataset.open(root), "policy").state)


def test_a_view_with_a_purged_episode_is_refused(served: ObjectStore, store: str, plant: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy.zarr"
    shutil.copytree(plant, root)
    with Dataset.open_for_writing(root) as dataset:
        dataset.purge("b")
    served.put(f"{store}/manifest.jsonl", (root / "manifest.jsonl").read_bytes())
    with pytest.raises(InputError, match="holds episode 'b', which is purged"):
        open_remote(f"{served.url}/{store}", "policy", tmp_path / "cache")


def test_bytes_that_changed_on_the_way_are_refused_and_not_kept(
    served: ObjectStore, store: str, plant: Path, tmp_path: Path
) -> None:
    name = "views/policy/images/front/c/0/0/0/0"
    content = bytearray((plant / name).read_bytes())
    content[40] ^= 1
    served.put(f"{store}/{name}", bytes(content))
    _, view = open_remote(f"{served.url}/{store}", "policy", tmp_path)
    with pytest.raises(DamageError, match="has other content than its inventory says"):
        view.images("front")[0]
    assert files(tmp_path) == []
    served.put(f"{store}/{name}", (plant / name).read_bytes())
    assert view.images("front")[0].shape == (64, 64, 3)


def test_what_is_missing_or_does_not_answer_is_told_with_its_address(
    served: ObjectStore, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{served.url}/{store}"
    with pytest.raises(InputError, match=rf"Expected a file at {url}/views/other/"):
        open_remote(url, "other", tmp_path)
    with pytest.raises(InputError, match="Expected an id"):
        open_remote(url, "../policy", tmp_path)
    with pytest.raises(InputError, match=r"Expected a file at s3://plant/nowhere/zarr\.json"):
        open_remote("s3://plant/nowhere", "policy", tmp_path)
    with pytest.raises(InputError, match="Expected an address such as s3://"):
        open_remote("ftp://plant/x", "policy", tmp_path)
    options = {"endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 0}}
    with pytest.raises(StorageError, match=f"Reading {url}/zarr.json failed"):
        open_remote(url, "policy", tmp_path, options=options)  # type: ignore[arg-type]


def test_a_hostile_inventory_writes_nothing_outside_the_cache(served: ObjectStore, store: str, tmp_path: Path) -> None:
    listed = json.loads(bytes(Remote(f"{served.url}/{store}").read("views/policy/inventory.json", 1 << 20)))
    listed.append({"path": "state/../../../../../evil", "size": 3, "sha256": "0" * 64})
    served.put(f"{store}/views/policy/inventory.json", json.dumps(listed).encode())
    served.put(f"{store}/evil", b"bad")
    with pytest.raises(DamageError, match="which is no file of an episode"):
        open_remote(f"{served.url}/{store}", "policy", tmp_path / "cache")
    assert not list(tmp_path.rglob("evil"))


def test_zarr_python_reads_an_episode_in_the_store_by_itself(served: ObjectStore, store: str, plant: Path) -> None:
    from obstore.store import from_url
    from zarr.storage import ObjectStore as ZarrStore

    there = zarr.open_group(ZarrStore(from_url(f"{served.url}/{store}/episodes/a"), read_only=True), mode="r")
    here = zarr.open_group(plant / "episodes" / "a", mode="r")
    for name in ("joint_position/value", "front/value"):
        np.testing.assert_array_equal(there[name][...], here[name][...])  # type: ignore[index]


@pytest.mark.parametrize(
    ("place", "remote"),
    [
        ("s3://b/x", True),
        ("gs://b/x", True),
        ("/s3://b", False),
        ("plant.zarr", False),
        ("file:///x", False),
        ("s3:", False),
    ],
)
def test_addresses_are_told_from_paths(place: str, remote: bool) -> None:
    assert is_remote(place) is remote


def test_a_shard_whose_place_another_reader_took_is_brought_again(
    served: ObjectStore, store: str, tmp_path: Path
) -> None:
    _, view = open_remote(f"{served.url}/{store}", "policy", tmp_path)
    bring, brought = view._need, list[Path]()
    assert bring is not None

    def fleeting(path: Path) -> None:
        bring(path)
        place = path.relative_to(view.directory).parts
        if (place[0], place[2]) == ("images", "c"):
            brought.append(path)
            if len(brought) == 1:
                path.unlink()

    view._need = fleeting
    camera = view.spec.cameras[0]
    assert view.images(camera).encoded(0)[:2] == b"\xff\xd8"
    assert len(brought) == 2


def test_a_shard_that_another_reader_takes_away_while_room_is_made_is_no_error(
    served: ObjectStore, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = remote.put

    def put(path: Path, content: bytes) -> None:
        real(path, content)
        (path.parent / ".coming-other").write_bytes(b"half")
        path.unlink()

    _, view = open_remote(f"{served.url}/{store}", "policy", tmp_path, bytes_max=1)
    bring = view._need
    assert isinstance(bring, remote.Cache)
    shard = bring.directory / next(p for p in bring._entries if p.startswith("images/front") and "/c/" in p)
    with monkeypatch.context() as patch:
        patch.setattr(remote, "put", put)
        bring(shard)
    assert not shard.exists()
    assert shard.with_name(".coming-other").read_bytes() == b"half"
    bring(shard)
    assert shard.is_file()
