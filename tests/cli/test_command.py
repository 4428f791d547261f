"""The command itself: help, version, usage, exit codes, what it imports, how it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from cli_runs import Command, script

from lehrling.datasets.dataset import Dataset

VERBS = {
    "sim tasks": ("--json",),
    "sim generate": ("dataset", "--task", "--robot", "--episodes", "--seed", "--workers", "--size", "--json"),
    "inspect": ("dataset", "episode", "--plot", "--quality", "--limits", "--latency", "--where", "--json"),
    "verify": ("dataset", "--json"),
    "repair": ("dataset", "--json"),
    "edit delete": ("dataset", "--where", "--json"),
    "edit archive": ("dataset", "--camera", "--crf", "--where", "--json"),
    "edit merge": ("dataset", "--json"),
    "edit undo": ("dataset", "--times", "--json"),
    "edit purge": ("dataset", "--where", "--family", "--yes", "--json"),
    "snapshot": ("dataset", "--list", "--where", "--json"),
    "diff": ("dataset", "--json"),
    "import lerobot": ("source", "dataset", "--embodiment", "--json"),
    "import hdf5": ("source", "dataset", "--rate", "--json"),
    "export lerobot": ("dataset", "--rate", "--images", "--json"),
    "view": ("dataset", "--name", "--rate", "--size", "--spec", "--snapshot", "--where", "--workers", "--ray", "--json"),
    "train": ("config", "--set", "--dry-run", "--resume", "--json"),
    "eval": (
        "policy", "--task", "--robot", "--episodes", "--seed", "--execute", "--workers", "--baseline", "--min-success",
        "--junit", "--out", "--json",
    ),
    "models list": ("--json",),
    "models check": ("source", "--revision", "--json"),
    "demo": ("--out", "--episodes", "--steps", "--seeds", "--workers", "--json"),
}  # fmt: skip
NEEDS = {
    "sim generate": "'dataset'",
    "inspect": "'dataset'",
    "verify": "'dataset'",
    "repair": "'dataset'",
    "edit purge": "'dataset'",
    "view": "'dataset'",
    "train": "'config'",
    "eval": "'policy'",
    "models check": "'source'",
}
ASK_FOR_HELP = """
import sys
from lehrling.cli.main import run
for line in sys.argv[1:]:
    try: run(line.split())
    except SystemExit as ended: assert not ended.code, line
heavy = {'torch', 'pybullet', 'rclpy', 'transformers', 'zarr', 'numpy', 'matplotlib', 'peft', 'ray'} & set(sys.modules)
sys.exit(','.join(sorted(heavy)) or 0)
"""
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from lehrling.cli.main import run
if __name__ == '__main__': run()
"""


def test_the_installed_script_prints_its_version() -> None:
    seen = script("--version")
    assert (seen.code, seen.out, seen.err) == (0, f"lehrling {metadata.version('lehrling')}\n", "")


def test_help_names_every_verb_and_the_exit_codes(lehrling: Command) -> None:
    seen = lehrling("--help")
    assert (seen.code, seen.err) == (0, "")
    assert all(verb.split()[0] in seen.out for verb in VERBS)
    for meaning in ("0 done", "1 a check failed", "2 bad usage or input", "3 repaired with loss", "130 interrupted"):
        assert meaning in " ".join(seen.out.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_its_arguments(lehrling: Command, verb: str) -> None:
    seen = lehrling(*verb.split(), "--help")
    assert (seen.code, seen.err) == (0, "")
    assert f"Usage: lehrling {verb}" in seen.out
    assert [name for name in (*VERBS[verb], "--help") if f" {name} " not in seen.out] == []


def test_help_of_any_verb_imports_nothing_heavy() -> None:
    lines = ["--help", *(f"{verb} --help" for verb in VERBS)]
    command = [sys.executable, "-c", ASK_FOR_HELP, *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", NEEDS)
def test_a_missing_argument_is_named_with_the_way_to_help(lehrling: Command, verb: str) -> None:
    assert lehrling(*verb.split()).refused("Missing argument", NEEDS[verb], f"`lehrling {verb} --help`")


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_is_named_with_the_way_to_help(lehrling: Command, verb: str) -> None:
    assert lehrling(*verb.split(), "--fast").refused("--fast", f"`lehrling {verb} --help`")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frobnicate", ("frobnicate", "`lehrling --help`")),
        ("sim frobnicate", ("frobnicate", "`lehrling sim --help`")),
        ("--frobnicate", ("--frobnicate", "`lehrling --help`")),
        ("sim tasks more", ("more", "`lehrling sim tasks --help`")),
        ("verify x y", ("y", "`lehrling verify --help`")),
        ("sim generate x", ("--task", "`lehrling sim generate --help`")),
        ("sim generate x --task kitting --episodes 0", ("--episodes", "greater than or equal to 1")),
        ("sim generate x --task kitting --seed -1", ("--seed", "greater than or equal to 0")),
        ("sim generate x --task kitting --workers none", ("--workers", "valid integer")),
        ("view x --rate fast", ("--rate", "valid number")),
        ("view x --size 4097", ("--size", "less than or equal to 4096")),
        ("eval x", ("--task", "`lehrling eval --help`")),
        ("eval x --task kitting --min-success 2", ("--min-success", "less than or equal to 1")),
        ("eval x --task kitting --junit .", ("--junit", "directory")),
        ("demo --steps 0", ("--steps", "greater than or equal to 1")),
        ("demo --episodes 3", ("--episodes", "greater than or equal to 4")),
    ],
)
def test_bad_usage_is_told_with_the_way_to_help(lehrling: Command, line: str, words: tuple[str, ...]) -> None:
    assert lehrling(*line.split()).refused(*words)


