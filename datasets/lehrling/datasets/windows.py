"""Windows of an episode's rows: action chunks with padding, never across episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    """Return each row's `horizon` row indices from `first` on, `step` apart, clamped to its episode.

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
