"""Views built by several workers, in processes and on Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from view_robots import arm_messages, record

from lehrling.datasets import view_build
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.fan_out import Workers, fan_out
from lehrling.datasets.view import Field, View, ViewSpec, build_view
from lehrling.datasets.view_pieces import PieceJob, make_piece, piece_path, pieces_folder

SPEC = ViewSpec(
    rate_hz=20,
    image_px=48,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position"),),
    action=(Field(stream="tcp_command", select=("x", "y", "z")),),
)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    for number, name in enumerate("abcd"):
        record(root, name, arm_messages(number, steps=30))
    return root


@pytest.fixture(scope="module")
def alone(plant: Path) -> dict[str, bytes]:
    """The bytes of the view as one process builds it."""
    return content(build_view(Dataset.open(plant), "alone", SPEC))


@pytest.fixture
def root(plant: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plant, tmp_path / "copy.zarr", ignore=shutil.ignore_patterns("views"))


def content(view: View) -> dict[str, bytes]:
    files = (path for path in sorted(view.directory.rglob("*")) if path.is_file())
    return {path.relative_to(view.directory).as_posix(): path.read_bytes() for path in files}


def pieces(root: Path) -> list[Path]:
    return sorted(pieces_folder(root / "views" / "v", SPEC).glob("[!.]*"))


def jobs(root: Path) -> list[PieceJob]:
    dataset = Dataset.open(root)
    (root / "views").mkdir(exist_ok=True)
    folder = str(pieces_folder(root / "views" / "v", SPEC))
    text = SPEC.model_dump_json()
    return [PieceJob(str(root), folder, e.id, e.record.content_hash, text) for e in dataset.episodes()]


def test_processes_give_the_bytes_of_one(root: Path, alone: dict[str, bytes]) -> None:
    seen: list[tuple[int, int]] = []
    view = build_view(Dataset.open(root), "v", SPEC, lambda done, total: seen.append((done, total)), Workers(2))
    assert content(view) == alone
    assert pieces(root) == []
    assert seen[-1][0] == seen[-1][1]


def test_a_ray_cluster_gives_the_bytes_of_one(root: Path, alone: dict[str, bytes]) -> None:
    ray = pytest.importorskip("ray")
    try:
        assert content(build_view(Dataset.open(root), "v", SPEC, workers=Workers(2, ray="local"))) == alone
        shutil.rmtree(root / "episodes" / "b" / "front" / "value" / "c")
        (root / "views" / "v" / "zarr.json").unlink()
        with pytest.raises(DamageError, match="missing or cut"):
            build_view(Dataset.open(root), "w", SPEC, workers=Workers(2, ray="auto"))
    finally:
        ray.shutdown()


def test_a_cluster_that_is_not_there_is_told(root: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"Expected a Ray cluster at '127\.0\.0\.1:1'"):
        build_view(Dataset.open(root), "v", SPEC, workers=Workers(1, ray="127.0.0.1:1"))


def test_what_was_done_before_an_interruption_is_not_done_again(
    root: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in jobs(root)[:2]:
        make_piece(job)
    before = {path.name: (path / "done.json").stat().st_mtime_ns for path in pieces(root)}
    assert len(before) == 2

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(view_build, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            build_view(Dataset.open(root), "v", SPEC, workers=Workers(2))
    after = {path.name: (path / "done.json").stat().st_mtime_ns for path in pieces(root)}
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    assert content(build_view(Dataset.open(root), "v", SPEC, workers=Workers(2))) == alone


def test_a_damaged_piece_is_refused_and_made_again(root: Path, alone: dict[str, bytes]) -> None:
    made = jobs(root)
    for job in made:
        make_piece(job)
    path = piece_path(Path(made[1].folder), made[1].episode, made[1].content_hash) / "front.jpegs"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamageError, match="has other content"):
        build_view(Dataset.open(root), "v", SPEC, workers=Workers(2))
    assert content(build_view(Dataset.open(root), "v", SPEC, workers=Workers(2))) == alone


def test_a_purge_takes_pictures_out_of_pieces_too(root: Path) -> None:
    for job in jobs(root):
        make_piece(job)
    with Dataset.open_for_writing(root) as dataset:
        dataset.purge("b")
    assert [path.name[0] for path in pieces(root)] == ["a", "c", "d"]


def test_results_come_in_order_and_the_first_error_ends_it() -> None:
    assert list(fan_out(abs, [-3, 2, -1], Workers(2))) == [3, 2, 1]
    found = fan_out(int, ["4", "x", "6"], Workers(2))
    assert next(found) == 4
    with pytest.raises(ValueError, match="invalid literal"):
        next(found)
    with pytest.raises(InputError, match="at least one worker"):
        Workers(0)
