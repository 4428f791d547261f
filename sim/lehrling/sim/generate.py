"""Generate demonstrations into a dataset: one shard per worker, idempotent per seed."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.datasets.manifest import SETTLED, EpisodeRecord
from lehrling.datasets.sealer import seal
from lehrling.sim.catalogue import make_station, offer
from lehrling.sim.record import episode_id, record_episode
from lehrling.sim.station import Station
from lehrling.sim.variants import resized

PRESENT = ("sealed", "replaced")
"""Statuses of episodes that are in the dataset; a replaced one lives on in its parts."""
Progress = Callable[[int, int], None]
"""Called with episodes done and episodes wanted."""


@dataclass(frozen=True)
class GenerateReport:
    """What `generate` did.

    Attributes:
        made: ids of new episodes, in seed order.
        kept: ids that were in the dataset already, whole or in parts.
        gone: ids that were quarantined, deleted or purged -> which; a sealed id never comes again.
        successes: number of new episodes in which the expert succeeded.
    """

    made: tuple[str, ...]
    kept: tuple[str, ...]
    gone: Mapping[str, str]
    successes: int


_station: Station | None = None


def _start_worker(task: str, robot: str, image_px: int, parent: int) -> None:
    """Prepare a worker: one world, no threads of its own, gone when its parent is."""
    global _station  # noqa: PLW0603
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(parent)
    _station = make_station(task, robot, (image_px, image_px))


def _die_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) for SIGKILL when the parent ends, so that no orphan writes into a dataset."""
    import ctypes

    pr_set_pdeathsig = 1
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _make(root: Path, seed: int) -> EpisodeRecord:
    """Record and seal one episode in a worker; committing is the parent's, who holds the lock."""
    assert _station is not None
    record_episode(root, _station, seed)
    return seal(root, episode_id(_station.task_name, _station.embodiment.name, seed))


def _records(
    root: Path, task: str, robot: str, image_px: int, seeds: Sequence[int], workers: int
) -> Iterator[EpisodeRecord]:
    """Return the records in the seeds' order, so that the manifest, too, is the same for any number of workers."""
    context = mp.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (task, robot, image_px, os.getpid())) as pool:
        futures = [pool.submit(_make, root, seed) for seed in seeds]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _check_contract(records: Sequence[EpisodeRecord], robot: str, image_px: int) -> None:
    """Refuse to keep what another contract would have made.

    Raises:
        InputError: naming the first episode.
    """
    contract = resized(load_embodiment(robot), (image_px, image_px)).contract
    for record in records:
        if record.contract_hash != contract.hash:
            raise InputError(
                f"Episode {record.id!r} is there under another contract than images of {image_px} px give; "
                "take the --size that it was made with, other seeds, or another dataset."
            )


def generate(
    path: Path,
    task: str,
    robot: str,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    image_px: int = 96,
    progress: Progress | None = None,
) -> GenerateReport:
    """Add one demonstration per seed to the dataset at `path`, which is created if absent.

    A seed that is in the dataset already is kept; the same seed gives the same content hash anywhere. One whose episode was
    quarantined, deleted or purged is left out and told.

    Raises:
        InputError: unknown task or robot, a robot that cannot do the task, no seeds, or a seed that is there at another size.
        LockedError: another process is writing.
    """
    offer(task, robot)
    if not seeds or workers < 1:
        raise InputError(f"Expected at least one episode and one worker, got {len(seeds)} and {workers}.")
    made: list[EpisodeRecord] = []
    with Dataset.open_for_writing(path, create=True) as dataset:
        wanted = {episode_id(task, robot, seed): seed for seed in seeds}
        known = {name: record for name in wanted if (record := dataset.records.get(name)) is not None}
        settled = {name: record for name, record in known.items() if record.status in SETTLED}
        kept = tuple(name for name, record in settled.items() if record.status in PRESENT)
        gone = {name: record.status for name, record in settled.items() if record.status not in PRESENT}
        _check_contract([settled[name] for name in kept], robot, image_px)
        todo = [seed for name, seed in wanted.items() if name not in settled]
        for record in _records(dataset.root, task, robot, image_px, todo, min(workers, max(len(todo), 1))):
            dataset.commit(record)
            made.append(record)
            if progress is not None:
                progress(len(made) + len(kept), len(wanted) - len(gone))
    successes = sum(record.outcome == "success" for record in made)
    return GenerateReport(tuple(sorted(record.id for record in made)), kept, gone, successes)
