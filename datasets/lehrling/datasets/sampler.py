"""Draw rows for training in a seeded order that a checkpoint can resume exactly; split by episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypedDict

import numpy as np

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_ORDER, _SPLIT = 0, 1


class SamplerState(TypedDict):
    """Where a sampler stands; JSON-ready."""

    seed: int
    rows: int
    epoch: int
    position: int


class EpisodeSampler:
    """Yields batches of rows without end: every row once per epoch, in an order fixed by seed and epoch.

    The permutation of epoch e comes from child (0, e) of the seed's `SeedSequence` alone, so the state is the
    pair (epoch, position), and any epoch can be entered without drawing those before it.
    """

    def __init__(
        self,
        rows: NDArray[np.int64] | Sequence[int],
        batch: int,
        seed: int = 0,
        *,
        episode_of_row: NDArray[np.int64] | None = None,
        episodes_at_once: int = 0,
    ) -> None:
        """Draw from rows (N,), for instance those of `usable_rows`, `batch` at a time.

        Args:
            rows: to draw from.
            batch: rows of one batch.
            seed: of the order.
            episode_of_row: which episode every row of the view is from, such as `View.episode_index`.
            episodes_at_once: shuffle episodes, then rows within so many of them at a time, so that what is read lies
                close together: for disks that seek and for object stores. 0 shuffles all rows.

        Raises:
            InputError: fewer rows than one batch, or episodes at once without saying which rows are theirs.
        """
        self._rows = np.asarray(rows, np.int64)
        if batch < 1 or len(self._rows) < batch:
            raise InputError(
                f"Expected at least one batch of {batch} rows, got {len(self._rows)} rows; make `batch` smaller, or "
                "record more episodes."
            )
        if episodes_at_once and episode_of_row is None:
            raise InputError("Expected `episode_of_row` for `episodes_at_once`, got none; pass `view.episode_index`.")
        self._batch, self._seed, self._epoch, self._position = batch, seed, 0, 0
        self._at_once = episodes_at_once
        self._episode = np.zeros(0, np.int64) if episode_of_row is None else episode_of_row[self._rows]
        self._order = self.permutation(0)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is from."""
        return self._epoch

    @property
    def batches_per_epoch(self) -> int:
        """The number of whole batches; the remainder of an epoch, different rows each time, is not drawn."""
        return len(self._rows) // self._batch

    def permutation(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows in the order of an epoch, (N,)."""
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_ORDER, epoch)))
        order = rng.permutation(len(self._rows))
        if self._at_once:
            known = np.unique(self._episode)
            group = np.empty(known[-1] + 1, np.int64)
            group[rng.permutation(known)] = np.arange(len(known)) // self._at_once
            order = order[np.argsort(group[self._episode[order]], kind="stable")]
        return self._rows[order]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return self

    def __next__(self) -> NDArray[np.int64]:
        """Return the next batch of rows (batch,)."""
        if self._position + self._batch > len(self._order):
            self._epoch, self._position = self._epoch + 1, 0
            self._order = self.permutation(self._epoch)
        start, self._position = self._position, self._position + self._batch
        return self._order[start : self._position]

    def state_dict(self) -> SamplerState:
        """Return the state, from which `load_state_dict` continues with the very next batch."""
        return {
            "seed": self._seed,
            "rows": len(self._rows),
            "epoch": self._epoch,
            "position": self._position,
        }

    def load_state_dict(self, state: SamplerState) -> Self:
        """Continue where `state` was taken.

        Raises:
            InputError: the state is of another seed or another number of rows, so the order would differ.
        """
        ours = (self._seed, len(self._rows))
        theirs = (state["seed"], state["rows"])
        if ours != theirs:
            raise InputError(
                f"Expected a sampler state of seed {ours[0]} over {ours[1]} rows, got seed {theirs[0]} "
                f"over {theirs[1]}; resume with the same view and configuration."
            )
        self._epoch, self._position = state["epoch"], state["position"]
        self._order = self.permutation(self._epoch)
        return self


def split_episodes(ids: Sequence[str], validation: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Split episodes, by position in `ids`, into training and validation, both in order.

    Episodes are ranked by a hash of their id and the seed, and the lowest ranks are held out, so that adding
    episodes moves few of the others.

    Raises:
        InputError: the share is not in [0, 1), or leaves nothing to train on.
    """
    if not 0 <= validation < 1:
        raise InputError(f"Expected a validation share of at least 0 and below 1, got {validation}.")
    wanted = round(validation * len(ids))
    if validation > 0:
        wanted = max(wanted, 1)
    if wanted >= len(ids):
        raise InputError(f"Expected more than {wanted} episodes to split, got {len(ids)}; record more.")
    ranked = sorted(range(len(ids)), key=lambda place: (_rank(ids[place], seed), ids[place]))
    held_out = set(ranked[:wanted])
    return [place for place in range(len(ids)) if place not in held_out], sorted(held_out)


def _rank(name: str, seed: int) -> int:
    words = tuple(name.encode())
    state = np.random.SeedSequence(seed, spawn_key=(_SPLIT, *words)).generate_state(1, np.uint64)
    return int(state[0])
