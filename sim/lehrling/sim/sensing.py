"""Sensors: what is due is read, becomes a ROS message, and arrives after its latency, in the order of arrival."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment, Source
from lehrling.datasets.errors import InputError
from lehrling.sim.physics import STEP_HZ, Physics
from lehrling.sim.station import Message, Reader

JPEG_QUALITY = 92
Send = Callable[[str, bytes, int, int], None]
"""Called with topic, CDR, stamp [ns] and receive time [ns], both in simulation time."""


@dataclass(frozen=True)
class SensorModel:
    """Noise of the simulated sensors.

    Attributes:
        joint_noise_rad, opening_noise_m: standard deviations of one reading.
        jitter: each receipt adds up to this share of the latency, evenly distributed.
    """

    joint_noise_rad: float = 0.0005
    opening_noise_m: float = 0.0002
    jitter: float = 0.2


SENSORS = SensorModel()


@dataclass(frozen=True)
class Sensor:
    """One topic that the robot publishes.

    Attributes:
        name: the camera's name, or the topic without its leading slash.
        every: physics steps between two readings.
        latency_ms: time from stamp to receipt.
    """

    name: str
    topic: str
    type: str
    every: int
    latency_ms: float
    read: Reader


Take = Callable[[Sensor, int, np.random.Generator], bytes | None]
"""Called with a sensor that is due, the simulation time [ns] and the noise's generator; None where nothing came."""


def plain(sensor: Sensor, now_ns: int, rng: np.random.Generator) -> bytes:
    """Read a sensor that works, stamped with simulation time."""
    return sensor.read(now_ns, rng)


def _every(source: Source) -> int:
    """Return the steps between two readings.

    Raises:
        InputError: the rate does not divide the physics rate.
    """
    rate = source.rate_hz or 0.0
    steps = round(STEP_HZ / rate) if rate else 0
    if steps < 1 or steps * rate != STEP_HZ:
        raise InputError(
            f"Topic {source.topic}: expected a rate_hz that divides the physics rate of {STEP_HZ} Hz, got {source.rate_hz}."
        )
    return steps


def sensors_of(embodiment: Embodiment, readers: Mapping[str, Reader]) -> tuple[Sensor, ...]:
    """Return one sensor per topic of the embodiment's observations, in the contract's order.

    Raises:
        InputError: the embodiment names a topic that the robot does not have, or a rate that the physics cannot give.
    """
    cameras = {camera.name for camera in embodiment.contract.cameras}
    found: dict[str, Sensor] = {}
    for stream in embodiment.contract.all_streams:
        for source in embodiment.binding.sources[stream.name] if stream.role != "action" else ():
            if source.topic in found:
                continue
            if source.topic not in readers:
                raise InputError(
                    f"Embodiment {embodiment.name!r} names topic {source.topic}, which the simulator lacks."
                )
            name = stream.name if stream.name in cameras else source.topic.removeprefix("/")
            reader = readers[source.topic]
            found[source.topic] = Sensor(name, source.topic, source.type, _every(source), source.latency_ms, reader)
    return tuple(found.values())


def commands_of(embodiment: Embodiment) -> dict[str, str]:
    """Return the topics of the embodiment's actions and their types."""
    actions = [stream.name for stream in embodiment.contract.streams if stream.role == "action"]
    return {source.topic: source.type for name in actions for source in embodiment.binding.sources[name]}


def compressed(pixels: Callable[[], NDArray[np.uint8]], camera: str) -> Reader:
    """Return a reader that gives a camera's picture as JPEG."""

    def read(stamp_ns: int, _: np.random.Generator) -> bytes:
        jpeg = simplejpeg.encode_jpeg(pixels(), quality=JPEG_QUALITY, colorsubsampling="444")
        return messages.compressed_image(jpeg, stamp_ns, camera)

    return read


def raw(pixels: Callable[[], NDArray[np.generic]], encoding: str, camera: str) -> Reader:
    """Return a reader that gives a camera's picture as it is: `rgb8`, or `16UC1` in millimetres."""

    def read(stamp_ns: int, _: np.random.Generator) -> bytes:
        return messages.image(pixels(), encoding, stamp_ns, camera)

    return read


@dataclass
class Sensors:
    """Reads what is due and sends messages in the order in which they arrive."""

    sensors: Sequence[Sensor]
    physics: Physics
    rng: np.random.Generator
    send: Send
    take: Take = plain
    model: SensorModel = SENSORS
    _pending: list[tuple[int, int, str, bytes, int]] = field(default_factory=list)
    _count: int = 0

    def queue(self, topic: str, cdr: bytes, latency_ms: float) -> None:
        """Let a message arrive after its latency and jitter."""
        stamp = self.physics.time_ns
        received = stamp + int(latency_ms * 1e6 * (1 + self.model.jitter * self.rng.random()))
        heapq.heappush(self._pending, (received, self._count, topic, cdr, stamp))
        self._count += 1

    def say(self, commands: Sequence[Message]) -> None:
        """Send commands; the commander hears itself at once."""
        for topic, cdr in commands:
            self.queue(topic, cdr, 0.0)

    def tick(self) -> None:
        """Read the sensors that are due at this physics step."""
        now = self.physics.time_ns
        for sensor in self.sensors:
            if self.physics.steps % sensor.every == 0:
                cdr = self.take(sensor, now, self.rng)
                if cdr is not None:
                    self.queue(sensor.topic, cdr, sensor.latency_ms)

    def deliver(self, until_ns: int) -> None:
        """Send what has arrived by `until_ns`."""
        while self._pending and self._pending[0][0] <= until_ns:
            received, _, topic, cdr, stamp = heapq.heappop(self._pending)
            self.send(topic, cdr, stamp, received)

    @property
    def next_ns(self) -> int | None:
        """When the next message arrives [ns]; None if none is on its way."""
        return self._pending[0][0] if self._pending else None

    def flush(self) -> None:
        """Send everything that is on its way."""
        self.deliver(2**62)
