"""view: what it builds, and how it refuses what cannot be built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import Command

GOOD: dict[str, object] = {
    "rate_hz": 10,
    "image_px": 48,
    "cameras": ["front"],
    "state": [{"stream": "joint_position"}],
    "action": [{"stream": "gripper_command"}],
}


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "spec.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_view_is_built_and_found_again(lehrling: Command, cell: Path) -> None:
    first = lehrling("view", cell, "--name", "small", "--size", 48, "--json").data
    assert (first["view"], first["episodes"]) == ("small", 3)
    assert lehrling("view", cell, "--name", "small", "--size", 48, "--json").data == first
    other = lehrling("view", cell, "--name", "small", "--size", 64, "--json").data
    assert other["key"] != first["key"]


def test_twice_the_rate_gives_twice_the_rows(lehrling: Command, cell: Path) -> None:
    slow, fast = (lehrling("view", cell, "--rate", hz, "--size", 8, "--json").data["rows"] for hz in (5, 10))
    assert abs(fast - 2 * slow) <= 3


@pytest.mark.parametrize("size", [1, 7])
def test_a_size_that_no_view_has_is_refused(lehrling: Command, made: Path, size: int) -> None:
    assert lehrling("view", made / "cell.zarr", "--size", size).refused(f"{size} px", "image_px of 8 or more", "or 0")


def test_a_view_specification_is_followed(lehrling: Command, cell: Path, tmp_path: Path) -> None:
    one = GOOD | {"episodes": {"ids": ["kitting-arm6-00000001"]}}
    spec = written(tmp_path, json.dumps(one))
    facts = lehrling("view", cell, "--spec", spec, "--name", "one", "--json").data
    assert facts["episodes"] == 1


def test_people_read_on_stderr_what_was_built(lehrling: Command, cell: Path) -> None:
    seen = lehrling("view", cell)
    assert (seen.code, seen.out) == (0, "")
    assert "rows of 3 episodes" in seen.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": 1}, ("'colour' is not a key", "rate_hz", "cameras")),
        ({"action": [{"stream": "tcp_command", "colour": 1}]}, ("'action.0.colour' is not a key", "alignment")),
        ({"episodes": {"colour": 1}}, ("'episodes.colour' is not a key", "outcomes")),
        ({"cameras": ["rear"]}, ("'rear'", "front", "wrist")),
        ({"state": [{"stream": "joint_positon"}]}, ("'joint_positon'", "joint_position")),
        ({"action": [{"stream": "front"}]}, ("numeric", "'front'", "colour_image")),
        ({"state": [{"stream": "joint_position", "select": ["joint9"]}]}, ("joint1", "'joint9'")),
        ({"state": [{"stream": "joint_position", "alignment": "linear"}]}, ("causal", "declare a delay_ms")),
        ({"rate_hz": -1}, ("rate_hz", "greater than 0", "-1")),
        ({"rate_hz": "often"}, ("rate_hz", "number", "'often'")),
        ({"action": []}, ("action", "at least 1", "[]")),
        ({"cameras": [], "state": []}, ("at least one camera or state",)),
        ({"view_format": 9}, ("view format 1", "got 9", "build the view again")),
        ({"episodes": {"ids": ["nobody"]}}, ("nobody", "`lehrling inspect`")),
        ({"episodes": {"robots": ["r2d2"]}}, ("r2d2", "`lehrling inspect`")),
    ],
)
def test_a_specification_that_does_not_fit_is_refused(
    lehrling: Command, made: Path, tmp_path: Path, change: dict[str, object], words: tuple[str, ...]
) -> None:
    spec = written(tmp_path, json.dumps(GOOD | change))
    assert lehrling("view", made / "cell.zarr", "--name", "other", "--spec", spec).refused(*words)
    assert not (made / "cell.zarr" / "views" / "other").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("keys", "NoneType")),
        ("- 1", ("keys", "list")),
        ("rate_hz: 10\ncameras: [front", ("line 2", "not YAML")),
        ("rate_hz: 10\n  image_px: 48", ("line 2", "not YAML")),
        ("a: !!python/object/apply:os.abort []", ("line 1", "not YAML", "os.abort")),
        (b"\xff\xfe\x00", ("not YAML", "utf-8")),
        ("[" * 5000, ("not YAML",)),
        (b" " * (2 << 20), ("larger than",)),
    ],
)
def test_a_file_that_is_no_specification_is_refused(
    lehrling: Command, made: Path, tmp_path: Path, content: str | bytes, words: tuple[str, ...]
) -> None:
    assert lehrling("view", made / "cell.zarr", "--spec", written(tmp_path, content)).refused("spec.yaml", *words)


def test_a_specification_that_is_not_there_is_refused(lehrling: Command, made: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        assert lehrling("view", made / "cell.zarr", "--spec", path).refused(str(path), "no such file")


def test_a_name_that_is_a_path_is_refused(lehrling: Command, made: Path) -> None:
    for name in ("../elsewhere", "a/b", ""):
        assert lehrling("view", made / "cell.zarr", "--name", name).refused("letters, digits", repr(name))


def test_two_contracts_in_one_view_are_refused_with_what_differs_and_how_to_choose(
    lehrling: Command, mixed: Path, tmp_path: Path
) -> None:
    told = ("one contract", "kitting-arm6-00000000", "kitting-iiwa-00000000", "joint7", "`robots`")
    assert lehrling("view", mixed, "--name", "all").refused(*told, sentences=3)
    spec = GOOD | {"episodes": {"robots": ["iiwa"]}}
    facts = lehrling("view", mixed, "--spec", written(tmp_path, json.dumps(spec)), "--name", "iiwa", "--json").data
    assert facts["episodes"] == 1
