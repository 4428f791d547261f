"""Parquet as LeRobot writes it: Arrow types of features, tables of frames and episodes, files that end at a size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lehrling.datasets.lerobot_format import TASKS, Feature, Place, needed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

_ARROW = {"float16": "float16", "float32": "float32", "float64": "float64", "bool": "bool_"}


DICTIONARY_BYTES = 64 << 20
"""Pictures that several rows of an episode show are stored once, as long as all of them together take no more."""


def arrow_type(feature: Feature) -> pa.DataType:
    """Return the type of a feature's column."""
    arrow = needed("pyarrow")
    if feature.dtype == "image":
        return arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    if feature.dtype == "string":
        return arrow.string()
    found = getattr(arrow, _ARROW.get(feature.dtype, feature.dtype))()
    if feature.shape == (1,):
        return found
    if len(feature.shape) == 1:
        return arrow.list_(found, feature.shape[0])
    for _ in feature.shape:
        found = arrow.list_(found)
    return found


def frame_schema(features: Sequence[Feature]) -> pa.Schema:
    """Return the schema of `data/`: every feature but videos, described for Hugging Face `datasets` too."""
    arrow = needed("pyarrow")
    stored = [feature for feature in features if feature.dtype != "video"]
    described = {feature.key: _hugging_face(feature) for feature in stored}
    words = json.dumps({"info": {"features": described}})
    return arrow.schema([(f.key, arrow_type(f)) for f in stored], metadata={"huggingface": words})


def _hugging_face(feature: Feature) -> dict[str, Any]:
    if feature.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,) or feature.dtype == "string":
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "List"}
    rank = len(feature.shape)
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": f"Array{rank}D"}


def column(feature: Feature, values: NDArray[Any] | Sequence[Any]) -> pa.Array:
    """Return a column: (N, …) numbers, texts, or (bytes, name) pairs of images."""
    arrow = needed("pyarrow")
    kind = arrow_type(feature)
    if feature.dtype == "image":
        return arrow.array([{"bytes": content, "path": name} for content, name in values], kind)
    if feature.dtype == "string":
        return arrow.array(list(values), kind)
    numbers = np.ascontiguousarray(values, feature.dtype)
    if feature.shape == (1,):
        return arrow.array(numbers.reshape(-1), kind)
    if len(feature.shape) == 1:
        return arrow.FixedSizeListArray.from_arrays(arrow.array(numbers.reshape(-1)), feature.shape[0])
    return arrow.array(numbers.tolist(), kind)


def numbers_of(table: pa.Table, feature: Feature) -> NDArray[Any]:
    """Return a numeric column as (N, …) of the feature's shape and dtype, exactly.

    Raises:
        ValueError: the column holds nulls, or rows of another shape.
    """
    found = table.column(feature.key).combine_chunks()
    while hasattr(found, "storage"):
        found = found.storage
    if found.null_count:
        raise ValueError(f"{feature.key} has {found.null_count} rows without a value")
    rows = len(found)
    while _nested(found):
        found = found.flatten()
    if found.null_count:
        raise ValueError(f"{feature.key} has {found.null_count} elements without a value")
    numbers = np.asarray(found.to_numpy(zero_copy_only=False))
    if numbers.size != rows * int(np.prod(feature.shape)) or numbers.dtype.kind not in "biuf":
        raise ValueError(f"{feature.key} is no column of {feature.dtype} in the shape {feature.shape}")
    if np.dtype(feature.dtype) != numbers.dtype:
        raise ValueError(f"{feature.key} is stored as {numbers.dtype}, not as {feature.dtype}")
    return numbers.reshape(rows, *feature.shape)


def _nested(values: pa.Array) -> bool:
    types = needed("pyarrow.types")
    kind = values.type
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


class ParquetShards:
    """Parquet files below `root`, named by a template; each table is a row group, a file ends at the limit."""

    def __init__(self, root: Path, template: str, schema: pa.Schema, limit_bytes: int) -> None:
        self._root, self._template, self._schema, self._limit = root, template, schema, limit_bytes
        self._place, self._rows = Place(), 0
        self._sink: BinaryIO | None = None
        self._writer: Any = None
        self.paths: list[Path] = []

    def place(self, rows: int) -> Place:
        """Return the file that the next table of so many rows goes to."""
        if self._sink is None:
            return self._place
        written = self._sink.tell()
        if written + written / max(self._rows, 1) * rows < self._limit:
            return self._place
        self.close()
        self._place, self._rows = self._place.next(), 0
        return self._place

    def write(self, table: pa.Table) -> None:
        """Write a table as one row group to the file that `place` named."""
        if self._writer is None:
            path = self._root / self._place.path(self._template)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = path.open("wb")
            self.paths.append(path)
            parquet = needed("pyarrow.parquet")
            self._writer = parquet.ParquetWriter(
                self._sink,
                self._schema,
                compression="snappy",
                use_dictionary=True,
                dictionary_pagesize_limit=DICTIONARY_BYTES,
                write_page_checksum=True,
            )
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._rows += table.num_rows

    def close(self) -> None:
        """Write the footer; a second call does nothing."""
        writer, sink = self._writer, self._sink
        self._writer, self._sink = None, None
        if writer is not None:
            writer.close()
        if sink is not None:
            sink.close()


def write_tasks(root: Path, texts: Mapping[int, str]) -> None:
    """Write `meta/tasks.parquet`, which pandas reads with the text as index."""
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    order = sorted(texts)
    facts = {
        "index_columns": ["task"],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        ],
        "pandas_version": "2.3.3",
    }
    schema = arrow.schema(
        [("task_index", arrow.int64()), ("task", arrow.string())], metadata={"pandas": json.dumps(facts)}
    )
    columns = [arrow.array(order, arrow.int64()), arrow.array([texts[index] for index in order], arrow.string())]
    parquet.write_table(arrow.Table.from_arrays(columns, schema=schema), root / TASKS)
