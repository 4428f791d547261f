"""The handshake over OPC UA: the command image to write, the status image to read, and a method for each command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from asyncua import ua
from asyncua.server.address_space import AttributeValue, NodeData
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from lehrling.deploy.cell_exchange import Exchange, Shown
from lehrling.deploy.handshake_image import RESULTS, STATES, Command, Refusal, Status
from lehrling.deploy.opcua_nodes import argument, scalar, standard
from lehrling.deploy.opcua_types import DATA_TYPES, Space

CELL: Final = "Cell"
ANSWER_S = 5.0
COMMAND_NODES: Mapping[str, tuple[str, str]] = {
    "HeartbeatPlc": ("heartbeat", "UInt16"),
    "Cmd": ("command", "UInt16"),
    "RecipeId": ("recipe", "UInt16"),
    "SpeedOverridePct": ("speed_pct", "UInt16"),
    "Enable": ("enable", "Boolean"),
    "FaultAck": ("fault_ack", "Boolean"),
    "OperationalMode": ("mode", "UInt16"),
    "EmergencyStop": ("emergency_stop", "Boolean"),
    "ProtectiveStop": ("protective_stop", "Boolean"),
    "CmdSeq": ("seq", "UInt32"),
}
"""Field of the image and data type, by node; the sequence number last, as a PLC has to write it."""
Read = Callable[[Status], bool | int | str]
STATUS_NODES: Mapping[str, tuple[Read, str]] = {
    "HeartbeatPolicy": (lambda s: s.heartbeat, "UInt16"),
    "Linked": (lambda s: s.linked, "Boolean"),
    "State": (lambda s: STATES[s.state], "UInt16"),
    "Ready": (lambda s: s.ready, "Boolean"),
    "Busy": (lambda s: s.busy, "Boolean"),
    "Done": (lambda s: s.done, "Boolean"),
    "Error": (lambda s: s.error, "Boolean"),
    "ErrorCode": (lambda s: s.error_code, "UInt16"),
    "ErrorText": (lambda s: s.error_text, "String"),
    "ActiveRecipe": (lambda s: s.recipe, "UInt16"),
    "CycleId": (lambda s: s.cycle, "UInt32"),
    "Result": (lambda s: RESULTS[s.result], "UInt16"),
    "ModelHash": (lambda s: s.model_hash, "String"),
    "Refusal": (lambda s: int(s.refusal), "UInt16"),
    "AckSeq": (lambda s: s.ack_seq, "UInt32"),
}
METHODS: Mapping[str, Command] = {
    "Load": Command.LOAD,
    "Start": Command.START,
    "Stop": Command.STOP,
    "Reset": Command.RESET,
    "Acknowledge": Command.ACK,
}
_LIMITS: Mapping[str, int] = {"UInt16": (1 << 16) - 1, "UInt32": (1 << 32) - 1}


def checked(value: ua.DataValue, type_: str) -> bool | int:
    """Return what a client wrote, if it is one value of the type.

    Raises:
        BadTypeMismatch: it is none, an array, or of another type.
    """
    told = value.Value.Value if value.Value is not None else None
    if type_ == "Boolean" and isinstance(told, bool):
        return told
    if type_ != "Boolean" and isinstance(told, int) and not isinstance(told, bool) and 0 <= told <= _LIMITS[type_]:
        return told
    raise ua.uaerrors.BadTypeMismatch


@dataclass
class HandshakeNodes:
    """Builds the nodes, takes what clients write, and shows what the handshake says."""

    server: Server
    space: Space
    exchange: Exchange
    writable: bool

    async def build(self) -> None:
        """Add objects, variables and methods."""
        space, builder = self.space, self.space.builder
        self._busy = asyncio.Lock()
        base, objects = standard(ObjectIds.BaseObjectType), standard(ObjectIds.ObjectsFolder)
        cell = await builder.add_object(space.text_id(CELL), self._name(CELL), objects, base, ObjectIds.Organizes)
        for group in ("Command", "Status"):
            await builder.add_object(space.text_id(f"{CELL}/{group}"), self._name(group), cell, base)
        for name, (field, type_) in COMMAND_NODES.items():
            await self._variable("Command", name, type_, writable=self.writable)
            if self.writable:
                self._take(name, field, type_)
        for name, (_, type_) in STATUS_NODES.items():
            await self._variable("Status", name, type_, writable=False)
        for name, command in METHODS.items():
            await self._method(name, command)

    async def show(self, shown: Shown) -> None:
        """Write what changed into the nodes, the acknowledged sequence number last."""
        commands = self.exchange.commands()
        for name, (field, type_) in COMMAND_NODES.items():
            await self._say(f"{CELL}/Command/{name}", getattr(commands, field), type_)
        for name, (read, type_) in STATUS_NODES.items():
            await self._say(f"{CELL}/Status/{name}", read(shown.status), type_)

    def _name(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(name, ua.UInt16(self.space.own))

    async def _variable(self, group: str, name: str, type_: str, *, writable: bool) -> None:
        path, (number, variant) = f"{CELL}/{group}/{name}", DATA_TYPES[type_]
        first: bool | int | str = False if type_ == "Boolean" else "" if type_ == "String" else 0
        await self.space.builder.add_variable(
            self.space.text_id(path),
            self._name(name),
            self.space.text_id(f"{CELL}/{group}"),
            scalar(first, variant),
            standard(number),
            writable=writable,
        )

    def _value(self, path: str) -> AttributeValue:
        return self.server.iserver.aspace[self.space.text_id(path)].attributes[AttributeIds.Value]

    def _take(self, name: str, field: str, type_: str) -> None:
        """Have what is written to a node checked, and put into the image."""
        kept = self._value(f"{CELL}/Command/{name}")

        def take(_node: NodeData, _attribute: AttributeIds, value: ua.DataValue) -> None:
            self.exchange.write(**{field: checked(value, type_)})
            kept.value, kept.value_callback = value, None

        kept.value_setter = take

    async def _say(self, path: str, value: bool | int | str, type_: str) -> None:
        kept = self._value(path).value
        if kept is None or kept.Value is None or kept.Value.Value != value:
            await self.space.builder.write(self.space.text_id(path), scalar(value, DATA_TYPES[type_][1]))

    # --- methods --------------------------------------------------------------------------------------------------------

    async def _method(self, name: str, command: Command) -> None:
        space, builder = self.space, self.space.builder
        node = await builder.add_method(space.text_id(f"{CELL}/{name}"), self._name(name), space.text_id(CELL))
        taken = [argument("Recipe", ObjectIds.UInt16, "Number of the recipe")] if command is Command.LOAD else []
        given = [
            argument("Accepted", ObjectIds.Boolean, "Whether the command was carried out"),
            argument("Refusal", ObjectIds.UInt16, "Why not"),
            argument("Reason", ObjectIds.String, "Why not, in words"),
        ]
        for title, arguments in (("InputArguments", taken), ("OutputArguments", given)):
            if arguments:
                await builder.add_variable(
                    space.text_id(f"{CELL}/{name}/{title}"),
                    ua.QualifiedName(title, ua.UInt16(0)),
                    node,
                    ua.DataValue(ua.Variant(arguments, ua.VariantType.ExtensionObject)),
                    standard(ObjectIds.Argument),
                    ObjectIds.PropertyType,
                )

        async def call(_parent: ua.NodeId, *arguments: ua.Variant) -> list[ua.Variant] | ua.StatusCode:
            return await self._called(command, arguments)

        self.server.iserver.isession.add_method_callback(node, call)

    async def _called(self, command: Command, arguments: tuple[ua.Variant, ...]) -> list[ua.Variant] | ua.StatusCode:
        wanted = 1 if command is Command.LOAD else 0
        if len(arguments) != wanted:
            missing = len(arguments) < wanted
            return _status(StatusCodes.BadArgumentsMissing if missing else StatusCodes.BadTooManyArguments)
        if not self.writable:
            return _status(StatusCodes.BadUserAccessDenied)
        recipe = None
        if wanted:
            if arguments[0].VariantType is not ua.VariantType.UInt16:
                return _status(StatusCodes.BadInvalidArgument)
            try:
                recipe = int(checked(ua.DataValue(arguments[0]), "UInt16"))
            except ua.uaerrors.BadTypeMismatch:
                return _status(StatusCodes.BadInvalidArgument)
        async with self._busy:
            return await self._carried_out(command, recipe)

    async def _carried_out(self, command: Command, recipe: int | None) -> list[ua.Variant] | ua.StatusCode:
        # What stands there at the handshake's first step is no command.
        if not await self._until(lambda shown: shown.status.heartbeat > 0):
            return _status(StatusCodes.BadTimeout)
        seq = self.exchange.command(command, recipe)
        answered = await self._until(lambda shown: shown.status.ack_seq == seq)
        refusal = self.exchange.shown().status.refusal
        self.exchange.write(command=Command.NONE)
        if not answered:
            return _status(StatusCodes.BadTimeout)
        await self._until(lambda shown: shown.commands.command == Command.NONE)
        reason = refusal.name.lower().replace("_", " ") if refusal else ""
        return [
            ua.Variant(refusal is Refusal.NONE, ua.VariantType.Boolean),
            ua.Variant(int(refusal), ua.VariantType.UInt16),
            ua.Variant(reason, ua.VariantType.String),
        ]

    async def _until(self, holds: Callable[[Shown], bool]) -> bool:
        limit = time.monotonic() + ANSWER_S
        while not holds(self.exchange.shown()):
            if time.monotonic() > limit:
                return False
            await asyncio.sleep(0.005)
        return True


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))
