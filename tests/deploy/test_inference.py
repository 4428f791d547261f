"""Questions to a policy server: whatever it does, each gets a reply, and the thread lives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from watching import until

from lehrling.datasets.errors import InputError
from lehrling.deploy.inference import Inference, Question, Reply

CHUNK = np.ones((4, 2), np.float32)


class Client:
    """A connection that answers by a function."""

    def __init__(self, act: Callable[[], Any] = lambda: CHUNK) -> None:
        self.hello: dict[str, Any] = {"adapters": {}}
        self.alive, self._act = True, act

    def infer(self, _observation: dict[str, Any]) -> dict[str, Any]:
        return {"actions": self._act()}

    def close(self) -> None:
        self.alive = False


def replies(inference: Inference, number: int) -> list[Reply]:
    """Ask once and wait for so many replies."""
    got: list[Reply] = []
    inference.ask(Question(1, 0, 0, {}))

    def there() -> bool:
        got.extend(inference.take())
        return len(got) >= number

    until(there, 10)
    return got


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


@pytest.mark.parametrize("error", [MemoryError("32 GiB"), RuntimeError("Event loop is closed"), KeyError("x")])
def test_an_answer_that_raises_anything_is_a_reply_with_its_reason_and_the_connection_is_made_anew(
    error: Exception,
) -> None:
    bad = Client(raising(error))
    made: list[Client] = []

    def connect() -> Client:
        made.append(Client() if made else bad)
        return made[-1]

    inference = Inference(connect)
    assert inference.wait(5)
    (reply,) = replies(inference, 1)
    assert reply.actions is None
    assert f"({type(error).__name__}: {error})" in reply.problem
    until(lambda: inference.lost == 1 and inference.connected, 5)
    assert not bad.alive
    (reply,) = replies(inference, 1)
    assert reply.actions is not None
    assert inference.lost == 1
    inference.close()
    assert not made[-1].alive


def test_a_connection_that_raises_anything_is_tried_again() -> None:
    made: list[int] = []

    def connect() -> Client:
        made.append(1)
        if len(made) == 1:
            raise ValueError("nonsense in the hello")
        if len(made) == 2:
            raise InputError("nobody there")
        return Client()

    inference = Inference(connect)
    until(lambda: inference.problem != "not connected yet", 5)
    assert "(ValueError: nonsense in the hello)" in inference.problem
    assert inference.wait(5)
    assert inference.problem == ""
    inference.close()


def test_a_connection_that_comes_after_the_end_is_closed() -> None:
    begun, come, client = threading.Event(), threading.Event(), Client()

    def connect() -> Client:
        begun.set()
        come.wait()
        return client

    inference = Inference(connect)
    begun.wait(5)
    closing = threading.Thread(target=inference.close)
    closing.start()
    until(lambda: inference._quit, 5)
    come.set()
    closing.join(10)
    until(lambda: not client.alive, 5)
    assert not inference.connected
