"""What repairing and verifying a dataset found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RepairReport:
    """What a repair did.

    Attributes:
        sealed: interrupted recordings that are episodes now; `losses` say what they miss.
        discarded: interrupted simulations and imports, which their seed or source gives again.
        quarantined: what cannot be read, with the reason; nothing of it is deleted.
        mended: torn lines cut and leftovers removed.
    """

    sealed: tuple[str, ...] = ()
    discarded: tuple[str, ...] = ()
    quarantined: dict[str, str] | None = None
    mended: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()

    @property
    def lossy(self) -> bool:
        """Whether something recorded could not be saved."""
        return bool(self.losses or self.quarantined)

    def merged(self, later: RepairReport) -> RepairReport:
        """Return both reports as one."""
        return RepairReport(
            self.sealed + later.sealed,
            self.discarded + later.discarded,
            (self.quarantined or {}) | (later.quarantined or {}),
            self.mended + later.mended,
            self.losses + later.losses,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "sealed": list(self.sealed),
            "discarded": list(self.discarded),
            "quarantined": self.quarantined or {},
            "mended": list(self.mended),
            "losses": list(self.losses),
        }


@dataclass
class RepairOutcome:
    """A repair in the making."""

    sealed: list[str] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found: problems by episode id; `unfinished` are journals."""

    episodes: int
    files: int
    bytes: int
    problems: dict[str, list[str]]
    unfinished: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every sealed episode is as it was sealed."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "whole": self.whole,
            "episodes": self.episodes,
            "files": self.files,
            "bytes": self.bytes,
            "problems": self.problems,
            "unfinished": list(self.unfinished),
        }
