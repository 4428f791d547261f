"""Delete what is left of purged episodes: their files, and every view and piece of a view that holds their pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from lehrling.datasets.dataset_root import GROUP
from lehrling.datasets.files import fsync_path

PLACES = ("episodes", "journals", "quarantine")


def remove_purged(root: Path, names: Iterable[str]) -> list[str]:
    """Delete what is left of these episodes; return those of which something was.

    Views are looked through whatever else is left, since a crash may have come between the two.
    """
    purged = list(names)
    if not purged:
        return []
    found = {name for name in purged if _remove_files(root, name)}
    views = root / "views"
    for path in sorted(p for p in views.iterdir() if p.is_dir()) if views.is_dir() else []:
        held = _held(path, purged)
        if path.name.endswith(".pieces"):
            for name in held:
                for piece in [p for p in path.iterdir() if name in _names(p)]:
                    shutil.rmtree(piece)
        elif held:
            shutil.rmtree(path)
        found |= held
    return [name for name in purged if name in found]


def _remove_files(root: Path, name: str) -> bool:
    found = [path for path in (root / folder / name for folder in PLACES) if path.is_dir()]
    for path in found:
        shutil.rmtree(path)
        fsync_path(path.parent)
    return bool(found)


def _held(view: Path, purged: list[str]) -> set[str]:
    """Return which purged episodes a view, or a folder of pieces, holds."""
    if view.name.endswith(".pieces"):
        return {name for piece in view.iterdir() for name in _names(piece)} & set(purged)
    if not (view / GROUP).is_file():
        return set()
    text = (view / GROUP).read_text(encoding="utf-8")
    return {name for name in purged if json.dumps(name) in text}


def _names(piece: Path) -> set[str]:
    """Return whose piece it is, whole or half-written (`.ID@HASH.PROCESS`)."""
    return {piece.name.lstrip(".").rpartition("@")[0]}
