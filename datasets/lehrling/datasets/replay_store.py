"""The files of a replay buffer: a folder, or a zip that is read without being unpacked.

Only names that the format itself makes are ever asked for; links, devices, and members that are packed in other ways than
zip's own two, encrypted or larger than asked for are refused.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from lehrling.datasets.errors import DamageError, InputError

MEMBERS_MAX = 4_000_000
MARK = "meta/episode_ends/.zarray"
"""What every replay buffer has."""
ENCRYPTED = 1


class Store(Protocol):
    """Where a replay buffer's files are."""

    @property
    def name(self) -> str:
        """What to call it in errors."""
        ...

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return a file's content, None where there is none.

        Raises:
            InputError: it is no plain file, or larger.
            DamageError: it cannot be read.
        """
        ...

    def groups(self, path: str) -> list[str]:
        """Return the names of the folders in a folder."""
        ...


class FolderStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self._root, self.name = root, str(root)

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return a file's content; see `Store`."""
        place = self._root
        try:
            for part in path.split("/"):
                place /= part
                found = place.lstat()
                if stat.S_ISLNK(found.st_mode):
                    raise InputError(f"{place} is a symbolic link; replay buffers are read without following any.")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{place} is no regular file; it is refused.")
        if found.st_size > bytes_max:
            raise InputError(
                f"{place} has {found.st_size} bytes, where at most {bytes_max} are expected; it is refused."
            )
        return place.read_bytes()

    def groups(self, path: str) -> list[str]:
        """Return the names of the folders in a folder; a link counts as one, and is refused when it is read."""
        place = self._root / path
        return sorted(p.name for p in place.iterdir() if p.is_symlink() or p.is_dir()) if place.is_dir() else []


class ZipStore:
    """A zip, whose replay buffer may lie at its top or in one folder."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DamageError(f"{path} cannot be read as a zip: {_short(error)}; fetch it again.") from error
        names = self._zip.namelist()
        if len(names) > MEMBERS_MAX:
            raise InputError(f"{path} has {len(names)} members, more than {MEMBERS_MAX}; it is refused.")
        tops = {name.removesuffix(MARK) for name in names if name == MARK or name.endswith(f"/{MARK}")}
        self._top = tops.pop() if len(tops) == 1 else ""
        self._groups: dict[str, set[str]] = {}
        for name in names:
            if name.startswith(self._top):
                first, _, rest = name.removeprefix(self._top).partition("/")
                self._groups.setdefault(first, set()).update([rest.partition("/")[0]] if "/" in rest else [])

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return a member's content; see `Store`."""
        try:
            member = self._zip.getinfo(self._top + path)
        except KeyError:
            return None
        where = f"{self.name}, {member.filename[:200]},"
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or member.flag_bits & ENCRYPTED:
            raise InputError(f"{where} is no plain file; it is refused.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{where} is packed by method {member.compress_type}, which is not on the allow-list.")
        if member.file_size > bytes_max:
            raise InputError(
                f"{where} has {member.file_size} bytes, where at most {bytes_max} are expected; it is refused."
            )
        try:
            with self._zip.open(member) as file:
                return file.read(bytes_max)
        except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise DamageError(f"{where} cannot be read: {_short(error)}; fetch it again.") from error

    def groups(self, path: str) -> list[str]:
        """Return the names of the folders in a folder at the top."""
        return sorted(self._groups.get(path, ()))


def open_store(source: Path) -> Store:
    """Open a replay buffer's folder or zip.

    Raises:
        InputError: neither is there, or it holds no replay buffer.
        DamageError: the zip cannot be read.
    """
    if source.is_dir():
        store: Store = FolderStore(source)
    elif source.is_file():
        store = ZipStore(source)
    else:
        raise InputError(f"Expected a replay buffer, a Zarr folder or zip, at {source}, but there is none.")
    if store.read(MARK, 1 << 20) is None:
        if store.read("zarr.json", 1 << 20) is not None:
            raise InputError(f"{source} is Zarr v3; replay buffers of diffusion_policy and UMI are v2.")
        raise InputError(f"Expected a replay buffer with `data` and `meta/episode_ends`, {source} has none.")
    return store


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:100].rstrip(". ")
