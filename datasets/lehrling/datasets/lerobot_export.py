"""Export a dataset to LeRobot v3.0, without LeRobot: whole under its name, or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.errors import InputError
from lehrling.datasets.files import flock, fsync_path, fsync_tree, storage_error, tree_bytes
from lehrling.datasets.lerobot_format import PROVENANCE, Limits, needed
from lehrling.datasets.lerobot_frames import FramePlan, Plan, ViewPlan
from lehrling.datasets.lerobot_origin import origin_of
from lehrling.datasets.lerobot_write import DatasetFiles
from lehrling.datasets.resize import view_jpeg
from lehrling.datasets.view_layout import resolve
from lehrling.datasets.view_select import chosen, pinned
from lehrling.datasets.view_spec import EpisodeFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.embodiment import Contract
    from lehrling.datasets.episode import Episode
    from lehrling.datasets.lerobot_frames import CameraFrames, EpisodeFrames
    from lehrling.datasets.view_spec import ViewSpec

    Progress = Callable[[int, int], None]

PROVENANCE_FORMAT = 1


@dataclass(frozen=True)
class ExportOptions:
    """How a dataset goes out.

    Attributes:
        spec: rate, columns and alignment; None lets episodes that all came from one LeRobot dataset go back frame by frame.
        images: embed pictures in the tables instead of encoding videos; JPEGs of the camera's size keep their bytes.
        episodes: which of them, where there is no `spec` to say so.
        limits: sizes of files.
    """

    spec: ViewSpec | None = None
    images: bool = False
    episodes: EpisodeFilter = field(default_factory=EpisodeFilter)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class ExportReport:
    """What went out.

    Attributes:
        skipped: episodes that gave no frame, and why.
        doubtful: rows per episode that `lehrling.valid` marks: a source was older than the specification's limit.
    """

    path: str
    episodes: int
    frames: int
    fps: int
    features: tuple[str, ...]
    tasks: int
    bytes: int
    skipped: dict[str, str]
    doubtful: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return asdict(self) | {"features": list(self.features)}


def export_lerobot(
    dataset: Dataset, out: Path, options: ExportOptions | None = None, progress: Progress | None = None
) -> ExportReport:
    """Write the sealed episodes of a dataset as a LeRobot v3.0 dataset in `out`, which must not be there.

    It is written to a hidden sibling, made durable, and renamed; whatever interrupts it leaves no `out`.

    Raises:
        InputError: `out` is there, the rate is no whole number, no episode gives a frame, or pyarrow or av lack.
        ContractError: the episodes have several contracts.
        LockedError: another process is exporting to `out`.
        StorageError: the disk is full or failed.
    """
    wanted = options or ExportOptions()
    if wanted.spec is not None:
        wanted = replace(wanted, spec=pinned(dataset, wanted.spec))
    for module in ("pyarrow", "av"):
        needed(module)
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} is there already; name a folder that is not, nothing is overwritten.")
    plan, episodes = _planned(dataset, wanted)
    try:
        with _claimed(out) as partial:
            report = _Export(dataset, partial, plan, episodes, wanted).run(out, progress)
            fsync_tree(partial)
            partial.rename(out)
            fsync_path(out.parent)
    except OSError as error:
        raise storage_error(error, out) from error
    return report


def _planned(dataset: Dataset, options: ExportOptions) -> tuple[Plan, list[Episode]]:
    records, contract = chosen(dataset, options.episodes if options.spec is None else options.spec.episodes)
    episodes = [dataset.episode_of(record) for record in records]
    if options.spec is not None:
        return _view_plan(options.spec, contract, options), episodes
    origins = [origin_of(episode) for episode in episodes]
    first = origins[0]
    if first is None or any(origin is None or origin.same != first.same for origin in origins):
        raise InputError(
            f"Expected a rate or a specification to align the episodes of {dataset.root} by, got none; only episodes that "
            "all came from one LeRobot dataset go out without."
        )
    return FramePlan.of(first, images=options.images), episodes


def _view_plan(spec: ViewSpec, contract: Contract, options: ExportOptions) -> ViewPlan:
    if spec.rate_hz != round(spec.rate_hz):
        raise InputError(
            f"Expected a whole number of frames per second, which LeRobot's tools need, got {spec.rate_hz}."
        )
    return ViewPlan.of(resolve(contract, spec), images=options.images)


@contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """Make the hidden sibling, held by a lock on it; take it away again, unless it was renamed."""
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir(exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    flock(descriptor, f"{out} is being written by another process; wait for it.")
    try:
        _empty(partial)
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    """Remove what an export that was killed left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


