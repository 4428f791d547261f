"""Reading a view."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets import inventory
from lehrling.datasets.arrays import array_metadata, read_array
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.files import checked_id, refuse_links
from lehrling.datasets.view_images import Frames, Need
from lehrling.datasets.view_meta import ViewEpisode, ViewMeta, read_meta, view_key
from lehrling.datasets.view_select import selected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.manifest import EpisodeRecord
    from lehrling.datasets.representation import ActionCodec
    from lehrling.datasets.statistics import Statistics
    from lehrling.datasets.view_spec import ViewSpec


class View:
    """A materialised view: N rows at one rate, numerics in memory, images frame by frame.

    Nothing is opened before its first use, and nothing open travels to other processes, so that a view can be
    handed to forked and spawned workers.
    """

    def __init__(self, directory: Path, stale: str = "", need: Need | None = None) -> None:
        """Read the description of the view in `directory`; `open` also asks the manifest.

        `need` is called with each file before it is opened, and may bring it there.
        """
        self.directory, self.stale, self.meta, self._need = directory, stale, read_meta(directory), need
        self._frames: dict[str, Frames] = {}

    @classmethod
    def open(cls, dataset: Dataset, name: str) -> View:
        """Open a view of a dataset.

        `stale` of the result is a sentence if the episodes or the view format changed since it was built.

        Raises:
            InputError: there is none of that name, or it holds a purged or quarantined episode.
            DamageError: files are missing or cut.
        """
        view = cls(dataset.root / "views" / checked_id(name))
        refuse_links(view.directory)
        view.check(dataset, name)
        for entry in inventory.load(view.directory):
            path = view.directory / entry.path
            if not path.is_file() or path.stat().st_size != entry.size:
                raise DamageError(f"Expected {entry.size} bytes at {path}, got a missing or cut file; build it again.")
        return view

    def check(self, dataset: Dataset, name: str) -> None:
        """Compare with the manifest: set `stale`.

        Raises:
            InputError: it holds a purged or quarantined episode.
        """
        _refuse_removed(name, self.meta, dataset.records)
        self.stale = _staleness(name, self.meta, dataset)

    @property
    def spec(self) -> ViewSpec:
        """The specification, which policies carry."""
        return self.meta.spec

    @property
    def key(self) -> str:
        """The sha256 of specification, contract, episodes and format."""
        return self.meta.key

    @property
    def contract_hash(self) -> str:
        """The hash of the contract that all episodes share."""
        return self.meta.contract_hash

    @property
    def episodes(self) -> list[ViewEpisode]:
        """The episodes in row order, sorted by id."""
        return list(self.meta.episodes)

    @property
    def skipped(self) -> dict[str, str]:
        """Episodes that gave no row, and why."""
        return dict(self.meta.skipped)

    @property
    def statistics(self) -> dict[str, Statistics]:
        """Exact statistics of all valid rows, by group: state, action.

        Where actions are relative to the state at their chunk's start, `action_chunk` holds the statistics of
        chunks as `ActionCodec` encodes them; `action` itself is always of the rows as stored.
        """
        return self.meta.statistics

    @property
    def codec(self) -> ActionCodec:
        """Turns chunks of `action` into what the specification's representation asks for, and back."""
        return self.meta.codec

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's columns, `stream.element`."""
        return self.meta.state_names

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action's columns, `stream.element`."""
        return self.meta.action_names

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return self.meta.episodes[-1].stop

    @cached_property
    def state(self) -> NDArray[np.float32]:
        """The state (N, S) float32."""
        return self._array("state")

    @cached_property
    def action(self) -> NDArray[np.float32]:
        """The action (N, A) float32; NaN in rows that are not valid because nothing had come."""
        return self._array("action")

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Whether every source of a row was there and recent enough, (N,) bool."""
        return self._array("valid")

    @cached_property
    def age_ns(self) -> NDArray[np.int64]:
        """The age of every source (N, F) int64, columns as `meta.sources`; negative: newer than the row."""
        return self._array("age_ns")

    @cached_property
    def row_stamp_ns(self) -> NDArray[np.int64]:
        """The time of every row (N,) int64 on the episode's clock."""
        return self._array("row_stamp_ns")

    @cached_property
    def episode_index(self) -> NDArray[np.int64]:
        """Which of `episodes` a row is from, (N,) int64."""
        lengths = [episode.stop - episode.start for episode in self.meta.episodes]
        return np.repeat(np.arange(len(lengths)), lengths)

    def images(self, camera: str) -> Frames:
        """Return a camera's images: `len`, `[row]` -> (h, w, 3) uint8, `.batch(rows)` -> (B, h, w, 3).

        Raises:
            InputError: the view has no such camera.
        """
        if camera not in self.spec.cameras:
            raise InputError(f"Expected a camera of the view ({', '.join(self.spec.cameras)}), got {camera!r}.")
        if camera not in self._frames:
            rows = self._array(f"frame_of_row/{camera}")
            array = self.directory / "images" / camera
            self._bring(array / "zarr.json")
            height, width = array_metadata(array)["shape"][1:3]
            self._frames[camera] = Frames(array, rows, (height, width), self.meta.per_shard, self._need)
        return self._frames[camera]

    def verify(self) -> list[str]:
        """Compare every file with the inventory; return what is wrong."""
        return inventory.problems(self.directory, inventory.content_hash(inventory.load(self.directory)))

    def __getstate__(self) -> dict[str, object]:
        kept = {"directory": self.directory, "stale": self.stale, "meta": self.meta, "_need": self._need}
        return {**kept, "_frames": {}}

    def _array(self, name: str) -> NDArray[Any]:
        if self._need is not None:
            for entry in inventory.load(self.directory):
                if entry.path.startswith(f"{name}/"):
                    self._bring(self.directory / entry.path)
        return read_array(self.directory / name)

    def _bring(self, path: Path) -> None:
        if self._need is not None:
            self._need(path)


def _refuse_removed(name: str, meta: ViewMeta, records: Mapping[str, EpisodeRecord]) -> None:
    for episode in meta.episodes:
        record = records.get(episode.id)
        if record is not None and record.status in ("purged", "quarantined"):
            raise InputError(
                f"View {name!r} holds episode {episode.id!r}, which is {record.status}; build it again with "
                f"`lehrling view … --name {name}`."
            )


def _staleness(name: str, meta: ViewMeta, dataset: Dataset) -> str:
    now = selected(dataset, meta.spec.episodes)
    if view_key(meta.spec, meta.contract_hash, now) == meta.key:
        return ""
    before, after = {e.id for e in meta.episodes} | set(meta.skipped), {record.id for record in now}
    told = (
        f"{len(after - before)} episodes came and {len(before - after)} went" if before != after else "labels changed"
    )
    return f"View {name!r} is stale: {told} since it was built; rebuild with `lehrling view … --name {name}`."
