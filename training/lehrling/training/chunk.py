"""The chunk runtime: a queue of predicted steps that owns late results. numpy only, shared by `eval` and `deploy`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError

Mode = Literal["sync", "ensemble", "async"]
ENSEMBLE_DECAY = 0.1
"""Weight exp(-decay * age) of older predictions (ACT, arXiv 2304.13705, which weighs the oldest most; here the newest)."""
DELAYS_KEPT = 8

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Ask:
    """What to ask a policy for.

    Attributes:
        step: the step that the observation is of; the chunk's first action is for it. Where a view declares latency, the
            observation is of so much before it is made, and the actions of that time have passed.
        tail: (n, A) what will be executed from that step on if no chunk comes; for policies that continue it (real-time
            chunking, arXiv 2506.07339).
        delay: steps that will pass until the chunk is there, judged by those before.
    """

    step: int
    tail: FloatArray
    delay: int


class ChunkRunner:
    """Executes chunks (H, A): `execute` steps of each, then asks for the next.

    `sync` plays the newest chunk; nothing is there to play until the next has come. `async` asks at the same moment and goes on
    playing the old chunk until the new one is there. `ensemble` averages, for each step, all chunks that predicted it, weighing
    newer ones more. A chunk may arrive late: `push(chunk, started_at=step)` drops the steps that have passed, so a late
    result is never played as if it were fresh; one that was asked for before a newer one that has come is dropped whole.
    """

    def __init__(self, chunk: int, execute: int, mode: Mode = "sync", *, fade: int = 0) -> None:
        """Begin at step 0.

        Args:
            chunk: H, steps of a chunk.
            execute: steps after which the next is asked for.
            mode: see above.
            fade: steps over which the jump from the old plan to a new chunk is faded out, in mode `async`.

        Raises:
            InputError: more steps are to be executed or faded than a chunk has.
        """
        if not 1 <= execute <= chunk:
            raise InputError(f"Expected to execute from 1 to the chunk length {chunk} steps, got {execute}.")
        if not 0 <= fade <= chunk:
            raise InputError(f"Expected to fade over 0 to the chunk length {chunk} steps, got {fade}.")
        self._length, self._execute, self._mode, self._fade = chunk, execute, mode, fade
        self._delays: deque[int] = deque(maxlen=DELAYS_KEPT)
        self.reset()

    def reset(self) -> None:
        """Forget everything but how long chunks take: a new episode begins at step 0."""
        self.step = 0
        self._chunks: deque[tuple[int, FloatArray]] = deque()
        self._due = 0
        self._asked: int | None = None
        self.late = 0

    def needs_chunk(self) -> bool:
        """Whether a new chunk should be asked for before the next step."""
        return self._asked is None and self.step >= self._due

    @property
    def end(self) -> int:
        """The step before which there is something to play."""
        if not self._chunks:
            return self.step
        return self._due if self._mode == "sync" else self._chunks[-1][0] + self._length

    def ask(self) -> Ask | None:
        """Return what to ask for, once; None while nothing is due or the last answer has not come."""
        if not self.needs_chunk():
            return None
        self._asked = self.step
        return Ask(self.step, self.ahead(), max(self._delays, default=0))

    def give_up(self) -> None:
        """Wait no longer for the answer; what was asked for may be asked for again."""
        self._asked = None

    def push(self, chunk: FloatArray, *, started_at: int | None = None) -> bool:
        """Take a chunk (H, A) whose first step is `started_at` (default: now); return whether it is played.

        Raises:
            InputError: wrong length, not finite, from the future, or wholly in the past.
        """
        start = self.step if started_at is None else started_at
        self._asked = None
        if chunk.ndim != 2 or len(chunk) != self._length or not np.isfinite(chunk).all():
            raise InputError(f"Expected a finite chunk of {self._length} rows, got shape {chunk.shape}.")
        if not self.step - self._length < start <= self.step:
            raise InputError(
                f"Expected a chunk that covers step {self.step}, got one for steps {start} to {start + self._length - 1}."
            )
        self._delays.append(self.step - start)
        if self._chunks and self._chunks[-1][0] > start:
            self.late += 1
            return False
        self._chunks.append((start, self._faded(start, np.asarray(chunk, dtype=np.float32))))
        if self._mode != "ensemble":
            self._chunks = deque([self._chunks[-1]])
        self._due = max(start + self._execute, self.step + 1)
        return True

    def _faded(self, start: int, chunk: FloatArray) -> FloatArray:
        """Return a chunk that begins, at this step, where the plan is, and approaches itself over `fade` steps."""
        if self._mode != "async" or not self._fade or not self._chunks:
            return chunk
        before, old = self._chunks[-1]
        place = self.step - start
        if self.step - before >= self._length:
            return chunk
        jump = old[self.step - before] - chunk[place]
        faded = chunk.copy()
        count = min(self._fade, self._length - place)
        faded[place : place + count] += jump * (1 - np.arange(count, dtype=np.float32) / self._fade)[:, None]
        return faded

    def ahead(self) -> FloatArray:
        """Return what will be executed from this step on (n, A), as far as it is known; empty (0, A or 0) if nothing is."""
        if not self._chunks:
            return np.empty((0, 0), dtype=np.float32)
        rows = [self._at(step) for step in range(self.step, self.end)]
        known = [row for row in rows if row is not None]
        return np.stack(known) if known else np.empty((0, self._chunks[-1][1].shape[1]), dtype=np.float32)

    def _at(self, step: int) -> FloatArray | None:
        rows = [chunk[step - start] for start, chunk in self._chunks if start <= step < start + self._length]
        if len(rows) < 2:
            return np.asarray(rows[0], dtype=np.float32) if rows else None
        weights = np.exp(-ENSEMBLE_DECAY * np.arange(len(rows))[::-1])
        mean: FloatArray = np.average(np.stack(rows), axis=0, weights=weights).astype(np.float32)
        return mean

    def next(self) -> FloatArray:
        """Return the action (A,) for this step and advance.

        Raises:
            InputError: no chunk covers this step.
        """
        row = self._at(self.step)
        if row is None:
            raise InputError(f"No chunk covers step {self.step}; push one first.")
        self.advance(self.step + 1)
        return row

    def advance(self, step: int) -> None:
        """Go on to a later step, as time does whether or not there is something to play."""
        self.step = max(self.step, step)
        while self._chunks and self._chunks[0][0] + self._length <= self.step:
            self._chunks.popleft()


def interpolate(previous: FloatArray, target: FloatArray, ratio: int) -> FloatArray:
    """Return (ratio, A) commands from `previous` (excluded) to `target` (included), for a control rate above the policy's."""
    if ratio < 1:
        raise InputError(f"Expected a ratio of at least 1, got {ratio}.")
    shares = np.arange(1, ratio + 1, dtype=np.float32)[:, None] / ratio
    result = previous + (target - previous) * shares
    result[-1] = target
    return np.asarray(result, dtype=np.float32)
