"""The recorder as a ROS 2 lifecycle node: services, parameters, joystick or pedal, diagnostics.

Executable `recorder`; configure opens the dataset and subscribes, activate lets the session begin episodes, deactivate
ends a running one, cleanup and shutdown seal and close. Services: `~/start`, `~/save`, `~/save_failure`, `~/discard`
(std_srvs/Trigger; the answer's message is the episode's id, or why not), `~/label` (std_srvs/SetBool). Topic
`~/instruction`, or a latched `instruction_topic`, (std_msgs/String) and parameters `task`, `instruction`, `operator` say what
the next episode shows.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.lifecycle import LifecycleState, Node, TransitionCallbackReturn
from sensor_msgs.msg import Joy
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from lehrling.collection.capture_group import CaptureOptions
from lehrling.collection.controls import Buttons, Control, obey, parse_buttons
from lehrling.collection.diagnostics import statuses
from lehrling.collection.recorder import Recorder, RecorderConfig
from lehrling.collection.session import GIB, Plan, SessionOptions
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.ros_graph import profile
from lehrling.deploy.ros_qos import Request

PARAMETERS: dict[str, Any] = {
    "dataset": "",
    "embodiment": "",
    "task": "demonstration",
    "instruction": "",
    "operator": "",
    "namespace": "",
    "warmup_s": 0.0,
    "reset_s": 0.0,
    "episode_limit_s": 0.0,
    "episodes": 0,
    "more": 0,
    "journal_images": "",
    "min_free_gb": 2.0,
    "allow_missing": False,
    "instruction_topic": "",
    "joy_topic": "",
    "joy_buttons": [Control.TOGGLE.value, Control.FAILURE.value, Control.DISCARD.value],
    "campaign": "",
    "station": "",
    "capture_processes": 1,
    "sim_time": False,
    "autostart": False,
}
"""Parameters and their defaults; 0 and '' mean: not given."""
PLAN = ("task", "instruction", "operator")
TICK_S, SPIN_S = 0.05, 0.1


class RecorderNode(Node):  # type: ignore[misc]
    """Holds a `Recorder` while configured."""

    def __init__(self, config: RecorderConfig | None = None, name: str = "recorder") -> None:
        """Take a configuration, or read it from parameters when configured."""
        super().__init__(name)
        for key, default in PARAMETERS.items():
            self._declare(key, default)
        self._config = config
        self.recorder: Recorder | None = None
        self.problem: LehrlingError | None = None
        self._active, self._made, self._buttons = False, list[Callable[[], object]](), Buttons()
        self.add_on_set_parameters_callback(self._on_parameters)

    def _declare(self, name: str, default: Any) -> None:
        """Declare a parameter; where a float is wanted, a whole number will do."""
        kind = type(default)
        try:
            self.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=kind is float))
            if kind is float and type(self.get_parameter(name).value) not in (int, float):
                raise InvalidParameterTypeException(self.get_parameter(name), "DOUBLE")
        except InvalidParameterTypeException as error:
            self.destroy_node()
            raise InputError(
                f"Expected {kind.__name__} for the parameter {name!r}, got another type ({error}); put quotes around "
                "a text that looks like a number."
            ) from error

    def value(self, name: str) -> Any:
        """Return a parameter's value."""
        found = self.get_parameter(name).value
        return float(found) if type(PARAMETERS[name]) is float else found

    def configuration(self) -> RecorderConfig:
        """Return what the parameters say.

        Raises:
            InputError: one is missing or cannot be.
        """
        for name in ("dataset", "embodiment"):
            if not self.value(name):
                raise InputError(f"Expected the parameter {name!r} of {self.get_name()}, got nothing.")
        for name, default in PARAMETERS.items():
            if type(default) in (int, float) and self.value(name) < 0:
                raise InputError(f"Expected 0 or more for the parameter {name!r}, got {self.value(name)}.")
        campaign, station = self.value("campaign"), self.value("station")
        session = SessionOptions(
            warmup_s=self.value("warmup_s"),
            reset_s=self.value("reset_s"),
            limit_s=self.value("episode_limit_s") or None,
            autostart=self.value("autostart"),
            min_free_bytes=int(self.value("min_free_gb") * GIB),
            allow_missing=self.value("allow_missing"),
        )
        return RecorderConfig(
            Path(self.value("dataset")),
            load_embodiment(self.value("embodiment")),
            self._plan(),
            session,
            CaptureOptions(self.value("capture_processes"), self.value("sim_time")),
            self.value("episodes") or None,
            self.value("more") or None,
            self.value("namespace") or None,
            self.value("journal_images") or None,
            _chooser(campaign, station) if campaign else None,
        )

    def _plan(self) -> Plan:
        return Plan(self.value("task"), self.value("instruction"), self.value("operator") or None)

    def _on_parameters(self, parameters: list[Any]) -> Any:
        """Let task, instruction and operator change between episodes; the others only before the node is configured."""
        if self.recorder is None:
            return SetParametersResult(successful=True)
        fixed = [p.name for p in parameters if p.name in PARAMETERS and p.name not in PLAN]
        if fixed:
            reason = f"{', '.join(fixed)} cannot change while the recorder is configured; clean it up first."
            return SetParametersResult(successful=False, reason=reason)
        for parameter in parameters:
            if parameter.name in PLAN:
                value = parameter.value or None if parameter.name == "operator" else parameter.value
                setattr(self.recorder.session.plan, parameter.name, value)
        return SetParametersResult(successful=True)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the dataset and subscribe."""
        try:
            buttons = parse_buttons(self.value("joy_buttons"))
            self.recorder = Recorder(self._config or self.configuration())
        except LehrlingError as error:
            self.problem = error
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._buttons = Buttons(buttons)
        self._make()
        return super().on_configure(state)

    def _make(self) -> None:
        """Offer services and diagnostics."""
        services = [
            self.create_service(Trigger, f"~/{control.value}", self._trigger(control))
            for control in (Control.START, Control.SAVE, Control.FAILURE, Control.DISCARD)
        ]
        services.append(self.create_service(SetBool, "~/label", self._label))
        subscriptions = [self.create_subscription(String, "~/instruction", self._on_instruction, 10)]
        if topic := self.value("instruction_topic"):
            latched = profile(Request("reliable", "transient_local", 1))
            subscriptions.append(self.create_subscription(String, topic, self._on_instruction, latched))
        if topic := self.value("joy_topic"):
            subscriptions.append(self.create_subscription(Joy, topic, self._on_joy, 10))
        publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        timers = [self.create_timer(TICK_S, self._tick), self.create_timer(1.0, lambda: self._diagnose(publisher))]
        self._made = [
            *(lambda s=s: self.destroy_service(s) for s in services),
            *(lambda s=s: self.destroy_subscription(s) for s in subscriptions),
            *(lambda t=t: self.destroy_timer(t) for t in timers),
            lambda: self.destroy_publisher(publisher),
        ]

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let episodes begin."""
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End a running episode; what it has is kept."""
        self._active = False
        if self.recorder is not None:
            self.recorder.interrupt("recorder deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Seal everything and close."""
        self.close("recorder cleaned up")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Seal everything and close."""
        self.close("recorder shut down")
        return super().on_shutdown(state)

    def close(self, cause: str = "recorder stopped") -> None:
        """Seal everything and close; a second call does nothing."""
        recorder, self.recorder = self.recorder, None
        made, self._made = self._made, []
        try:
            if recorder is not None:
                recorder.close(cause)
                if self._config is None:
                    self._log(recorder)
        finally:
            for destroy in made:
                destroy()

    def obey(self, control: Control) -> str:
        """Do what the operator told; return an episode's id.

        Raises:
            LehrlingError: it cannot be done now; the message says why.
        """
        if self.recorder is None or not self._active:
            raise InputError(f"The recorder is not active; activate {self.get_name()} first.")
        if control in (Control.START, Control.TOGGLE) and self._lacks_instruction():
            topic = self.value("instruction_topic")
            raise InputError(
                f"No instruction has come on {topic} yet; an episode would lack it. Is it published, and latched?"
            )
        return obey(self.recorder.session, control)

    def _lacks_instruction(self) -> bool:
        """Whether the topic that says what the next episode shows has said nothing yet."""
        return (
            bool(self.value("instruction_topic"))
            and self.recorder is not None
            and not self.recorder.session.plan.instruction
        )

    def begin(self) -> Recorder:
        """Configure and activate without a supervisor; return the recorder.

        Raises:
            LehrlingError: the recorder cannot start.
        """
        self.trigger_configure()
        if self.recorder is None:
            raise self.problem or InputError(f"{self.get_name()} could not be configured.")
        self.trigger_activate()
        return self.recorder

    def _trigger(self, control: Control) -> Callable[[Any, Any], Any]:
        def answer(_request: Any, response: Any) -> Any:
            response.success, response.message = self._try(control)
            return response

        return answer

    def _try(self, control: Control) -> tuple[bool, str]:
        try:
            return True, self.obey(control)
        except LehrlingError as error:
            self.get_logger().warning(str(error))
            return False, str(error)

    def _label(self, request: Any, response: Any) -> Any:
        control = Control.MARK_SUCCESS if request.data else Control.MARK_FAILURE
        response.success, response.message = self._try(control)
        return response

    def _on_joy(self, message: Any) -> None:
        for control in self._buttons.pressed(message.buttons):
            self._try(control)

    def _on_instruction(self, message: Any) -> None:
        if self.recorder is not None:
            self.recorder.session.plan.instruction = message.data

    def _tick(self) -> None:
        if self.recorder is not None:
            self.recorder.tick(begin=self._active and not self._lacks_instruction())
            if self._config is None:
                self._log(self.recorder)

    def _log(self, recorder: Recorder) -> None:
        """Log what is to be told, where no command line shows it."""
        logger = self.get_logger()
        for said in recorder.session.said():
            if said.loud:
                logger.error(said.text)
            else:
                logger.info(said.text)

    def _diagnose(self, publisher: Any) -> None:
        if self.recorder is not None:
            message = DiagnosticArray(status=statuses(self.recorder))
            message.header.stamp = self.get_clock().now().to_msg()
            publisher.publish(message)


def _chooser(campaign: str, station: str) -> Any:
    from lehrling.collection.campaign_plan import chooser

    return chooser(Path(campaign), station)


def _signals() -> list[str]:
    """Return a list to which the names of SIGINT and SIGTERM are added when they come."""
    came: list[str] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _frame: came.append(signal.Signals(got).name))
    return came


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is shut down or interrupted; without a launch file it configures and activates itself.

    `--managed` leaves the transitions to a launch file or supervisor.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    given = list(sys.argv[1:] if arguments is None else arguments)
    managed = "--managed" in given
    try:
        words = [word for word in given if word != "--managed"]
        rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
        node = RecorderNode()
    except (LehrlingError, RuntimeError) as error:
        sys.stderr.write(f"recorder: {error}\n")
        rclpy.try_shutdown()
        return error.exit_code if isinstance(error, LehrlingError) else InputError.exit_code
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code, wanted = 0, _signals()
    try:
        if not managed:
            node.begin()
        while not wanted:
            executor.spin_once(timeout_sec=SPIN_S)
    except LehrlingError as error:
        code = error.exit_code
    except ExternalShutdownException:
        pass
    finally:
        node.close(f"stopped by {wanted[0]}" if wanted else "interrupted")
        node.destroy_node()
        rclpy.try_shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
