"""The data block that holds the handshake's image in an S7 PLC: byte offsets, in the PLC's byte order. Not optimised.

`docs/cell.md` and `deploy/plc/lehrling_handshake.scl` say the same; a test compares the three.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from lehrling.deploy.handshake_image import RESULTS, STATES, Status

COMMAND: Final = struct.Struct(">HHIHHHBx")
STATUS: Final = struct.Struct(">HHIIHHHHBx")
COMMAND_AT, STATUS_AT = 0, COMMAND.size
HASH_AT, HASH_MAX = STATUS_AT + STATUS.size, 64
TEXT_AT, TEXT_MAX = HASH_AT + 2 + HASH_MAX, 120
SIZE: Final = TEXT_AT + 2 + TEXT_MAX

LAYOUT: tuple[tuple[str, str, str], ...] = (
    ("0.0", "HeartbeatPlc", "UInt"),
    ("2.0", "Cmd", "UInt"),
    ("4.0", "CmdSeq", "UDInt"),
    ("8.0", "RecipeId", "UInt"),
    ("10.0", "SpeedOverridePct", "UInt"),
    ("12.0", "OperationalMode", "UInt"),
    ("14.0", "Enable", "Bool"),
    ("14.1", "FaultAck", "Bool"),
    ("14.2", "EmergencyStop", "Bool"),
    ("14.3", "ProtectiveStop", "Bool"),
    ("16.0", "HeartbeatPolicy", "UInt"),
    ("18.0", "State", "UInt"),
    ("20.0", "AckSeq", "UDInt"),
    ("24.0", "CycleId", "UDInt"),
    ("28.0", "Refusal", "UInt"),
    ("30.0", "ErrorCode", "UInt"),
    ("32.0", "ActiveRecipe", "UInt"),
    ("34.0", "Result", "UInt"),
    ("36.0", "Ready", "Bool"),
    ("36.1", "Busy", "Bool"),
    ("36.2", "Done", "Bool"),
    ("36.3", "Error", "Bool"),
    ("36.4", "Linked", "Bool"),
    ("38.0", "ModelHash", "String[64]"),
    ("104.0", "ErrorText", "String[120]"),
)
"""Offset, name and type, as TIA Portal shows them."""


def read_commands(block: bytes) -> Mapping[str, int | bool]:
    """Return the fields of the command image.

    Args:
        block: `COMMAND.size` bytes from `COMMAND_AT`.
    """
    heartbeat, command, seq, recipe, speed, mode, bits = COMMAND.unpack(block)
    return {
        "heartbeat": heartbeat,
        "command": command,
        "seq": seq,
        "recipe": recipe,
        "speed_pct": speed,
        "mode": mode,
        "enable": bool(bits & 1),
        "fault_ack": bool(bits & 2),
        "emergency_stop": bool(bits & 4),
        "protective_stop": bool(bits & 8),
    }


def status_block(status: Status) -> bytes:
    """Return the status image without its texts: `STATUS.size` bytes for `STATUS_AT`."""
    flags = (status.ready, status.busy, status.done, status.error, status.linked)
    return STATUS.pack(
        status.heartbeat,
        STATES[status.state],
        status.ack_seq,
        status.cycle,
        status.refusal,
        status.error_code,
        status.recipe & 0xFFFF,
        RESULTS[status.result],
        sum(flag << bit for bit, flag in enumerate(flags)),
    )


def text_block(status: Status) -> bytes:
    """Return the status image's texts, for `HASH_AT`; what S7 has no character for becomes a question mark."""
    return _string(status.model_hash, HASH_MAX) + _string(status.error_text, TEXT_MAX)


def _string(text: str, size: int) -> bytes:
    content = text.encode("latin-1", "replace")[:size]
    return bytes((size, len(content))) + content.ljust(size, b"\0")
