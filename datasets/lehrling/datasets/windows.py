"""Windows of an episode's rows and the order to draw them in: chunks with padding, sampling, splitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypedDict

import numpy as np

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_ORDER, _SPLIT = 0, 1


class Span(Protocol):
    """A stretch of rows, start inclusive, stop exclusive; `lehrling.datasets.view.ViewEpisode` is one."""

    @property
    def start(self) -> int:
        """Return the first row."""
        ...

    @property
    def stop(self) -> int:
        """Return the row after the last."""
        ...


class HasEpisodes(Protocol):
    """Anything that lists its episodes, such as a view."""

    @property
    def episodes(self) -> Sequence[Span]:
        """Return the episodes in row order."""
        ...


@dataclass(frozen=True)
class Chunks:
    """Row indices of B windows of H rows.

    Attributes:
        index: (B, H) int64, clamped to the window's episode.
        is_pad: (B, H) bool, true where the index was clamped.
    """

    index: NDArray[np.int64]
    is_pad: NDArray[np.bool_]


def bounds(episodes: HasEpisodes | Sequence[Span]) -> NDArray[np.int64]:
    """Return the (E, 2) start and stop rows of a view or of a list of spans.

    Raises:
        InputError: the episodes overlap or are not in row order.
    """
    spans = episodes if isinstance(episodes, Sequence) else episodes.episodes
    table = np.array([(span.start, span.stop) for span in spans], np.int64).reshape(-1, 2)
    if (table[:, 1] < table[:, 0]).any() or (table[1:, 0] < table[:-1, 1]).any():
        raise InputError("Expected episodes in row order that do not overlap; pass the episodes of one view.")
    return table


def chunk_indices(
    episodes: HasEpisodes | Sequence[Span],
    rows: NDArray[np.int64] | Sequence[int],
    horizon: int,
    *,
    step: int = 1,
    first: int = 0,
) -> Chunks:
    """Return for each row the indices of `horizon` rows from `first` on, `step` apart, clamped to its episode.

    The action chunk of row r is r, r+1, … (`first` 0). A history of the same length ends at r with
    `first` = -(horizon - 1) * step. Padding repeats the episode's first or last row.

    Raises:
        InputError: a row lies in no episode, or the horizon or step is below 1.
    """
    if horizon < 1 or step < 1:
        raise InputError(f"Expected a horizon and a step of at least 1, got {horizon} and {step}.")
    table, at = bounds(episodes), np.asarray(rows, np.int64)
    which = np.searchsorted(table[:, 0], at, side="right") - 1
    outside = (which < 0) | (at >= table[which, 1]) if len(table) else np.ones(at.shape, np.bool_)
    if outside.any():
        raise InputError(f"Expected rows that lie in an episode, got row {int(at[outside][0])}.")
    wanted = at[:, None] + first + step * np.arange(horizon)
    index = np.clip(wanted, table[which, 0][:, None], table[which, 1][:, None] - 1)
    return Chunks(index, index != wanted)


def usable_rows(
    episodes: HasEpisodes | Sequence[Span],
    valid: NDArray[np.bool_],
    horizon: int,
    *,
    drop_padded: bool = False,
) -> NDArray[np.int64]:
    """Return the rows from which training may start: their whole chunk, as far as the episode goes, is valid.

    Args:
        episodes: a view or its episodes.
        valid: (N,) row validity.
        horizon: rows of a chunk.
        drop_padded: leave out rows whose chunk reaches beyond the episode.
    """
    table = bounds(episodes)
    invalid_before = np.concatenate([[0], np.cumsum(~valid)])
    parts = [np.empty(0, np.int64)]
    for start, stop in table:
        rows = np.arange(start, stop)
        end = np.minimum(rows + horizon, stop)
        keep = invalid_before[end] == invalid_before[rows]
        parts.append(rows[keep & (rows + horizon <= stop)] if drop_padded else rows[keep])
    return np.concatenate(parts)


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

    def __init__(self, rows: NDArray[np.int64] | Sequence[int], batch: int, seed: int = 0) -> None:
        """Draw from rows (N,), for instance those of `usable_rows`, `batch` at a time.

        Raises:
            InputError: fewer rows than one batch.
        """
        self._rows = np.asarray(rows, np.int64)
        if batch < 1 or len(self._rows) < batch:
            raise InputError(f"Expected at least one batch of {batch} rows, got {len(self._rows)} rows.")
        self._batch, self._seed, self._epoch, self._position = batch, seed, 0, 0
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
        seed = np.random.SeedSequence(self._seed, spawn_key=(_ORDER, epoch))
        return self._rows[np.random.default_rng(seed).permutation(len(self._rows))]

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

    Episodes are ranked by a hash of their id and the seed, and the lowest ranks are held out, so that adding episodes moves few of the others.

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
