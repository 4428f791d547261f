"""What each room ships: built as wheels, with the data files that its code opens."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = {
    "cli": ("lehrling/cli/main.py", "lehrling/cli/page.css"),
    "collection": ("lehrling/collection/__init__.py",),
    "datasets": (
        "lehrling/datasets/dataset.py",
        "lehrling/datasets/embodiments/arm6.yaml",
        "lehrling/datasets/embodiments/iiwa.yaml",
        "lehrling/datasets/embodiments/humanoid.yaml",
        "lehrling/datasets/embodiments/upper_humanoid.yaml",
    ),
    "deploy": ("lehrling/deploy/__init__.py",),
    "sim": ("lehrling/sim/world.py", "lehrling/sim/assets/arm6.urdf", "lehrling/sim/assets/gripper.xml"),
    "training": (
        "lehrling/training/trainer.py",
        "lehrling/training/words.txt",
        "lehrling/training/bases/base/config.json",
        "lehrling/training/bases/base/model.safetensors",
        "lehrling/training/bases/base/policy_start.json",
        "lehrling/training/bases/base/tokenizer.json",
    ),
}
BUILD = "import sys, uv_build; print(uv_build.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module", params=sorted(SHIPPED))
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Build one room's wheel."""
    room, out = str(request.param), tmp_path_factory.mktemp("wheel")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=ROOT / room, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return room, out / done.stdout.splitlines()[-1]


def test_a_wheel_holds_the_code_and_every_data_file_of_its_room(wheel: tuple[str, Path]) -> None:
    room, path = wheel
    names = set(zipfile.ZipFile(path).namelist())
    assert set(SHIPPED[room]) <= names
    source = {str(p.relative_to(ROOT / room)) for p in (ROOT / room / "lehrling").rglob("*.py")}
    assert source <= names


def test_a_wheel_holds_nothing_of_other_rooms_and_no_namespace_init(wheel: tuple[str, Path]) -> None:
    room, path = wheel
    code = [n for n in zipfile.ZipFile(path).namelist() if ".dist-info/" not in n and not n.endswith("/")]
    assert all(n.startswith(f"lehrling/{room}/") for n in code)
    assert not any("__pycache__" in n for n in code)


def test_the_command_is_an_entry_point_of_the_cli_wheel(wheel: tuple[str, Path]) -> None:
    room, path = wheel
    archive = zipfile.ZipFile(path)
    points = [archive.read(n).decode() for n in archive.namelist() if n.endswith("entry_points.txt")]
    assert ("lehrling = lehrling.cli.main:run" in "".join(points)) == (room == "cli")
    assert ("lehrling.jpeg" in "".join(points)) == (room == "datasets")
