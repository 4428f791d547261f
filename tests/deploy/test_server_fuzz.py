"""Frames that are none, by the thousand, through both doors: no crash, memory flat, another client served all along."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgpack
import psutil
import pytest
import zmq
from figures import note
from serving import SPEC, Client, Told, observation
from websockets.exceptions import WebSocketException

from lehrling.deploy.requests import Served
from lehrling.deploy.server import PolicyServer, ServeOptions
from lehrling.deploy.wire import pack

SHORT, LONG, WARM = 300, 100_000, 200
GROWTH_MAX = 48 << 20


def mutations(seed: int) -> Iterator[bytes]:
    """Yield frames that were good once: cut, bits turned, bytes put in, keys and types changed, or noise."""
    draw = random.Random(seed)
    good = pack(observation(1.0, 2.0, adapter="only", step=3, obs_stamp=1.0))
    pieces = (b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"|O", b"\xc1", b"__ndarray__")

    def noise() -> bytes:
        return draw.randbytes(draw.randrange(200))

    def cut() -> bytes:
        return good[: draw.randrange(len(good))]

    def turned() -> bytes:
        data = bytearray(good)
        for _ in range(draw.randrange(1, 8)):
            data[draw.randrange(min(len(data), 400))] ^= 1 << draw.randrange(8)
        return bytes(data)

    def put_in() -> bytes:
        place = draw.randrange(300)
        return good[:place] + draw.choice(pieces) + good[place:]

    def changed() -> bytes:
        values: tuple[object, ...] = (None, True, -1, 1e308, "x" * 3000, [[]] * 50, {"a": {}}, b"\xff\xd8", [1, 2, 3])
        return bytes(msgpack.packb({key: draw.choice(values) for key in draw.sample(list(observation()), 2)}))

    kinds: tuple[Callable[[], bytes], ...] = (noise, cut, turned, put_in, changed)
    while True:
        yield draw.choice(kinds)()


@contextmanager
def witness(server: PolicyServer) -> Iterator[list[int]]:
    """Have another client ask all along; yield how many answers it got."""
    answered, stop = [0], threading.Event()

    def ask() -> None:
        with Client(server) as client:
            while not stop.is_set():
                assert "actions" in client.ask(observation())
                answered[0] += 1
                stop.wait(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def websocket(server: PolicyServer, count: int, check: Callable[[], None]) -> None:
    """Send frames; a connection that was closed for one is made anew."""
    frames, client = mutations(1), Client(server)
    for number in range(count):
        try:
            client.socket.send(next(frames))
            client.socket.recv(20)
        except WebSocketException:
            with suppress(WebSocketException):
                client.socket.close()
            client = Client(server)
        if number % 100 == 0:
            check()
    client.socket.close()


def groot(server: PolicyServer, count: int, check: Callable[[], None]) -> None:
    """Send messages; each is answered."""
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.connect(f"tcp://127.0.0.1:{server.groot_port}")
    frames = mutations(2)
    for number in range(count):
        socket.send(next(frames))
        assert isinstance(msgpack.unpackb(socket.recv()), dict | list)
        if number % 100 == 0:
            check()
    socket.close(0)
    context.term()


@pytest.mark.parametrize("door", [websocket, groot])
@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])
def test_frames_that_are_none_harm_nobody(
    door: Callable[[PolicyServer, int, Callable[[], None]], None], count: int
) -> None:
    process = psutil.Process()
    server = PolicyServer(Told(), {"only": Served("only", SPEC)}, ServeOptions(port=0, groot_port=0))
    server.start()
    try:
        with witness(server) as answered:
            door(server, WARM, lambda: None)
            before, seen = process.memory_info().rss, [answered[0]]
            door(server, count, lambda: seen.append(answered[0]))
            growth = process.memory_info().rss - before
        assert answered[0] > seen[0]
        assert growth < GROWTH_MAX
    finally:
        server.stop()
    if count == LONG:
        name = f"{LONG} malformed frames, {door.__name__}: memory grown"
        note(name, growth / 2**20, "MiB", "allowed", GROWTH_MAX / 2**20, "flat, others served", met=True)
