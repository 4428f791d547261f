"""Verbs about versions of a dataset: snapshot, diff, card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehrling.cli.output import Json, print_json, say, show

DatasetPath = Annotated[Path, typer.Argument(help="Dataset directory.")]


def snapshot(
    dataset: DatasetPath,
    name: Annotated[str | None, typer.Argument(help="Name of the snapshot to write.")] = None,
    where: Annotated[str, typer.Option("--where", help="Pin only what passes this filter.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="List the snapshots there are.")] = False,
    json_: Json = False,
) -> None:
    """Pin what is valid now under a name, for ever: ids, content hashes, labels."""
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.errors import InputError
    from lehrling.datasets.snapshots import take_snapshot

    opened = Dataset.open(dataset)
    if list_:
        _list(dataset, json_)
        return
    if name is None:
        raise InputError("Expected a name for the snapshot, or --list, got neither.")
    made = take_snapshot(opened, name, where)
    facts = {"snapshot": name, "episodes": len(made.episodes), "hash": made.hash, "made_at": made.made_at}
    if json_:
        print_json(facts)
    else:
        say(f"snapshot {name}: {facts['episodes']} episodes, hash {made.hash[:12]}")


def _list(dataset: Path, json_: bool) -> None:
    from lehrling.datasets.snapshots import read_snapshot, snapshot_names

    found = [read_snapshot(dataset, name) for name in snapshot_names(dataset)]
    if json_:
        keys = ("name", "hash", "made_at", "where", "contract_hashes")
        print_json([{key: s.to_json()[key] for key in keys} | {"episodes": len(s.episodes)} for s in found])
        return
    from lehrling.cli.version_tables import snapshots_table

    show(snapshots_table(found))


def diff(
    dataset: DatasetPath,
    a: Annotated[str, typer.Argument(help="A snapshot, or `now`.")],
    b: Annotated[str, typer.Argument(help="A snapshot, or `now`.")] = "now",
    json_: Json = False,
) -> None:
    """Tell what was added, removed, relabelled and trimmed from one version to another."""
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.snapshot_diff import version_diff

    found = version_diff(Dataset.open(dataset), a, b)
    if json_:
        print_json(found.to_json())
        return
    from lehrling.cli.version_tables import diff_table

    show(diff_table(found))


def card(
    dataset: DatasetPath,
    licence: Annotated[str, typer.Option("--license", help="As hubs name it: apache-2.0, cc-by-4.0 …")] = "unknown",
    title: Annotated[str, typer.Option("--title", help="Title; the directory's name without one.")] = "",
    summary: Annotated[str, typer.Option("--summary", help="A paragraph on what it is for.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="File to write; README.md in the dataset without.")] = None,
    json_: Json = False,
) -> None:
    """Write a dataset card: size, tasks, robots, rates, outcomes, collection, hashes."""
    from lehrling.datasets.card import CardWords, write_card
    from lehrling.datasets.dataset import Dataset

    path = write_card(Dataset.open(dataset), CardWords(licence, title, summary), out)
    if json_:
        print_json({"card": str(path)})
    else:
        say(f"card written to {path}")


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    for verb in (snapshot, diff, card):
        app.command(verb.__name__)(verb)
