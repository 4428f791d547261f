"""Files of LeRobot datasets, looked at and changed behind its back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lehrling.datasets.lerobot_import import LerobotReport
from lehrling.datasets.view import Field, ViewSpec

SPEC = ViewSpec(
    rate_hz=30,
    image_px=96,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position", latency_ms=5),),
    action=(Field(stream="tcp_command"), Field(stream="gripper_command")),
    image_latency_ms=40,
)


def table(root: Path) -> pa.Table:
    """Return all rows of a LeRobot dataset."""
    return pa.concat_tables(pq.read_table(path, partitioning=None) for path in sorted(root.glob("data/*/*.parquet")))


def taken(report: LerobotReport) -> list[int]:
    return [episode.index for episode in report.episodes]


def edit_info(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def truncate(path: Path, part: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * part))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path, write_page_checksum=True)


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def named(key: str, value: Any) -> Callable[[Path], object]:
    return lambda root: edit_info(root, lambda info: info.update({key: value}))


def feature(key: str, facts: dict[str, Any]) -> Callable[[Path], object]:
    return lambda root: edit_info(root, lambda info: info["features"].update({key: facts}))
