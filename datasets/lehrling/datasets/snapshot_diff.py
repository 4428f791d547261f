"""What differs between two versions of a dataset."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lehrling.datasets.snapshots import NOW, now, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.snapshots import Snapshot, SnapshotEpisode

LABELS = ("outcome", "task", "instruction", "tags")


@dataclass(frozen=True)
class VersionDiff:
    """Differences from one version to another.

    Attributes:
        added, removed: ids; `removed` with what the manifest says of them now.
        relabelled: per id and label, what it was and what it is.
        trimmed: per id that was trimmed or split, the ids that stand in its place.
        changed: ids whose content is another; no edit of ours does that.
        same: how many episodes are in both without any difference.
    """

    a: str
    b: str
    a_hash: str
    b_hash: str
    added: list[str] = field(default_factory=list)
    removed: dict[str, str] = field(default_factory=dict)
    relabelled: dict[str, dict[str, tuple[object, object]]] = field(default_factory=dict)
    trimmed: dict[str, list[str]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    same: int = 0

    @property
    def equal(self) -> bool:
        """Whether both hold the same episodes under the same labels."""
        return self.a_hash == self.b_hash

    def to_json(self) -> dict[str, Any]:
        """Return the differences for `--json`."""
        return {**asdict(self), "equal": self.equal}


def version(dataset: Dataset, name: str) -> Snapshot:
    """Return the snapshot of a name, or what is valid at the moment for `now`."""
    return now(dataset) if name == NOW else read_snapshot(dataset.root, name)


def version_diff(dataset: Dataset, a: str, b: str) -> VersionDiff:
    """Compare two snapshots of a dataset, or one with `now`.

    Raises:
        InputError: there is no snapshot of such a name.
        DamageError: one is not as it was written.
    """
    old, new = version(dataset, a), version(dataset, b)
    before, after = ({e.id: e for e in snapshot.episodes} for snapshot in (old, new))
    both = [name for name in before if name in after]
    gone, come = [n for n in before if n not in after], [n for n in after if n not in before]
    lineage = _lineage(dataset, after)
    trimmed = {name: heirs for name in gone if (heirs := [heir for heir in come if name in lineage[heir]])}
    replacing = {heir for heirs in trimmed.values() for heir in heirs}
    relabelled = {n: words for n in both if (words := _relabelled(before[n], after[n]))}
    changed = [n for n in both if before[n].content_hash != after[n].content_hash]
    return VersionDiff(
        a,
        b,
        old.hash,
        new.hash,
        [name for name in come if name not in replacing],
        {name: _now(dataset, name) for name in gone if name not in trimmed},
        relabelled,
        trimmed,
        changed,
        len(set(both) - set(relabelled) - set(changed)),
    )


def _relabelled(old: SnapshotEpisode, new: SnapshotEpisode) -> dict[str, tuple[object, object]]:
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in LABELS}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _lineage(dataset: Dataset, episodes: Mapping[str, SnapshotEpisode]) -> dict[str, set[str]]:
    """Return the ids that each episode was cut from, one after the other."""
    parents = {record.id: record.parent.id for record in dataset.records.values() if record.parent}
    return {name: _ancestors(episode.parent, parents) for name, episode in episodes.items()}


def _ancestors(name: str, parents: Mapping[str, str]) -> set[str]:
    found = set[str]()
    while name and name not in found:
        found.add(name)
        name = parents.get(name, "")
    return found


def _now(dataset: Dataset, name: str) -> str:
    record = dataset.records.get(name)
    return record.status if record else "unknown"
