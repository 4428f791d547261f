"""Malformed calls and writes for a cell's OPC UA server, from a seed, and bytes that are no OPC UA at all."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaError

from lehrling.deploy.opcua_handshake import COMMAND_NODES, METHODS, STATUS_NODES

TYPES: tuple[tuple[ua.VariantType, Callable[[random.Random], Any]], ...] = (
    (ua.VariantType.Boolean, lambda draw: draw.random() < 0.5),
    (ua.VariantType.SByte, lambda draw: draw.randint(-128, 127)),
    (ua.VariantType.Int16, lambda draw: draw.randint(-(1 << 15), (1 << 15) - 1)),
    (ua.VariantType.UInt16, lambda draw: draw.randint(0, (1 << 16) - 1)),
    (ua.VariantType.Int32, lambda draw: draw.randint(-(1 << 31), (1 << 31) - 1)),
    (ua.VariantType.UInt32, lambda draw: draw.randint(0, (1 << 32) - 1)),
    (ua.VariantType.Int64, lambda draw: draw.randint(-(1 << 63), (1 << 63) - 1)),
    (ua.VariantType.Double, lambda draw: draw.choice((float("nan"), float("inf"), -0.0, 1e308, draw.random()))),
    (ua.VariantType.String, lambda draw: draw.choice(("", "\0", "1", "x" * draw.randint(1, 9000), "Ω" * 20))),
    (ua.VariantType.ByteString, lambda draw: draw.randbytes(draw.randint(0, 5000))),
    (ua.VariantType.NodeId, lambda draw: ua.NodeId(draw.randint(0, 99999), draw.randint(0, 9))),  # type: ignore[arg-type]
    (ua.VariantType.QualifiedName, lambda draw: ua.QualifiedName("x" * draw.randint(0, 99), ua.UInt16(0))),
    (ua.VariantType.LocalizedText, lambda draw: ua.LocalizedText("x" * draw.randint(0, 999))),
    (ua.VariantType.StatusCode, lambda draw: ua.StatusCode(ua.UInt32(draw.choice((0, 0x80000000, 0x40000000))))),
)
ATTRIBUTES = [attribute for attribute in AttributeIds if 0 < attribute < 28]
RANGES = (None, "", "0:1", "9:1", "-1", "0:4294967295", "x" * 500, "0,0,0")


def anything(draw: random.Random, *, besides: str = "") -> ua.Variant:
    """Return a value, or an array of them, of any type but a single one of `besides`."""
    if draw.random() < 0.05:
        return ua.Variant(None, ua.VariantType.Null)
    type_, make = draw.choice(TYPES)
    if draw.random() < 0.3 or type_.name == besides:
        return ua.Variant([make(draw) for _ in range(draw.choice((0, 1, 2, 40)))], type_)
    return ua.Variant(make(draw), type_)


class Fuzz:
    """Sends nonsense over one client; `sent` counts what was answered, whatever the answer."""

    def __init__(self, client: Client, index: int, seed: int) -> None:
        self.client, self._index, self._draw, self.sent = client, index, random.Random(seed), 0

    async def some(self, count: int) -> None:
        """Send so many."""
        for _ in range(count):
            with contextlib.suppress(UaError):
                await (self._call() if self._draw.random() < 0.5 else self._write())
            self.sent += 1

    def _path(self, path: str) -> ua.NodeId:
        return ua.NodeId(ua.String(path), ua.Int16(self._index))

    def _node(self) -> ua.NodeId:
        draw = self._draw
        return draw.choice(
            (
                self._path(f"Cell/{draw.choice(('Command', 'Status'))}"),
                self._path(f"Cell/Status/{draw.choice(list(STATUS_NODES))}"),
                self._path("x" * draw.choice((0, 1, 4000))),
                ua.NodeId(ua.Int32(draw.randint(0, 30_000)), ua.Int16(draw.randint(0, 5))),
                ua.NodeId(draw.randbytes(9), ua.Int16(9), ua.NodeIdType.ByteString),  # type: ignore[arg-type]
            )
        )

    async def _call(self) -> None:
        draw, request = self._draw, ua.CallMethodRequest()
        name = draw.choice(list(METHODS))
        request.ObjectId = self._path("Cell") if draw.random() < 0.7 else self._node()
        request.MethodId = self._path(f"Cell/{name}") if draw.random() < 0.7 else self._node()
        many = draw.choice((1, 1, 2, 3, 60)) if name == "Load" else draw.choice((1, 2, 60))
        alone = name == "Load" and many == 1
        request.InputArguments = [anything(draw, besides="UInt16" if alone else "") for _ in range(many)]
        await self.client.uaclient.call([request])

    async def _write(self) -> None:
        draw, value = self._draw, ua.WriteValue()
        value.AttributeId = draw.choice(ATTRIBUTES) if draw.random() < 0.5 else AttributeIds.Value
        besides = ""
        if draw.random() < 0.6:
            name, (_, besides) = draw.choice(list(COMMAND_NODES.items()))
            value.NodeId = self._path(f"Cell/Command/{name}")
        else:
            value.NodeId = self._node()
        value.IndexRange = draw.choice(RANGES)
        status = draw.choice((None, 0x80310000, 0x40000000))
        code = ua.StatusCode(ua.UInt32(status)) if status else None
        value.Value = ua.DataValue(anything(draw, besides=besides), StatusCode=code)
        parameters = ua.WriteParameters()
        parameters.NodesToWrite = [value]
        await self.client.uaclient.write(parameters)


def garbage(port: int, draw: random.Random) -> None:
    """Send bytes that are no OPC UA, or begin as such and lie about their size; what is answered is not looked at."""
    hello = b"HELF" + struct.pack("<I", 0) + bytes(20)
    openings = (
        draw.randbytes(draw.randint(1, 3000)),
        b"HELF" + struct.pack("<I", draw.choice((0, 7, 8, 0xFFFFFFFF))) + draw.randbytes(40),
        b"OPNF" + struct.pack("<I", 0x7FFFFFFF) + bytes(200_000),
        b"MSGF" + struct.pack("<I", 32) + draw.randbytes(24),
        hello[:4] + struct.pack("<I", len(hello)) + hello[8:],
        b"",
    )
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as raw:
        raw.settimeout(0.05)
        raw.sendall(draw.choice(openings))
        raw.recv(64)