class _Export:
    """One export on its way."""

    def __init__(
        self, dataset: Dataset, root: Path, plan: Plan, episodes: list[Episode], options: ExportOptions
    ) -> None:
        self._dataset, self._root, self._plan, self._episodes = dataset, root, plan, episodes
        self._options = options
        self._skipped: dict[str, str] = {}
        self._doubtful: dict[str, int] = {}
        self._written: list[dict[str, Any]] = []

    def run(self, out: Path, progress: Progress | None) -> ExportReport:
        """Write everything; the report names `out`."""
        cameras = sum(feature.camera for feature in self._plan.features)
        steps = _Steps(len(self._episodes) * max(1, cameras), progress)
        tasks = self._given_numbers()
        files = DatasetFiles(self._root, self._plan.features, self._plan.fps, self._picture, self._options.limits)
        try:
            for number, episode in enumerate(self._episodes, start=1):
                frames = self._plan.frames(episode)
                if frames.reason:
                    self._skipped[episode.id] = frames.reason
                else:
                    files.write(frames, _task_column(frames, tasks), steps.step)
                    self._note(episode, frames)
                steps.upto(number * max(1, cameras))
            if not self._written:
                name, reason = next(iter(self._skipped.items()))
                raise InputError(f"Expected frames, but no episode gives any; {name}: {reason}.")
            files.finish(self._robot_type(), {index: text for text, index in tasks.items()})
        except BaseException:
            files.abandon()
            raise
        self._write_provenance()
        return ExportReport(
            str(out),
            len(self._written),
            files.frames,
            self._plan.fps,
            tuple(feature.key for feature in self._plan.features),
            len(tasks),
            tree_bytes(self._root),
            self._skipped,
            self._doubtful,
        )

    def _robot_type(self) -> str | None:
        if isinstance(self._plan, FramePlan):
            return self._plan.origin.robot_type
        return self._episodes[0].record.robot or self._episodes[0].embodiment.name

    def _given_numbers(self) -> dict[str, int]:
        """Return LeRobot's own numbers of the tasks, where every episode brings some, without gaps from 0 on."""
        runs = [run for episode in self._episodes for run in self._plan.tasks(episode)]
        given = {run.text: run.index for run in runs if run.index is not None}
        whole = all(given.get(run.text) == run.index for run in runs)
        return given if whole and sorted(given.values()) == list(range(len(given))) else {}

    def _picture(self, camera: CameraFrames, _key: str, number: int) -> bytes:
        spec = self._options.spec
        content = camera.stream.encoded(number)
        return content if spec is None else view_jpeg(content, spec, camera.stream.stream.name)

    def _note(self, episode: Episode, frames: EpisodeFrames) -> None:
        record = episode.record
        if frames.doubtful:
            self._doubtful[episode.id] = frames.doubtful
        self._written.append(
            {
                "id": record.id,
                "rows": frames.rows,
                "outcome": record.outcome,
                "task": record.task,
                "instruction": record.instruction,
                "robot": record.robot,
                "content_hash": record.content_hash,
            }
        )

    def _write_provenance(self) -> None:
        spec = self._options.spec
        facts = {
            "lehrling_export": PROVENANCE_FORMAT,
            "specification": None if spec is None else spec.model_dump(mode="json"),
            "embodiment": self._episodes[0].embodiment.model_dump(mode="json"),
            "episodes": self._written,
            "skipped": self._skipped,
        }
        (self._root / PROVENANCE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _task_column(frames: EpisodeFrames, tasks: dict[str, int]) -> NDArray[np.int64]:
    """Return each row's task number; a task that has none yet gets the next."""
    column = np.zeros(frames.rows, np.int64)
    for run in frames.tasks:
        column[run.first :] = tasks.setdefault(run.text, len(tasks))
    return column


class _Steps:
    """Counts and reports steps."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def step(self) -> None:
        """Count one."""
        self.upto(self._done + 1)

    def upto(self, done: int) -> None:
        """Count up to `done`."""
        self._done = done
        if self._progress is not None:
            self._progress(done, self._total)
