"""Disks that are soon full, for tests of what happens then."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(mount: Path, megabytes: int) -> Iterator[Path]:
    """Mount a tmpfs of so many MiB for the block; skip the test where that cannot be done."""
    mount.mkdir()
    tool = shutil.which("mount")
    command = [tool or "true", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, check=False)
    if tool is None or done.returncode != 0 or not os.path.ismount(mount):
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def remount(mount: Path, options: str) -> None:
    """Change a disk's size (`size=64m`) or make it read-only (`ro`)."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(mount)], check=True)
