"""The lifecycle node: services, topics, parameters, pedal and diagnostics, over real ROS 2."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ros_publishers import own_domain
from ros_rig import rig, state

from lehrling.collection.session import GIB
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError, LockedError

rclpy = pytest.importorskip("rclpy")

DOUBLE, TEXT = 3, 4


def robot_file(tmp_path: Path, topic: str = "/joint_states") -> Path:
    """Write the embodiment of a robot that has joints alone."""
    whole = rig().model_dump(mode="json")
    whole["contract"] |= {"cameras": [], "streams": whole["contract"]["streams"][:1]}
    whole["binding"]["sources"] = {"position": whole["binding"]["sources"]["position"]}
    whole["binding"]["sources"]["position"][0] |= {"rate_hz": 50.0, "topic": topic}
    path = tmp_path / "robot.json"
    path.write_text(Embodiment.model_validate(whole).model_dump_json())
    return path


class Supervisor:
    """A node beside the recorder, in the same executor: what a launch file, an operator's panel and a pedal are."""

    def __init__(self, node: Any) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self.node, self.side = node, rclpy.create_node("supervisor")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self.executor.add_node(self.side)
        self._publishers: dict[str, Any] = {}

    def spin_until(self, done: Callable[[], object], timeout_s: float = 60.0) -> None:
        limit = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < limit
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, name: str, kind: Any, **request: Any) -> Any:
        client = self.side.create_client(kind, f"/recorder/{name}")
        self.spin_until(client.service_is_ready)
        future = client.call_async(kind.Request(**request))
        self.spin_until(future.done)
        self.side.destroy_client(client)
        return future.result()

    def trigger(self, name: str) -> tuple[bool, str]:
        from std_srvs.srv import Trigger

        answer = self.call(name, Trigger)
        return answer.success, answer.message

    def transition(self, name: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f"TRANSITION_{name.upper()}")
        return bool(self.call("change_state", ChangeState, transition=Transition(id=number)).success)

    def set_parameter(self, name: str, value: str | float) -> tuple[bool, str]:
        from rcl_interfaces.msg import Parameter, ParameterValue
        from rcl_interfaces.srv import SetParameters

        if isinstance(value, str):
            wanted = ParameterValue(type=TEXT, string_value=value)
        else:
            wanted = ParameterValue(type=DOUBLE, double_value=value)
        (result,) = self.call("set_parameters", SetParameters, parameters=[Parameter(name=name, value=wanted)]).results
        return result.successful, result.reason

    def publish(self, topic: str, message: Any) -> None:
        if topic not in self._publishers:
            self._publishers[topic] = self.side.create_publisher(type(message), topic, 10)
            self.spin_until(lambda: self._publishers[topic].get_subscription_count() > 0)
        self._publishers[topic].publish(message)

    def hear(self, topic: str, kind: Any) -> list[Any]:
        heard: list[Any] = []
        self.side.create_subscription(kind, topic, heard.append, 10)
        return heard

    def joints(self, *numbers: int) -> None:
        """Publish joint states until they count as heard, or those given."""
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import JointState

        for number in numbers:
            self.publish("/joint_states", deserialize_message(state(number), JointState))
            self.executor.spin_once(timeout_sec=0.005)

    def wake(self) -> None:
        def heard() -> bool:
            self.joints(0)
            return not self.node.recorder.session.missing()

        self.spin_until(heard)

    @property
    def session(self) -> Any:
        return self.node.recorder.session

    def record(self, name: str) -> Any:
        """Return the manifest's word on an episode, once there is one."""
        self.spin_until(lambda: name in self.node.recorder.dataset.records)
        return self.node.recorder.dataset.records[name]


@contextmanager
def supervised(**parameters: object) -> Iterator[Supervisor]:
    """Yield a node with parameters as a launch file gives them."""
    from lehrling.collection.node import RecorderNode

    own_domain()
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    rclpy.init(args=["--ros-args", "--log-level", "error", *words])
    node = None
    try:
        node = RecorderNode()
        yield Supervisor(node)
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()


