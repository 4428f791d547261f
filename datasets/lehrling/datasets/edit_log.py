"""The edits of a dataset, as its manifest tells them, and what each changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lehrling.datasets.files import MANIFEST
from lehrling.datasets.manifest import Said, units

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        number: edits count from 1; a purge has 0, since nothing takes it back.
        verb: delete, restore, label, trim, split, merge, undo or purge.
        words: what was done, for people.
        at: when, ISO 8601.
        undoes: the edit that an undo took back, otherwise 0; `undone_by`: the other way round.
        before: what the manifest said of each episode that it changed; None for one that it made.
    """

    number: int
    verb: str
    words: str
    at: str
    undoes: int
    before: dict[str, Said | None]
    undone_by: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """The episodes that it changed or made."""
        return tuple(self.before)

    @property
    def made(self) -> tuple[str, ...]:
        """The episodes that it made."""
        return tuple(name for name, said in self.before.items() if said is None)

    def to_json(self) -> dict[str, Any]:
        """Return the edit for `--json`."""
        return {
            "number": self.number,
            "verb": self.verb,
            "words": self.words,
            "at": self.at,
            "episodes": list(self.ids),
            "undoes": self.undoes or None,
            "undone_by": self.undone_by or None,
        }


def edit_log(root: Path) -> list[Edit]:
    """Return all edits, oldest first."""
    state, edits = dict[str, Said](), list[Edit]()
    for unit, _ in units(root / MANIFEST):
        before = {said.id: state.get(said.id) for said in unit}
        state |= {said.id: said for said in unit}
        first = unit[0]
        if first.edit is not None:
            mark = first.edit
            edits.append(Edit(mark.number, mark.verb, mark.words, mark.at, mark.undoes, before))
        elif first.status == "purged" and _status(before[first.id]) != "purged":
            edits.append(Edit(0, "purge", f"purged {first.id}", first.written_at, 0, before))
    undone = {edit.undoes: edit.number for edit in edits if edit.undoes}
    return [_marked(edit, undone.get(edit.number, 0)) for edit in edits]


def next_number(root: Path) -> int:
    """Return the number of the edit to come."""
    return max((edit.number for edit in edit_log(root)), default=0) + 1


def _status(said: Said | None) -> str:
    return said.status if said else ""


def _marked(edit: Edit, undone_by: int) -> Edit:
    if not undone_by or not edit.number:
        return edit
    return Edit(edit.number, edit.verb, edit.words, edit.at, edit.undoes, edit.before, undone_by)
