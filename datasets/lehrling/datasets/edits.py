"""Edits that are records alone: delete, restore, label, undo. Files of sealed episodes never change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from lehrling.datasets import inventory
from lehrling.datasets.edit_log import Edit, edit_log, next_number
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.files import ID
from lehrling.datasets.manifest import EditMark, EpisodeRecord
from lehrling.datasets.where import Where

if TYPE_CHECKING:
    from lehrling.datasets.dataset import Dataset

Outcome = Literal["success", "failure", "unknown"]
LABELS = ("outcome", "task", "instruction")
CHARACTERS_MAX = 4096
TAGS_MAX = 64
GONE = ("purged", "quarantined")
"""Statuses that no undo changes."""


@dataclass(frozen=True)
class EditReport:
    """What an edit did.

    Attributes:
        number: of the edit; 0 if there was nothing to change.
        changed: ids whose record changed; `made`: ids that are new.
        skipped: ids that stay as they are, with the reason.
    """

    verb: str
    number: int
    changed: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    words: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "verb": self.verb,
            "number": self.number or None,
            "changed": list(self.changed),
            "made": list(self.made),
            "skipped": self.skipped,
            "words": self.words,
        }


@dataclass(frozen=True)
class Labels:
    """New words for episodes; None leaves what is there.

    Raises:
        InputError: an outcome or a tag is none, or a text is too long.
    """

    outcome: Outcome | None = None
    task: str | None = None
    instruction: str | None = None
    tag: tuple[str, ...] = ()
    untag: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.outcome is not None and self.outcome not in get_args(Outcome):
            raise InputError(f"Expected the outcome {', '.join(get_args(Outcome))}, got {self.outcome!r}.")
        for name in ("task", "instruction"):
            if len(getattr(self, name) or "") > CHARACTERS_MAX:
                raise InputError(f"Expected a {name} of at most {CHARACTERS_MAX} characters.")
        for word in self.tag:
            if not ID.fullmatch(word):
                raise InputError(f"Expected a tag of letters, digits, '_', '-' and '.', got {word[:80]!r}.")
        if not (self.tag or self.untag or any(getattr(self, name) is not None for name in LABELS)):
            raise InputError("Expected an outcome, a task, an instruction or a tag to label with, got none.")

    @property
    def words(self) -> str:
        """The labels for people."""
        given = [f"{name} {getattr(self, name)!r}" for name in LABELS if getattr(self, name) is not None]
        return ", ".join([*given, *(f"tag {t}" for t in self.tag), *(f"untag {t}" for t in self.untag)])

    def put_on(self, record: EpisodeRecord) -> EpisodeRecord:
        """Return the record with these labels; `sealed_as` remembers what they replace."""
        new = {name: getattr(self, name) for name in LABELS if getattr(self, name) is not None}
        sealed = {name: getattr(record, name) for name in LABELS} | record.sealed_as
        words = {name: getattr(record, name) for name in LABELS} | new
        tags = tuple(sorted((set(record.tags) | set(self.tag)) - set(self.untag)))
        if len(tags) > TAGS_MAX:
            raise InputError(f"Expected at most {TAGS_MAX} tags on {record.id}, got {len(tags)}.")
        changed = {name: value for name, value in sealed.items() if value != words[name]}
        return replace(record, **words, tags=tags, sealed_as=changed)


def select(dataset: Dataset, ids: Sequence[str], where: Where | None, status: Sequence[str]) -> list[EpisodeRecord]:
    """Return the records of the ids, or of all episodes of a status that a filter passes.

    Raises:
        InputError: both or neither were given, an id is unknown or of another status, or no episode passes.
    """
    if bool(ids) == bool(where):
        raise InputError("Expected episode ids or a filter (--where), one of both; `lehrling inspect` lists the ids.")
    if where is None:
        return [_named(dataset, name, status) for name in dict.fromkeys(ids)]
    found = [r for r in dataset.records.values() if r.status in status and where.matches(r)]
    if not found:
        raise InputError(f"No {' or '.join(status)} episode of {dataset.root} passes the filter {where.text!r}.")
    return found


def _named(dataset: Dataset, name: str, status: Sequence[str]) -> EpisodeRecord:
    record = dataset.records.get(name)
    if record is None:
        raise InputError(f"There is no episode {name!r} in {dataset.root}; `lehrling inspect` lists them.")
    if record.status not in status:
        reason = f" ({record.reason})" if record.reason else ""
        raise InputError(f"Expected an episode that is {' or '.join(status)}, but {name!r} is {record.status}{reason}.")
    return record


def commit(dataset: Dataset, verb: str, records: Sequence[EpisodeRecord], words: str, undoes: int = 0) -> int:
    """Write an edit's lines, which come into force together; return its number."""
    number, at = next_number(dataset.root), datetime.now(UTC).isoformat(timespec="seconds")
    marks = [EditMark(number, verb, part, len(records), undoes, words, at) for part in range(1, len(records) + 1)]
    dataset.commit_edit([replace(record, edit=mark) for record, mark in zip(records, marks, strict=True)])
    return number


def delete(dataset: Dataset, records: Sequence[EpisodeRecord], reason: str = "") -> EditReport:
    """Take episodes out; their files stay, for `restore`, `undo` and snapshots, until `purge`."""
    told = reason or "deleted on request"
    words = counted("deleted", records) + (f": {reason}" if reason else "")
    number = commit(dataset, "delete", [replace(r, status="deleted", reason=told) for r in records], words)
    return EditReport("delete", number, _ids(records), words=words)


PURGEABLE = ("sealed", "discarded", "quarantined", "deleted", "replaced")
RESTORABLE = ("deleted", "discarded", "quarantined", "replaced")


