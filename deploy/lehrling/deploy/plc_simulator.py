"""A made-up PLC: an OPC UA client that runs cycles of the handshake, and misbehaves when told to.

After a lost connection it makes a new client object: one that has been connected before may hang for ever
(github.com/FreeOpcUa/opcua-asyncio/issues/1660).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaError

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.handshake_image import U16, U32, Command, Mode, Refusal
from lehrling.deploy.opcua_certificate import application_uri, ensure_certificate
from lehrling.deploy.opcua_handshake import CELL, COMMAND_NODES, STATUS_NODES
from lehrling.deploy.opcua_server import NAMESPACE
from lehrling.deploy.opcua_types import DATA_TYPES

Reading = Mapping[str, bool | int | str]
RETRY_S, REQUEST_S = 0.2, 10.0
LOST = (OSError, UaError, TimeoutError, asyncio.TimeoutError, ConnectionError)


class PlcError(LehrlingError):
    """What the PLC waited for did not happen."""


@dataclass(frozen=True)
class PlcOptions:
    """Where the cell is, and how often to talk to it.

    Attributes:
        pki: folder of the PLC's own certificate, made there.
    """

    url: str
    user: str
    password: str
    pki: Path
    period_s: float = 0.05
    wait_s: float = 30.0


@dataclass
class PlcSimulator:
    """Writes the command image and reads the status image, periodically; the methods are for one other thread.

    Attributes:
        beating: whether the heartbeat goes on.
        status: as last read.
        connections: client objects made so far that got through.
        image: what is written at every period; what is taken out of it is left alone.
    """

    options: PlcOptions
    beating: bool = True
    status: Reading = field(default_factory=dict)
    connections: int = 0
    image: dict[str, bool | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with an image that permits nothing."""
        self.image = {name: False if type_ == "Boolean" else 0 for name, (_, type_) in COMMAND_NODES.items()}
        self._loop = asyncio.new_event_loop()
        self._ending, self._cut = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="plc", daemon=True)
        self._failure = ""

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            InputError: the cell cannot be reached, or refuses the user.
        """
        options = self.options
        names = (options.pki / "plc.der", options.pki / "plc.pem")
        ensure_certificate(*names, application_uri("plc-simulator"), ["localhost"])
        self._thread.start()
        try:
            self.until(lambda: bool(self.status) and (bool(self.status["Linked"]) or not self.beating))
        except PlcError as error:
            self.close()
            raise InputError(f"The cell at {options.url} does not answer: {self._failure or error}.") from error
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop talking; the cell finds out by the heartbeat."""
        self._ending.set()
        self._thread.join()

    # --- what a PLC's program does --------------------------------------------------------------------------------------

    def permit(self, speed_pct: int = 100) -> None:
        """Permit motion, in automatic mode."""
        self.image |= {"Enable": True, "SpeedOverridePct": speed_pct, "OperationalMode": int(Mode.AUTOMATIC)}

    def command(self, command: Command, recipe: int | None = None) -> Refusal:
        """Give a command, wait until it is acknowledged, and let it go low again; return whether it was refused."""
        seq = self.put(command, recipe)
        self.until(lambda: self.status["AckSeq"] == seq)
        refusal = Refusal(int(self.status["Refusal"]))
        self.image["Cmd"] = int(Command.NONE)
        beat = self.status["HeartbeatPolicy"]
        self.until(lambda: self._passed(beat) > 1)
        return refusal

    def put(self, command: Command, recipe: int | None = None, step: int = 1) -> int:
        """Put a command into the image, `step` numbers on, and return its number at once."""
        if recipe is not None:
            self.image["RecipeId"] = recipe
        seq = (self.image["CmdSeq"] + step) % U32
        self.image |= {"Cmd": int(command), "CmdSeq": seq}
        return seq

    def acknowledge_error(self) -> None:
        """Give a rising edge of `FaultAck`, and wait until the error is gone."""
        self.image["FaultAck"] = False
        beat = self.status["HeartbeatPolicy"]
        self.until(lambda: self._passed(beat) > 5)
        self.image["FaultAck"] = True
        self.until(lambda: not self.status["Error"])
        self.image["FaultAck"] = False

    def cycle(self, recipe: int, mark: Callable[[str], object] = lambda _moment: None) -> Reading:
        """Load a recipe unless it is active, run a cycle, acknowledge it; return the status at its end.

        `mark` is called when it is `ready`, `started` and `done`.

        Raises:
            PlcError: a command was refused, or nothing came of it in time.
        """
        if self.status["ActiveRecipe"] != recipe or not self.status["Ready"]:
            self._accepted(Command.LOAD, recipe)
        self.until(lambda: bool(self.status["Ready"]))
        mark("ready")
        self._accepted(Command.START)
        mark("started")
        self.until(lambda: bool(self.status["Done"]))
        mark("done")
        ended = dict(self.status)
        self._accepted(Command.ACK)
        self.until(lambda: not self.status["Done"])
        return ended

    def cut(self) -> None:
        """Break the connection, as a pulled cable does; another is made."""
        before = self.connections
        self._cut.set()
        self.until(lambda: self.connections > before)

    def until(self, holds: Callable[[], bool], wait_s: float | None = None) -> None:
        """Wait until something holds of the status.

        Raises:
            PlcError: it does not, in time.
        """
        limit = time.monotonic() + (wait_s or self.options.wait_s)
        while not holds():
            if time.monotonic() > limit:
                raise PlcError(f"The PLC waited in vain; the cell's status is {dict(self.status)}.")
            time.sleep(0.002)

    def _passed(self, beat: bool | int | str) -> int:
        return (int(self.status["HeartbeatPolicy"]) - int(beat)) % U16

    def _accepted(self, command: Command, recipe: int | None = None) -> None:
        if refusal := self.command(command, recipe):
            text = self.status["ErrorText"] or "no error is shown"
            raise PlcError(f"The cell refused {command.name}: {refusal.name.lower().replace('_', ' ')} ({text}).")

    # --- the connection -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._ending.is_set():
                self._loop.run_until_complete(self._connection())
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    self._loop.run_until_complete(task)
            self._loop.close()

    async def _connection(self) -> None:
        """Make a client, and talk until the connection is lost."""
        client = Client(self.options.url, timeout=REQUEST_S)
        client.application_uri = application_uri("plc-simulator")
        client.set_user(self.options.user)
        client.set_password(self.options.password)
        pki = self.options.pki
        try:
            await client.set_security(SecurityPolicyBasic256Sha256, str(pki / "plc.der"), str(pki / "plc.pem"))
            await client.connect()
            await self._talk(client)
        except LOST as error:
            self._failure = str(error) or type(error).__name__
            await asyncio.sleep(RETRY_S)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.disconnect(), REQUEST_S)

    async def _talk(self, client: Client) -> None:
        index = await client.get_namespace_index(NAMESPACE)

        def node(group: str, name: str) -> Node:
            return client.get_node(ua.NodeId(ua.String(f"{CELL}/{group}/{name}"), ua.Int16(index)))

        written = {name: node("Command", name) for name in COMMAND_NODES}
        status = [node("Status", name) for name in STATUS_NODES]
        if not self.connections:
            beat = await written["HeartbeatPlc"].read_value()
            self.image |= {"HeartbeatPlc": int(beat), "CmdSeq": int(await node("Status", "AckSeq").read_value())}
        self._cut.clear()
        self.connections += 1
        while not self._ending.is_set():
            if self._cut.is_set():
                client.disconnect_socket()
                raise ConnectionError("cut")
            await self._exchange(client, written, status)
            await asyncio.sleep(self.options.period_s)

    async def _exchange(self, client: Client, written: Mapping[str, Node], status: list[Node]) -> None:
        image = dict(self.image)
        if self.beating:
            image["HeartbeatPlc"] = self.image["HeartbeatPlc"] = (self.image["HeartbeatPlc"] + 1) % U16
        told = {name: DATA_TYPES[type_][1] for name, (_, type_) in COMMAND_NODES.items() if name in image}
        values = [ua.DataValue(ua.Variant(image[name], type_)) for name, type_ in told.items()]
        if self.status:
            await client.write_values([written[name] for name in told], values)
        read = await client.read_values(status)
        self.status = dict(zip(STATUS_NODES, read, strict=True))
