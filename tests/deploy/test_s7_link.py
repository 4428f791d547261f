"""The handshake in the data block of an S7 PLC's emulator."""

from __future__ import annotations

import logging
import struct
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from cell_brokers import free_port, s7_plc
from cell_rig import running
from fake_runtime import MS
from watching import until

from lehrling.deploy.handshake_image import Command, Mode, Refusal, Status
from lehrling.deploy.runtime import Phase, Result
from lehrling.deploy.s7_layout import (
    COMMAND,
    HASH_AT,
    LAYOUT,
    SIZE,
    STATUS,
    STATUS_AT,
    TEXT_AT,
    read_commands,
    status_block,
    text_block,
)
from lehrling.deploy.s7_link import S7Link

DB = 40


def test_the_layout_is_what_the_table_says() -> None:
    offsets = {name: offset for offset, name, _ in LAYOUT}
    assert (COMMAND.size, STATUS_AT, STATUS.size, HASH_AT, TEXT_AT, SIZE) == (16, 16, 22, 38, 104, 226)
    block = struct.pack(">HHIHHHBx", 1, 2, 3, 4, 5, 6, 0b1101)
    assert read_commands(block) == {
        "heartbeat": 1,
        "command": 2,
        "seq": 3,
        "recipe": 4,
        "speed_pct": 5,
        "mode": 6,
        "enable": True,
        "fault_ack": False,
        "emergency_stop": True,
        "protective_stop": True,
    }
    status = Status(
        513,
        0x01020304,
        Refusal.LATCHED,
        True,
        Phase.EXECUTING,
        False,
        True,
        False,
        True,
        4,
        "Größe \N{SNOWMAN}",
        77,
        0x0A0B0C0D,
        Result.ABORTED,
        "ab" * 32,
    )
    whole = bytes(STATUS_AT) + status_block(status) + text_block(status)
    assert len(whole) == SIZE

    def at(name: str, size: int) -> int:
        start = int(offsets[name].split(".")[0])
        return int.from_bytes(whole[start : start + size])

    assert (at("HeartbeatPolicy", 2), at("State", 2), at("AckSeq", 4)) == (513, 4, 0x01020304)
    assert (at("CycleId", 4), at("Refusal", 2), at("ErrorCode", 2)) == (0x0A0B0C0D, 10, 4)
    assert (at("ActiveRecipe", 2), at("Result", 2), at("Ready", 1)) == (77, 4, 0b11010)
    assert whole[HASH_AT : HASH_AT + 4] == bytes((64, 64)) + b"ab"
    assert whole[TEXT_AT : TEXT_AT + 10] == bytes((120, 7)) + "Größe ?".encode("latin-1") + b"\0"


def test_types_of_the_table_follow_one_another_without_overlap() -> None:
    sizes = {"UInt": 2, "UDInt": 4, "Bool": 0, "String[64]": 66, "String[120]": 122}
    end = 0
    for offset, name, type_ in LAYOUT:
        start, bit = map(int, offset.split("."))
        if type_ != "Bool":
            assert (start % 2, bit) == (0, 0), name
            assert end <= start <= end + 2, name
        end = start + sizes[type_] if type_ != "Bool" else start + 1
    assert end == SIZE


class BlockPlc:
    """The PLC's program: it works on its own data block only."""

    def __init__(self, block: bytearray) -> None:
        self.block, self.beating = block, True
        self.heartbeat = self.seq = 0
        self.command, self.recipe, self.bits = Command.NONE, 0, 0b1
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(0.02):
            if self.beating:
                self.heartbeat = (self.heartbeat + 1) % 65_536
            values = (self.heartbeat, self.command, self.seq, self.recipe, 100, Mode.AUTOMATIC, self.bits)
            self.block[: COMMAND.size] = COMMAND.pack(*values)

    def status(self) -> dict[str, int]:
        names = ("beat", "state", "ack", "cycle", "refusal", "error", "recipe", "result", "bits")
        return dict(zip(names, STATUS.unpack(bytes(self.block[STATUS_AT : STATUS_AT + STATUS.size])), strict=True))

    def flag(self, bit: int) -> bool:
        return bool(self.status()["bits"] & 1 << bit)

    def order(self, command: Command, recipe: int = 0) -> None:
        self.recipe = recipe or self.recipe
        self.command, self.seq = command, self.seq + 1
        until(lambda: self.status()["ack"] == self.seq)
        self.command = Command.NONE
        beat = self.status()["beat"]
        until(lambda: (self.status()["beat"] - beat) % 65_536 > 10)