def restore(dataset: Dataset, records: Sequence[EpisodeRecord]) -> EditReport:
    """Make deleted, discarded, replaced or quarantined episodes valid again, if their files are as they were sealed.

    Raises:
        InputError: an episode was never sealed, or others that are valid, or to be restored too, hold rows of it.
        DamageError: its files are not as they were sealed.
    """
    for record in records:
        _restorable(dataset, record, set(_ids(records)))
    words = counted("restored", records)
    number = commit(dataset, "restore", [replace(r, status="sealed", reason="") for r in records], words)
    return EditReport("restore", number, _ids(records), words=words)


def _restorable(dataset: Dataset, record: EpisodeRecord, together: set[str]) -> None:
    if not record.content_hash:
        raise InputError(f"Episode {record.id!r} was never sealed ({record.reason}); there is nothing to restore.")
    heirs = [r.id for r in children(dataset, record.id) if r.status == "sealed"]
    if record.status == "replaced" and heirs:
        raise InputError(f"Episode {record.id!r} was replaced by {', '.join(heirs)}; delete these first, or undo.")
    for name in relatives(dataset, record.id):
        if name in together:
            raise InputError(
                f"Expected episodes without rows in common, got {record.id!r} and {name!r}; restore one of them."
            )
        if dataset.records[name].status == "sealed":
            raise InputError(
                f"Episode {name!r}, which is valid, holds rows of {record.id!r} too; delete it first, or undo."
            )
    if found := inventory.problems(dataset.root / "episodes" / record.id, record.content_hash):
        raise DamageError(f"Episode {record.id!r} is not as it was sealed: {found[0]}; it stays {record.status}.")


def children(dataset: Dataset, name: str) -> list[EpisodeRecord]:
    """Return the episodes that were cut from one and are not purged, those cut from these included."""
    family, found = {name}, list[EpisodeRecord]()
    while heirs := [r for r in dataset.records.values() if r.parent and r.parent.id in family and r.id not in family]:
        family |= {record.id for record in heirs}
        found += heirs
    return [record for record in found if record.status != "purged"]


def relatives(dataset: Dataset, name: str) -> list[str]:
    """Return ids of episodes that hold rows of this one too, and are not purged: those it was cut from or into."""
    found, parent = list[str](), dataset.records[name].parent if name in dataset.records else None
    while parent and parent.id in dataset.records and parent.id not in found:
        found.append(parent.id)
        parent = dataset.records[parent.id].parent
    ancestors = [one for one in found if dataset.records[one].status != "purged"]
    return ancestors + [record.id for record in children(dataset, name)]


def label(dataset: Dataset, records: Sequence[EpisodeRecord], labels: Labels) -> EditReport:
    """Put outcome, task, instruction and tags on episodes."""
    pairs = [(record, labels.put_on(record)) for record in records]
    changed = [new for old, new in pairs if new != old]
    skipped = {old.id: "is labelled so already" for old, new in pairs if new == old}
    if not changed:
        return EditReport("label", 0, skipped=skipped, words="nothing to change")
    words = f"{counted('labelled', changed)}: {labels.words}"
    return EditReport("label", commit(dataset, "label", changed, words), _ids(changed), skipped=skipped, words=words)


def undo(dataset: Dataset) -> EditReport:
    """Take the last edit back that is in force; what was purged or quarantined since stays so.

    Episodes that the edit made are deleted: they stay on disk until they are purged.

    Raises:
        InputError: there is none, or one after it that cannot be taken back has changed the same episodes.
    """
    skipped: dict[str, str] = {}
    kept: dict[str, Edit] = {}
    for edit in reversed(edit_log(dataset.root)):
        if edit.verb in ("undo", "purge") or edit.undone_by:
            continue
        if later := next((kept[name] for name in edit.ids if name in kept), None):
            raise InputError(
                f"Edit number {edit.number} ({edit.words}) cannot be taken back under number {later.number} "
                f"({later.words}), which stays in force, as some of its episodes are gone."
            )
        lines = _lines_before(dataset, edit, skipped)
        kept |= {name: edit for name in edit.ids if dataset.records[name].status not in GONE}
        if lines:
            words = f"took back {edit.verb} number {edit.number} ({edit.words})"
            number = commit(dataset, "undo", lines, words, edit.number)
            return EditReport("undo", number, _ids(lines), skipped=skipped, words=words)
    told = "".join(f"; {name} {reason}" for name, reason in list(skipped.items())[:1])
    raise InputError(f"There is no edit left in {dataset.root} that can be taken back{told}.")


def _lines_before(dataset: Dataset, edit: Edit, skipped: dict[str, str]) -> list[EpisodeRecord]:
    """Return what the manifest has to say for an edit to be undone; nothing, if it cannot be."""
    now = {name: dataset.records[name] for name in edit.ids}
    gone = {name: f"stays {record.status}" for name, record in now.items() if record.status in GONE}
    skipped |= gone
    if edit.verb in ("trim", "split") and any(edit.before[name] is not None for name in gone):
        return []
    return [_before(edit, name, now[name]) for name in edit.ids if name not in gone]


def _before(edit: Edit, name: str, now: EpisodeRecord) -> EpisodeRecord:
    before = edit.before[name]
    return (
        before.record()
        if before
        else replace(now, status="deleted", reason=f"{edit.verb} number {edit.number} was taken back")
    )


def _ids(records: Sequence[EpisodeRecord]) -> tuple[str, ...]:
    return tuple(record.id for record in records)


def counted(done: str, records: Sequence[EpisodeRecord]) -> str:
    """Return what was done to how many episodes, or to which one."""
    return f"{done} {records[0].id}" if len(records) == 1 else f"{done} {len(records)} episodes"
