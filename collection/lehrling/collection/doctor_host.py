"""The computer as `doctor` sees it; every check takes it as an argument, so that tests can make one up."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TEXT_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Space:
    """A file system's size and what is left of it for this user, bytes."""

    total: int
    free: int


def space_of(path: Path) -> Space:
    """Return the space of the file system that holds `path`."""
    facts = os.statvfs(path)
    return Space(facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize)


def version_of(distribution: str) -> str | None:
    """Return an installed distribution's version, None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Host:
    """Where the facts about a computer are read.

    Attributes:
        prefix: of the Python environment, where ROS from PyPI would lie.
        cores: that this process may run on.
        version: an installed distribution's version, None where it is not installed.
    """

    environ: Mapping[str, str]
    prefix: Path
    cwd: Path
    cores: int
    uid: int
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    run: Path = Path("/run")
    shm: Path = Path("/dev/shm")  # noqa: S108 — where Fast DDS keeps its segments
    version: Callable[[str], str | None] = version_of
    space: Callable[[Path], Space] = space_of

    @classmethod
    def this(cls) -> Host:
        """Return the computer that this process runs on."""
        cores = len(os.sched_getaffinity(0))
        return cls(dict(os.environ), Path(sys.prefix), Path.cwd(), cores, os.geteuid())

    def text(self, path: Path) -> str | None:
        """Return a small file's text without the last newline, None where it cannot be read."""
        try:
            with path.open("rb") as file:
                return file.read(TEXT_BYTES_MAX).decode(errors="replace").strip()
        except OSError:
            return None

    def number(self, path: Path) -> int | None:
        """Return the number that a file holds, None where it cannot be read."""
        text = self.text(path)
        return int(text) if text is not None and text.isdecimal() else None


def size(count: float) -> str:
    """Return a number of bytes for people: 512 KiB, 24.0 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.1f} {unit}"
