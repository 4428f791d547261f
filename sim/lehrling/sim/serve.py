"""The simulator as a robot that others command: world, sensors and schedule, without ROS.

Time passes as simulation time; `Server` paces it by the wall clock. What goes out is CDR on named topics, so that a node
only has to hand bytes on.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.datasets.message_types import standard
from lehrling.sim.faults import IMAGES, Faults
from lehrling.sim.pacing import FactorMeter, Pacer, Reading
from lehrling.sim.seeding import Seeds
from lehrling.sim.sensing import Sensor, Sensors, commands_of, sensors_of
from lehrling.sim.station import Station

Qos = Literal["sensor", "reliable", "latched", "clock"]
CLOCK, SUCCESS, INSTRUCTION, DESCRIPTION = "/clock", "/task_success", "/task_instruction", "/robot_description"
TEXT, FLAG = "std_msgs/msg/String", "std_msgs/msg/Bool"
SLOW = 0.97
"""Below this share of the wanted real-time factor, the log says so."""
OWN_CORE = 0.8
"""A slow process with less of a core than this was kept waiting."""
INBOX_MAX = 1000


@dataclass(frozen=True)
class Topic:
    """A topic that the robot publishes."""

    name: str
    type: str
    qos: Qos


class Outlet(Protocol):
    """Where the robot's messages go."""

    def send(self, topic: str, cdr: bytes) -> None:
        """Publish a message on one of the robot's topics."""


@dataclass(frozen=True)
class Laid:
    """An episode laid out, as the reset service tells it."""

    episode: int
    seed: int
    instruction: str

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps({"episode": self.episode, "seed": self.seed, "instruction": self.instruction})


def _message(msgtype: str, **fields: object) -> bytes:
    return messages.encode(standard().make(msgtype)(**fields))


