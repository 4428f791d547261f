"""A served robot in a test: no ROS, a clock that the test owns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from lehrling.datasets import messages
from lehrling.sim.arm_station import ArmStation
from lehrling.sim.catalogue import make_station
from lehrling.sim.faults import Faults, parse_fault
from lehrling.sim.pacing import Pacer
from lehrling.sim.serve import Server, SimRobot
from lehrling.sim.world import World

EPOCH_NS = 1_700_000_000_000_000_000


@dataclass
class Clock:
    """A machine's clocks; sleeping passes time, and so does every look by `look_ns`; `busy` is the share of a core."""

    now_ns: int = 5_000_000_000
    look_ns: int = 0
    busy: float = 1.0
    slept_ns: int = 0

    def monotonic_ns(self) -> int:
        self.now_ns += self.look_ns
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns + EPOCH_NS

    def cpu_ns(self) -> int:
        return round(self.now_ns * self.busy)

    def sleep_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        self.slept_ns += round(seconds * 1e9)

    def pacer(self, factor: float = 1.0) -> Pacer:
        return Pacer(factor, self.monotonic_ns, self.wall_ns, self.sleep_s)


@dataclass
class Sent:
    """What went out: topic -> (time of sending on the test's clock [ns], CDR)."""

    clock: Clock
    rows: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)

    def send(self, topic: str, cdr: bytes) -> None:
        self.rows.setdefault(topic, []).append((self.clock.wall_ns(), cdr))

    def decoded(self, topic: str, msgtype: str) -> list[Any]:
        return [messages.decode(cdr, msgtype) for _, cdr in self.rows.get(topic, [])]

    def joints(self, topic: str = "/joint_states") -> list[Any]:
        return self.decoded(topic, "sensor_msgs/msg/JointState")

    def stamps(self, topic: str, msgtype: str) -> list[int]:
        return [messages.stamp_of(message) or 0 for message in self.decoded(topic, msgtype)]

    def texts(self, topic: str) -> list[Any]:
        msgtype = "std_msgs/msg/Bool" if topic == "/task_success" else "std_msgs/msg/String"
        return [message.data for message in self.decoded(topic, msgtype)]


@dataclass
class Served:
    """A server with everything that a test looks at."""

    server: Server
    robot: SimRobot
    sent: Sent
    clock: Clock
    log: list[str]

    @property
    def world(self) -> World:
        """The arm's world."""
        return cast(ArmStation, self.robot.station).world

    def run(self, seconds: float) -> None:
        """Let simulation time pass."""
        end = self.robot.sim_ns + round(seconds * 1e9)

        def drive() -> Iterator[None]:
            while self.robot.sim_ns < end:
                yield

        self.server.run(drive())


@contextmanager
def served(
    task: str = "kitting",
    robot: str = "arm6",
    *,
    size: tuple[int, int] = (16, 16),
    faults: Sequence[str] = (),
    sim_time: bool = False,
    factor: float = 1.0,
    look_ns: int = 0,
    busy: float = 1.0,
    seed: int = 0,
) -> Iterator[Served]:
    """Serve a small robot on a test's clock."""
    clock = Clock(look_ns=look_ns, busy=busy)
    pacer, sent, log = clock.pacer(factor), Sent(clock), list[str]()
    station = make_station(task, robot, size)
    stamp = None if sim_time else pacer.stamp_ns
    kept = Faults([parse_fault(text) for text in faults], np.random.default_rng(1))
    try:
        made = SimRobot(station, sent, seed, stamp, kept)
        yield Served(Server(made, pacer, log.append, cpu_ns=clock.cpu_ns), made, sent, clock, log)
    finally:
        station.close()
