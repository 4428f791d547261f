"""Reading a stream's rows out of messages: the long way once, then the short one while messages look alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.embodiment import IMAGE_KINDS, Source, Stream
from lehrling.datasets.message_layout import JOINT_STATE, Layout, layout_of
from lehrling.datasets.message_types import Types
from lehrling.datasets.messages import header_stamp, numeric_row, ragged_bytes, stamp_of
from lehrling.datasets.pictures import image_bytes

NOT_NUMBERS = (*IMAGE_KINDS, "ragged", "raw")


def row_value(
    message: Any, cdr: bytes, source: Source, stream: Stream, joints: Collection[str]
) -> tuple[Any, NDArray[np.bool_] | None]:
    """Return what a message gives a stream, and which elements of it; none of a stream that is not numeric.

    Raises:
        MessageError: the message does not fit the contract.
        DamageError: it holds other bytes than it says.
    """
    if stream.kind in IMAGE_KINDS:
        return image_bytes(message, stream, source.topic), None
    if stream.kind == "raw":
        return bytes(cdr), None
    if stream.kind == "ragged":
        return ragged_bytes(message, source), None
    return numeric_row(message, source, stream, joints)


class RowReader:
    """Reads the rows that one source gives a stream, in turn."""

    def __init__(self, types: Types, source: Source, stream: Stream, joints: Collection[str]) -> None:
        self._types, self._source, self._stream, self._joints = types, source, stream, joints
        self._numeric = stream.kind not in NOT_NUMBERS
        self._layout: Layout | None = None
        self._mask = np.zeros(stream.shape, dtype=bool)
        self._from: NDArray[np.intp] | None = None
        self._into: NDArray[np.intp] | None = None

    def read(self, cdr: bytes, msgtype: str) -> tuple[Any, NDArray[np.bool_] | None, int | None]:
        """Return the row, which of its elements the message gave, and the header's stamp [ns].

        Raises:
            MessageError: the message does not fit the contract.
            DamageError: the bytes are no such message, or hold other bytes than they say.
        """
        if self._layout is not None and self._layout.fits(cdr):
            return self._short(cdr, self._layout), self._mask, header_stamp(cdr)
        message = self._types.decode(cdr, msgtype)
        value, mask = row_value(message, cdr, self._source, self._stream, self._joints)
        if self._numeric and mask is not None:
            self._learn(message, cdr, msgtype, mask)
        return value, mask, stamp_of(message)

    def _learn(self, message: Any, cdr: bytes, msgtype: str, mask: NDArray[np.bool_]) -> None:
        self._layout = layout_of(cdr, msgtype, frozenset({self._source.field}), frozenset({self._stream.dtype}))
        if self._layout is None:
            return
        self._mask, self._from, self._into = mask, None, None
        if msgtype != JOINT_STATE:
            return
        place = {name: k for k, name in enumerate(self._stream.names)}
        count = len(self._layout.numbers(cdr, self._source.field))
        there = [(k, place[name]) for k, name in enumerate(message.name[:count]) if name in place]
        self._from, self._into = np.array([k for k, _ in there], np.intp), np.array([k for _, k in there], np.intp)

    def _short(self, cdr: bytes, layout: Layout) -> NDArray[np.float64]:
        numbers = layout.numbers(cdr, self._source.field)
        if self._into is None:
            return numbers.reshape(self._stream.shape)
        row = np.zeros(self._stream.shape)
        row[self._into] = numbers[self._from]
        return row
