"""A dataset card: Markdown with a YAML header, as hubs for datasets show it (Hugging Face, dataset cards)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from lehrling.datasets.errors import InputError
from lehrling.datasets.files import storage_error, write_durably
from lehrling.datasets.inspect import summarise
from lehrling.datasets.snapshots import now, read_snapshot, snapshot_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.inspect import DatasetSummary
    from lehrling.datasets.manifest import EpisodeRecord

NAME = "README.md"
MARK = "<!-- Written by `lehrling card`; written again by it. -->"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
"""The hub's size categories; an example is a camera frame, or a row where there is no camera."""
INSTRUCTIONS_SHOWN = 20


@dataclass(frozen=True)
class CardWords:
    """What a dataset does not know of itself: licence (an SPDX name in small letters, as hubs want it), title, summary."""

    licence: str = "unknown"
    title: str = ""
    summary: str = ""


def write_card(dataset: Dataset, words: CardWords, path: Path | None = None) -> Path:
    """Write the card, by default as README.md into the dataset, and return where.

    Raises:
        InputError: a file is there that no card was written to, or the dataset has no episodes.
        StorageError: it cannot be written.
    """
    target = path or dataset.root / NAME
    if target.exists() and MARK not in target.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{target} was not written by `lehrling card`, so it is left alone; name another with --out.")
    text = card(dataset, words)
    try:
        write_durably(target, text.encode())
    except OSError as error:
        raise storage_error(error, target) from error
    return target


def card(dataset: Dataset, words: CardWords) -> str:
    """Return the card.

    Raises:
        InputError: the dataset has no sealed episodes.
    """
    records = [record for record in dataset.records.values() if record.status == "sealed"]
    if not records:
        raise InputError(f"Expected sealed episodes to describe in {dataset.root}, got none.")
    facts, title = summarise(dataset), words.title or dataset.root.resolve().name
    parts = [
        f"---\n{yaml.safe_dump(_header(facts, words, title), sort_keys=False, allow_unicode=True)}---",
        MARK,
        f"# {_plain(title)}",
        *([words.summary] if words.summary else []),
        "Demonstrations of robots, recorded with Lehrling: one Zarr v3 group an episode, every value with its stamps.",
        _size(facts),
        "## Tasks",
        _tasks(records),
        "## Robots and streams",
        _streams(dataset, records, facts),
        "## Collection",
        _collection(records),
        "## Reading",
        _reading(),
        "## Versions and hashes",
        _hashes(dataset, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _header(facts: DatasetSummary, words: CardWords, title: str) -> dict[str, object]:
    count = facts.frames or facts.rows
    size = next((name for limit, name in SIZES if count < limit), "n>10M")
    return {
        "license": words.licence,
        "pretty_name": title,
        "task_categories": ["robotics"],
        "size_categories": [size],
        "tags": ["robotics", "lehrling", "zarr", *sorted(filter(None, {*facts.robots, *facts.tasks}))],
    }


def _size(facts: DatasetSummary) -> str:
    return _table(
        ("episodes", "camera frames", "rows", "hours", "size"),
        [(facts.episodes, facts.frames, facts.rows, f"{facts.duration_s / 3600:.3g}", f"{facts.bytes / 1e6:.1f} MB")],
    )


def _tasks(records: Sequence[EpisodeRecord]) -> str:
    rows = []
    for task in sorted({record.task for record in records}):
        mine = [record for record in records if record.task == task]
        outcomes = Counter(record.outcome for record in mine)
        seconds = sum(record.duration_s for record in mine)
        rows.append((task, len(mine), *(outcomes[o] for o in ("success", "failure", "unknown")), f"{seconds:.1f} s"))
    instructions = Counter(record.instruction for record in records if record.instruction)
    shown = [f"- {_plain(text)} ({count})" for text, count in instructions.most_common(INSTRUCTIONS_SHOWN)]
    rest = len(instructions) - len(shown)
    told = "\n".join(["Instructions:", "", *shown, *([f"- and {rest} more"] if rest > 0 else [])]) if shown else ""
    return _table(("task", "episodes", "success", "failure", "unknown", "length"), rows) + (
        f"\n\n{told}" if told else ""
    )


def _streams(dataset: Dataset, records: Sequence[EpisodeRecord], facts: DatasetSummary) -> str:
    parts = []
    for contract_hash in facts.contracts:
        record = next(record for record in records if record.contract_hash == contract_hash)
        contract = dataset.episode_of(record).contract
        robots = sorted({r.robot for r in records if r.contract_hash == contract_hash})
        rows = [
            (
                s.name,
                s.role,
                s.kind,
                "×".join(map(str, s.shape)) or "1",
                s.unit,
                f"{facts.rates_hz.get(s.name, 0):g} Hz",
            )
            for s in contract.all_streams
        ]
        head = f"Contract `{contract_hash[:12]}`: {', '.join(robots)}; {facts.contracts[contract_hash]} episodes"
        parts.append(f"{_plain(head)}\n\n{_table(('stream', 'role', 'kind', 'shape', 'unit', 'rate'), rows)}")
    return "\n\n".join(parts)


def _collection(records: Sequence[EpisodeRecord]) -> str:
    times = sorted(record.written_at for record in records if record.written_at)
    lossy = [record for record in records if record.losses]
    cut = [record for record in records if record.parent]
    relabelled = [record for record in records if record.sealed_as]
    facts = [
        ("origin", _counts(record.origin for record in records)),
        ("sealed", f"{times[0]} to {times[-1]}" if times else "unknown"),
        ("operators (pseudonyms)", len({record.operator for record in records if record.operator})),
        ("stations (bindings)", len({record.binding_hash for record in records})),
        ("ended by", _counts(record.stop_cause for record in records)),
        ("episodes with losses", len(lossy)),
        ("cut from others", len(cut)),
        ("labelled after sealing", len(relabelled)),
        ("tags", _counts(tag for record in records for tag in record.tags)),
        ("written by lehrling-datasets", _counts(record.code_version for record in records)),
    ]
    return _table(("fact", "value"), facts)


def _reading() -> str:
    return (
        "```python\nfrom lehrling.datasets.dataset import Dataset\n\n"
        'dataset = Dataset.open("path/of/this/folder")\nepisode = dataset.episodes()[0]\n```\n\n'
        "`lehrling verify` compares every file with its checksum. Plain zarr reads it too, once `lehrling-datasets` is "
        "installed for the image codec."
    )


def _hashes(dataset: Dataset, facts: DatasetSummary) -> str:
    rows: list[tuple[object, ...]] = [("now", facts.episodes, f"`{now(dataset).hash}`")]
    for name in snapshot_names(dataset.root):
        snapshot = read_snapshot(dataset.root, name)
        rows.append((name, len(snapshot.episodes), f"`{snapshot.hash}`"))
    contracts = [(f"`{name}`", count) for name, count in facts.contracts.items()]
    return _table(("version", "episodes", "sha256"), rows) + "\n\n" + _table(("contract", "episodes"), contracts)


def _counts(values: Iterable[str]) -> str:
    found = Counter(value for value in values if value)
    return ", ".join(f"{value} {count}" for value, count in found.most_common()) or "none"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_plain(str(cell)) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return text on one line that neither ends a table's cell nor opens a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
