"""The inventory of an episode: every file with its size and sha256, and the content hash over them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import sha256_file

NAME = "inventory.json"


@dataclass(frozen=True)
class Entry:
    """One file: path relative to the episode, size in bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


def build(directory: Path) -> list[Entry]:
    """List every file of an episode but the inventory itself, sorted by path."""
    entries = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            relative = path.relative_to(directory).as_posix()
            if relative != NAME:
                entries.append(Entry(relative, path.stat().st_size, sha256_file(path)))
    return sorted(entries, key=lambda entry: entry.path)


def content_hash(entries: list[Entry]) -> str:
    """Return the sha256 over sorted (path, sha256)."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda e: e.path):
        digest.update(f"{entry.path}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def save(directory: Path, entries: list[Entry]) -> None:
    """Write the inventory into the episode."""
    lines = [json.dumps(asdict(entry)) for entry in entries]
    (directory / NAME).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def load(directory: Path) -> list[Entry]:
    """Read an episode's inventory.

    Raises:
        DamageError: there is none that can be read.
    """
    try:
        data = json.loads((directory / NAME).read_text(encoding="utf-8"))
        return [Entry(**item) for item in data]
    except (OSError, ValueError, TypeError) as error:
        raise DamageError(f"Expected an inventory in {directory}, but it cannot be read.") from error


def problems(directory: Path, wanted_hash: str) -> list[str]:
    """Return every way in which an episode's files differ from its inventory and from the manifest's hash."""
    try:
        entries = load(directory)
    except DamageError as error:
        return [str(error)]
    found = []
    if content_hash(entries) != wanted_hash:
        found.append(f"the inventory of {directory.name} is not the one whose hash the manifest holds")
    listed = {entry.path for entry in entries}
    for entry in entries:
        path = directory / entry.path
        if not path.is_file() or path.is_symlink():
            found.append(f"{entry.path} is missing")
        elif path.stat().st_size != entry.size:
            found.append(f"{entry.path} has {path.stat().st_size} bytes instead of {entry.size}")
        elif sha256_file(path) != entry.sha256:
            found.append(f"{entry.path} has other content than when it was sealed")
    extra = {entry.path for entry in build(directory)} - listed
    found += [f"{name} does not belong to the episode" for name in sorted(extra)]
    return found
