"""Message definitions of the sourced ROS, for types that are not among the standard ones."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from lehrling.datasets.errors import InputError
from lehrling.datasets.message_types import DEFINITION_BYTES_MAX, SEPARATOR, Types, standard

FIELD = re.compile(r"^\s*([A-Za-z][A-Za-z0-9_/]*)(?:\[[^\]]*\])?(?:<=\d+)?\s+[A-Za-z]")
BUILT_IN = frozenset(
    ["bool", "byte", "char", "string", "wstring", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


def search_paths() -> list[Path]:
    """Return the prefixes that may hold `share/<package>/msg`, first come first served."""
    return [*map(Path, filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))), Path(sys.prefix)]


def definition_text(msgtype: str, prefixes: Iterable[Path] | None = None) -> str:
    """Return a type's definition with those that it needs, as recorded in MCAP (`ros2msg`).

    Raises:
        InputError: the sourced ROS has no such definition.
    """
    paths = list(prefixes) if prefixes is not None else search_paths()
    texts = {msgtype: _read(msgtype, paths)}
    waiting = [msgtype]
    while waiting:
        name = waiting.pop()
        for needed in _needed(name, texts[name]):
            if needed not in texts:
                texts[needed] = _read(needed, paths)
                waiting.append(needed)
    first, *others = texts
    parts = [texts[first], *(f"MSG: {name.replace('/msg/', '/')}\n{texts[name]}" for name in others)]
    return f"\n{SEPARATOR}".join(part.rstrip("\n") for part in parts) + "\n"


def types_for(msgtypes: Iterable[str]) -> Types:
    """Return the standard types and whichever of these are not standard, as the sourced ROS defines them.

    Raises:
        InputError: a type is neither standard nor in the sourced ROS.
    """
    other = [name for name in dict.fromkeys(msgtypes) if not standard().known(name)]
    return Types({name: definition_text(name) for name in other}) if other else standard()


def _read(msgtype: str, prefixes: list[Path]) -> str:
    package, _, name = msgtype.split("/")
    for prefix in prefixes:
        path = prefix / "share" / package / "msg" / f"{name}.msg"
        if path.is_file() and path.stat().st_size <= DEFINITION_BYTES_MAX:
            return path.read_text(encoding="utf-8")
    raise InputError(
        f"The definition of {msgtype} is neither standard nor in the sourced ROS; source the workspace that has {package}."
    )


def _needed(msgtype: str, text: str) -> list[str]:
    """Return the message types that a definition's fields name."""
    package, found = msgtype.split("/", maxsplit=1)[0], []
    for line in text.splitlines():
        match = FIELD.match(line.split("#", 1)[0])
        if match is None or match[1].split("<")[0] in BUILT_IN:
            continue
        parts = match[1].split("/")
        found.append(f"{parts[0]}/msg/{parts[-1]}" if len(parts) > 1 else f"{package}/msg/{parts[0]}")
    return found
