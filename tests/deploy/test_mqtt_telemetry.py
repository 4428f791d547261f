"""Telemetry over a real broker: what is heard, and a broker that comes and goes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cell_brokers import Listener, broker, free_port
from cell_rig import cell_config, running
from watching import until

from lehrling.datasets.errors import InputError
from lehrling.deploy import mqtt_telemetry
from lehrling.deploy.cell_exchange import Exchange, Shown
from lehrling.deploy.handshake_image import Status
from lehrling.deploy.mqtt_telemetry import MqttTelemetry
from lehrling.deploy.runtime import Axis, Phase, RuntimeState

TOPIC = "plant/cell7"


def test_status_robot_and_presence_are_heard_as_plain_json(tmp_path: Path) -> None:
    port, exchange = free_port(), Exchange()
    config = cell_config(tmp_path, mqtt={"port": port, "topic": TOPIC, "period_ms": 100})
    state = RuntimeState(Phase.EXECUTING, recipe=2, speed=0.5, axes={"joint1": Axis(1.5, float("nan"))})
    with broker(port), Listener(port, TOPIC) as heard:
        telemetry = MqttTelemetry(config, exchange)
        telemetry.start()
        try:
            exchange.show(Shown(Status(state=Phase.EXECUTING, recipe=2, cycle=9, busy=True), state))
            until(lambda: heard.last.get("status", {}).get("cycle") == 9)
            until(lambda: heard.last.get("robot", {}).get("axes"))
            status = heard.last["status"]
            assert (status["state"], status["busy"], status["refusal"], status["result"]) == (
                "executing",
                True,
                "none",
                "none",
            )
            assert abs(status["stamp_ns"] - time.time_ns()) < 60e9
            assert heard.last["robot"]["axes"] == {"joint1": {"position": 1.5, "velocity": None}}
            assert heard.last["online"] is True
        finally:
            telemetry.stop()
        until(lambda: heard.last["online"] is False)
        assert telemetry.counts.published > 0
        assert telemetry.counts.lost == 0


def test_whoever_comes_later_finds_the_last_status(tmp_path: Path) -> None:
    port, exchange = free_port(), Exchange()
    config = cell_config(tmp_path, mqtt={"port": port, "topic": TOPIC, "period_ms": 60_000})
    with broker(port):
        telemetry = MqttTelemetry(config, exchange)
        telemetry.start()
        try:
            until(lambda: telemetry.counts.connected == 1)
            exchange.show(Shown(Status(cycle=5)))
            until(lambda: telemetry.counts.published >= 2)
            with Listener(port, TOPIC) as late:
                until(lambda: late.last.get("status", {}).get("cycle") == 5)
        finally:
            telemetry.stop()


def test_telemetry_that_fails_by_itself_is_told_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, exchange, told = free_port(), Exchange(), list[str]()
    config = cell_config(tmp_path, mqtt={"port": port, "topic": TOPIC, "period_ms": 100})

    def broken(_shown: Shown) -> dict[str, object]:
        raise KeyError("joint9")

    with broker(port), Listener(port, TOPIC) as heard:
        telemetry = MqttTelemetry(config, exchange, told.append)
        with monkeypatch.context() as patch:
            patch.setattr(mqtt_telemetry, "robot_json", broken)
            telemetry.start()
            until(lambda: telemetry.counts.failed >= 3)
        try:
            until(lambda: "axes" in heard.last.get("robot", {}))
        finally:
            telemetry.stop()
    assert told == ["The telemetry fails: KeyError: 'joint9'."]


@pytest.mark.slow
def test_a_broker_that_is_gone_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    port = free_port()
    made: list[MqttTelemetry] = []

    def side(*arguments: object) -> MqttTelemetry:
        made.append(MqttTelemetry(*arguments))  # type: ignore[arg-type]
        return made[0]

    with running(tmp_path, side, mqtt={"port": port, "topic": TOPIC, "period_ms": 50}) as cell, cell.plc() as plc:
        until(lambda: made[0].counts.dropped > 0)
        plc.permit()
        assert plc.cycle(1)["Result"] == 1, "without a broker"
        with broker(port):
            until(lambda: made[0].counts.published > 3)
            assert plc.cycle(1)["Result"] == 1
        until(lambda: made[0].counts.lost == 1)
        dropped = made[0].counts.dropped
        assert plc.cycle(2)["Result"] == 1, "after the broker went away"
        until(lambda: made[0].counts.dropped > dropped)
        with broker(port), Listener(port, TOPIC) as heard:
            until(lambda: heard.last.get("status", {}).get("recipe") == 2)
    assert made[0].counts.connected == 2


def test_files_that_are_missing_are_refused_before_anything_starts(tmp_path: Path) -> None:
    config = cell_config(tmp_path, mqtt={"username": "cell", "password_file": "none"})
    with pytest.raises(InputError, match="cannot be read"):
        MqttTelemetry(config, Exchange())
    with pytest.raises(InputError, match="Expected the part mqtt"):
        MqttTelemetry(config.model_copy(update={"mqtt": None}), Exchange())
