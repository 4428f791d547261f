"""Episodes that other tools kept as frames, all streams at once: into a journal, or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter, Outcome
from lehrling.datasets.messages import compressed_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.embodiment import Embodiment
    from lehrling.datasets.lerobot_streams import Carrier

SECOND_NS = 1_000_000_000
FLUSH_S, FSYNC_S = 1.0, 10.0
"""An interrupted import is begun again from its source, so that nothing hangs on frequent syncs."""
END = "end of episode"


@dataclass(frozen=True)
class Frames:
    """An episode's frames.

    Attributes:
        stamp_ns: (N,) one time per frame, for all streams.
        columns: by feature key, (N, …) numbers or texts.
        pictures: by feature key of a camera, its JPEGs in turn.
    """

    stamp_ns: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any] | Sequence[str]]
    pictures: Mapping[str, Iterator[bytes]]


def times_at(rate_hz: float, frames: int) -> NDArray[np.int64]:
    """Return the times (N,) [ns] of frames at a rate, from 0 on."""
    return np.asarray(np.rint(np.arange(frames) * (SECOND_NS / rate_hz)), np.int64)


def write_frames(
    root: Path,
    meta: EpisodeMeta,
    embodiment: Embodiment,
    carried: Sequence[Carrier],
    frames: Frames,
    outcome: Outcome,
    step: Callable[[int], None],
) -> None:
    """Write an episode's journal; one that cannot be written whole is taken back.

    `step` is called with 1 after each frame.

    Raises:
        InputError, DamageError: what the pictures raise.
        StorageError: the disk is full or failed.
    """
    journal = JournalWriter(root, meta, embodiment, FLUSH_S, FSYNC_S)
    try:
        _fill(journal, carried, frames, step)
        journal.close(outcome, END)
    except (InputError, DamageError) as error:
        journal.abandon()
        if not isinstance(error, StorageError):
            shutil.rmtree(journal.directory)
        raise
    except BaseException:
        journal.abandon()
        raise


def _fill(journal: JournalWriter, carried: Sequence[Carrier], frames: Frames, step: Callable[[int], None]) -> None:
    for row, stamp in enumerate(frames.stamp_ns.tolist()):
        for carrier in carried:
            key = carrier.feature.key
            if key in frames.pictures:
                cdr = compressed_image(next(frames.pictures[key]), stamp, carrier.stream)
            else:
                cdr = carrier.message(frames.columns[key][row])
            journal.write(carrier.topic, cdr, received_ns=stamp)
        step(1)
