"""The simulated robot as a ROS 2 node: the only module of this room that needs rclpy.

The simulation runs in the calling thread; an executor thread hears commands and services and hands them over between two
steps. Messages come as CDR from the core and go out as they are.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.sim.faults import Fault, Faults
from lehrling.sim.pacing import Pacer
from lehrling.sim.serve import Qos, Server, SimRobot, Topic, check_factor
from lehrling.sim.serve_expert import Answer, ExpertRun
from lehrling.sim.station import Station
from lehrling.sim.variants import with_raw_images

NODE = "lehrling_sim"
HANDOVER_S = 60.0
DEPTH = {"sensor": 5, "reliable": 50, "latched": 1, "clock": 1, "command": 10}


@dataclass(frozen=True)
class ServeOptions:
    """How a robot is served.

    Attributes:
        namespace: before every topic but /clock, such as `/cell1`; empty for none.
        sim_time: stamp with simulation time and publish /clock, instead of wall-clock stamps.
        disturb: let executed commands differ a little from those heard, as in generated demonstrations.
        episodes: after which an expert's run ends; None goes on until stopped.
        recorder: a recorder node's name, whose services an expert calls; empty for none.
    """

    seed: int = 0
    namespace: str = ""
    real_time_factor: float = 1.0
    sim_time: bool = False
    raw_images: bool = False
    faults: Sequence[Fault] = ()
    disturb: bool = False
    expert: bool = False
    episodes: int | None = None
    recorder: str = ""


@dataclass(frozen=True)
class ServeReport:
    """What came of serving.

    Attributes:
        episodes, successes, recorded: of an expert's run.
        real_time_factor: median of those reached, second by second; None within the first second.
        finished: whether it ended by itself, not by a signal.
    """

    episodes: int
    successes: int
    recorded: int
    simulated_s: float
    real_time_factor: float | None
    finished: bool


def message_class(name: str) -> Any:
    """Return the Python class of a ROS interface, such as `std_msgs/msg/String` or `std_srvs/srv/Trigger`.

    Raises:
        InputError: no ROS 2 is installed, or it lacks the package.
    """
    package, kind, message = name.split("/")
    try:
        return getattr(import_module(f"{package}.{kind}"), message)
    except ImportError as error:
        raise InputError(f"{name} is not installed here ({error}). {ROS_MISSING}") from error


ROS_MISSING = (
    "Source a ROS 2 installation (Jazzy or newer), or install its wheels: `pip install ros-kilted-rclpy "
    "ros-kilted-rmw-fastrtps-cpp ros-kilted-sensor-msgs ros-kilted-geometry-msgs ros-kilted-std-srvs`."
)


def _rclpy() -> Any:
    try:
        return import_module("rclpy")
    except ImportError as error:
        raise InputError(f"Expected ROS 2 for Python, but rclpy cannot be imported ({error}). {ROS_MISSING}") from error


def _profile(qos: Qos | str) -> Any:
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    loose, latched = qos in ("sensor", "clock"), qos == "latched"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=DEPTH[qos],
        reliability=ReliabilityPolicy.BEST_EFFORT if loose else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


@contextmanager
def ros_node(name: str, namespace: str) -> Iterator[Any]:
    """Run a node's callbacks in a thread of its own while the context lasts.

    Raises:
        InputError: ROS 2 cannot be used here.
    """
    rclpy = _rclpy()
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    try:
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node(name, namespace=namespace or None, context=context)
    except Exception as error:
        raise InputError(f"ROS 2 does not start here: {error}. {ROS_MISSING}") from error
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, name="ros", daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join(5.0)
        node.destroy_node()
        context.try_shutdown()


class RosOutlet:
    """Publishers of the robot's topics, and of its commands where an expert gives them."""

    def __init__(self, node: Any, namespace: str) -> None:
        self._node, self._namespace = node, namespace
        self._publishers: dict[str, Any] = {}
        self._commands: dict[str, Any] = {}

    def full(self, topic: str) -> str:
        """Return a topic's full name; /clock is everybody's."""
        return topic if topic == "/clock" else self._namespace + topic

    def open(self, topics: Sequence[Topic]) -> None:
        """Make the publishers."""
        for topic in topics:
            publisher = self._node.create_publisher(
                message_class(topic.type), self.full(topic.name), _profile(topic.qos)
            )
            self._publishers[topic.name] = publisher

    def open_commands(self, commands: dict[str, str]) -> None:
        """Make the publishers of the commands."""
        for topic, msgtype in commands.items():
            self._commands[topic] = self._node.create_publisher(
                message_class(msgtype), self.full(topic), _profile("command")
            )

    def send(self, topic: str, cdr: bytes) -> None:
        """Publish a message as it is."""
        self._publishers[topic].publish(cdr)

    def command(self, topic: str, cdr: bytes) -> None:
        """Publish a command as it is."""
        self._commands[topic].publish(cdr)

    def connected(self) -> bool:
        """Whether every command would be heard."""
        return all(publisher.get_subscription_count() for publisher in self._commands.values())


