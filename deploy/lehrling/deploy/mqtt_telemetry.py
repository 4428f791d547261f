"""Telemetry of a cell over MQTT: publish only, plain JSON; a broker that is away is counted, and stops nothing."""

from __future__ import annotations

import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from lehrling.datasets.errors import InputError
from lehrling.deploy.cell_config import CellConfig, MqttConfig
from lehrling.deploy.cell_exchange import Exchange, Shown
from lehrling.deploy.handshake_image import Status

LOOK_S = 0.05
QUEUE_MAX = 100
RECONNECT_MAX_S = 10
_log = logging.getLogger("lehrling.cell")


@dataclass
class Counts:
    """What became of the telemetry.

    Attributes:
        published: messages handed to a connected broker.
        dropped: messages for which there was no broker, or no room.
        connected: how often a broker was reached.
        lost: how often it went away.
        failed: how often telemetry could not even be put together.
    """

    published: int = 0
    dropped: int = 0
    connected: int = 0
    lost: int = 0
    failed: int = 0


class MqttTelemetry:
    """Publishes below the configured topic until stopped.

    `online` (retained): `true`, and `false` by last will when the cell is gone. `status` (retained): the status image, at
    every change. `robot`: axes and speed, every period.
    """

    def __init__(
        self, config: CellConfig, exchange: Exchange, told: Callable[[str], None] = lambda _text: None
    ) -> None:
        """Prepare the client; `told` is called where telemetry begins to fail by an error of its own, which stops nothing.

        Raises:
            InputError: the configuration has no part `mqtt`, or its files cannot be read.
        """
        if config.mqtt is None:
            raise InputError("Expected the part mqtt in the cell's configuration.")
        self._mqtt: MqttConfig = config.mqtt
        self._exchange, self._told = exchange, told
        self._status, self._next_s, self._problem = Status(), 0.0, ""
        self.counts = Counts()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._client = _client(config.mqtt)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected

    def start(self) -> None:
        """Begin to connect; whether a broker is there is not waited for."""
        self._client.connect_async(self._mqtt.host, self._mqtt.port, keepalive=15)
        self._client.loop_start()
        self._thread.start()

    def stop(self) -> None:
        """Say that the cell is gone, disconnect, and end both threads."""
        self._ending.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        if self._client.is_connected():
            message = self._client.publish(self._topic("online"), "false", qos=1, retain=True)
            try:
                message.wait_for_publish(1.0)
            except (RuntimeError, ValueError) as error:
                _log.info("mqtt: the last message did not get out: %s", error)
        self._client.disconnect()
        self._client.loop_stop()

    def _run(self) -> None:
        while not self._ending.wait(LOOK_S):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 (telemetry is nothing that may end a cell)
                self._fail(f"The telemetry fails: {type(error).__name__}: {error}.")

    def _look(self) -> None:
        """Publish what is new."""
        shown, now = self._exchange.shown(), time.monotonic()
        due = now >= self._next_s
        if due:
            self._next_s = now + self._mqtt.period_ms / 1e3
        if due or _differs(shown.status, self._status):
            self._status = shown.status
            self._publish("status", status_json(shown.status), retain=True)
        if due:
            self._publish("robot", robot_json(shown), retain=False)
            self._problem = ""

    def _fail(self, text: str) -> None:
        self.counts.failed += 1
        if text != self._problem:
            self._problem = text
            _log.exception("mqtt: the telemetry fails; the cell goes on")
            self._told(text)

    def _publish(self, name: str, content: Mapping[str, object], *, retain: bool) -> None:
        if not self._client.is_connected():
            self.counts.dropped += 1
            return
        text = json.dumps({"stamp_ns": time.time_ns(), **content}, separators=(",", ":"), allow_nan=False)
        info = self._client.publish(self._topic(name), text, qos=1 if retain else 0, retain=retain)
        if info.rc == paho.MQTT_ERR_SUCCESS:
            self.counts.published += 1
        else:
            self.counts.dropped += 1

    def _topic(self, name: str) -> str:
        return f"{self._mqtt.topic}/{name}"

    def _connected(
        self,
        client: paho.Client,
        _data: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            _log.warning("mqtt: the broker refused the cell: %s", reason)
            return
        self.counts.connected += 1
        client.publish(self._topic("online"), "true", qos=1, retain=True)

    def _disconnected(
        self,
        _client: paho.Client,
        _data: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if not self._ending.is_set():
            self.counts.lost += 1
            _log.warning("mqtt: the broker is gone (%s); the cell goes on", reason)


def _client(mqtt: MqttConfig) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=mqtt.client_id)
    client.will_set(f"{mqtt.topic}/online", "false", qos=1, retain=True)
    client.reconnect_delay_set(1, RECONNECT_MAX_S)
    client.max_queued_messages_set(QUEUE_MAX)
    try:
        if mqtt.tls_ca is not None:
            client.tls_set(str(mqtt.tls_ca), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        if mqtt.username is not None:
            lines = mqtt.password_file.read_text().splitlines() if mqtt.password_file is not None else []
            client.username_pw_set(mqtt.username, lines[0] if lines else None)
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        raise InputError(f"mqtt: {mqtt.tls_ca or ''} {mqtt.password_file or ''} cannot be read: {error}.") from error
    return client


def _differs(status: Status, before: Status) -> bool:
    """Whether more than the heartbeat and the acknowledged number changed."""
    told, known = asdict(status), asdict(before)
    return any(told[key] != known[key] for key in told if key not in ("heartbeat", "ack_seq"))


def status_json(status: Status) -> Mapping[str, object]:
    """Return the status image with words in place of numbers."""
    return asdict(status) | {"refusal": status.refusal.name.lower()}


def robot_json(shown: Shown) -> Mapping[str, object]:
    """Return what the robot does."""
    axes = {
        name: {"position": _finite(axis.position), "velocity": _finite(axis.velocity)}
        for name, axis in shown.state.axes.items()
    }
    return {"phase": shown.state.phase, "speed": shown.state.speed, "latched": shown.state.latched, "axes": axes}


def _finite(value: float) -> float | None:
    """Return a number as JSON can say it."""
    return value if math.isfinite(value) else None
