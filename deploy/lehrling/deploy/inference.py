"""Questions to a policy server and its answers, in a thread of their own: the control loop never waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import LehrlingError

AGAIN_S, WATCH_S, ANSWER_S = 0.5, 0.05, 5.0
"""Until the next try to connect; between looks at the connection; until a question that is not answered is given up."""


@dataclass(frozen=True)
class Question:
    """One observation that a policy shall answer to.

    Attributes:
        cycle: of what was going on; answers to an earlier one are of no use.
        step: of the chunk runtime when it was asked.
        at_ns: when the observation was, on the monotonic clock.
        content: the request, see `requests`.
    """

    cycle: int
    step: int
    at_ns: int
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """What came of a question: a chunk (H, A) in physical units, or one sentence why there is none."""

    question: Question
    actions: NDArray[np.float32] | None
    seconds: float
    problem: str = ""


class Asked(Protocol):
    """A connection to a policy server, as `PolicyClient` is one."""

    hello: dict[str, Any]

    @property
    def alive(self) -> bool:
        """Whether it is open."""
        ...

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return the answer."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Inference:
    """Asks one question at a time; a connection that is lost is made anew, with a new client object.

    Attributes:
        hello: what the server told when it was last connected; empty before.
        problem: why there is no connection; empty while there is one.
        lost: how often a connection was lost.
    """

    def __init__(self, connect: Callable[[], Asked]) -> None:
        """Connect in the background; `connect` raises LehrlingError where nobody listens."""
        self._connect = connect
        self.hello: dict[str, Any] = {}
        self.problem = "not connected yet"
        self.lost = 0
        self._question: Question | None = None
        self._replies: deque[Reply] = deque(maxlen=64)
        self._changed, self._quit = threading.Condition(), False
        self._client: Asked | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether a server is there."""
        client = self._client
        return client is not None and client.alive

    def wait(self, seconds: float) -> bool:
        """Wait until a server is there; return whether it is."""
        until = time.monotonic() + seconds
        while not self.connected and time.monotonic() < until:
            time.sleep(0.02)
        return self.connected

    def ask(self, question: Question) -> None:
        """Put a question; one that nobody has begun to answer is replaced."""
        with self._changed:
            self._question = question
            self._changed.notify()

    def take(self) -> list[Reply]:
        """Return the replies since the last call."""
        found = []
        while self._replies:
            found.append(self._replies.popleft())
        return found

    def close(self) -> None:
        """End the thread and the connection."""
        with self._changed:
            self._quit = True
            self._changed.notify()
        client = self._client
        if client is not None:
            client.close()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._quit:
            if self._client is None:
                self._join()
            else:
                self._serve(self._client)

    def _join(self) -> None:
        try:
            client = self._connect()
        except Exception as error:  # noqa: BLE001 (the thread must outlive whatever a server sends)
            self.problem = _why(error)
            self._refuse()
            with self._changed:
                self._changed.wait_for(lambda: self._quit, AGAIN_S)
            return
        with self._changed:
            if not self._quit:
                self.hello, self.problem, self._client = client.hello, "", client
                return
        client.close()

    def _serve(self, client: Asked) -> None:
        """Answer one question, or notice that the server is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._question is not None or self._quit, WATCH_S)
            question, self._question = self._question, None
        if self._quit:
            return
        if not client.alive:
            self._leave(client, "The policy server closed the connection.")
            if question is not None:
                self._replies.append(Reply(question, None, 0.0, self.problem))
        elif question is not None:
            self._answer(client, question)

    def _answer(self, client: Asked, question: Question) -> None:
        began = time.monotonic()
        try:
            actions = _chunk(client.infer(dict(question.content)))
        except Exception as error:  # noqa: BLE001 (the thread must outlive whatever a server sends)
            self._replies.append(Reply(question, None, time.monotonic() - began, _why(error)))
            self._leave(client, _why(error))
            return
        self._replies.append(Reply(question, actions, time.monotonic() - began))

    def _leave(self, client: Asked, problem: str) -> None:
        """Give a connection up: servers close it after a mistake, and a client object is not used again."""
        self.problem, self._client = problem, None
        self.lost += 1
        with suppress(Exception):
            client.close()

    def _refuse(self) -> None:
        with self._changed:
            question, self._question = self._question, None
        if question is not None:
            self._replies.append(Reply(question, None, 0.0, self.problem))


def _why(error: Exception) -> str:
    if isinstance(error, LehrlingError):
        return str(error)
    return f"The policy server's answer cannot be used ({type(error).__name__}: {error})."


def _chunk(answer: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return an answer's actions.

    Raises:
        LehrlingError: there are none, as from a server in shadow mode, or they are no chunk of numbers.
    """
    actions = answer.get("actions")
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.dtype.kind not in "fiu":
        raise LehrlingError("The policy server answered without a chunk of actions; is it in shadow mode?")
    return np.asarray(actions, dtype=np.float32)
