"""Errors that a user sees: one or two sentences, and the command's exit code."""

from __future__ import annotations

from typing import ClassVar


class LehrlingError(Exception):
    """An error whose message says what was expected, what came, where, and what to do."""

    exit_code: ClassVar[int] = 1


class InputError(LehrlingError):
    """What was given cannot be used."""

    exit_code: ClassVar[int] = 2


class DocumentError(InputError, ValueError):
    """A file or text is not the JSON or YAML that it should be; a ValueError, as those of the parsers are."""


class MessageError(InputError):
    """A message does not fit the contract.

    Attributes:
        cause: why, in two or three words, as an episode's stop cause says it.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class ContractError(InputError):
    """Two contracts differ."""


class DamageError(LehrlingError):
    """Stored data is damaged."""


class LockedError(InputError):
    """Another process is writing."""


class StorageError(InputError):
    """Writing failed: no space, no permission, or a broken disk; where to write was given, so it is input."""
