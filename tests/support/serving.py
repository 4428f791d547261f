"""A policy server with policies made by the tests, and a client that speaks plainly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from lehrling.deploy.requests import Served
from lehrling.deploy.server import PolicyServer, ServeOptions
from lehrling.deploy.wire import pack, unpack
from lehrling.training.protocol import Observation, PolicySpec

PX, CHUNK = 16, 4
SPEC = PolicySpec(("front",), PX, ("a", "b"), ("x", "y", "z"), CHUNK, 10.0)


@dataclass
class Told:
    """Answers what it was shown: row h of a chunk is (sum of the state, brightest pixel, h); notes the batches.

    Attributes:
        open: closed, inference waits.
        fails: raised instead of an answer.
    """

    takes_s: float = 0.0
    batches: list[tuple[str, int]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    fails: Exception | None = None

    def __post_init__(self) -> None:
        self.open.set()

    def act(self, name: str, observations: Sequence[Observation]) -> NDArray[np.float32]:
        self.open.wait(20)
        self.batches.append((name, len(observations)))
        if self.fails is not None:
            raise self.fails
        time.sleep(self.takes_s)
        return np.stack([_chunk(seen) for seen in observations])


def _chunk(seen: Observation) -> NDArray[np.float32]:
    brightest = max(int(image.max()) for image in seen.images.values())
    return np.array([[seen.state.sum(), brightest, step] for step in range(CHUNK)], np.float32)


def observation(*state: float, bright: int = 0, **more: Any) -> dict[str, Any]:
    """Return a request that fits SPEC."""
    image = np.full((PX, PX, 3), bright, np.uint8)
    numbers = np.array(state or (1.0, 2.0), np.float32)
    return {"observation/front": image, "observation/state": numbers, "prompt": "do it", **more}


@contextmanager
def serving(
    actor: Any = None, *names: str, shadow: Any = None, warm_up: bool = True, **options: Any
) -> Iterator[PolicyServer]:
    """Serve policies of SPEC by the given names on a port of its own."""
    served = {name: Served(name, SPEC, contract="c0ffee") for name in names or ("first",)}
    server = PolicyServer(actor or Told(), served, ServeOptions(port=0, **options), shadow)
    server.start(warm_up=warm_up)
    try:
        yield server
    finally:
        server.stop()


class Client:
    """A client of one connection."""

    def __init__(self, server: PolicyServer, **options: Any) -> None:
        self.socket: ClientConnection = connect(server.url, compression=None, max_size=None, **options)
        self.hello = self._map()

    def _map(self) -> dict[str, Any]:
        return unpack(self.socket.recv(20))

    def send(self, content: Any) -> None:
        self.socket.send(pack(content) if isinstance(content, dict) else content)

    def ask(self, content: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        self.send(content)
        return self._map()

    def refused(self, content: Any) -> str:
        """Return the text that a wrong request is answered by, after which the connection ends."""
        self.send(content)
        text = self.socket.recv(20)
        assert isinstance(text, str)
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()
