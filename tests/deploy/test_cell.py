"""A whole cell over OPC UA: cycles, a PLC that vanishes or repeats itself, an audit that cannot be written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cell_rig import Records, Running, asked, call, connected, node, read, running
from fake_runtime import MS
from watching import until

pytest.importorskip("asyncua")

from lehrling.datasets.errors import InputError, StorageError
from lehrling.deploy.cell_audit import WAITING_MAX, CellAudit
from lehrling.deploy.cell_exchange import Exchange, Shown
from lehrling.deploy.handshake_image import U32, Command, Event, Refusal, Status
from lehrling.deploy.runtime import Phase, Result


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as made:
        yield made


def test_a_plc_runs_cycles_of_two_recipes(cell: Running) -> None:
    with cell.plc() as plc:
        plc.permit()
        first, again, second = plc.cycle(1), plc.cycle(1), plc.cycle(2)
    assert [each["CycleId"] for each in (first, again, second)] == [1, 2, 3]
    assert [each["ActiveRecipe"] for each in (first, again, second)] == [1, 1, 2]
    assert {each["Result"] for each in (first, again, second)} == {1}
    assert first["ModelHash"] != second["ModelHash"]
    assert cell.runtime.calls == [("load", 1), ("start", 1), ("start", 2), ("load", 2), ("start", 3)]
    assert [facts["cycle"] for facts in cell.records.facts("cycle started")] == [1, 2, 3]
    assert [facts["result"] for facts in cell.records.facts("cycle ended")] == ["success"] * 3
    assert {"user": "operator", "what": "logged in"} in cell.records.facts("login")


def test_a_plc_that_vanishes_stops_the_robot_and_comes_back_by_acknowledging(tmp_path: Path) -> None:
    with running(tmp_path, handshake={"heartbeat_timeout_ms": 1000}) as cell:
        cell.runtime.cycle_ns = 600_000 * MS
        with cell.plc() as plc:
            plc.permit()
            plc.command(Command.LOAD, 1)
            plc.until(lambda: bool(plc.status["Ready"]))
            plc.command(Command.START)
            until(lambda: cell.runtime.phase is Phase.EXECUTING)
            plc.beating = False
            until(lambda: cell.runtime.count("stop") > 0)
            plc.until(lambda: plc.status["ErrorCode"] == 6)
            assert not cell.runtime.enabled
            plc.beating = True
            plc.acknowledge_error()
            plc.until(lambda: bool(plc.status["Done"]))
            assert plc.status["Result"] == 4
            plc.command(Command.ACK)
            cell.runtime.cycle_ns = 10 * MS
            assert plc.cycle(1)["Result"] == 1
        assert "heartbeat lost" in cell.records.kinds()


def test_a_pulled_cable_shorter_than_the_timeout_costs_nothing(tmp_path: Path) -> None:
    with running(tmp_path, handshake={"heartbeat_timeout_ms": 10_000}) as cell, cell.plc() as plc:
        plc.permit()
        assert plc.cycle(1)["CycleId"] == 1
        plc.cut()
        assert plc.connections == 2
        assert plc.cycle(1)["CycleId"] == 2
        assert not plc.status["Error"]


def test_a_cell_whose_plc_goes_away_altogether_stops_the_robot(tmp_path: Path) -> None:
    with running(tmp_path, handshake={"heartbeat_timeout_ms": 1000}) as cell:
        cell.runtime.cycle_ns = 600_000 * MS
        with cell.plc() as plc:
            plc.permit()
            plc.command(Command.LOAD, 1)
            plc.until(lambda: bool(plc.status["Ready"]))
            plc.command(Command.START)
            until(lambda: cell.runtime.phase is Phase.EXECUTING)
        until(lambda: cell.runtime.result is Result.ABORTED)


def test_repeated_and_reordered_commands_act_once(cell: Running) -> None:
    with cell.plc() as plc:
        plc.permit()
        plc.command(Command.LOAD, 1)
        plc.until(lambda: bool(plc.status["Ready"]))
        seq = plc.put(Command.START)
        plc.until(lambda: bool(plc.status["Done"]))
        assert plc.status["AckSeq"] == seq
        beat = int(plc.status["HeartbeatPolicy"])
        plc.put(Command.LOAD, 2, step=-1)
        plc.until(lambda: int(plc.status["HeartbeatPolicy"]) > beat + 10)
        assert plc.status["AckSeq"] == seq
        plc.put(Command.ACK, step=2)
        plc.until(lambda: not plc.status["Done"])
    assert cell.runtime.calls == [("load", 1), ("start", 1)]


def test_what_may_not_be_is_refused_with_a_reason(cell: Running) -> None:
    with cell.plc() as plc:
        assert plc.command(Command.LOAD, 9) is Refusal.RECIPE_UNKNOWN
        assert plc.status["ErrorCode"] == 1
        assert plc.command(Command.START) is Refusal.FAULT
        plc.acknowledge_error()
        assert plc.command(Command.START) is Refusal.NOT_READY
        assert plc.command(Command.LOAD, 1) is Refusal.NONE
        plc.image["OperationalMode"] = 3
        plc.until(lambda: bool(plc.status["Ready"]))
        assert plc.command(Command.START) is Refusal.NOT_ENABLED
    assert cell.runtime.count("start") == 0


def test_commands_are_methods_as_well(cell: Running) -> None:
    async def operate(url: str) -> list[Any]:
        client = await connected(url, cell.folder)
        try:
            answers = [await call(client, "Load", ua_uint16(1))]
            while not await read(client, "Cell/Status/Ready"):
                pass
            answers += [await call(client, "Start"), await call(client, "Stop")]
            return answers
        finally:
            await client.disconnect()

    with cell.plc() as plc:
        plc.permit()
        plc.until(lambda: cell.runtime.enabled)
        # The image belongs to whoever writes it: the PLC keeps to its heartbeat and permissions here.
        written = plc.image
        for name in ("Cmd", "CmdSeq", "RecipeId"):
            written.pop(name)
        load, start, stop = asked(operate(cell.opcua.url))
    assert (load, start, stop) == ([True, 0, ""],) * 3
    assert [name for name, _ in cell.runtime.calls][:2] == ["load", "start"]


def ua_uint16(number: int) -> Any:
    from asyncua import ua

    return ua.Variant(number, ua.VariantType.UInt16)


def ua_uint32(number: int) -> Any:
    from asyncua import ua

    return ua.Variant(number, ua.VariantType.UInt32)


def test_a_method_acts_after_a_client_wrote_an_older_number(cell: Running) -> None:
    async def operate(url: str) -> Any:
        client = await connected(url, cell.folder)
        try:
            sequence = client.get_node(await node(client, "Cell/Command/CmdSeq"))
            await sequence.write_value(ua_uint32(0))
            return await call(client, "Start")
        finally:
            await client.disconnect()

    with cell.plc() as plc:
        plc.permit()
        plc.command(Command.LOAD, 1)
        plc.until(lambda: bool(plc.status["Ready"]))
        for name in ("Cmd", "CmdSeq", "RecipeId"):
            plc.image.pop(name)
        assert asked(operate(cell.opcua.url)) == [True, 0, ""]
        assert cell.runtime.count("start") == 1


@pytest.mark.parametrize(
    ("written", "acked", "given"), [(0, 5, 6), (5, 5, 6), (7, 5, 8), (U32 - 1, 3, 4), (U32 - 1, U32 - 1, 0)]
)
def test_a_method_takes_a_number_that_is_new_to_the_handshake(written: int, acked: int, given: int) -> None:
    exchange = Exchange()
    exchange.write(seq=written)
    exchange.show(Shown(Status(ack_seq=acked)))
    assert exchange.command(Command.STOP) == exchange.commands().seq == given


def test_a_method_says_why_it_refused_and_wrong_arguments_are_refused_by_themselves(cell: Running) -> None:
    from asyncua import ua
    from asyncua.ua.uaerrors import UaStatusCodeError

    async def operate(url: str) -> None:
        client = await connected(url, cell.folder)
        try:
            assert await call(client, "Start") == [False, 2, "no heartbeat"]
            for arguments in (
                (),
                (ua_uint16(1), ua_uint16(1)),
                (ua.Variant(1, ua.VariantType.Int64),),
                (ua.Variant("1", ua.VariantType.String),),
                (ua.Variant([1], ua.VariantType.UInt16),),
                (ua.Variant(None, ua.VariantType.Null),),
            ):
                with pytest.raises(UaStatusCodeError):
                    await call(client, "Load", *arguments)
        finally:
            await client.disconnect()

    asked(operate(cell.opcua.url))
    assert cell.runtime.calls == []


# --- the audit -----------------------------------------------------------------------------------------------------------


def test_an_audit_that_cannot_be_written_stops_the_robot_and_comes_back(cell: Running) -> None:
    cell.runtime.cycle_ns = 600_000 * MS
    with cell.plc() as plc:
        plc.permit()
        plc.command(Command.LOAD, 1)
        plc.until(lambda: bool(plc.status["Ready"]))
        plc.command(Command.START)
        until(lambda: cell.runtime.phase is Phase.EXECUTING)
        cell.records.broken = True
        plc.command(Command.NONE)
        plc.until(lambda: plc.status["ErrorCode"] == 7)
        until(lambda: cell.runtime.result is Result.ABORTED)
        assert "no space left" in str(plc.status["ErrorText"])
        cell.records.broken = False
        until(lambda: "audit back" in cell.records.kinds())
        plc.acknowledge_error()
        plc.until(lambda: bool(plc.status["Done"]))
        plc.command(Command.ACK)
        cell.runtime.cycle_ns = 10 * MS
        assert plc.cycle(1)["Result"] == 1


@pytest.mark.parametrize(("asked", "meanwhile"), [(10, 0.1), (100, 0.2)])
def test_an_audit_that_cannot_be_written_keeps_no_speed_reduction_back(
    cell: Running, asked: int, meanwhile: float
) -> None:
    with cell.plc() as plc:
        plc.permit(20)
        until(lambda: cell.runtime.speed == 0.2)
        cell.records.broken = True
        plc.command(Command.NONE)
        plc.until(lambda: plc.status["ErrorCode"] == 7)
        plc.image["SpeedOverridePct"] = asked
        until(lambda: cell.cell.exchange.shown().commands.speed_pct == asked)
        steps = cell.cell.steps
        until(lambda: cell.cell.steps > steps + 10)
        assert cell.runtime.speed == meanwhile
        cell.records.broken = False
        until(lambda: cell.runtime.speed == asked / 100)


def test_nothing_is_started_that_is_not_audited_first(tmp_path: Path) -> None:
    """The record of the very start fails: the runtime must never hear of it."""

    class Failing(Records):
        def write(self, kind: str, facts: Any) -> None:
            if kind == "cycle started":
                self.broken = True
            super().write(kind, facts)

    with running(tmp_path) as cell:
        cell.records.__class__ = Failing
        with cell.plc() as plc:
            plc.permit()
            plc.command(Command.LOAD, 1)
            plc.until(lambda: bool(plc.status["Ready"]))
            plc.command(Command.START)
            plc.until(lambda: plc.status["ErrorCode"] == 7)
            assert cell.runtime.count("start") == 0
            plc.until(lambda: bool(plc.status["Done"]))
            assert plc.status["Result"] == 4


def test_a_cell_without_an_audit_does_not_begin() -> None:
    records = Records()
    records.broken = True
    with pytest.raises(StorageError):
        CellAudit(records)


def test_what_others_record_goes_into_the_same_audit_and_its_failure_stops_the_robot() -> None:
    records = Records()
    audit = CellAudit(records, clock=lambda: 0.0)
    audit.record("clamp burst", {"axis": "joint1"})
    assert records.facts("clamp burst") == [{"axis": "joint1"}]
    records.broken = True
    for _ in range(2):
        with pytest.raises(StorageError, match="no space left"):
            audit.record("stop", {})
    assert audit.trouble() == {7: "The audit cannot be written: no space left"}
    assert not audit.write([])


def test_what_happens_while_the_audit_cannot_be_written_is_written_when_it_is_back() -> None:
    now, records = [0.0], Records()
    audit = CellAudit(records, clock=lambda: now[0])
    records.broken = True
    audit.tell(Event("login", {"user": "eve"}))
    assert not audit.write([Event("cycle ended", {"result": "success"}), Event("enabled", {"enabled": False})])
    audit.tell(Event("login", {"user": "kim"}))
    now[0], records.broken = 5.0, False
    assert audit.trouble() == {}
    assert audit.write([Event("state change", {})])
    assert records.lines == [
        ("audit back", {"failure": "no space left"}),
        ("login", {"user": "eve", "late_s": 5.0}),
        ("cycle ended", {"result": "success", "late_s": 5.0}),
        ("enabled", {"enabled": False, "late_s": 5.0}),
        ("login", {"user": "kim", "late_s": 5.0}),
        ("state change", {}),
    ]


def test_of_too_much_that_waits_for_the_audit_the_oldest_is_dropped_and_counted() -> None:
    now, records = [0.0], Records()
    audit = CellAudit(records, clock=lambda: now[0])
    records.broken = True
    assert not audit.write([Event("login", {"number": number}) for number in range(WAITING_MAX + 5)])
    now[0], records.broken = 5.0, False
    audit.trouble()
    assert audit.write([])
    assert records.facts("events dropped") == [{"count": 5}]
    assert [facts["number"] for facts in records.facts("login")] == list(range(5, WAITING_MAX + 5))
    assert audit.write([])
    assert len(records.facts("events dropped")) == 1


def test_what_an_audit_did_not_get_in_the_end_is_said(caplog: pytest.LogCaptureFixture) -> None:
    records = Records()
    audit = CellAudit(records)
    records.broken = True
    audit.write([Event("cell ended", {})])
    audit.close()
    assert "1 of the cell's events are not" in caplog.text


# --- ends ----------------------------------------------------------------------------------------------------------------


def test_a_cell_that_ends_brings_the_robot_to_rest_and_lets_go(tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with running(tmp_path) as cell, cell.plc() as plc:
        cell.runtime.cycle_ns = 600_000 * MS
        plc.permit()
        plc.command(Command.LOAD, 1)
        plc.until(lambda: bool(plc.status["Ready"]))
        plc.command(Command.START)
        until(lambda: cell.runtime.phase is Phase.EXECUTING)
    assert ("stop", "the cell ends") in cell.runtime.calls
    assert cell.runtime.closed
    assert not cell.runtime.enabled
    assert cell.records.kinds()[-1] == "cell ended"
    assert {"handshake", "opcua", "plc"} & ({thread.name for thread in threading.enumerate()} - before) == set()


def test_a_runtime_that_breaks_ends_the_handshake_with_the_robot_at_rest(tmp_path: Path) -> None:
    with running(tmp_path) as cell:
        until(lambda: cell.cell.steps > 3)
        cell.runtime.state = None  # type: ignore[method-assign, assignment]
        assert cell.cell.ended.wait(20)
        assert cell.cell.failed
        assert cell.cell.exchange.shown().status.error_code == 99
        assert cell.runtime.calls[-1] == ("stop", "the cell ends")


def test_an_opc_ua_server_that_breaks_ends_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as cell:
        until(lambda: cell.cell.steps > 3)
        monkeypatch.setattr("lehrling.deploy.opcua_handshake.STATUS_NODES", None)
        assert cell.cell.ended.wait(20)
        assert cell.cell.failed
    assert "AttributeError" in str(cell.records.facts("side broken"))


def test_a_request_that_the_runtime_refuses_is_an_error_for_the_plc(cell: Running) -> None:
    def refuse(recipe: int) -> None:
        raise InputError(f"Adapter of recipe {recipe} is missing.")

    cell.runtime.load = refuse  # type: ignore[method-assign]
    with cell.plc() as plc:
        plc.permit()
        plc.until(lambda: cell.runtime.enabled)
        plc.command(Command.LOAD, 1)
        plc.until(lambda: plc.status["ErrorCode"] == 99)
        assert plc.status["ErrorText"] == "Adapter of recipe 1 is missing."


@pytest.mark.slow
def test_a_port_that_is_taken_lets_go_of_the_robot(tmp_path: Path) -> None:
    with running(tmp_path) as cell:
        (tmp_path / "second").mkdir()
        with (
            pytest.raises(InputError, match="cannot listen"),
            running(tmp_path / "second", opcua={"port": cell.opcua.port}),
        ):
            pass
