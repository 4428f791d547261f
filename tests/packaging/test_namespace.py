"""The rooms share a namespace; the traps of that layout stay shut."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("cli", "collection", "datasets", "deploy", "sim", "training")


def python(code: str) -> str:
    """Run code in a new interpreter at the repository's root; return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_init_file_hides_the_other_rooms() -> None:
    for room in ROOMS:
        assert not (ROOT / room / "__init__.py").exists()
        assert not (ROOT / room / "lehrling" / "__init__.py").exists()
        assert (ROOT / room / "lehrling" / room / "__init__.py").is_file()
        assert (ROOT / room / "lehrling" / room / "py.typed").is_file()


def test_no_init_file_under_tests_shadows_a_library() -> None:
    assert [str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("__init__.py")] == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_importable_under_the_namespace(room: str) -> None:
    where = python(f"import lehrling.{room} as room; print(room.__file__)")
    assert Path(where) == ROOT / room / "lehrling" / room / "__init__.py"


def test_the_folder_datasets_does_not_shadow_hugging_face_datasets() -> None:
    where = python("import lerobot, datasets; print(datasets.__file__)")
    assert "site-packages" in where
    assert python("import datasets; print(datasets.Dataset.__module__)") == "datasets.arrow_dataset"


def test_training_declares_hugging_face_datasets_itself() -> None:
    assert any(r.startswith("datasets") for r in metadata.requires("lehrling-training") or [])


def test_rooms_do_not_declare_what_they_must_not_import() -> None:
    for room, forbidden in {
        "datasets": ("torch", "lerobot"),
        "collection": ("torch", "pybullet"),
        "sim": ("torch",),
    }.items():
        names = [
            r.split(">")[0].split("=")[0].split("[")[0].strip() for r in metadata.requires(f"lehrling-{room}") or []
        ]
        assert not set(names) & set(forbidden), room


def test_the_datasets_room_loads_no_learning_robot_or_physics_library() -> None:
    code = (
        "import sys, pkgutil, importlib, lehrling.datasets as d\n"
        "for m in pkgutil.iter_modules(d.__path__): importlib.import_module('lehrling.datasets.' + m.name)\n"
        "print(sorted({'torch', 'rclpy', 'pybullet', 'lerobot', 'transformers'} & set(sys.modules)))"
    )
    assert python(code) == "[]"


def test_the_image_codec_is_found_by_its_entry_point() -> None:
    points = [p for p in metadata.entry_points(group="zarr.codecs") if p.name == "lehrling.jpeg"]
    assert [p.value for p in points] == ["lehrling.datasets.codec:JpegFrames"]


def test_pybullet_was_built_with_numpy() -> None:
    assert python("import pybullet; print(pybullet.isNumpyEnabled())").splitlines()[-1] == "1"


def test_the_lock_names_only_the_public_index() -> None:
    lines = (ROOT / "uv.lock").read_text(encoding="utf-8").splitlines()
    registries = {line.split('registry = "')[1].split('"')[0] for line in lines if 'registry = "' in line}
    assert registries == {"https://pypi.org/simple"}
