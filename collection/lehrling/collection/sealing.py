"""Sealing in the background: one process seals while the next episode already records."""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError, InputError, LehrlingError, StorageError
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.processes import die_with_parent, out_of_reach
from lehrling.datasets.sealer import seal

NICENESS, ATTEMPTS = 5, 2
Result = tuple[str, EpisodeRecord | LehrlingError]
ERRORS: dict[str, type[LehrlingError]] = {"DamageError": DamageError, "StorageError": StorageError}


def _start(parent: int) -> None:
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)


def _seal(root: Path, name: str) -> EpisodeRecord | tuple[str, str]:
    """Seal in another process; an error comes back as its class and words."""
    try:
        return seal(root, name)
    except LehrlingError as error:
        return type(error).__name__, str(error)


class Sealing:
    """Seals and commits ended journals, or quarantines what does not pass; discards others. One after the other.

    While it lives, nobody else writes the dataset's manifest.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._jobs: queue.SimpleQueue[tuple[str, str | None] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._pool: ProcessPoolExecutor | None = None
        self._thread = threading.Thread(target=self._run, name="sealing", daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Start the other process now: it takes seconds to load what sealing needs."""
        self._jobs.put(("", None))

    def seal(self, name: str) -> None:
        """Seal this journal, after those before."""
        self._jobs.put((name, None))

    def discard(self, name: str, reason: str) -> None:
        """Discard this journal, after those before."""
        self._jobs.put((name, reason))

    def results(self) -> list[Result]:
        """Return what became of episodes since the last call: id, and the manifest's word or the error."""
        found = []
        while not self._done.empty():
            found.append(self._done.get())
        return found

    def close(self) -> None:
        """Do what waits, then end."""
        self._jobs.put(None)
        self._thread.join()
        if self._pool is not None:
            self._pool.shutdown()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            name, reason = job
            if not name:
                with out_of_reach():
                    self._processes().submit(os.getpid)
                continue
            try:
                self._done.put((name, self._do(name, reason)))
            except LehrlingError as error:
                self._done.put((name, error))
            except Exception as error:  # noqa: BLE001 — the journal stays for the next opening to repair
                kind = type(error).__name__
                self._done.put((name, DamageError(f"Finishing {name} failed ({kind}: {error}); its journal stays.")))

    def _do(self, name: str, reason: str | None) -> EpisodeRecord:
        if reason is None:
            return self._dataset.finish(name, self._elsewhere)
        self._dataset.discard(name, reason)
        return self._dataset.records[name]

    def _elsewhere(self, root: Path, name: str) -> EpisodeRecord:
        """Seal in another process: what ends that one, as the kernel does for want of memory, must not end the recorder."""
        for _ in range(ATTEMPTS):
            try:
                with out_of_reach():
                    job = self._processes().submit(_seal, root, name)
                result = job.result()
            except BrokenProcessPool:
                self._pool = None
                continue
            if isinstance(result, EpisodeRecord):
                return result
            kind, text = result
            raise ERRORS.get(kind, InputError)(text)
        raise StorageError(
            f"Sealing {name} was ended by the system {ATTEMPTS} times, perhaps for want of memory; its journal stays, the next "
            "opening of the dataset seals it."
        )

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = mp.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(os.getpid(),))
        return self._pool
