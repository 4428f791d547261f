"""A run's metrics: one JSON line per step and TensorBoard, both cut back when a run resumes."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

from lehrling.datasets.files import write_durably

Row = dict[str, float]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of metrics.jsonl up to the first line that is torn or no step's row."""
    if not path.is_file():
        return []
    return list(takewhile(bool, map(_row, path.read_bytes().splitlines())))


def _row(line: bytes) -> Row:
    """Return a step's row, empty where the line is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and "loss" in row
    return row if whole and all(isinstance(value, int | float) for value in row.values()) else {}


class Metrics:
    """Writes metrics.jsonl and TensorBoard events; starts after `resumed_step`.

    Attributes:
        spent_s: seconds that the steps until then took; 0 where they are not told.
    """

    def __init__(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= resumed_step]
        write_durably(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self.spent_s = kept[-1].get("seconds", 0.0) if kept and kept[-1]["step"] == resumed_step else 0.0
        self._file = path.open("a", encoding="utf-8")
        self._board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, row: Row) -> None:
        """Append one step's row."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for key, value in row.items():
            if key != "step":
                self._board.add_scalar(key, value, int(row["step"]))

    def close(self) -> None:
        """Flush both."""
        self._file.close()
        self._board.close()
