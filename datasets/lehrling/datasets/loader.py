"""Batches ahead of time: threads read and decode while the consumer computes, in an order that can be resumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, Self

from lehrling.datasets.errors import InputError

AHEAD = 4


class Draws[Rows, State](Protocol):
    """What says which rows come next, and where it stands: `EpisodeSampler`, `Mixture`."""

    def __next__(self) -> Rows:
        """Return the rows of the next batch."""
        ...

    def state_dict(self) -> State:
        """Return the state, JSON-ready."""
        ...

    def load_state_dict(self, state: State) -> object:
        """Continue where `state` was taken."""
        ...


class Loader[Rows, State, Batch]:
    """Yields batches without end, in the sampler's order whatever the number of threads.

    Threads suffice, and cost neither copies between processes nor forks: JPEGs are decoded outside Python's interpreter
    lock. `state_dict` tells where the consumer is, not how far ahead was read, so that resuming repeats and leaves out
    nothing. An error reaches the consumer in the place of its batch.
    """

    def __init__(
        self,
        read: Callable[[Rows], Batch],
        sampler: Draws[Rows, State],
        *,
        workers: int = 2,
        ahead: int = AHEAD,
    ) -> None:
        """Read batches of `sampler` by `read`.

        Args:
            read: makes a batch of rows; called from several threads at once.
            sampler: not to be used by anybody else meanwhile.
            workers: threads; 0 reads when asked, in the consumer's thread.
            ahead: batches read ahead of the consumer, beyond one per worker.

        Raises:
            InputError: a negative number of workers, or fewer than no batches ahead.
        """
        if workers < 0 or ahead < 0:
            raise InputError(f"Expected 0 or more workers and batches ahead, got {workers} and {ahead}.")
        self._read, self._sampler = read, sampler
        self._workers, self._depth = workers, workers + ahead
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[tuple[State, Future[Batch]]] = deque()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Return the next batch."""
        if self._workers == 0:
            return self._read(next(self._sampler))
        self._fill()
        batch = self._pending[0][1].result()
        self._pending.popleft()
        self._fill()
        return batch

    def state_dict(self) -> State:
        """Return the sampler's state before the next batch that the consumer will get."""
        return self._pending[0][0] if self._pending else self._sampler.state_dict()

    def load_state_dict(self, state: State) -> Self:
        """Continue where `state` was taken."""
        self._drop()
        self._sampler.load_state_dict(state)
        return self

    def close(self) -> None:
        """End the threads; the sampler stands where the consumer is."""
        state = self.state_dict()
        self._drop()
        self._sampler.load_state_dict(state)
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _fill(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="loader")
        while len(self._pending) < self._depth:
            state = self._sampler.state_dict()
            self._pending.append((state, self._pool.submit(self._read, next(self._sampler))))

    def _drop(self) -> None:
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()