@pytest.mark.parametrize("group", ["", "sim", "edit", "models"])
def test_a_group_alone_shows_its_verbs(lehrling: Command, group: str) -> None:
    seen = lehrling(*group.split())
    assert (seen.code, seen.out) == (2, "")
    verbs = [verb.removeprefix(group).split()[0] for verb in VERBS if verb.startswith(group)]
    assert [verb for verb in verbs if f"  {verb} " not in seen.err] == []


@pytest.mark.parametrize(
    "line", ["inspect absent", "verify absent", "train absent", "eval absent --task kitting", "models check absent"]
)
def test_a_traceback_comes_only_with_debug(lehrling: Command, line: str) -> None:
    assert lehrling(*line.split()).refused("absent")
    seen = lehrling("--debug", *line.split())
    assert (seen.code, seen.out) == (2, "")
    assert "Traceback (most recent call last)" in seen.err
    assert "InputError" in seen.err


def test_an_unforeseen_error_is_called_a_bug_without_a_traceback(
    lehrling: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("the moon is full")

    monkeypatch.setattr("lehrling.datasets.dataset.check_root", fails)
    seen = lehrling("verify", tmp_path)
    assert (seen.code, seen.out) == (1, "")
    assert seen.err.endswith("lehrling: RuntimeError: the moon is full. This is a bug; run again with --debug.\n")


def test_what_the_operating_system_refuses_is_no_bug(
    lehrling: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "/dev/worn")

    monkeypatch.setattr("lehrling.datasets.dataset.check_root", fails)
    assert lehrling("verify", tmp_path).refused("/dev/worn", "Input/output error", "check the path")


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("sim generate {0}/d --task kitting", "lehrling.sim.generate.generate"),
        ("verify {0}", "lehrling.datasets.dataset.check_root"),
        ("repair {0}", "lehrling.datasets.dataset.check_root"),
        ("view {0}", "lehrling.cli.views.make_view"),
        ("demo --out {0}/demo", "lehrling.cli.demo._demonstrate"),
    ],
)
def test_an_interruption_ends_with_130(
    lehrling: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, place: str
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    seen = lehrling(*line.format(tmp_path).split())
    assert seen.refused("interrupted; what was finished before stays", code=130)


def test_control_c_while_simulating_keeps_what_is_sealed(lehrling: Command, tmp_path: Path) -> None:
    path, program = tmp_path / "d.zarr", tmp_path / "interruptible.py"
    program.write_text(INTERRUPTIBLE, encoding="utf-8")
    command = [
        sys.executable,
        str(program),
        "sim",
        "generate",
        str(path),
        "--task",
        "kitting",
        "--episodes",
        "200",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        manifest = path / "manifest.jsonl"
        while process.poll() is None and not (manifest.is_file() and manifest.read_bytes()):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "interrupted; what was finished before stays." in err
    assert lehrling("repair", path).code == 0
    assert 1 <= len(Dataset.open(path).episodes()) < 200
    assert Dataset.open(path).verify().whole


def test_a_reader_that_has_seen_enough_is_no_error(made: Path) -> None:
    for verb in (("models", "list", "--json"), ("inspect", made / "cell.zarr")):
        read, write = os.pipe()
        os.close(read)
        seen = script(*verb, stdout=write)
        os.close(write)
        assert (seen.code, seen.err) == (0, "")


def test_a_full_disk_under_stdout_is_told() -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("there is no /dev/full here")
    with full.open("w") as file:
        seen = script("models", "list", "--json", stdout=file.fileno())
    assert seen.refused("No space left on device", "space that is left")
