"""A stream's rows on their way from the journal into an episode."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.arrays import read_array, write_array, write_depth, write_jpegs
from lehrling.datasets.embodiment import IMAGE_KINDS, JOINT_KINDS, Stream
from lehrling.datasets.frames import JpegFile
from lehrling.datasets.journal_read import JournalContents, Received
from lehrling.datasets.row_reader import NOT_NUMBERS, RowReader

TIMES = ("stamp_ns", "received_ns", "publish_ns", "monotonic_ns", "sequence")


@dataclass
class StreamRows:
    """All rows of one stream, in order of receipt.

    Attributes:
        values: (N, …) numeric; JPEG bytes per frame; depth frames; or byte strings of ragged and raw rows.
        mask: (N, …) which elements a message gave, only where some were not.
        stamped: whether every stamp is the message's own; where one has none, the receive time stands in.
    """

    stream: Stream
    stamp_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    publish_ns: NDArray[np.int64]
    monotonic_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]
    values: Any
    mask: NDArray[np.bool_] | None = None
    stamped: bool = True
    definitions: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stamp_ns)

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name

    @property
    def attributes(self) -> dict[str, Any]:
        """What the stream's group says: the contract's words, and where stamps come from."""
        facts = self.stream.model_dump(mode="json") | {"stamps": "header" if self.stamped else "received"}
        return facts | ({"definitions": self.definitions} if self.definitions else {})

    @property
    def _ragged(self) -> bool:
        return self.stream.kind in ("ragged", "raw")

    def write(self, group: Any, directory: Path) -> None:
        """Write the stream's arrays into its group."""
        for name in TIMES:
            write_array(group, name, getattr(self, name))
        if self.stream.kind == "colour_image":
            write_jpegs(group, directory, "value", self.values, self.stream.shape)
        elif self.stream.kind == "depth_image":
            write_depth(group, "value", self.values, self.stream.shape)
        elif self._ragged:
            write_array(group, "data", np.frombuffer(b"".join(self.values), dtype=np.uint8))
            write_array(group, "offsets", self._offsets())
        else:
            write_array(group, "value", self.values)
        if self.mask is not None:
            write_array(group, "mask", self.mask)

    def _offsets(self) -> NDArray[np.int64]:
        return np.cumsum([0, *map(len, self.values)], dtype=np.int64)

    def compare(self, directory: Path) -> str:
        """Return how what was written differs from these rows, or an empty string."""
        for name in TIMES:
            if not np.array_equal(read_array(directory / name), getattr(self, name)):
                return f"{name} of {self.name} reads back differently"
        if self.stream.kind == "colour_image":
            frames = JpegFile(directory / "value")
            same = len(frames) == len(self.values) and all(frames[i] == v for i, v in enumerate(self.values))
        elif self._ragged:
            same = read_array(directory / "data").tobytes() == b"".join(self.values)
            same = same and np.array_equal(read_array(directory / "offsets"), self._offsets())
        else:
            wanted = np.stack(self.values) if isinstance(self.values, list) and self.values else self.values
            same = len(self) == 0 or np.array_equal(read_array(directory / "value"), wanted, equal_nan=self._floats)
        return "" if same else f"the values of {self.name} read back differently"

    @property
    def _floats(self) -> bool:
        return self.stream.dtype.startswith("float") and self.stream.kind not in IMAGE_KINDS


def stream_rows(contents: JournalContents, stream: Stream) -> StreamRows:
    """Collect a stream's rows from all its sources.

    Raises:
        InputError: a message does not fit the contract; the message names topic and reason.
    """
    sources = contents.embodiment.binding.sources[stream.name]
    joints = contents.embodiment.contract.joint_names
    readers = [RowReader(contents.types, source, stream, joints) for source in sources]
    pairs = [(m, k) for k, source in enumerate(sources) for m in contents.messages.get(source.topic, [])]
    clock = "monotonic_ns" if all(received.monotonic_ns >= 0 for received, _ in pairs) else "received_ns"
    pairs.sort(key=lambda pair: getattr(pair[0], clock))
    stamps, values, masks, stamped = [], [], [], True
    kept: list[Received] = []
    for received, k in pairs:
        value, mask, stamp = readers[k].read(received.cdr, received.msgtype or sources[k].type)
        if mask is not None and not mask.any():
            continue
        stamped = stamped and stamp is not None
        stamps.append(received.received_ns if stamp is None else stamp)
        values.append(value)
        masks.append(mask)
        kept.append(received)
    rows = StreamRows(
        stream,
        np.array(stamps, dtype=np.int64),
        _column(kept, "received_ns"),
        _column(kept, "publish_ns"),
        _column(kept, "monotonic_ns"),
        _column(kept, "sequence"),
        values,
        None,
        stamped,
    )
    if stream.kind == "raw":
        rows.definitions = {source.type: contents.types.definition(source.type) for source in sources}
    if stream.kind not in NOT_NUMBERS:
        shape = (len(values), *stream.shape)
        rows.values = np.asarray(values, dtype=stream.dtype).reshape(shape)
        partial = stream.kind in JOINT_KINDS and len(sources) > 1
        if partial or any(m is not None and not m.all() for m in masks):
            rows.mask = np.asarray(masks, dtype=bool).reshape(shape)
    return rows


def _column(rows: list[Received], name: str) -> NDArray[np.int64]:
    return np.array([getattr(row, name) for row in rows], dtype=np.int64)
