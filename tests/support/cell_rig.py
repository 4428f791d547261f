"""A cell's OPC UA server on a free port of this machine, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_runtime import FakeRuntime

pytest.importorskip("asyncua")

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from lehrling.datasets.errors import StorageError
from lehrling.deploy.cell import Cell, Side
from lehrling.deploy.cell_audit import CellAudit
from lehrling.deploy.cell_config import CellConfig, read_cell_config
from lehrling.deploy.cell_exchange import Exchange, Shown
from lehrling.deploy.cell_users import add_user
from lehrling.deploy.handshake_image import Commands
from lehrling.deploy.opcua_certificate import application_uri, ensure_certificate
from lehrling.deploy.opcua_server import OpcUaServer
from lehrling.deploy.plc_simulator import PlcOptions, PlcSimulator

AXES = [{"name": "joint1"}, {"name": "joint2"}, {"name": "finger", "unit": "m"}]
PASSWORDS = {"operator": "a password of the PLC", "observer": "a password of the HMI"}


def cell_config(folder: Path, **parts: Any) -> CellConfig:
    """Write a cell's configuration with users `operator` and `observer`, and read it."""
    told: dict[str, Any] = {
        "name": "cell7",
        "recipes": {
            1: {"name": "gears", "instruction": "Put the gears into the box.", "cycle_max_s": 20},
            2: {"name": "shafts", "instruction": "Put the shafts into the box.", "speed_max_pct": 50},
        },
        "robot": {"name": "arm", "manufacturer": "Example", "model": "R6", "axes": AXES, "payload_kg": 1.5},
        "opcua": {"port": 0},
        "handshake": {"heartbeat_timeout_ms": 5000},
    }
    for key, part in parts.items():
        told[key] = told.get(key, {}) | part if isinstance(part, dict) and key != "recipes" else part
    path = folder / "cell.yaml"
    path.write_text(yaml.safe_dump(told))
    if not (folder / "users.yaml").exists():
        for role, password in PASSWORDS.items():
            add_user(folder / "users.yaml", role, role, password)
    return read_cell_config(path)


@dataclass
class Server:
    """A server without a handshake behind it."""

    opcua: OpcUaServer
    exchange: Exchange
    config: CellConfig
    logins: list[tuple[str, str]]
    folder: Path

    def cleared(self) -> Server:
        """Return it as nobody had used it."""
        self.exchange.write(**asdict(Commands()))
        self.exchange.show(Shown())
        self.logins.clear()
        return self

    @property
    def url(self) -> str:
        return self.opcua.url


@contextmanager
def serving(folder: Path, **parts: Any) -> Iterator[Server]:
    """Serve a cell's nodes, without a handshake behind them."""
    config, exchange, logins = cell_config(folder, **parts), Exchange(), []
    opcua = OpcUaServer(config, exchange, lambda name, what: logins.append((name, what)))
    opcua.start()
    try:
        yield Server(opcua, exchange, config, logins, folder)
    finally:
        opcua.stop()


class Records:
    """An audit in memory, which fails while `broken`."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []
        self.broken = False

    def __call__(self) -> Records:
        if self.broken:
            raise StorageError("no space left")
        return self

    def write(self, kind: str, facts: Mapping[str, object]) -> None:
        if self.broken:
            raise StorageError("no space left")
        self.lines.append((kind, dict(facts)))

    def close(self) -> None:
        pass

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.lines]

    def facts(self, kind: str) -> list[dict[str, object]]:
        return [facts for each, facts in self.lines if each == kind]


@dataclass
class Running:
    """A whole cell, with a runtime that only counts time."""

    cell: Cell
    opcua: OpcUaServer
    runtime: FakeRuntime
    records: Records
    folder: Path

    def plc(self, **options: Any) -> PlcSimulator:
        """Return a PLC of this cell, not connected yet."""
        made = PlcOptions(self.opcua.url, "operator", PASSWORDS["operator"], self.folder / "plc", 0.02, wait_s=60.0)
        return PlcSimulator(replace(made, **options))


@contextmanager
def running(folder: Path, *sides: Callable[[CellConfig, Exchange], Side], **parts: Any) -> Iterator[Running]:
    """Run a cell with its OPC UA server and other sides."""
    config, exchange, records, runtime = cell_config(folder, **parts), Exchange(), Records(), FakeRuntime()
    cell = Cell(config, runtime, CellAudit(records), exchange=exchange)
    opcua = OpcUaServer(
        config, exchange, lambda name, what: cell.tell("login", {"user": name, "what": what}), cell.fail
    )
    cell.add(opcua)
    for side in sides:
        cell.add(side(config, exchange))
    with cell:
        yield Running(cell, opcua, runtime, records, folder)


async def connected(url: str, folder: Path, user: str = "operator", password: str | None = None) -> Client:
    """Return a client that has logged in over an encrypted channel; whoever gets it disconnects it."""
    certificate, key = folder / "client.der", folder / "client.pem"
    ensure_certificate(certificate, key, application_uri("client"), ["localhost"])
    client = Client(url, timeout=20)
    client.application_uri = application_uri("client")
    client.set_user(user)
    client.set_password(PASSWORDS.get(user, "") if password is None else password)
    await client.set_security(SecurityPolicyBasic256Sha256, str(certificate), str(key))
    await client.connect()
    return client


def asked[T](work: Coroutine[Any, Any, T]) -> T:
    """Run a client's work in an event loop of its own."""
    return asyncio.run(asyncio.wait_for(work, 60))


async def node(client: Client, path: str) -> ua.NodeId:
    """Return the node id of a path in the cell's namespace."""
    return ua.NodeId(path, await client.get_namespace_index("urn:lehrling:UA:Cell"))  # type: ignore[arg-type]


async def read(client: Client, path: str) -> Any:
    """Read a value."""
    return await client.get_node(await node(client, path)).read_value()


async def call(client: Client, method: str, *arguments: Any) -> Any:
    """Call a method of the cell."""
    return await client.get_node(await node(client, "Cell")).call_method(
        await node(client, f"Cell/{method}"), *arguments
    )
