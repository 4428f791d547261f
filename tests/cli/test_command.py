"""The command itself: help, version, exit codes, what it imports, simulate."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from cli_runs import Command

VERBS = (
    "sim tasks", "sim generate", "inspect", "verify", "repair", "edit purge", "view", "train", "eval", "models list",
    "models check", "demo",
)  # fmt: skip
SCRIPT = str(Path(sys.executable).with_name("lehrling"))


def test_the_installed_script_prints_its_version() -> None:
    done = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"lehrling {metadata.version('lehrling')}\n"


def test_help_names_every_verb_and_the_exit_codes(lehrling: Command) -> None:
    seen = lehrling("--help")
    assert seen.code == 0
    assert all(verb.split()[0] in seen.out for verb in VERBS)
    assert "130 interrupted" in seen.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(lehrling: Command, verb: str) -> None:
    seen = lehrling(*verb.split(), "--help")
    assert seen.code == 0
    assert f"Usage: lehrling {verb}" in seen.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom lehrling.cli.main import run\n"
        "try: run(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pybullet', 'rclpy', 'transformers', 'zarr', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frobnicate",), ("frobnicate", "lehrling --help")),
        (("verify",), ("dataset", "lehrling verify --help")),
        (("verify", "x", "--fast"), ("--fast", "lehrling verify --help")),
        (
            ("sim", "generate", "x", "--task", "kitting", "--episodes", "0"),
            ("--episodes", "greater than or equal to 1"),
        ),
    ],
)
def test_bad_usage_is_told_with_the_way_to_help(
    lehrling: Command, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert lehrling(*arguments).refused(*words)


def test_a_group_alone_shows_its_verbs(lehrling: Command) -> None:
    seen = lehrling("sim")
    assert (seen.code, seen.out) == (2, "")
    assert "generate" in seen.err


def test_a_traceback_comes_only_with_debug(lehrling: Command, tmp_path: Path) -> None:
    assert "Traceback" not in lehrling("inspect", tmp_path / "absent").err
    seen = lehrling("--debug", "inspect", tmp_path / "absent")
    assert "Traceback" in seen.err
    assert seen.code == 2


def test_an_interruption_ends_with_130(lehrling: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lehrling.sim.generate.generate", interrupted)
    seen = lehrling("sim", "generate", tmp_path / "d", "--task", "kitting")
    assert seen.code == 130
    assert "interrupted" in seen.err


def test_tasks_and_robots_are_listed(lehrling: Command) -> None:
    facts = lehrling("sim", "tasks", "--json").data
    assert {"kitting", "sorting"} <= set(facts["tasks"])
    assert {"arm6", "iiwa"} <= set(facts["robots"])
    assert "kitting" in lehrling("sim", "tasks").out


def test_generate_adds_only_what_is_missing(lehrling: Command, cell: Path) -> None:
    command = ("sim", "generate", cell, "--task", "kitting", "--episodes", 4, "--json")
    kept = [f"kitting-arm6-{k:08d}" for k in range(3)]
    wanted = {"dataset": str(cell), "made": ["kitting-arm6-00000003"], "kept": kept, "successes": 1}
    assert lehrling(*command).data == wanted
    assert lehrling(*command).data["made"] == []


def test_unknown_tasks_and_robots_are_refused_before_anything_is_made(lehrling: Command, tmp_path: Path) -> None:
    path = tmp_path / "d.zarr"
    assert lehrling("sim", "generate", path, "--task", "juggling").refused("juggling", "kitting")
    assert lehrling("sim", "generate", path, "--task", "kitting", "--robot", "r2d2").refused("r2d2", "arm6")
    assert not path.exists()


def test_a_folder_of_other_things_is_not_made_a_dataset(lehrling: Command, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sun", encoding="utf-8")
    assert lehrling("sim", "generate", tmp_path, "--task", "kitting").refused(str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]