class RosRecorder:
    """A recorder's services, called without waiting."""

    def __init__(self, node: Any, name: str) -> None:
        self.name = "/" + name.strip("/")
        trigger = message_class("std_srvs/srv/Trigger")
        self._request = trigger.Request
        self._clients = {
            word: node.create_client(trigger, f"{self.name}/{word}") for word in ("start", "save", "save_failure")
        }

    def ready(self, service: str) -> bool:
        """Whether the service is there."""
        return bool(self._clients[service].service_is_ready())

    def call(self, service: str) -> Callable[[], Answer | None]:
        """Call it; the function returned gives the answer once it has come."""
        future = self._clients[service].call_async(self._request())

        def poll() -> Answer | None:
            if not future.done():
                return None
            if (error := future.exception()) is not None:
                return Answer(False, str(error))
            return Answer(bool(future.result().success), str(future.result().message))

        return poll


class Reply(Protocol):
    """The response of Trigger and SetBool."""

    success: bool
    message: str


class RosServices:
    """The node's ears: commands and services, each handed to the simulation's thread."""

    def __init__(self, node: Any, server: Server, outlet: RosOutlet, *, driven: bool) -> None:
        self._server, self._driven, self._closed = server, driven, threading.Event()
        for topic, msgtype in server.robot.commands.items():
            node.create_subscription(
                message_class(msgtype), outlet.full(topic), self._hearing(topic), _profile("command"), raw=True
            )
        node.create_service(message_class("std_srvs/srv/Trigger"), "~/reset", self._reset)
        node.create_service(message_class("std_srvs/srv/SetBool"), "~/pause", self._pause)

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closed.set()

    def _hearing(self, topic: str) -> Callable[[bytes], None]:
        def heard(cdr: bytes) -> None:
            self._server.post(lambda: self._server.hear(topic, cdr))

        return heard

    def _handed_over(self, action: Callable[[], str]) -> str:
        """Run an action between two steps and return what it says.

        Raises:
            LehrlingError: from the action, or because the robot is stopping or too slow.
        """
        answer: Future[str] = Future()

        def run() -> None:
            try:
                answer.set_result(action())
            except LehrlingError as error:
                answer.set_exception(error)

        if self._server.post(run):
            for _ in range(int(HANDOVER_S / 0.1)):
                with suppress(NotYet):
                    return answer.result(timeout=0.1)
                if self._closed.is_set():
                    break
        raise LehrlingError("The simulated robot is stopping, or has too much to do; try again.")

    def _answer(self, response: Reply, action: Callable[[], str]) -> Reply:
        try:
            response.success, response.message = True, self._handed_over(action)
        except LehrlingError as error:
            response.success, response.message = False, str(error)
        return response

    def _reset(self, request: object, response: Reply) -> Reply:
        del request
        return self._answer(response, self._reset_now)

    def _reset_now(self) -> str:
        if self._driven:
            raise LehrlingError(
                "The expert drives this robot and resets it itself; serve it without --expert to reset it."
            )
        laid = self._server.reset()
        self._server.log(f"Reset: episode {laid.episode}, seed {laid.seed}: {laid.instruction}")
        return laid.to_json()

    def _pause(self, request: Any, response: Reply) -> Reply:
        wanted = bool(request.data)

        def pause() -> str:
            self._server.pause(wanted)
            return "paused" if wanted else "running"

        return self._answer(response, pause)


@contextmanager
def _stopping(server: Server, stopped: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the server in order."""

    def stop(number: int, frame: object) -> None:
        del number, frame
        stopped.set()
        server.stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(station: Station, options: ServeOptions, log: Callable[[str], None]) -> ServeReport:
    """Serve a station as a ROS 2 robot until the expert's episodes are done or a signal comes.

    Raises:
        InputError: ROS 2 cannot be used here, or the options do not fit the robot.
    """
    pacer = Pacer(check_factor(options.real_time_factor))
    embodiment = with_raw_images(station.embodiment) if options.raw_images else station.embodiment
    faults = Faults(options.faults, np.random.default_rng([options.seed, 1]))
    stopped = threading.Event()
    with ros_node(NODE, options.namespace) as node:
        outlet = RosOutlet(node, options.namespace)
        stamp = None if options.sim_time else pacer.stamp_ns
        robot = SimRobot(station, outlet, options.seed, stamp, faults, options.disturb, embodiment)
        outlet.open(robot.topics)
        server = Server(robot, pacer, log)
        services = RosServices(node, server, outlet, driven=options.expert)
        run: ExpertRun | None = None
        if options.expert:
            outlet.open_commands(robot.commands)
            recorder = RosRecorder(node, options.recorder) if options.recorder else None
            run = ExpertRun(server, outlet, options.episodes, recorder)
        laid = server.reset()
        log(f"{node.get_fully_qualified_name()} is up: seed {laid.seed}: {laid.instruction}")
        try:
            with _stopping(server, stopped):
                server.run(run.drive() if run is not None else None)
        finally:
            services.close()
    factor = float(np.median(server.reached)) if server.reached else None
    counts = (run.done, run.successes, run.recorded) if run is not None else (0, 0, 0)
    return ServeReport(*counts, round(robot.sim_ns / 1e9, 3), factor, not stopped.is_set())
