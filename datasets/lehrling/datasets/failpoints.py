"""Named places where a test may kill the process, to prove that nothing is lost there."""

from __future__ import annotations

import os
import signal

VARIABLE = "LEHRLING_KILL_AT"


PLACES = (
    "journal-begin",
    "journal-begun",
    "journal-file",
    "journal-write",
    "journal-flush",
    "journal-sync",
    "journal-closed",
    "journal-end",
    "journal-ended",
    "seal-written",
    "seal-synced",
    "seal-renamed",
    "commit",
    "manifest-torn",
    "manifest-append",
    "committed",
    "purge-noted",
)

EDIT_PLACES = (
    "edit-planned",
    "edit-written",
    "edit-synced",
    "edit-renamed",
    "edit-commit",
    "manifest-torn",
    "edit-torn",
    "manifest-append",
    "edit-committed",
)
"""Places on the way of an edit; one that makes no files passes those from `edit-commit` on."""

_passed = 0


def reached(name: str) -> bool:
    """Whether the environment names this place, as `journal-write`, or this passing of it, as `journal-write:200`."""
    global _passed  # noqa: PLW0603
    place, _, wanted = os.environ.get(VARIABLE, "").partition(":")
    if place != name:
        return False
    _passed += 1
    return _passed >= int(wanted or 1)


def die() -> None:
    """Die as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def reach(name: str) -> None:
    """Die where the environment names this place; otherwise do nothing."""
    if reached(name):
        die()
