"""The lists of tasks and episodes of a LeRobot dataset: parquet in v3.0, JSON lines in v2.1."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lehrling.datasets.documents import parse_json
from lehrling.datasets.errors import InputError
from lehrling.datasets.lerobot_format import TASKS, needed
from lehrling.datasets.lerobot_paths import filled, inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIST_BYTES_MAX = 256 << 20
LINE_BYTES_MAX = 1 << 20
TABLE_BYTES_MAX = 2 << 30
"""Of one parquet file or row group, unpacked."""
TEXT_MAX = 4096
EPISODES_MAX = 10_000_000


@dataclass(frozen=True)
class VideoPart:
    """Where an episode's frames of one camera are: a file, named from the dataset's folder, and their beginning in it."""

    path: str
    from_s: float


@dataclass(frozen=True)
class Listed:
    """An episode as the list has it; `table` and videos are named from the dataset's folder and not looked at yet."""

    index: int
    length: int
    table: str
    videos: dict[str, VideoPart] = field(default_factory=dict)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Say in one sentence what Arrow cannot read.

    Raises:
        InputError: in place of Arrow's errors, and those of values that are not there or of another kind.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".")
        raise InputError(f"{what} cannot be read: {reason[:200]}.") from error


def listing_v3(
    root: Path, data_path: str, video_path: str, videos: tuple[str, ...]
) -> tuple[dict[int, str], list[Listed]]:
    """Read tasks and episodes of v3.0.

    Raises:
        InputError: a file is missing or cut, or says something impossible.
    """
    tasks = _tasks_v3(root)
    rows: list[dict[str, Any]] = []
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("meta/episodes/*/*.parquet"))
    if not names:
        raise InputError(f"{root} has no meta/episodes; it was not finished with LeRobot's `finalize`.")
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    parts = ("chunk_index", "file_index", "from_timestamp")
    columns += [f"videos/{key}/{part}" for key in videos for part in parts]
    for name in names:
        rows += _rows(inside(root, name), columns)
        if len(rows) > EPISODES_MAX:
            raise InputError(f"{root} lists more than {EPISODES_MAX} episodes; it is refused.")
    return tasks, [_listed_v3(number, row, data_path, video_path, videos) for number, row in enumerate(rows)]


def _tasks_v3(root: Path) -> dict[int, str]:
    path = inside(root, TASKS)
    with readable(str(path)):
        schema = needed("pyarrow.parquet").read_schema(path)
        text = next((name for name in ("task", "__index_level_0__") if name in schema.names), None)
        if text is None or "task_index" not in schema.names:
            raise InputError(
                f"Expected the columns task and task_index in {path}, got {', '.join(schema.names)[:200]}."
            )
        rows = _rows(path, ["task_index", text])
        return {_whole(row["task_index"], "task_index", path): _text(row[text], path) for row in rows}


def _rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Return some columns of a small table as rows."""
    parquet = needed("pyarrow.parquet")
    with readable(str(path)):
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if missing := [name for name in columns if name not in file.schema_arrow.names]:
                raise InputError(f"Expected the column {missing[0]} in {path}, which lacks it.")
            check_size(file, path)
            found: list[dict[str, Any]] = file.read(columns).to_pylist()
        return found


def check_size(file: Any, path: Path, groups: list[int] | None = None) -> None:
    """Refuse a table, or row groups of it, that unpack to more than memory should hold.

    Raises:
        InputError: naming the file.
    """
    chosen = range(file.metadata.num_row_groups) if groups is None else groups
    size = sum(file.metadata.row_group(group).total_byte_size for group in chosen)
    rows = sum(file.metadata.row_group(group).num_rows for group in chosen)
    if max(size, rows * 8) > TABLE_BYTES_MAX:
        raise InputError(f"{path} unpacks to {size} bytes in {rows} rows, more than {TABLE_BYTES_MAX}; it is refused.")


def _listed_v3(number: int, row: dict[str, Any], data_path: str, video_path: str, videos: tuple[str, ...]) -> Listed:
    where = f"meta/episodes, episode {number}"
    if row["episode_index"] != number:
        raise InputError(f"Expected episode {number} in its place in meta/episodes, got {row['episode_index']!r}.")

    def place(prefix: str) -> dict[str, str | int]:
        return {
            name: _whole(row[f"{prefix}/{name}"], f"{prefix}/{name}", where) for name in ("chunk_index", "file_index")
        }

    parts = {}
    for key in videos:
        path = filled(video_path, place(f"videos/{key}") | {"video_key": key})
        parts[key] = VideoPart(path, _seconds(row[f"videos/{key}/from_timestamp"], where))
    return Listed(number, _length(row["length"], where), filled(data_path, place("data")), parts)


def listing_v2(
    root: Path, data_path: str, video_path: str, videos: tuple[str, ...], chunks_size: int
) -> tuple[dict[int, str], list[Listed]]:
    """Read tasks and episodes of v2.1, where every episode has files of its own.

    Raises:
        InputError: a file is missing or cut, or says something impossible.
    """
    tasks = {}
    for row in _lines(inside(root, "meta/tasks.jsonl")):
        tasks[_whole(row.get("task_index"), "task_index", "meta/tasks.jsonl")] = _text(
            row.get("task"), "meta/tasks.jsonl"
        )
    episodes = []
    for number, row in enumerate(_lines(inside(root, "meta/episodes.jsonl"))):
        where = f"meta/episodes.jsonl, line {number + 1}"
        index = _whole(row.get("episode_index"), "episode_index", where)
        if index != number:
            raise InputError(f"Expected episode {number} in {where}, got {index}.")
        place: dict[str, str | int] = {"episode_chunk": index // chunks_size, "episode_index": index}
        parts = {key: VideoPart(filled(video_path, place | {"video_key": key}), 0.0) for key in videos}
        episodes.append(Listed(index, _length(row.get("length"), where), filled(data_path, place), parts))
    return tasks, episodes


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file."""
    if path.stat().st_size > LIST_BYTES_MAX:
        raise InputError(f"{path} is larger than {LIST_BYTES_MAX} bytes; that is no list of episodes.")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""), start=1):
            if len(line) > LINE_BYTES_MAX:
                raise InputError(
                    f"{path}, line {number} is longer than {LINE_BYTES_MAX} bytes; that is no list of episodes."
                )
            row = parse_json(line, f"{path}, line {number}") if line.strip() else {}
            if not isinstance(row, dict):
                raise InputError(f"Expected an object in {path}, line {number}, got {type(row).__name__}.")
            if row:
                yield row


def _whole(value: object, name: str, where: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= EPISODES_MAX:
        raise InputError(f"Expected a whole number as {name} in {where}, got {str(value)[:80]!r}.")
    return value


def _length(value: object, where: object) -> int:
    found = _whole(value, "length", where)
    if found == 0:
        raise InputError(f"Expected at least one frame in {where}, got none.")
    return found


def _seconds(value: object, where: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise InputError(f"Expected seconds as from_timestamp in {where}, got {str(value)[:80]!r}.")
    return float(value)


def _text(value: object, where: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise InputError(f"Expected a task of at most {TEXT_MAX} characters in {where}, got {str(value)[:80]!r}.")
    return value
