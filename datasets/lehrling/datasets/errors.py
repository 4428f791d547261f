"""Errors that a user sees: one or two sentences, and the command's exit code."""

from __future__ import annotations

from typing import ClassVar


class LehrlingError(Exception):
    """An error whose message says what was expected, what came, where, and what to do."""

    exit_code: ClassVar[int] = 1


class InputError(LehrlingError):
    """What was given cannot be used."""

    exit_code: ClassVar[int] = 2


class ContractError(InputError):
    """Two contracts differ."""


class DamageError(LehrlingError):
    """Stored data is damaged."""


class LockedError(InputError):
    """Another process is writing."""


class StorageError(LehrlingError):
    """Writing failed: no space, no permission, or a broken disk."""
