"""One thread that infers, for all clients: what waits for the same adapter goes together, the oldest first."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import LehrlingError
from lehrling.training.protocol import Observation

Seen = Callable[[str, int, float], None]
"""Told after each batch: adapter, its size, seconds."""


class Actor(Protocol):
    """Policies by name; used by one thread."""

    def act(self, name: str, observations: Sequence[Observation], /) -> NDArray[np.float32]:
        """Return (B, H, A) float32 actions in physical units."""
        ...


class BusyError(LehrlingError):
    """Too many requests wait."""


@dataclass(frozen=True)
class Inferred:
    """A chunk (H, A), seconds that inference took, and how many were inferred together."""

    actions: NDArray[np.float32]
    infer_s: float
    batch: int


@dataclass(frozen=True)
class _Waiting:
    adapter: str
    observation: Observation
    future: Future[Inferred] = field(default_factory=Future)


class Batcher:
    """Infers in batches of what has come in while the batch before was inferred; nothing waits for others to come.

    The oldest request says which adapter is next, and requests of a client come one at a time: none starves.
    """

    def __init__(self, actor: Actor, batch_max: int = 16, waiting_max: int = 256, seen: Seen | None = None) -> None:
        self._actor, self._batch_max, self._waiting_max, self._seen = actor, batch_max, waiting_max, seen
        self._waiting: deque[_Waiting] = deque()
        self._change = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def ask(self, adapter: str, observation: Observation) -> Future[Inferred]:
        """Queue an observation; the future is the thread's to fulfil, and may be cancelled while it waits.

        Raises:
            BusyError: too many wait, or the server stops.
        """
        with self._change:
            if self._stopped:
                raise BusyError("The server stops.")
            if len(self._waiting) >= self._waiting_max:
                raise BusyError(
                    f"{len(self._waiting)} requests wait already; ask again later, or serve with more devices."
                )
            waiting = _Waiting(adapter, observation)
            self._waiting.append(waiting)
            self._change.notify()
        return waiting.future

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def stop(self) -> None:
        """End the thread; what waits is refused."""
        with self._change:
            self._stopped = True
            self._change.notify()
        self._thread.join()
        for waiting in self._waiting:
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(BusyError("The server stops."))
        self._waiting.clear()

    def _run(self) -> None:
        while batch := self._next():
            self._infer([waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()])

    def _next(self) -> list[_Waiting]:
        """Wait for a request; return it and the others of its adapter, in order. Empty: the thread ends."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._stopped)
            if self._stopped:
                return []
            adapter = self._waiting[0].adapter
            batch = [waiting for waiting in self._waiting if waiting.adapter == adapter][: self._batch_max]
            taken = set(map(id, batch))
            self._waiting = deque(waiting for waiting in self._waiting if id(waiting) not in taken)
        return batch

    def _infer(self, batch: list[_Waiting]) -> None:
        """Fulfil the futures of a batch; where it fails as a whole, each by itself, so that one request spoils no other."""
        if not batch:
            return
        began = time.perf_counter()
        try:
            actions = self._actor.act(batch[0].adapter, [waiting.observation for waiting in batch])
            if len(actions) != len(batch) or not np.isfinite(actions).all():
                raise LehrlingError("The policy gave actions that are not finite, or too few; nothing was sent.")
        except Exception as error:  # noqa: BLE001 — whatever fails, those who wait are told
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for waiting in batch:
                    self._infer([waiting])
            return
        took = time.perf_counter() - began
        if self._seen is not None:
            self._seen(batch[0].adapter, len(batch), took)
        for waiting, chunk in zip(batch, actions, strict=True):
            waiting.future.set_result(Inferred(chunk, took, len(batch)))