READY, DONE, ERROR, LINKED = 0, 2, 3, 4


def parts(port: int) -> dict[str, object]:
    return {
        "s7": {"host": "127.0.0.1", "port": port, "db": DB, "unauthenticated": True},
        "handshake": {"commands_from": "s7", "heartbeat_timeout_ms": 2000},
    }


def test_a_plc_runs_cycles_through_its_data_block(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with (
        caplog.at_level(logging.WARNING),
        s7_plc(port, DB) as block,
        running(tmp_path, S7Link, **parts(port)) as cell,
        BlockPlc(block) as plc,
    ):
        until(lambda: plc.flag(LINKED))
        for cycle, recipe in ((1, 1), (2, 2)):
            plc.order(Command.LOAD, recipe)
            until(lambda: plc.flag(READY))
            plc.order(Command.START)
            until(lambda: plc.flag(DONE))
            status = plc.status()
            assert (status["cycle"], status["recipe"], status["result"]) == (cycle, recipe, 1)
            assert bytes(block[HASH_AT + 2 : HASH_AT + 66]) == f"{recipe:064x}".encode()
            plc.order(Command.ACK)
        assert cell.runtime.calls == [("load", 1), ("start", 1), ("load", 2), ("start", 2)]
    assert "knows no user and no encryption" in caplog.text


def test_a_plc_that_stops_its_program_stops_the_robot(tmp_path: Path) -> None:
    port = free_port()
    with s7_plc(port, DB) as block, running(tmp_path, S7Link, **parts(port)) as cell, BlockPlc(block) as plc:
        cell.runtime.cycle_ns = 600_000 * MS
        until(lambda: plc.flag(LINKED))
        plc.order(Command.LOAD, 1)
        until(lambda: plc.flag(READY))
        plc.order(Command.START)
        until(lambda: cell.runtime.phase is Phase.EXECUTING)
        plc.beating = False
        until(lambda: plc.status()["error"] == 6)
        until(lambda: cell.runtime.result is Result.ABORTED)
        assert not plc.flag(LINKED)
        text = bytes(block[TEXT_AT + 2 : TEXT_AT + 2 + block[TEXT_AT + 1]])
        assert text == b"heartbeat of the PLC lost"


@pytest.mark.slow
def test_a_plc_that_is_away_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    made: list[S7Link] = []

    def side(*arguments: object) -> S7Link:
        made.append(S7Link(*arguments))  # type: ignore[arg-type]
        return made[0]

    with running(tmp_path, side, **parts(port)) as cell:
        until(lambda: made[0].failures > 0)
        with s7_plc(port, DB) as block, BlockPlc(block) as plc:
            until(lambda: plc.flag(LINKED))
        until(lambda: not cell.cell.exchange.shown().status.linked)
        with s7_plc(port, DB) as block, BlockPlc(block) as plc:
            until(lambda: plc.flag(LINKED))
            assert plc.status()["error"] == 6
            plc.bits |= 0b10
            until(lambda: not plc.flag(ERROR))
    assert made[0].connections >= 2


def test_where_opc_ua_commands_the_block_is_only_written(tmp_path: Path) -> None:
    port = free_port()
    told = parts(port) | {"handshake": {"commands_from": "opcua"}}
    with s7_plc(port, DB) as block, running(tmp_path, S7Link, **told) as cell, BlockPlc(block) as plc:
        until(lambda: plc.status()["beat"] > 0)
        plc.command, plc.recipe, plc.seq = Command.LOAD, 1, 9
        beat, limit = plc.status()["beat"], time.monotonic() + 20
        while (plc.status()["beat"] - beat) % 65_536 < 20 and time.monotonic() < limit:
            time.sleep(0.01)
        assert plc.status()["ack"] == 0
        assert cell.runtime.calls == []
