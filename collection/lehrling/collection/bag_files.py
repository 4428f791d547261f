"""Bags as they lie on disk: a rosbag2 directory or one file of it, SQLite or MCAP, compressed or not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lehrling.collection.bag_mcap import read_mcap
from lehrling.collection.bag_records import BagChannel, BagCutError, BagMessage
from lehrling.collection.bag_sqlite import read_sqlite
from lehrling.collection.bag_unpack import unpack_file
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import sha256_file

METADATA = "metadata.yaml"
METADATA_BYTES_MAX = 4 << 20
STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}


@dataclass(frozen=True)
class BagFile:
    """A storage file: its name in the bag, and where its content lies without compression."""

    name: str
    path: Path
    storage: str


@dataclass(frozen=True)
class Bag:
    """A bag that can be read from the beginning as often as needed.

    Attributes:
        sha256: over the storage files' checksums; neither names nor metadata change it.
        problem: what is wrong with the bag as a whole, though its files may be.
        declared: number of messages by the metadata, None where they do not say.
    """

    format: str
    files: tuple[BagFile, ...]
    bytes: int
    sha256: str
    problem: BagCutError | None = None
    declared: int | None = None

    def records(self) -> Iterator[BagChannel | BagMessage]:
        """Yield channels and messages, file by file, in the order in which they were written.

        Raises:
            BagCutError: at the end, where the bag is cut or damaged.
            InputError: a file is no bag, or beyond any bounds.
        """
        count = 0
        for file in self.files:
            read = read_mcap if file.storage == "mcap" else read_sqlite
            for record in read(file.path, file.name):
                count += isinstance(record, BagMessage)
                yield record
        if self.problem is not None:
            raise self.problem
        if self.declared is not None and count < self.declared:
            name = self.files[-1].name if self.files else METADATA
            raise BagCutError(name, -1, f"{METADATA} counts {self.declared} messages, {count} are there")


@contextmanager
def open_bag(source: Path) -> Iterator[Bag]:
    """Open a rosbag2 directory, a `.mcap` or a `.db3`, each also as `.zstd`; yields the bag.

    Raises:
        InputError: there is none.
        StorageError: no space to decompress it.
    """
    names, problem, declared = _listing(source)
    paths = [source / name for name in names] if source.is_dir() else [source]
    digests = [sha256_file(path) for path in paths]
    sha256 = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    size = sum(path.stat().st_size for path in paths)
    with TemporaryDirectory(prefix="lehrling-bag-") as folder:
        files = tuple(_prepared(path, Path(folder)) for path in paths)
        storages = sorted({file.storage for file in files})
        form = f"{'rosbag2 ' if source.is_dir() else ''}{'+'.join(storages)}"
        yield Bag(form, files, size, sha256, problem, declared)


def _prepared(path: Path, folder: Path) -> BagFile:
    plain = path.name.removesuffix(".zstd")
    storage = STORAGES[Path(plain).suffix]
    if plain == path.name:
        return BagFile(path.name, path, storage)
    target = folder / plain
    unpack_file(path, target)
    return BagFile(path.name, target, storage)


def _listing(source: Path) -> tuple[list[str], BagCutError | None, int | None]:
    """Return the storage files in order, what is wrong with the bag as a whole, and its declared number of messages."""
    if source.is_file() and _is_storage(source.name):
        return [source.name], None, None
    if not source.is_dir():
        hint = "; convert ROS 1 bags with `rosbags-convert` first" if source.suffix == ".bag" else ""
        raise InputError(f"Expected a rosbag2 directory, a .mcap or a .db3 file at {source}, got none{hint}.")
    found = sorted((p.name for p in source.iterdir() if p.is_file() and _is_storage(p.name)), key=_natural)
    path = source / METADATA
    if not path.is_file():
        if not found:
            raise InputError(f"{source} is no bag: it holds neither {METADATA} nor .mcap or .db3 files.")
        return found, BagCutError(METADATA, -1, "it is missing, as after a crash of the recorder"), None
    try:
        facts = _metadata(path)
        listed = [PurePosixPath(str(name)).name for name in facts["relative_file_paths"]]
        declared = int(facts["message_count"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        return found, BagCutError(METADATA, -1, f"it cannot be read ({type(error).__name__})"), None
    return *_present(source, listed), declared


def _metadata(path: Path) -> dict[str, Any]:
    if path.stat().st_size > METADATA_BYTES_MAX:
        raise ValueError("too large")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict(data["rosbag2_bagfile_information"])


def _present(source: Path, listed: list[str]) -> tuple[list[str], BagCutError | None]:
    """Return the listed files up to the first that is missing; what follows a hole is not taken."""
    present: list[str] = []
    for name in listed:
        if not _is_storage(name):
            raise InputError(f"{source} holds {name!r}; expected .mcap or .db3 files, each also as .zstd.")
        written = (name, name + ".zstd", name.removesuffix(".zstd"))
        there = next((other for other in written if (source / other).is_file()), None)
        if there is None:
            return present, BagCutError(name, 0, f"it is missing, though {METADATA} lists it")
        present.append(there)
    return present, None


def _is_storage(name: str) -> bool:
    return Path(name.removesuffix(".zstd")).suffix in STORAGES


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort bag_2 before bag_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
