"""Tar archives of one form only: regular files, no compression, every header as this module writes it.

Whatever else a tar can say (links, devices, owners, sparse files, names in other blocks, something behind its end) is
refused, so that every byte of an archive follows from the files in it.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO

from lehrling.datasets.errors import DamageError

BLOCK = 512
END = bytes(2 * BLOCK)
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def header(name: str, size: int) -> bytes:
    """Return the header of a regular file (512 bytes); `name` has at most 100 ASCII characters."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def padding(size: int) -> bytes:
    """Return the zeros that fill a file's last block."""
    return bytes(-size % BLOCK)


class TarReader:
    """Reads an archive file by file, in the order in which they are expected."""

    def __init__(self, file: IO[bytes], where: Path) -> None:
        self._file, self._where = file, where

    def first(self, name: str, size_max: int) -> bytes:
        """Return the content of a file that comes next and is small.

        Raises:
            DamageError: something else comes, or it is larger.
        """
        block = self._file.read(BLOCK)
        try:
            size = tarfile.TarInfo.frombuf(block, "ascii", "strict").size
        except (tarfile.TarError, ValueError) as error:
            raise DamageError(
                f"{self._where} is no bundle: expected a tar without compression that begins with {name}."
            ) from error
        if size > size_max or block != header(name, size):
            raise self._other(block, name)
        content = self._file.read(size)
        self.end_of_file(size)
        return content

    def expect(self, name: str, size: int) -> None:
        """Go to a file's content.

        Raises:
            DamageError: something else comes; the message says what.
        """
        block = self._file.read(BLOCK)
        if block != header(name, size):
            raise self._other(block, name)

    def read(self, size: int) -> bytes:
        """Return at most so many bytes of the content."""
        return self._file.read(size)

    def end_of_file(self, size: int) -> None:
        """Pass over what fills the last block of a file.

        Raises:
            DamageError: it is not zeros.
        """
        zeros = padding(size)
        if self._file.read(len(zeros)) != zeros:
            raise DamageError(f"{self._where} was changed or cut within its padding; do not use it, get it again.")

    def end(self) -> None:
        """Check that nothing comes any more.

        Raises:
            DamageError: something does.
        """
        block = self._file.read(BLOCK)
        if block != END[:BLOCK] or self._file.read(BLOCK) != END[BLOCK:] or self._file.read(1):
            raise self._other(block, "")

    def _other(self, block: bytes, name: str) -> DamageError:
        wanted = f"{name} was expected" if name else "nothing more was expected"
        try:
            found = tarfile.TarInfo.frombuf(block, "ascii", "replace")
        except (tarfile.TarError, ValueError):
            came = "the archive ends" if not block.strip(b"\0") else "no header of a file came"
            return DamageError(f"{self._where}: {wanted}, but {came}; do not use it, get it again.")
        kind = _KINDS.get(found.type, "a file" if found.isreg() else "an extended header")
        came = f"{kind} named {found.name[:100]!r} of {found.size} bytes came"
        return DamageError(f"{self._where}: {wanted}, but {came}; do not use it, get it again.")
