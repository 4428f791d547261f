"""The policy as a ROS 2 lifecycle node: the mirror of the recorder.

Executable `policy`; configure connects to the policy server and lays out the guard, activate lets cycles begin, deactivate brings
the robot to rest, cleanup and shutdown let go of it. Services `~/start`, `~/stop` and `~/reset` (std_srvs/Trigger; the answer's
message is the cycle's number, or why not); `~/state` (std_msgs/String, JSON, 5 Hz). A latched stop is reset by an operator at
the robot (`lehrling guard reset`), never over ROS. `--managed` leaves the transitions to a launch file or supervisor.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rclpy.exceptions import InvalidParameterTypeException
from rclpy.lifecycle import LifecycleState, Node, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.audit import AuditLog
from lehrling.deploy.audit_thread import AuditThread
from lehrling.deploy.cycle import Recipe
from lehrling.deploy.robot_loop import RobotLoop
from lehrling.deploy.ros_graph import profile
from lehrling.deploy.ros_qos import Request
from lehrling.deploy.run_config import RunConfig, parse_run_config
from lehrling.deploy.runtime import Phase

STATE_NS, SPIN_S = 200_000_000, 0.1
PARAMETERS: dict[str, Any] = {
    "embodiment": "",
    "namespace": "",
    "server": "ws://127.0.0.1:8000",
    "key_file": "",
    "certificate": "",
    "guard": "",
    "success_topic": "",
    "enable_topic": "",
    "interventions": "",
    "corrections": "",
    "traces": "",
    "black_box": "",
    "adapter": "",
    "instruction": "",
    "instruction_topic": "",
    "limit_s": 60.0,
    "mode": "async",
    "execute": 0,
    "audit": "",
}
"""Parameters and their defaults; '' and 0 mean: not given."""
RUN = ("embodiment", "namespace", "server", "key_file", "certificate", "guard", "success_topic", "enable_topic")
RUN_MORE = ("interventions", "corrections", "traces", "black_box")


class PolicyNode(Node):  # type: ignore[misc]
    """Holds a `RobotLoop` while configured; one recipe, number 1."""

    def __init__(
        self,
        config: RunConfig | None = None,
        recipe: Recipe | None = None,
        audit: Path | None = None,
        name: str = "policy",
        instruction_topic: str = "",
        **node: Any,
    ) -> None:
        """Take a configuration, or read it from parameters when configured."""
        super().__init__(name, **node)
        self._given = config, recipe, audit
        self._topic = instruction_topic
        if config is None:
            for key, default in PARAMETERS.items():
                self._declare(key, default)
        self.loop: RobotLoop | None = None
        self.problem: LehrlingError | None = None
        self.said: list[str] = []
        self._recipe = recipe
        self._active, self._cycles, self._next_ns = False, 0, 0
        self.leaving = False
        self._made: list[Callable[[], object]] = []
        self._audit: AuditLog | None = None
        self._writer: AuditThread | None = None
        self._publisher: Any = None

    def _declare(self, name: str, default: Any) -> None:
        try:
            self.declare_parameter(name, default)
        except InvalidParameterTypeException as error:
            self.destroy_node()
            raise InputError(
                f"Expected {type(default).__name__} for the parameter {name!r}, got another type ({error}); put quotes "
                "around a text that looks like a number."
            ) from error

    def value(self, name: str) -> Any:
        """Return a parameter's value."""
        return self.get_parameter(name).value

    def configuration(self) -> tuple[RunConfig, Recipe, Path | None]:
        """Return what the parameters say.

        Raises:
            InputError: one is missing or cannot be.
        """
        config, recipe, audit = self._given
        if config is not None and recipe is not None:
            return config, recipe, audit
        told = {name: self.value(name) for name in (*RUN, *RUN_MORE) if self.value(name) != ""}
        if "embodiment" not in told:
            raise InputError(f"Expected the parameter 'embodiment' of {self.get_name()}, got nothing.")
        if self.value("mode") not in ("sync", "async", "ensemble"):
            raise InputError(f"Expected sync, async or ensemble for the parameter 'mode', got {self.value('mode')!r}.")
        recipe = Recipe(
            1,
            "policy",
            self.value("instruction"),
            self.value("adapter"),
            self.value("limit_s"),
            self.value("mode"),
            self.value("execute"),
        )
        audit = Path(self.value("audit")) if self.value("audit") else None
        return parse_run_config(told, Path("parameters")), recipe, audit

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Connect and lay out."""
        try:
            config, self._recipe, audit = self.configuration()
            tell, settled = self._auditing(audit)
            self.loop = RobotLoop(config, {1: self._recipe}, tell, settled, self.said.append)
            self._recipe = self.loop.recipes[1]
            if self._recipe.instruction:
                self.loop.drive.load(self._recipe)
        except LehrlingError as error:
            self.problem = error
            self.get_logger().error(str(error))
            self.close()
            return TransitionCallbackReturn.FAILURE
        self._make()
        return super().on_configure(state)

    def _auditing(self, path: Path | None) -> tuple[Callable[..., None], Callable[[], bool]]:
        if path is None:
            return (lambda _kind, _facts: None), (lambda: True)
        self._audit = AuditLog(path)
        self._writer = writer = AuditThread(self._audit.write)
        return writer, writer.settled

    def _make(self) -> None:
        """Offer services, state and the instruction's topic."""
        words = {"start": self.start, "stop": self._stop, "reset": self._reset}
        services = [self.create_service(Trigger, f"~/{name}", self._answering(act)) for name, act in words.items()]
        self._publisher = self.create_publisher(String, "~/state", 10)
        subscriptions = []
        topic = self._topic or (self.value("instruction_topic") if self._given[0] is None else "")
        if topic:
            latched = profile(Request("reliable", "transient_local", 1))
            subscriptions.append(self.create_subscription(String, topic, self._on_instruction, latched))
        self._made = [
            *(lambda s=s: self.destroy_service(s) for s in services),
            *(lambda s=s: self.destroy_subscription(s) for s in subscriptions),
            lambda: self.destroy_publisher(self._publisher),
        ]

    def _on_instruction(self, message: Any) -> None:
        self.instruct(message.data)

    def instruct(self, text: str) -> None:
        """Say what the next cycle shall do."""
        if self.loop is not None and self._recipe is not None and text:
            self._recipe = replace(self._recipe, number=1, instruction=text)
            if self.loop.drive.cycle is None:
                self.loop.drive.load(self._recipe)

    def _answering(self, act: Callable[[], str]) -> Callable[[Any, Any], Any]:
        def answer(_request: Any, response: Any) -> Any:
            try:
                response.success, response.message = True, act()
            except LehrlingError as error:
                response.success, response.message = False, str(error)
                self.get_logger().warning(str(error))
            return response

        return answer

    def start(self) -> str:
        """Begin a cycle; return its number.

        Raises:
            InputError: it cannot begin now; the message says why.
        """
        if self.loop is None or not self._active:
            raise InputError(f"{self.get_name()} is not active; activate it first.")
        if self._recipe is not None and self.loop.drive.phase is Phase.READY:
            self.loop.drive.load(self._recipe)
            self.loop.drive.know_policy()
        self.loop.drive.start(self._cycles + 1, time.monotonic_ns())
        self._cycles += 1
        return str(self._cycles)

    def _stop(self) -> str:
        if self.loop is not None:
            self.loop.drive.stop("The service ~/stop was called.")
        return ""

    def _reset(self) -> str:
        if self.loop is not None:
            self.loop.drive.reset("the service ~/reset")
            if self.loop.drive.phase is Phase.FAULT:
                raise InputError(self.loop.drive.state.fault)
        return ""

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let cycles begin."""
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the robot to rest."""
        self._active = False
        if self.loop is not None:
            self.loop.drive.stop("The node was deactivated.")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the robot; refused while it still comes to rest."""
        if self.loop is not None and self.loop.drive.cycle is not None:
            self.get_logger().warning("The robot still comes to rest; clean up when it stands.")
            return TransitionCallbackReturn.FAILURE
        self.close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the robot, once it is at rest."""
        self._active, self.leaving = False, True
        return super().on_shutdown(state)

    def begin(self) -> RobotLoop:
        """Configure and activate without a supervisor.

        Raises:
            LehrlingError: the node cannot start.
        """
        self.trigger_configure()
        if self.loop is None:
            raise self.problem or InputError(f"{self.get_name()} could not be configured.")
        self.trigger_activate()
        return self.loop

    def step(self, now_ns: int) -> None:
        """Do what is due in a control tick, beside driving."""
        loop = self.loop
        if loop is None:
            return
        if self._active:
            loop.drive.set_enabled(True, now_ns)
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + STATE_NS
            told = asdict(loop.drive.state) | {"jitter": asdict(loop.jitter)}
            self._publisher.publish(String(data=json.dumps(told)))

    def run(self, executor: Any, stopped: Callable[[], bool]) -> None:
        """Drive until interrupted or cleaned up; what there is to say goes to the log."""
        loop = self.loop
        assert loop is not None

        def step(now_ns: int) -> bool:
            self.step(now_ns)
            while self.said:
                self.get_logger().info(self.said.pop(0))
            if stopped() or self.leaving:
                loop.drive.stop("The node was interrupted." if stopped() else "The node was shut down.")
            return not (stopped() or self.leaving) and self.loop is loop

        loop.run(self, executor, step)
        if self.loop is loop:
            self.close()

    def close(self) -> None:
        """Let go of the robot; a second call does nothing."""
        loop, self.loop = self.loop, None
        made, self._made = self._made, []
        if loop is not None:
            loop.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        audit, self._audit = self._audit, None
        if audit is not None:
            audit.close()
        for destroy in made:
            destroy()


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the robot comes to rest first.

    `--managed` leaves the transitions to a launch file or supervisor.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lehrling.deploy.station import signals

    given = list(sys.argv[1:] if arguments is None else arguments)
    managed = "--managed" in given
    try:
        rclpy.init(args=[word for word in given if word != "--managed"], signal_handler_options=SignalHandlerOptions.NO)
        node = PolicyNode()
    except (LehrlingError, RuntimeError) as error:
        sys.stderr.write(f"policy: {error}\n")
        rclpy.try_shutdown()
        return error.exit_code if isinstance(error, LehrlingError) else InputError.exit_code
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    try:
        with signals() as stopped:
            if not managed:
                node.begin()
            while not (stopped() or node.leaving) and (managed or node.loop is not None):
                if node.loop is None:
                    executor.spin_once(timeout_sec=SPIN_S)
                else:
                    node.run(executor, stopped)
    except LehrlingError as error:
        sys.stderr.write(f"policy: {error}\n")
        code = error.exit_code
    finally:
        node.close()
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        rclpy.try_shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
