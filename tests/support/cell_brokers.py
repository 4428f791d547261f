"""A real MQTT broker in a thread, and an S7 PLC's emulator, both on free ports of this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

pytest.importorskip("amqtt")
pytest.importorskip("snap7")

from amqtt.broker import Broker  # type: ignore[import-untyped]
from snap7.server import Server
from snap7.type import SrvArea

from lehrling.deploy.s7_layout import SIZE


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(port: int) -> Iterator[None]:
    """Run a broker that lets everybody in."""
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    loop, up = asyncio.new_event_loop(), threading.Event()
    listener = {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}
    anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    ending: list[asyncio.Event] = []

    async def serve() -> None:
        ending.append(asyncio.Event())
        made = Broker({"listeners": listener, "plugins": anonymous})
        await made.start()
        up.set()
        await ending[0].wait()
        await made.shutdown()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert up.wait(20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ending[0].set)
        thread.join(20)


class Listener:
    """Subscribes to everything below a topic."""

    def __init__(self, port: int, topic: str) -> None:
        self.last: dict[str, Any] = {}
        self.heard: list[tuple[str, Any]] = []
        self._topic = topic
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{topic}/#", qos=1)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        name, content = message.topic.removeprefix(f"{self._topic}/"), json.loads(message.payload)
        self.heard.append((name, content))
        self.last[name] = content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def s7_plc(port: int, db: int, block: bytearray | None = None) -> Iterator[bytearray]:
    """Run an S7 PLC's emulator; yields its data block."""
    logging.getLogger("snap7").setLevel(logging.ERROR)
    held = block if block is not None else bytearray(SIZE)
    server = Server(log=False)
    server.register_area(SrvArea.DB, db, held)
    server.start_to("127.0.0.1", port)
    try:
        yield held
    finally:
        server.stop()
