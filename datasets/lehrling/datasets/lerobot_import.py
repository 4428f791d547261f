"""Import a LeRobot dataset, v3.0 or v2.1, through the journal and the sealer; LeRobot is not needed.

Every episode is checked whole before it is taken, and is sealed or refused by itself: what is broken in one costs no other.
Numbers and texts keep every bit. Pictures that are JPEG keep their bytes; others, and frames of videos, become JPEG.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DocumentError, InputError
from lehrling.datasets.frame_import import Taking, check_some
from lehrling.datasets.journal import EpisodeMeta, Outcome
from lehrling.datasets.lerobot_format import PROVENANCE, STAMP, needed
from lehrling.datasets.lerobot_origin import DETAIL, Origin, TaskRun
from lehrling.datasets.lerobot_read import (
    JPEG_QUALITY,
    EpisodeReader,
    EpisodeRows,
    as_jpeg,
    picture_size,
    video_frames,
)
from lehrling.datasets.lerobot_source import Source, open_source
from lehrling.datasets.lerobot_streams import Carrier, carriers, check_embodiment, derived_embodiment, stream_of
from lehrling.datasets.lockstep import Frames, times_at, write_frames
from lehrling.datasets.resize import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.embodiment import Embodiment
    from lehrling.datasets.frame_import import Progress
    from lehrling.datasets.lerobot_listing import Listed
    from lehrling.datasets.manifest import EpisodeRecord

RUNS_MAX = 1000
TEXTS_MAX = 8
"""Tasks of one episode that its instruction names; all are kept beside."""
PROVENANCE_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class LerobotOptions:
    """How a LeRobot dataset is taken.

    Attributes:
        embodiment: None derives one from the features.
        instruction: instead of the dataset's own tasks.
        outcome: None takes what an export of ours said, else `unknown`; LeRobot itself knows no outcome.
    """

    embodiment: Embodiment | None = None
    instruction: str = ""
    task: str = "imported"
    outcome: Outcome | None = None
    operator: str | None = None


@dataclass(frozen=True)
class TakenEpisode:
    """An episode of the source that is in the dataset.

    Attributes:
        status: the manifest's word on it.
        new: whether this import made it; otherwise it was there already.
    """

    id: str
    index: int
    frames: int
    status: str
    new: bool
    reason: str = ""


@dataclass(frozen=True)
class LerobotReport:
    """What an import did.

    Attributes:
        left_out: features that cannot be taken, and why.
        refused: episodes by LeRobot's number, and why.
    """

    source: str
    version: str
    fps: int
    robot: str
    streams: dict[str, str]
    episodes: tuple[TakenEpisode, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def lossy(self) -> bool:
        """Whether something of the source is not in the dataset."""
        return bool(self.left_out or self.refused) or any(episode.status != "sealed" for episode in self.episodes)

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        refused = {str(index): reason for index, reason in self.refused.items()}
        return asdict(self) | {"lossy": self.lossy, "refused": refused}


def lerobot_embodiment(source: Path) -> Embodiment:
    """Return the embodiment that an import would derive, to be completed by hand and given to it.

    Raises:
        InputError: no LeRobot dataset that can be read.
    """
    found = open_source(source)
    return derived_embodiment(carriers(found.features), found.robot_type, found.fps)


def import_lerobot(
    source: Path, dataset: Path, options: LerobotOptions | None = None, progress: Progress | None = None
) -> LerobotReport:
    """Import a LeRobot dataset into the one at `dataset`, which is created if absent; episodes that are there are kept.

    Raises:
        InputError: no LeRobot dataset that can be read, or nothing of it can be taken.
        ContractError: its features do not fit the embodiment given.
        LockedError: another process is writing.
        StorageError: the disk is full or failed.
    """
    wanted = options or LerobotOptions()
    for module in ("pyarrow", "av"):
        needed(module)
    found = open_source(source)
    carried = carriers(found.features)
    embodiment = derived_embodiment(carried, found.robot_type, found.fps)
    if wanted.embodiment is not None:
        check_embodiment(wanted.embodiment, embodiment)
        embodiment = wanted.embodiment
    with Dataset.open_for_writing(dataset, create=True) as opened:
        job = _Job(opened, found, carried, embodiment, wanted, Taking(found.frames, progress), EpisodeReader(found))
        job.run()
    return LerobotReport(
        str(source),
        found.version,
        found.fps,
        embodiment.name,
        stream_of(carried),
        tuple(job.taken),
        found.left_out,
        job.refused,
    )


@dataclass
class _Job:
    """Episodes into journals, journals into episodes."""

    dataset: Dataset
    source: Source
    carried: tuple[Carrier, ...]
    embodiment: Embodiment
    options: LerobotOptions
    taking: Taking
    reader: EpisodeReader
    taken: list[TakenEpisode] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)

    def run(self) -> None:
        """Take every episode that can be.

        Raises:
            InputError: not one can.
        """
        outcomes = self._outcomes()
        self.refused = self.taking.each(
            (e.index, e.length, partial(self._take, e, outcomes.get(e.index, "unknown"))) for e in self.source.episodes
        )
        check_some(self.taken, self.refused)

    def _outcomes(self) -> dict[int, Outcome]:
        """Return the outcome of each episode, as asked for or as our own export said."""
        numbers = range(len(self.source.episodes))
        if self.options.outcome is not None:
            return dict.fromkeys(numbers, self.options.outcome)
        path = self.source.root / PROVENANCE
        try:
            said = read_json(path, "provenance", bytes_max=PROVENANCE_BYTES_MAX)["episodes"]
            rows = [int(episode["rows"]) for episode in said]
            if rows != [episode.length for episode in self.source.episodes]:
                return {}
            known: dict[object, Outcome] = {"success": "success", "failure": "failure"}
            return {number: known.get(said[number]["outcome"], "unknown") for number in numbers}
        except (OSError, DocumentError, KeyError, TypeError, ValueError):
            return {}

    def _take(self, episode: Listed, outcome: Outcome) -> None:
        rows = self.reader.rows(episode)
        for carrier in self.carried:
            if not carrier.feature.camera and (reason := carrier.refusal(rows.columns[carrier.feature.key])):
                raise InputError(f"Episode {episode.index} of {self.source.root}: {reason}.")
        runs = self._runs(rows, episode)
        if self.options.instruction:
            runs = (TaskRun(0, None, self.options.instruction),)
        name = self._id(episode, rows, runs)
        known = self.dataset.records.get(name)
        if known is not None and known.status != "discarded":
            self.taken.append(_taken(known, episode, new=False))
            return
        meta = self._meta(name, episode, runs)
        self._write(meta, episode, rows, outcome)
        self.taken.append(_taken(self.dataset.finish(name), episode, new=True))

    def _runs(self, rows: EpisodeRows, episode: Listed) -> tuple[TaskRun, ...]:
        """Return the tasks in turn, from the row on where each begins."""
        index = rows.task_index
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
        if len(starts) > RUNS_MAX:
            raise InputError(f"Episode {episode.index} changes its task {len(starts)} times; that is no episode.")
        runs = []
        for start in starts.tolist():
            number = int(index[start])
            if number not in self.source.tasks:
                raise InputError(f"Episode {episode.index} names task {number}, which the list of tasks lacks.")
            runs.append(TaskRun(start, number, self.source.tasks[number]))
        return tuple(runs)

    def _id(self, episode: Listed, rows: EpisodeRows, runs: tuple[TaskRun, ...]) -> str:
        """Return the id that features, tasks and all numbers determine; the same episode comes in once."""
        digest = hashlib.sha256(self.embodiment.contract_hash.encode())
        digest.update(json.dumps([self.source.fps, self.source.robot_type, [(r.first, r.text) for r in runs]]).encode())
        for feature in self.source.features:
            digest.update(json.dumps(feature.to_json()).encode())
            column = rows.columns.get(feature.key)
            if isinstance(column, list):
                digest.update(json.dumps(column).encode())
            elif column is not None:
                digest.update(np.ascontiguousarray(column).tobytes())
            for picture in rows.pictures.get(feature.key, []):
                digest.update(hashlib.sha256(picture).digest())
        return f"lerobot-{episode.index:06d}-{digest.hexdigest()[:12]}"

    def _meta(self, name: str, episode: Listed, runs: tuple[TaskRun, ...]) -> EpisodeMeta:
        streams = stream_of(self.carried)
        origin = Origin(self.source.fps, self.source.robot_type, self.source.features, streams, runs)
        texts = dict.fromkeys(run.text for run in runs)
        return EpisodeMeta(
            name,
            self.options.task,
            "; ".join(list(texts)[:TEXTS_MAX]),
            self.embodiment.name,
            "import",
            operator=self.options.operator,
            details={
                "source": {"format": f"LeRobot {self.source.version}", "episode": episode.index},
                DETAIL: origin.to_json(),
            },
        )

    def _write(self, meta: EpisodeMeta, episode: Listed, rows: EpisodeRows, outcome: Outcome) -> None:
        pictures = {c.feature.key: self._jpegs(c, episode, rows) for c in self.carried if c.feature.camera}
        frames = Frames(self._stamps(rows), rows.columns, pictures)
        write_frames(self.dataset.root, meta, self.embodiment, self.carried, frames, outcome, self.taking.told)

    def _stamps(self, rows: EpisodeRows) -> NDArray[np.int64]:
        """Return the frames' times: those that our export kept, where they go up, else those of the rate, from 0 on."""
        kept = rows.columns.get(STAMP)
        if isinstance(kept, np.ndarray) and kept.dtype == np.int64 and kept.shape == (rows.length, 1):
            stamps: NDArray[np.int64] = kept.reshape(-1)
            if int(stamps[0]) >= 0 and bool((np.diff(stamps) > 0).all()):
                return stamps
        return times_at(self.source.fps, rows.length)

    def _jpegs(self, carrier: Carrier, episode: Listed, rows: EpisodeRows) -> Iterator[bytes]:
        feature = carrier.feature
        if feature.dtype == "image":
            for row, content in enumerate(rows.pictures[feature.key]):
                where = f"{feature.key}, frame {row} of episode {episode.index}"
                yield as_jpeg(content, picture_size(feature), where)
        else:
            for image in video_frames(self.source, episode, feature):
                yield encode(image, JPEG_QUALITY)


def _taken(record: EpisodeRecord, episode: Listed, *, new: bool) -> TakenEpisode:
    return TakenEpisode(record.id, episode.index, episode.length, record.status, new, record.reason)
