"""The inventory of an episode: every file with its size and sha256, and the content hash over them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import first_link, sha256_file, unreadable

NAME = "inventory.json"
BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class Entry:
    """One file: path relative to the episode, size in bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


def build(directory: Path) -> list[Entry]:
    """List every file of an episode but the inventory itself, sorted by path."""
    paths = ((name, directory / name) for name in sorted(_files(directory)))
    return [Entry(name, path.stat().st_size, sha256_file(path)) for name, path in paths]


def _files(directory: Path) -> set[str]:
    """Return the paths of an episode's files but the inventory's, relative to it."""
    folders = ((Path(folder), names) for folder, _, names in os.walk(directory))
    return {(folder / name).relative_to(directory).as_posix() for folder, names in folders for name in names} - {NAME}


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
        data = read_json(directory / NAME, "inventory", bytes_max=BYTES_MAX)
        entries = [Entry(**item) for item in data]
        outside = [entry.path for entry in entries if not _inside(entry.path)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        damage = DamageError(f"Expected an inventory in {directory}, but it cannot be read.")
        raise unreadable(error, directory / NAME, damage) from error
    if outside:
        raise DamageError(f"The inventory of {directory} lists {outside[0][:80]!r}, which is no file of an episode.")
    return entries


def _inside(path: str) -> bool:
    """Whether a listed file lies in the episode, and is not the inventory."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path and path != NAME


def _difference(path: Path, entry: Entry) -> list[str]:
    if not path.is_file():
        return [f"{entry.path} is missing"]
    if path.stat().st_size != entry.size:
        return [f"{entry.path} has {path.stat().st_size} bytes instead of {entry.size}"]
    if sha256_file(path) != entry.sha256:
        return [f"{entry.path} has other content than when it was sealed"]
    return []


def problems(directory: Path, wanted_hash: str) -> list[str]:
    """Return every way in which an episode's files differ from its inventory and from the manifest's hash."""
    if link := first_link(directory):
        return [f"{link} is a symbolic link or no regular file, which no episode holds"]
    try:
        entries = load(directory)
    except DamageError as error:
        return [str(error)]
    found = []
    if content_hash(entries) != wanted_hash:
        found.append(f"the inventory of {directory.name} is not the one whose hash the manifest holds")
    listed = {entry.path for entry in entries}
    for entry in entries:
        try:
            found += _difference(directory / entry.path, entry)
        except OSError as error:
            if error.errno != errno.EIO:
                raise unreadable(error, directory / entry.path, DamageError(f"{entry.path} is gone.")) from error
            found.append(f"{entry.path} cannot be read: {error.strerror}")
    extra = _files(directory) - listed
    found += [f"{name} does not belong to the episode" for name in sorted(extra)]
    return found
