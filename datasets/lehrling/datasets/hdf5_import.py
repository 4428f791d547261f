"""Import demonstrations from HDF5 files of robomimic's or ALOHA's through the journal and the sealer.

Numbers keep every bit. Pixels become JPEG at quality 95, 4:4:4; JPEGs keep their bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.frame_import import FrameOptions, FrameReport, FrameTaken, Taking, Target, check_some
from lehrling.datasets.hdf5_source import Hdf5Episode, Hdf5Source, check_array, open_hdf5, opened
from lehrling.datasets.journal import EpisodeMeta
from lehrling.datasets.lerobot_format import Feature
from lehrling.datasets.lerobot_read import JPEG_QUALITY, as_jpeg
from lehrling.datasets.lerobot_streams import carriers, check_embodiment, derived_embodiment
from lehrling.datasets.resize import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.frame_import import Progress


def import_hdf5(
    source: Path, dataset: Path, options: FrameOptions | None = None, progress: Progress | None = None
) -> FrameReport:
    """Import a robomimic file, or a file or folder of ALOHA's; episodes that are in the dataset already are kept.

    Raises:
        InputError: no such files, no rate, or nothing can be taken.
        ContractError: the arrays do not fit the embodiment given.
        DamageError: the first file cannot be read.
        LockedError: another process is writing.
        StorageError: the disk is full or failed.
    """
    wanted = options or FrameOptions()
    found = open_hdf5(source)
    rate_hz = wanted.rate_hz or found.rate_hz
    if rate_hz is None:
        raise InputError(
            f"{source} does not say how many frames a second has; give it with --rate (ALOHA's usual one is 50)."
        )
    features = _sized(found.episodes[0])
    carried = carriers(features)
    embodiment = derived_embodiment(carried, found.format, rate_hz)
    if wanted.embodiment is not None:
        check_embodiment(wanted.embodiment, embodiment)
        embodiment = wanted.embodiment
    taking = Taking(sum(episode.length for episode in found.episodes), progress)
    with Dataset.open_for_writing(dataset, create=True) as opened_:
        target = Target(opened_, carried, embodiment, rate_hz, wanted.outcome)
        job = _Job(target, found, features, wanted, taking, refused=dict(found.unread))
        job.run()
    left_out = {name: why for episode in found.episodes for name, why in episode.left_out.items()}
    streams = {carrier.feature.key: carrier.stream for carrier in carried}
    return FrameReport(str(source), found.format, rate_hz, streams, tuple(job.taken), left_out, job.refused)


def _sized(episode: Hdf5Episode) -> tuple[Feature, ...]:
    """Return the features with the sizes of images that are packed, as their first says."""
    sized = []
    with opened(episode.file) as file:
        for feature in episode.features:
            if feature.key in episode.packed:
                content = _unpacked(file[episode.paths[feature.key]][0])
                try:
                    height, width = simplejpeg.decode_jpeg_header(content)[:2]
                except ValueError as error:
                    raise InputError(f"{episode.file}: {feature.key} holds bytes that are no JPEG.") from error
                sized.append(replace(feature, shape=(int(height), int(width), 3)))
            else:
                sized.append(feature)
    return tuple(sized)


def _unpacked(row: NDArray[np.uint8]) -> bytes:
    return bytes(row.tobytes().rstrip(b"\0"))


@dataclass
class _Job:
    """Episodes into journals, journals into episodes."""

    target: Target
    source: Hdf5Source
    features: tuple[Feature, ...]
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
        self.refused |= self.taking.each((e.name, e.length, partial(self._take, number, e)) for number, e in episodes)
        check_some(self.taken, self.refused)

    def _take(self, number: int, episode: Hdf5Episode) -> None:
        self._check_features(episode)
        with opened(episode.file) as file:
            arrays = {key: file[path] for key, path in episode.paths.items()}
            for array in arrays.values():
                check_array(array, str(episode.file))
            columns = {f.key: _numbers(arrays[f.key], f) for f in self.features if not f.camera}
            self.target.check(columns, f"{episode.file}, {episode.name}")
            meta = self._meta(self._id(number, episode, columns, arrays), episode)
            pictures = {f.key: self._jpegs(f, episode, arrays[f.key]) for f in self.features if f.camera}
            frames = episode.length
            self.taken.append(self.target.store(meta, episode.name, frames, columns, pictures, self.taking.told))

    def _check_features(self, episode: Hdf5Episode) -> None:
        mine = {f.key: (f.dtype, f.shape) for f in episode.features if f.key not in episode.packed}
        first = {f.key: (f.dtype, f.shape) for f in self.features if f.key not in episode.packed}
        if mine != first or set(episode.paths) != {f.key for f in self.features}:
            odd = sorted(set(mine.items()) ^ set(first.items()))
            raise InputError(
                f"{episode.file}, {episode.name}: its arrays are not those of the first episode; see "
                f"{odd[0][0] if odd else 'the images'}."
            )

    def _id(self, number: int, episode: Hdf5Episode, columns: dict[str, NDArray[Any]], arrays: dict[str, Any]) -> str:
        """Return the id that contract, rate, numbers and the first and last images determine."""
        digest = hashlib.sha256(
            f"{self.target.embodiment.contract_hash} {self.target.rate_hz} {self._instruction}".encode()
        )
        digest.update(json.dumps([episode.name, self.options.bgr]).encode())
        for feature in self.features:
            if feature.camera:
                rows = [np.asarray(arrays[feature.key][row]) for row in (0, episode.length - 1)]
            else:
                rows = [columns[feature.key]]
            for row in rows:
                digest.update(np.ascontiguousarray(row).tobytes())
        return f"hdf5-{number:06d}-{digest.hexdigest()[:12]}"

    @property
    def _instruction(self) -> str:
        return self.options.instruction or self.source.instruction

    def _meta(self, name: str, episode: Hdf5Episode) -> EpisodeMeta:
        return EpisodeMeta(
            name,
            self.options.task,
            self._instruction,
            self.target.embodiment.name,
            "import",
            operator=self.options.operator,
            details={"source": {"format": self.source.format, "episode": episode.name, "rate_hz": self.target.rate_hz}},
        )

    def _jpegs(self, feature: Feature, episode: Hdf5Episode, array: Any) -> Iterator[bytes]:
        where = f"{feature.key} of {episode.file}"
        for row in range(episode.length):
            if feature.key not in episode.packed:
                yield encode(self._rgb(np.asarray(array[row], np.uint8)), JPEG_QUALITY)
                continue
            content = as_jpeg(_unpacked(array[row]), feature.shape[:2], f"{where}, frame {row}")
            yield encode(self._rgb(decode(content)), JPEG_QUALITY) if self.options.bgr else content

    def _rgb(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image[..., ::-1] if self.options.bgr else image


def _numbers(array: Any, feature: Feature) -> NDArray[Any]:
    return np.asarray(array[...]).reshape(-1, *feature.shape)
