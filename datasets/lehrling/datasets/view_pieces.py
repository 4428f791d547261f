"""Episodes' parts of a view as files: made anywhere, by several workers at once; what is there already is not made again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError
from lehrling.datasets.files import checked_id, fsync_tree, sha256_file, storage_error
from lehrling.datasets.view_layout import resolve
from lehrling.datasets.view_parts import Part, new_part
from lehrling.datasets.view_rows import EpisodeRows
from lehrling.datasets.view_spec import ViewSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lehrling.datasets.manifest import EpisodeRecord

ROWS, DONE, META_BYTES_MAX = "rows.npz", "done.json", 1 << 20
NUMBERS = ("stamp_ns", "state", "action", "age_ns", "valid")


@dataclass(frozen=True)
class PieceJob:
    """One episode's part: what a worker needs to know, as plain data."""

    root: str
    folder: str
    episode: str
    content_hash: str
    spec_json: str


def pieces_folder(directory: Path, spec: ViewSpec) -> Path:
    """Return where the pieces of the view in `directory` lie while it is built."""
    return directory.with_name(f".{directory.name}.{spec.hash[:16]}.pieces")


def piece_path(folder: Path, episode: str, content_hash: str) -> Path:
    """Return where an episode's piece lies."""
    return folder / f"{checked_id(episode)}@{content_hash[:32]}"


def make_piece(job: PieceJob) -> None:
    """Align an episode and resize its images, unless that was done.

    Raises:
        DamageError: the episode cannot be read.
        StorageError: the disk is full or failed.
    """
    target = piece_path(Path(job.folder), job.episode, job.content_hash)
    if (target / DONE).is_file():
        return
    dataset = Dataset.open(job.root)
    record = dataset.records[job.episode]
    spec = ViewSpec.model_validate_json(job.spec_json)
    part = new_part(dataset, record, resolve(dataset.episode_of(record).contract, spec))
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, part)
        fsync_tree(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, part: Part) -> None:
    rows, arrays = part.rows, {}
    for name in NUMBERS:
        arrays[name] = getattr(rows, name)
    for camera, frames in rows.frames.items():
        arrays[f"frames/{camera}"] = frames
        lengths = []
        with (folder / f"{camera}.jpegs").open("wb") as file:
            for jpeg in part.jpegs(camera) if not rows.reason else ():
                file.write(jpeg)
                lengths.append(len(jpeg))
        arrays[f"lengths/{camera}"] = np.array(lengths, np.int64)
    np.savez(folder / ROWS, **arrays)
    hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    facts = {"reason": rows.reason, "cameras": list(rows.frames), "sha256": hashes}
    (folder / DONE).write_text(json.dumps(facts), encoding="utf-8")


def read_piece(folder: Path, record: EpisodeRecord) -> Part:
    """Return a piece as the part that `new_part` would give.

    Raises:
        DamageError: it is not what was written; it is removed, so that the next build makes it again.
    """
    directory = piece_path(folder, record.id, record.content_hash)
    try:
        facts = read_json(directory / DONE, "piece of a view", bytes_max=META_BYTES_MAX)
        for name, wanted in facts["sha256"].items():
            if Path(name).name != name or sha256_file(directory / name) != wanted:
                raise ValueError(f"{name} has other content")
        with np.load(directory / ROWS, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, KeyError, TypeError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise DamageError(f"{directory} is damaged ({error}); build the view again.") from error
    cameras = [str(camera) for camera in facts["cameras"]]
    rows = EpisodeRows(
        arrays["stamp_ns"],
        arrays["state"],
        arrays["action"],
        {camera: arrays[f"frames/{camera}"] for camera in cameras},
        arrays["age_ns"],
        arrays["valid"],
        str(facts["reason"]),
    )

    def jpegs(camera: str) -> Iterator[bytes]:
        with (directory / f"{camera}.jpegs").open("rb") as file:
            for length in arrays[f"lengths/{camera}"].tolist():
                yield file.read(length)

    return Part(record, rows, {camera: len(arrays[f"lengths/{camera}"]) for camera in cameras}, jpegs)
