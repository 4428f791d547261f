"""A connection for code that waits: nothing is lost over TLS, and every wait ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import self_signed
from serving import Told, observation, serving
from watching import until
from websockets.exceptions import ConnectionClosed, WebSocketException

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.client import PolicyClient
from lehrling.deploy.connection import Connection
from lehrling.deploy.server import PolicyServer
from lehrling.deploy.wire import pack, unpack


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(tls: tuple[Path, Path]) -> Iterator[PolicyServer]:
    with serving(tls=tls) as made:
        yield made


def test_no_connection_over_tls_loses_anything(server: PolicyServer, tls: tuple[Path, Path]) -> None:
    trusted = ssl.create_default_context(cafile=str(tls[0]))
    before = threading.active_count()
    for _ in range(150):
        with Connection(server.url, tls=trusted, timeout_s=10) as connection:
            assert "adapters" in unpack(connection.recv(10))
            assert "actions" in unpack(connection.exchange(pack(observation()), 10))
    assert threading.active_count() <= before


def test_what_is_sent_and_received_apart_comes_in_its_order(server: PolicyServer, tls: tuple[Path, Path]) -> None:
    trusted = ssl.create_default_context(cafile=str(tls[0]))
    with Connection(server.url, tls=trusted) as connection:
        connection.recv(10)
        for _ in range(3):
            connection.send(pack(observation()))
            assert "actions" in unpack(connection.recv(10))
        with pytest.raises(TimeoutError):
            connection.recv(0.05)
        assert connection.open
        connection.close()
        assert not connection.open
        connection.close()


def test_a_server_that_is_silent_or_goes_away_ends_every_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            Connection(url, timeout_s=0.2)
        with pytest.raises(InputError, match="No policy server answers at ws://"):
            PolicyClient(url, timeout_s=0.2)
    with pytest.raises((OSError, WebSocketException)):
        Connection(url)
    with serving() as server:
        client, other = PolicyClient(server.url), Connection(server.url)
        other.recv(10)
    with pytest.raises(LehrlingError, match="The policy server went away"):
        client.infer(observation())
    assert not client.alive
    with pytest.raises(ConnectionClosed):
        other.recv(10)
    client.close()
    other.close()


def test_an_answer_that_does_not_come_in_time_is_told_as_that() -> None:
    actor = Told()
    with serving(actor, warm_up=False) as server, PolicyClient(server.url, answer_s=0.3) as client:
        actor.open.clear()
        with pytest.raises(LehrlingError, match=r"has not answered within 0\.3 s"):
            client.infer(observation())
        actor.open.set()


def test_a_connection_that_is_closed_says_so_to_whoever_asks() -> None:
    with serving() as server:
        client, other = PolicyClient(server.url), Connection(server.url)
        client.close()
        other.close()
        with pytest.raises(LehrlingError, match="The policy server went away"):
            client.infer(observation())
        for act in (lambda: other.send(b""), lambda: other.recv(1), lambda: other.exchange(b"", 1)):
            with pytest.raises(OSError, match="the connection is closed"):
                act()


def test_two_threads_may_close_a_connection() -> None:
    with serving() as server:
        for _ in range(20):
            connection, failed = Connection(server.url), list[BaseException]()

            def close(connection: Connection = connection, failed: list[BaseException] = failed) -> None:
                try:
                    connection.close()
                except BaseException as error:  # noqa: BLE001 (shown below)
                    failed.append(error)

            closing = [threading.Thread(target=close) for _ in range(2)]
            for thread in closing:
                thread.start()
            for thread in closing:
                thread.join(10)
            assert failed == []
            assert not any(thread.is_alive() for thread in closing)


def test_closing_ends_what_waits_in_another_thread(server: PolicyServer, tls: tuple[Path, Path]) -> None:
    trusted = ssl.create_default_context(cafile=str(tls[0]))
    for _ in range(20):
        connection, ended = Connection(server.url, tls=trusted), list[BaseException]()
        connection.recv(10)

        def wait(connection: Connection = connection, ended: list[BaseException] = ended) -> None:
            try:
                connection.recv()
            except (OSError, WebSocketException) as error:
                ended.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        connection.close()
        waiting.join(10)
        assert not waiting.is_alive()
        assert len(ended) == 1


def test_a_task_that_is_left_over_when_the_thread_ends_is_told(server: PolicyServer, tls: tuple[Path, Path]) -> None:
    connection = Connection(server.url, tls=ssl.create_default_context(cafile=str(tls[0])))
    connection.recv(10)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            connection.recv()
        except OSError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: len(asyncio.all_tasks(connection._loop)) > 1)
    connection._end()
    waiting.join(10)
    assert [type(error) for error in ended] == [ConnectionAbortedError]