def clock_message(stamp_ns: int) -> bytes:
    """Return a Clock."""
    seconds, nanoseconds = divmod(stamp_ns, messages.NS)
    moment = standard().make("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
    return _message("rosgraph_msgs/msg/Clock", clock=moment)


@dataclass
class SimRobot:
    """A station that is stepped, read and commanded, one episode after another.

    Attributes:
        embodiment: names the topics; by default the station's own.
        seed: of the first episode; each reset takes the next.
        wall_stamp_ns: from simulation time to the stamp on messages; None stamps with simulation time and sends /clock.
        disturb: whether executed commands differ a little from those heard, as in generated demonstrations.
        success: whether the task was done since the reset.
    """

    station: Station
    outlet: Outlet
    seed: int = 0
    wall_stamp_ns: Callable[[int], int] | None = None
    faults: Faults = field(default_factory=Faults)
    disturb: bool = False
    embodiment: Embodiment | None = None
    episode: int = field(default=-1, init=False)
    success: bool = field(default=False, init=False)
    _base_ns: int = field(default=0, init=False)
    _reading: Sensors = field(init=False)

    def __post_init__(self) -> None:
        embodiment = self.embodiment or self.station.embodiment
        self.sensors = sensors_of(embodiment, self.station.readers)
        self.commands = commands_of(embodiment)
        self.faults.check(self.sensors)

    @property
    def topics(self) -> tuple[Topic, ...]:
        """All topics that the robot publishes."""
        observed = tuple(Topic(s.topic, s.type, "sensor" if s.type in IMAGES else "reliable") for s in self.sensors)
        clock = (Topic(CLOCK, "rosgraph_msgs/msg/Clock", "clock"),) if self.wall_stamp_ns is None else ()
        latched = ((SUCCESS, FLAG), (INSTRUCTION, TEXT), (DESCRIPTION, TEXT))
        return (*observed, *clock, *(Topic(name, msgtype, "latched") for name, msgtype in latched))

    @property
    def sim_ns(self) -> int:
        """Simulation time since the start, over all episodes [ns]."""
        return self._base_ns + self.station.physics.time_ns

    def stamp_ns(self) -> int:
        """Return the time on the robot's clock now [ns]."""
        plain = self.sim_ns if self.wall_stamp_ns is None else self.wall_stamp_ns(self.sim_ns)
        return max(plain + self.faults.jump_ns(self.station.physics.time_ns), 0)

    def _take(self, sensor: Sensor, now_ns: int, rng: np.random.Generator) -> bytes | None:
        return self.faults.take(sensor, now_ns, self.stamp_ns(), rng)

    def reset(self) -> Laid:
        """Lay out the next seed's episode; what is still on its way arrives first."""
        if self.episode < 0:
            self.outlet.send(DESCRIPTION, _message(TEXT, data=self.station.urdf()))
        else:
            self._reading.flush()
            self._base_ns = self.sim_ns
            self.seed += 1
        self.episode, self.success = self.episode + 1, False
        seeds = Seeds(self.seed)
        self.station.reset(seeds, disturb=self.disturb)
        self.faults.begin(self.episode)
        self._reading = Sensors(self.sensors, self.station.physics, seeds["sensor"], self._deliver, self._take)
        self.outlet.send(INSTRUCTION, _message(TEXT, data=self.station.instruction))
        self.outlet.send(SUCCESS, _message(FLAG, data=False))
        return Laid(self.episode, self.seed, self.station.instruction)

    def _deliver(self, topic: str, cdr: bytes, stamp_ns: int, received_ns: int) -> None:
        del stamp_ns, received_ns
        self.outlet.send(topic, cdr)

    @property
    def next_arrival_ns(self) -> int | None:
        """When the next message is to go out, in simulation time over all episodes [ns]."""
        upcoming = self._reading.next_ns
        return None if upcoming is None else upcoming + self._base_ns

    def deliver(self) -> None:
        """Send the message that is to go out next, and those due with it."""
        if (upcoming := self._reading.next_ns) is not None:
            self._reading.deliver(upcoming)

    def step(self) -> None:
        """Do what is due now, and pass one physics step."""
        physics, period = self.station.physics, self.station.period_steps
        if self.wall_stamp_ns is None:
            self.outlet.send(CLOCK, clock_message(self.stamp_ns()))
        if physics.steps % period == 0:
            self.station.apply()
        self._reading.tick()
        physics.step(1)
        if physics.steps % period == 0 and self.station.judge() and not self.success:
            self.success = True
            self.outlet.send(SUCCESS, _message(FLAG, data=True))


ENDED = object()
Drive = Iterator[None]
"""Advanced once per physics step, before it; ends when there is no more to do."""


@dataclass
class Server:
    """Lets a robot live in real time, hears others between its steps, and says where it cannot keep up.

    Attributes:
        log: takes a line for people.
        reached: the last real-time factors, for the summary.
    """

    robot: SimRobot
    pacer: Pacer
    log: Callable[[str], None]
    paused: bool = False
    reached: list[float] = field(default_factory=list)
    _inbox: queue.Queue[Callable[[], None]] = field(default_factory=lambda: queue.Queue(INBOX_MAX))
    _stop: threading.Event = field(default_factory=threading.Event)
    _refused: str = ""
    cpu_ns: Callable[[], int] = time.process_time_ns

    def __post_init__(self) -> None:
        self._meter = FactorMeter(self.pacer.monotonic_ns, self.cpu_ns)

    def stop(self) -> None:
        """End `run` after the step in progress; from any thread or signal handler."""
        self._stop.set()

    def post(self, action: Callable[[], None]) -> bool:
        """Let an action run between two steps; from any thread. False where too many wait already."""
        try:
            self._inbox.put_nowait(action)
        except queue.Full:
            return False
        return True

    def hear(self, topic: str, cdr: bytes) -> None:
        """Hand a command to the robot; one that it cannot follow is told once in the log and left aside."""
        try:
            self.robot.station.hear(topic, cdr)
        except LehrlingError as error:
            if str(error) != self._refused:
                self.log(f"A command was left aside. {error}")
            self._refused = str(error)

    def pause(self, wanted: bool) -> None:
        """Stop simulation time, or let it go on."""
        self.paused = wanted
        self.pacer.restart(self.robot.sim_ns)
        self._meter.restart()

    def reset(self) -> Laid:
        """Lay out the next episode; its first step is due now."""
        laid = self.robot.reset()
        self.pacer.restart(self.robot.sim_ns)
        self._meter.restart()
        return laid

    def run(self, drive: Drive | None = None) -> None:
        """Step in real time until stopped, or until `drive` ends."""
        if self.robot.episode < 0:
            self.reset()
        while not self._stop.is_set():
            self._drain()
            if self.paused:
                self.pacer.sleep_s(0.02)
                continue
            if drive is not None and next(drive, ENDED) is ENDED:
                return
            self._advance()
            self._report()

    def _drain(self) -> None:
        for _ in range(self._inbox.qsize()):
            self._inbox.get_nowait()()

    def _advance(self) -> None:
        """Send what arrives before the next step, each at its time, then step."""
        robot = self.robot
        robot.step()
        due = robot.sim_ns
        while (arrival := robot.next_arrival_ns) is not None and arrival <= due:
            self.pacer.wait(arrival)
            robot.deliver()
        self.pacer.wait(due)

    def _report(self) -> None:
        reading = self._meter.reading(self.robot.sim_ns)
        if reading is None:
            return
        self.pacer.listen()
        self.reached = [*self.reached[-3599:], reading.factor]
        if reading.factor < SLOW * self.pacer.factor:
            self.log(f"Real-time factor {reading.factor:.2f} instead of {self.pacer.factor:g}: {_cause(reading)}")


def _cause(reading: Reading) -> str:
    """Say why simulation is slow, and what helps."""
    if reading.cpu_share < OWN_CORE:
        return f"other processes left this one {reading.cpu_share:.0%} of a core; end some, or ask for less."
    return "one process cannot simulate and render as fast; choose a smaller --size or a smaller --real-time-factor."


def check_factor(factor: float) -> float:
    """Return a real-time factor that can be paced.

    Raises:
        InputError: it is not from 0.01 to 100.
    """
    if not 0.01 <= factor <= 100:
        raise InputError(f"Expected a real-time factor from 0.01 to 100, got {factor:g}.")
    return factor
