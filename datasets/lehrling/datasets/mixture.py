"""Several views mixed by weights: every batch draws its samples from them in a seeded order that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypedDict

import numpy as np

from lehrling.datasets.errors import ContractError, InputError
from lehrling.datasets.samples import Memory, SampleReader, Samples, plain_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHOICE, _ORDER = 2, 3


@dataclass(frozen=True)
class Draw:
    """Where the B samples of a batch come from: source (B,) and row (B,) of that source."""

    source: NDArray[np.int64]
    row: NDArray[np.int64]


class MixtureState(TypedDict):
    """Where a mixture stands; JSON-ready."""

    seed: int
    rows: list[int]
    batch: int
    drawn: list[int]


class Mixture:
    """Draws batches from several sources without end.

    In every batch each sample's source is drawn by weight; within a source every row comes once before any comes
    again, in an order fixed by seed, source and pass. The state is the number of batches and of samples drawn per source.
    """

    def __init__(self, rows: Sequence[NDArray[np.int64]], weights: Sequence[float], batch: int, seed: int = 0) -> None:
        """Draw from sources with rows (N_k,) each.

        Raises:
            InputError: no source, one without rows, or weights that are not one positive number per source.
        """
        sizes, shares = [len(part) for part in rows], np.asarray(weights, np.float64)
        if not sizes or 0 in sizes or batch < 1:
            raise InputError(f"Expected sources with rows and a batch of at least 1, got {sizes} rows and {batch}.")
        if shares.shape != (len(sizes),) or not np.isfinite(shares).all() or (shares <= 0).any():
            raise InputError(f"Expected one weight above 0 for each of {len(sizes)} sources, got {list(weights)}.")
        self._rows, self._share = [np.asarray(part, np.int64) for part in rows], shares / shares.sum()
        self._size, self._seed, self._batch = batch, seed, 0
        self._drawn = [0] * len(sizes)
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def __iter__(self) -> Iterator[Draw]:
        return self

    def __next__(self) -> Draw:
        """Return the next batch's sources and rows."""
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_CHOICE, self._batch)))
        source = rng.choice(len(self._rows), self._size, p=self._share)
        row = np.array([self._next_row(int(number)) for number in source], np.int64)
        self._batch += 1
        return Draw(source.astype(np.int64), row)

    def _next_row(self, source: int) -> int:
        turn, place = divmod(self._drawn[source], len(self._rows[source]))
        if self._orders.get(source, (-1,))[0] != turn:
            seed = np.random.SeedSequence(self._seed, spawn_key=(_ORDER, source, turn))
            self._orders[source] = turn, np.random.default_rng(seed).permutation(self._rows[source])
        self._drawn[source] += 1
        return int(self._orders[source][1][place])

    def state_dict(self) -> MixtureState:
        """Return the state, from which `load_state_dict` continues with the very next batch."""
        sizes = [len(part) for part in self._rows]
        return {"seed": self._seed, "rows": sizes, "batch": self._batch, "drawn": list(self._drawn)}

    def load_state_dict(self, state: MixtureState) -> Self:
        """Continue where `state` was taken.

        Raises:
            InputError: the state is of another seed or of sources of other sizes, so the order would differ.
        """
        ours, theirs = (self._seed, [len(part) for part in self._rows]), (state["seed"], list(state["rows"]))
        if ours != theirs:
            raise InputError(
                f"Expected a mixture's state of seed {ours[0]} over {ours[1]} rows, got seed {theirs[0]} over {theirs[1]}; "
                "resume with the same views and configuration."
            )
        self._batch, self._drawn = state["batch"], list(state["drawn"])
        return self


class MixedReader:
    """Reads the samples that a `Mixture` drew from several views, which must look alike."""

    def __init__(self, readers: Sequence[SampleReader]) -> None:
        """Read from these.

        Raises:
            InputError: there is none.
            ContractError: state, action, cameras or image sizes differ.
        """
        if not readers:
            raise InputError("Expected at least one view to mix, got none.")
        self._readers = list(readers)
        first = _looks(readers[0])
        for reader in readers[1:]:
            for name, value in _looks(reader).items():
                if value != first[name]:
                    raise ContractError(
                        f"Expected views that look alike, but their {name} differ: {first[name]} in "
                        f"{readers[0].view.directory}, {value} in {reader.view.directory}."
                    )

    @property
    def rows(self) -> list[NDArray[np.int64]]:
        """The usable rows of every source, for `Mixture`."""
        return [reader.rows for reader in self._readers]

    def batch(self, draw: Draw, memory: Memory = plain_memory) -> Samples:
        """Return the samples of a draw, in its order."""
        parts = [(k, np.flatnonzero(draw.source == k)) for k in np.unique(draw.source).tolist()]
        read = [self._readers[k].batch(draw.row[places]) for k, places in parts]
        order = np.argsort(np.concatenate([places for _, places in parts]), kind="stable")
        texts = [text for part in read for text in part.instruction]
        images = {}
        for camera in self._readers[0].cameras:
            stacked = [part.images[camera] for part in read]
            images[camera] = memory((len(order), *stacked[0].shape[1:]))
            for (_, places), part in zip(parts, stacked, strict=True):
                images[camera][places] = part
        return Samples(
            images,
            np.concatenate([part.state for part in read])[order],
            np.concatenate([part.action for part in read])[order],
            np.concatenate([part.is_pad for part in read])[order],
            tuple(texts[place] for place in order),
            draw.source,
            draw.row,
        )


def _looks(reader: SampleReader) -> dict[str, object]:
    view = reader.view
    sizes = {camera: view.images(camera).shape[1:3] for camera in reader.cameras}
    return {
        "rates": view.spec.rate_hz,
        "states": view.state_names,
        "actions": view.action_names,
        "representations": [part.representation for part in view.spec.action],
        "cameras": sizes,
        "chunks": (reader.chunk, reader.history),
    }