def test_the_node_is_configured_told_what_to_do_and_cleaned_up_over_ros(tmp_path: Path) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Joy
    from std_msgs.msg import String
    from std_srvs.srv import SetBool

    root = tmp_path / "d.zarr"
    facts = {"dataset": root, "embodiment": robot_file(tmp_path), "task": "kitting", "instruction": "take the red one"}
    more = {"operator": "otter", "warmup_s": 0, "min_free_gb": 0, "joy_topic": "/pedal", "capture_processes": 1}
    with supervised(**facts, **more) as s:
        heard = s.hear("/diagnostics", DiagnosticArray)
        assert s.transition("configure")
        assert (s.session.options.warmup_s, s.session.options.min_free_bytes) == (0.0, 0 * GIB)
        assert s.trigger("start") == (False, "The recorder is not active; activate recorder first.")
        s.wake()
        assert s.transition("activate")

        refused, why = s.trigger("save")
        assert not refused
        assert why.startswith("No episode is being recorded (the session is in idle)")
        done, first = s.trigger("start")
        assert done
        assert s.trigger("start") == (
            False,
            f"Episode {first} is being recorded already; save or discard it first.",
        )
        s.joints(1, 2, 3)
        assert s.set_parameter("instruction", "take the blue one") == (True, "")
        assert s.set_parameter("reset_s", 3.0) == (
            False,
            "reset_s cannot change while the recorder is configured; clean it up first.",
        )
        assert s.call("label", SetBool, data=False).message == first
        assert s.trigger("save") == (True, first)
        found = s.record(first)
        assert (found.status, found.outcome, found.stop_cause) == ("sealed", "success", "operator")
        assert (found.task, found.instruction, found.operator) == ("kitting", "take the red one", "otter")
        assert Dataset.open(root).episode(first).stream("position").value[:, 0].tolist() == [1, 2, 3]

        _, second = s.trigger("start")
        assert s.trigger("save_failure") == (True, second)
        assert (s.record(second).outcome, s.record(second).instruction) == ("failure", "take the blue one")
        s.publish("/recorder/instruction", String(data="take none"))
        s.spin_until(lambda: s.session.plan.instruction == "take none")
        _, third = s.trigger("start")
        assert s.trigger("discard") == (True, third)
        assert (s.record(third).status, s.record(third).instruction) == ("discarded", "")

        s.publish("/pedal", Joy(buttons=[0]))
        s.publish("/pedal", Joy(buttons=[1]))
        s.spin_until(lambda: s.session.phase.value == "recording")
        s.publish("/pedal", Joy(buttons=[1]))
        s.publish("/pedal", Joy(buttons=[0]))
        s.publish("/pedal", Joy(buttons=[1]))
        s.spin_until(lambda: s.session.phase.value == "idle")
        s.spin_until(lambda: not s.session.sealing)
        assert [record.outcome for record in s.session.sealed] == ["success", "failure", "success"]

        count = len(heard)
        s.spin_until(lambda: len(heard) >= count + 3)
        first_ns, last_ns = (
            message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in heard[-3::2]
        )
        assert 1.0e9 < last_ns - first_ns < 4.0e9
        recorder, joints = heard[-1].status
        values = {pair.key: pair.value for pair in recorder.values}
        assert (recorder.name, values["phase"], values["episodes sealed"]) == ("lehrling: recorder", "idle", "3")
        assert values["dataset"] == str(root)
        values = {pair.key: pair.value for pair in joints.values}
        assert (joints.name, values["wanted_hz"], values["publishers"]) == ("lehrling: /joint_states", "50.0", "1")
        assert values["lost on the way"] == "0"
        assert (joints.level, "/joint_states" in joints.message) == (b"\x01", True)

        _, last = s.trigger("start")
        s.joints(7)
        assert s.transition("deactivate")
        found = s.record(last)
        assert (found.outcome, found.stop_cause, found.lengths) == ("unknown", "recorder deactivated", {"position": 1})
        assert s.trigger("start")[0] is False
        with pytest.raises(LockedError):
            Dataset.open_for_writing(root)
        assert s.transition("cleanup")
        Dataset.open_for_writing(root).close()
        assert s.set_parameter("task", "sorting") == (True, "")
        assert s.transition("configure")
        assert s.session.plan.task == "sorting"
        assert s.transition("unconfigured_shutdown") is False
        assert s.transition("inactive_shutdown")
        Dataset.open_for_writing(root).close()


def test_an_inactive_recorder_watches_and_begins_nothing_by_itself(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    facts = {"dataset": root, "embodiment": robot_file(tmp_path), "min_free_gb": 0, "autostart": True, "reset_s": 0.0}
    with supervised(**facts) as s:
        assert s.transition("configure")
        s.wake()
        s.spin_until(
            lambda: any(status.topics["/joint_states"].age_s is not None for status in s.node.recorder.statuses)
        )
        until = time.monotonic() + 1
        s.spin_until(lambda: time.monotonic() > until)
        assert s.session.phase.value == "warm-up"
        assert s.transition("activate")
        s.spin_until(lambda: s.session.phase.value == "recording")


def test_no_episode_begins_before_the_topic_that_says_what_it_shows_has_said_so(tmp_path: Path) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    facts = {"dataset": tmp_path / "d.zarr", "embodiment": robot_file(tmp_path), "min_free_gb": 0, "warmup_s": 0}
    with supervised(**facts, instruction_topic="/task") as s:
        assert s.transition("configure")
        s.wake()
        assert s.transition("activate")
        started, why = s.trigger("start")
        assert not started
        assert "No instruction has come on /task yet" in why
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        s.side.create_publisher(String, "/task", latched).publish(String(data="take the red one"))
        s.spin_until(lambda: s.session.plan.instruction == "take the red one")
        assert s.trigger("start")[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dataset": "''"}, "Expected the parameter 'dataset' of recorder, got nothing"),
        ({"embodiment": "nosuch"}, "Expected an embodiment's name"),
        ({"joy_buttons": "['toggle', 'jump']"}, "Expected a button's meaning"),
        ({"reset_s": -1}, "Expected 0 or more for the parameter 'reset_s', got -1.0"),
        ({"episodes": -2}, "Expected 0 or more for the parameter 'episodes', got -2"),
        ({"episodes": 2, "more": 2}, "got both"),
        ({"journal_images": "png"}, "Expected raw or jpeg for the journal's images, got 'png'"),
    ],
)
def test_parameters_that_cannot_be_are_refused_when_configuring_and_may_be_corrected(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    facts: dict[str, object] = {"dataset": tmp_path / "d.zarr", "embodiment": "arm6"}
    with supervised(**(facts | changed)) as s:
        assert not s.transition("configure")
        assert words in str(s.node.problem)
        with pytest.raises(InputError):
            s.node.obey(None)
        assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("warmup_s", "soon"), ("episodes", "two"), ("operator", "7"), ("autostart", "1")]
)
def test_a_parameter_of_another_type_is_told_by_name(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"for the parameter '{name}', got another type"), supervised(**{name: value}):
        pass
