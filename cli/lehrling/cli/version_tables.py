"""Tables of edits, snapshots and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lehrling.datasets.edit_log import Edit
    from lehrling.datasets.snapshot_diff import VersionDiff
    from lehrling.datasets.snapshots import Snapshot

IDS_SHOWN = 20


def log_table(edits: Sequence[Edit]) -> Table:
    """Return the edits as a table."""
    table = Table("edit", "what", "episodes", "when (UTC)", "")
    for edit in edits:
        state = f"taken back by {edit.undone_by}" if edit.undone_by else "for good" if edit.verb == "purge" else ""
        number = str(edit.number) if edit.number else "–"
        table.add_row(number, Text(edit.words or edit.verb), str(len(edit.ids)), _minute(edit.at), state)
    return table


def snapshots_table(snapshots: Iterable[Snapshot]) -> Table:
    """Return snapshots as a table."""
    table = Table("snapshot", "episodes", "hash", "filter", "made (UTC)")
    for snapshot in snapshots:
        table.add_row(
            snapshot.name,
            str(len(snapshot.episodes)),
            snapshot.hash[:12],
            Text(snapshot.where),
            _minute(snapshot.made_at),
        )
    return table


def diff_table(diff: VersionDiff) -> Table:
    """Return the differences of two versions as a table."""
    table = Table("what", "episode", "how", title=f"{diff.a} → {diff.b}")
    rows = [("added", name, "") for name in diff.added]
    rows += [("removed", name, f"{status} now") for name, status in diff.removed.items()]
    rows += [("trimmed", name, f"into {', '.join(heirs)}") for name, heirs in diff.trimmed.items()]
    for name, words in diff.relabelled.items():
        rows += [("relabelled", name, f"{key}: {_word(old)} → {_word(new)}") for key, (old, new) in words.items()]
    rows += [("changed", name, "its content is another") for name in diff.changed]
    for what, name, how in rows:
        table.add_row(what, name, Text(how))
    table.add_row("same", str(diff.same), "")
    return table


def _minute(at: str) -> str:
    """Return an ISO 8601 time, which is UTC here, to the minute."""
    return at[:16].replace("T", " ")


def _word(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)
