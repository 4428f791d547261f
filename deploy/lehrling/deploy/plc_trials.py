"""What a careful plant engineer tries on a new cell: a heartbeat that stands still, commands twice and out of order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lehrling.deploy.handshake_image import Command
from lehrling.deploy.plc_simulator import PlcError, PlcSimulator

STOPPED_CODE = 6


def drop_heartbeat(plc: PlcSimulator, recipe: int) -> str:
    """Let the heartbeat stand still in a cycle: the robot has to be stopped, and the error to stay until acknowledged."""
    _loaded(plc, recipe)
    plc.command(Command.START)
    plc.beating = False
    try:
        plc.until(lambda: plc.status["ErrorCode"] == STOPPED_CODE and not plc.status["Busy"])
    finally:
        plc.beating = True
    plc.acknowledge_error()
    result = plc.status["Result"]
    plc.command(Command.ACK)
    return f"heartbeat dropped: error {STOPPED_CODE}, the cycle ended with result {result}, acknowledged"


def repeat(plc: PlcSimulator, recipe: int) -> str:
    """Leave a start standing: one cycle may come of it."""
    _loaded(plc, recipe)
    before = int(plc.status["CycleId"])
    plc.put(Command.START)
    plc.until(lambda: bool(plc.status["Done"]))
    _acknowledged(plc)
    began = int(plc.status["CycleId"]) - before
    if began != 1:
        raise PlcError(f"A start that was left standing began {began} cycles.")
    return "start left standing: one cycle"


def reorder(plc: PlcSimulator, recipe: int) -> str:
    """Send an older number: nothing may come of it."""
    _loaded(plc, recipe)
    acked, beat = plc.status["AckSeq"], int(plc.status["HeartbeatPolicy"])
    plc.put(Command.START, step=-1)
    plc.until(lambda: int(plc.status["HeartbeatPolicy"]) - beat > 20 or int(plc.status["HeartbeatPolicy"]) < beat)
    if plc.status["AckSeq"] != acked or plc.status["Busy"]:
        raise PlcError("An older command was obeyed.")
    plc.put(Command.NONE, step=2)
    return "older number: ignored"


TRIALS: Mapping[str, Callable[[PlcSimulator, int], str]] = {
    "heartbeat": drop_heartbeat,
    "repeat": repeat,
    "reorder": reorder,
}


def _loaded(plc: PlcSimulator, recipe: int) -> None:
    if refusal := plc.command(Command.LOAD, recipe):
        raise PlcError(f"The cell refused LOAD: {refusal.name.lower().replace('_', ' ')}.")
    plc.until(lambda: bool(plc.status["Ready"]))


def _acknowledged(plc: PlcSimulator) -> None:
    plc.command(Command.ACK)
    plc.until(lambda: not plc.status["Done"])
