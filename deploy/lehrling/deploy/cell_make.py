"""Puts a cell together: handshake, OPC UA, and what the configuration names beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lehrling.deploy.audit import AuditLog
from lehrling.deploy.cell import Cell
from lehrling.deploy.cell_audit import CellAudit
from lehrling.deploy.cell_config import CellConfig
from lehrling.deploy.cell_exchange import Exchange
from lehrling.deploy.mqtt_telemetry import MqttTelemetry
from lehrling.deploy.opcua_server import OpcUaServer
from lehrling.deploy.runtime import Runtime
from lehrling.deploy.s7_link import S7Link


@dataclass(frozen=True)
class MadeCell:
    """A cell and its sides; start and stop the cell."""

    cell: Cell
    opcua: OpcUaServer
    mqtt: MqttTelemetry | None
    s7: S7Link | None


def open_audit(config: CellConfig, source: Path) -> CellAudit:
    """Open a cell's audit; `source` is the file of its configuration, whose hash every part of the audit names.

    Raises:
        LehrlingError: it cannot be opened.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    facts = {"cell": config.name, "config": str(source), "config sha256": digest}
    return CellAudit(lambda: AuditLog(config.audit, facts=facts))


def make_cell(config: CellConfig, runtime: Runtime, audit: CellAudit) -> MadeCell:
    """Return a cell that is ready to start; it ends the runtime and the audit when it stops.

    Raises:
        InputError: users, certificates or another file are missing or wrong.
        StorageError: a certificate cannot be written.
    """
    exchange = Exchange()
    cell = Cell(config, runtime, audit, exchange=exchange)
    opcua = OpcUaServer(
        config, exchange, lambda name, what: cell.tell("login", {"user": name, "what": what}), cell.fail
    )

    def warn(text: str) -> None:
        cell.tell("warning", {"text": text})

    mqtt = MqttTelemetry(config, exchange, warn) if config.mqtt is not None else None
    s7 = S7Link(config, exchange, warn) if config.s7 is not None else None
    for side in (opcua, mqtt, s7):
        if side is not None:
            cell.add(side)
    return MadeCell(cell, opcua, mqtt, s7)
