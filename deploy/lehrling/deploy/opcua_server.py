"""The cell's OPC UA server: a thread with an event loop of its own, so that no client can hold up the handshake."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from asyncua import ua
from asyncua.common.connection import TransportLimits

from lehrling.datasets.errors import InputError
from lehrling.deploy.cell_config import CellConfig
from lehrling.deploy.cell_exchange import Exchange
from lehrling.deploy.cell_users import Users
from lehrling.deploy.opcua_certificate import application_uri, ensure_certificate
from lehrling.deploy.opcua_handshake import HandshakeNodes
from lehrling.deploy.opcua_robotics import RoboticsView, version
from lehrling.deploy.opcua_security import (
    CHUNK_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    CellInternalServer,
    CellServer,
    CellUserManager,
    Told,
    make_read_only,
    read_trusted,
)
from lehrling.deploy.opcua_types import Space

NAMESPACE: Final = "urn:lehrling:UA:Cell"
ROBOT_PERIOD_NS = 100_000_000
"""The robot's values follow at 10 Hz."""
_log = logging.getLogger("lehrling.cell")


class OpcUaServer:
    """Serves until stopped; `start` and `stop` are for the thread that made it.

    Attributes:
        fingerprint: SHA-256 of the server's certificate, hexadecimal.
    """

    def __init__(
        self,
        config: CellConfig,
        exchange: Exchange,
        told: Told | None = None,
        broken: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Read users and certificates; `broken` is called where the server ends by an error of its own.

        Raises:
            InputError: they are missing or wrong.
            StorageError: a certificate cannot be written.
        """
        self._config, self._exchange, self._broken = config, exchange, broken
        opcua = config.opcua
        users = Users.read(opcua.users)
        trusted = read_trusted(opcua.trusted) if opcua.trusted else None
        self._uri = application_uri(config.name)
        self.fingerprint = ensure_certificate(opcua.certificate, opcua.key, self._uri, opcua.hosts)
        self._manager = CellUserManager(users, trusted, told or (lambda name, what: _log.info("%s: %s", name, what)))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="opcua", daemon=True)
        self._listening = threading.Event()
        self._failure: BaseException | None = None
        self._ending: asyncio.Event | None = None
        self.port = opcua.port

    @property
    def url(self) -> str:
        """Where clients connect to."""
        host = self._config.opcua.host
        return f"opc.tcp://{f'[{host}]' if ':' in host else host}:{self.port}/lehrling/"

    def start(self) -> None:
        """Listen.

        Raises:
            InputError: the address is taken or not this machine's, or a NodeSet is wrong.
        """
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            self._thread.join()
            if isinstance(self._failure, InputError):
                raise self._failure
            where = f"{self._config.opcua.host}:{self._config.opcua.port}"
            raise InputError(f"The OPC UA server cannot listen on {where}: {self._failure}.") from self._failure

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lambda: self._ending.set() if self._ending else None)
        self._thread.join()

    # --- the thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # noqa: BLE001 (told to the thread that starts)
            self._failure = error
            if self._listening.is_set():
                _log.exception("the OPC UA server ended by an error")
                self._broken(f"The OPC UA server ended by an error: {type(error).__name__}: {error}.")
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._listening.set()

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        server = await self._made()
        space = await Space.make(server, NAMESPACE, self._config.opcua.nodesets or ())
        make_read_only(server)
        writable = self._config.handshake.commands_from == "opcua"
        nodes = HandshakeNodes(server, space, self._exchange, writable)
        robot = RoboticsView(space, self._config)
        await nodes.build()
        await robot.build()
        await server.start()
        assert server.bserver is not None
        self.port = server.bserver.port
        self._listening.set()
        try:
            await self._follow(nodes, robot)
        finally:
            await server.stop()

    async def _made(self) -> CellServer:
        opcua = self._config.opcua
        server = CellServer(CellInternalServer(self._manager, opcua.sessions_max))
        server.name, server.manufacturer_name = "Lehrling cell", "Lehrling"
        server.product_uri = "urn:lehrling:cell"
        await server.init()
        await server.set_application_uri(self._uri)
        await server.set_build_info(server.product_uri, "Lehrling", server.name, version(), "0", datetime.now(UTC))
        server.set_endpoint(f"opc.tcp://{opcua.host}:{opcua.port}/lehrling/")
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        await server.load_certificate(opcua.certificate)
        await server.load_private_key(opcua.key)
        server.limits = TransportLimits(
            max_recv_buffer=CHUNK_BYTES_MAX,
            max_send_buffer=CHUNK_BYTES_MAX,
            max_chunk_count=math.ceil(MESSAGE_BYTES_MAX / CHUNK_BYTES_MAX),
            max_message_size=MESSAGE_BYTES_MAX,
        )
        return server

    async def _follow(self, nodes: HandshakeNodes, robot: RoboticsView) -> None:
        """Show what the handshake and the robot do, until told to end."""
        assert self._ending is not None
        period_s, shown_ns = self._config.handshake.cycle_ms / 1e3, 0
        while not self._ending.is_set():
            shown, now = self._exchange.shown(), time.monotonic_ns()
            await nodes.show(shown)
            if now - shown_ns >= ROBOT_PERIOD_NS:
                shown_ns = now
                await robot.show(shown.state, shown.commands, now)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), period_s)
