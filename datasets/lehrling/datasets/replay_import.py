"""Import demonstrations from replay buffers of diffusion_policy and UMI through the journal and the sealer.

Numbers keep every bit. Pixels become JPEG at quality 95, 4:4:4.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.frame_import import FrameOptions, FrameReport, FrameTaken, Taking, Target, check_some
from lehrling.datasets.journal import EpisodeMeta
from lehrling.datasets.lerobot_read import JPEG_QUALITY
from lehrling.datasets.lerobot_streams import carriers, check_embodiment, derived_embodiment
from lehrling.datasets.replay_source import FORMAT, open_replay
from lehrling.datasets.resize import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.frame_import import Progress
    from lehrling.datasets.lerobot_format import Feature
    from lehrling.datasets.replay_source import ReplayEpisode, ReplaySource


def import_replay(
    source: Path, dataset: Path, options: FrameOptions | None = None, progress: Progress | None = None
) -> FrameReport:
    """Import a replay buffer, a Zarr v2 folder or zip; episodes that are in the dataset already are kept.

    Raises:
        InputError: no replay buffer, no rate, a codec that is not taken, or nothing can be taken.
        ContractError: the arrays do not fit the embodiment given.
        DamageError: the buffer cannot be read.
        LockedError: another process is writing.
        StorageError: the disk is full or failed.
    """
    wanted = options or FrameOptions()
    found = open_replay(source)
    if wanted.rate_hz is None:
        raise InputError(
            f"{source} does not say how many frames a second has; give it with --rate (UMI's usual one is 60)."
        )
    carried = carriers(found.features)
    embodiment = derived_embodiment(carried, FORMAT, wanted.rate_hz)
    if wanted.embodiment is not None:
        check_embodiment(wanted.embodiment, embodiment)
        embodiment = wanted.embodiment
    taking = Taking(found.episodes[-1].stop, progress)
    with Dataset.open_for_writing(dataset, create=True) as opened:
        job = _Job(Target(opened, carried, embodiment, wanted.rate_hz, wanted.outcome), found, wanted, taking)
        job.run()
    streams = {carrier.feature.key: carrier.stream for carrier in carried}
    return FrameReport(
        str(source), FORMAT, wanted.rate_hz, streams, tuple(job.taken), dict(found.left_out), job.refused
    )


@dataclass
class _Job:
    """Episodes into journals, journals into episodes."""

    target: Target
    source: ReplaySource
    options: FrameOptions
    taking: Taking
    taken: list[FrameTaken] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Take every episode that can be.

        Raises:
            InputError: not one can.
        """
        episodes = enumerate(self.source.episodes)
        self.refused = self.taking.each((e.name, e.length, partial(self._take, number, e)) for number, e in episodes)
        check_some(self.taken, self.refused)

    def _take(self, number: int, episode: ReplayEpisode) -> None:
        features = self.source.features
        columns = {f.key: self.source.numbers(f, episode) for f in features if not f.camera}
        self.target.check(columns, f"{self.source.name}, {episode.name}")
        meta = self._meta(self._id(number, episode, columns), episode)
        pictures = {f.key: self._jpegs(f, episode) for f in features if f.camera}
        frames = episode.length
        self.taken.append(self.target.store(meta, episode.name, frames, columns, pictures, self.taking.told))

    def _id(self, number: int, episode: ReplayEpisode, columns: dict[str, NDArray[Any]]) -> str:
        """Return the id that contract, rate, numbers and the first image determine."""
        target = self.target
        digest = hashlib.sha256(f"{target.embodiment.contract_hash} {target.rate_hz}".encode())
        digest.update(json.dumps([episode.name, self.options.instruction, self.options.bgr]).encode())
        for feature in self.source.features:
            row = next(self.source.images(feature, episode)) if feature.camera else columns[feature.key]
            digest.update(np.ascontiguousarray(row).tobytes())
        return f"replay-{number:06d}-{digest.hexdigest()[:12]}"

    def _meta(self, name: str, episode: ReplayEpisode) -> EpisodeMeta:
        return EpisodeMeta(
            name,
            self.options.task,
            self.options.instruction,
            self.target.embodiment.name,
            "import",
            operator=self.options.operator,
            details={"source": {"format": FORMAT, "episode": episode.name, "rate_hz": self.target.rate_hz}},
        )

    def _jpegs(self, feature: Feature, episode: ReplayEpisode) -> Iterator[bytes]:
        for image in self.source.images(feature, episode):
            yield encode(image[..., ::-1] if self.options.bgr else image, JPEG_QUALITY)
