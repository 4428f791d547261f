"""From a policy's action columns to the guard's axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.datasets.view_layout import Layout as ViewLayout
from lehrling.deploy.guard_layout import Layout

FloatArray = NDArray[np.float64]


class ActionRows:
    """Turns chunks (n, A) into targets (n, D); elements that the policy does not give stay as they were measured.

    Attributes:
        streams: action streams that the policy commands.
    """

    def __init__(self, view: ViewLayout, layout: Layout) -> None:
        """Find the columns.

        Raises:
            InputError: the policy gives only a part of a stream, and nothing measures the rest.
        """
        self._layout = layout
        self._places: dict[str, list[tuple[int, int]]] = {}
        column = 0
        for part in view.action:
            for pick in part.picks:
                self._places.setdefault(part.stream, []).append((column, pick))
                column += 1
        self._measured = {part.stream.name: part.measured for part in layout.parts}
        self._sizes = {part.stream.name: int(np.prod(part.stream.shape)) for part in layout.parts}
        self._base: dict[str, FloatArray] = {}
        for name, places in self._places.items():
            if name not in self._sizes:
                raise InputError(
                    f"The policy commands {name!r}, which the guard does not; it has {', '.join(self._sizes)}."
                )
            if len(places) < self._sizes[name] and not self._measured[name]:
                raise InputError(
                    f"The policy commands a part of {name!r} only, and no observation tells where the rest is."
                )

    @property
    def streams(self) -> tuple[str, ...]:
        """The action streams that are commanded."""
        return tuple(self._places)

    def hold(self, rows: Mapping[str, FloatArray]) -> bool:
        """Take from the observed streams' latest rows where what is not commanded stays; return whether they tell it."""
        self._base = {}
        for name, places in self._places.items():
            row = np.full(self._sizes[name], np.nan)
            if len(places) < len(row):
                measured = rows.get(self._measured[name])
                if measured is None or not np.isfinite(measured).all():
                    return False
                row[:] = self._elements(name, measured)
            self._base[name] = row
        return True

    def _elements(self, stream: str, measured: FloatArray) -> FloatArray:
        """Return the measured values of a stream's elements, from a row of the stream that measures them."""
        contract = self._layout.embodiment.contract
        names, its = contract.stream(stream).names, contract.stream(self._measured[stream]).names
        if not names or not its:
            return measured
        return np.array([measured[its.index(name)] for name in names])

    def targets(self, chunk: NDArray[np.float32]) -> FloatArray:
        """Return the targets (n, D) of a chunk's rows (n, A), NaN for axes of streams that the policy does not command."""
        targets = np.empty((len(chunk), len(self._layout.axes)))
        for index, action in enumerate(chunk):
            rows = {}
            for name, places in self._places.items():
                row = self._base[name].copy()
                for column, pick in places:
                    row[pick] = action[column]
                rows[name] = row
            targets[index] = self._layout.vector(rows)
        return targets
