"""A robot with one topic of every kind, its messages with known content, and a recorder that listens to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recordings import jpeg
from ros_publishers import Publishers, publishers

from lehrling.collection.capture_group import CaptureOptions
from lehrling.collection.capture_words import TopicFacts
from lehrling.collection.recorder import Recorder, RecorderConfig
from lehrling.collection.session import Plan, SessionOptions
from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment, parse_embodiment
from lehrling.datasets.episode import Episode
from lehrling.datasets.message_types import standard

JOINTS = ("elbow", "wrist", "grip")
HEIGHT, WIDTH = 48, 64
STATE, POSE = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"
IMAGE, COMPRESSED, TEXT = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
CLOCK = "rosgraph_msgs/msg/Clock"
TOPICS = {
    "joints": ("/joint_states", STATE),
    "pose": ("/tcp_pose", POSE),
    "command": ("/command", STATE),
    "plan": ("/plan", "std_msgs/msg/Float64MultiArray"),
    "front": ("/front/compressed", COMPRESSED),
    "side": ("/side/image_raw", IMAGE),
    "depth": ("/depth/image_raw", IMAGE),
    "description": ("/robot_description", TEXT),
    "strict": ("/strict", STATE),
    "odd": ("/odd", POSE),
}
"""What a test calls a publisher: its topic and type."""


def _source(name: str, field: str = "", **more: Any) -> list[dict[str, Any]]:
    topic, msgtype = TOPICS[name]
    return [{"topic": topic, "type": msgtype, "field": field, **more}]


def rig(namespace: str = "", **binding: Any) -> Embodiment:
    """Return the robot."""
    joint = {"shape": [3], "names": list(JOINTS)}
    streams = [
        {"name": "position", "kind": "joint_position", **joint},
        {"name": "velocity", "kind": "joint_velocity", "role": "auxiliary", **joint},
        {"name": "pose", "kind": "pose", "shape": [7]},
        {"name": "command", "kind": "joint_position", "role": "action", **joint},
        {"name": "plan", "kind": "ragged", "role": "auxiliary"},
        {"name": "description", "kind": "raw", "role": "auxiliary"},
        {"name": "strict", "kind": "joint_position", "role": "auxiliary", **joint},
        {"name": "odd", "kind": "pose", "shape": [7], "role": "auxiliary"},
    ]
    cameras = [
        {"name": "front", "height": 96, "width": 96},
        {"name": "side", "height": HEIGHT, "width": WIDTH},
        {"name": "depth", "height": HEIGHT, "width": WIDTH, "encoding": "16UC1"},
    ]
    sources = {
        "position": _source("joints", "position"),
        "velocity": _source("joints", "velocity"),
        "pose": _source("pose", "pose"),
        "command": _source("command", "position"),
        "plan": _source("plan", "data"),
        "description": _source("description"),
        "strict": _source("strict", "position", qos={"reliability": "reliable"}),
        "odd": _source("odd", "pose"),
        **{name: _source(name, "data") for name in ("front", "side", "depth")},
    }
    contract = {"joints": [{"name": name} for name in JOINTS], "cameras": cameras, "streams": streams}
    whole = {"sources": sources, "namespace": namespace, **binding}
    return parse_embodiment({"name": "rig", "contract": contract, "binding": whole}, "test")


def state(number: int, *, names: tuple[str, ...] = JOINTS, stamp_ns: int | None = None, **values: Any) -> bytes:
    position = values.get("position", [number + k / 8 for k in range(len(names))])
    velocity = values.get("velocity", [-number] * len(names))
    return messages.joint_state(names, position, velocity, [], time.time_ns() if stamp_ns is None else stamp_ns)


def timed(number: int) -> bytes:
    """Return a joint state that says its number and when it was made."""
    return state(number, position=[number, time.monotonic(), 0.0])


def pose(number: int, stamp_ns: int | None = None) -> bytes:
    return messages.pose_stamped([number, 0, 0.5], [0, 0, 0, 1], stamp_ns or time.time_ns(), "cell")


def front(number: int, size: int = 96) -> bytes:
    return messages.compressed_image(jpeg(number, size, size), time.time_ns(), f"front {number}")


def pixels(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def side(number: int, encoding: str = "rgb8", frame: NDArray[np.generic] | None = None) -> bytes:
    return messages.image(pixels(number) if frame is None else frame, encoding, time.time_ns(), f"side {number}")


def distances(number: int) -> NDArray[np.uint16]:
    return np.random.default_rng(number).integers(0, 1 << 16, (HEIGHT, WIDTH), dtype=np.uint16)


def depth(number: int) -> bytes:
    return messages.image(distances(number), "16UC1", time.time_ns(), f"depth {number}")


def text(words: str) -> bytes:
    return messages.encode(standard().make(TEXT)(data=words))


def clock(milliseconds: int) -> bytes:
    make = standard().make
    seconds, rest = divmod(milliseconds, 1000)
    stamp = make("builtin_interfaces/msg/Time")(sec=seconds, nanosec=rest * 10**6)
    return messages.encode(make(CLOCK)(clock=stamp))


def clock_at_rest(_number: int) -> bytes:
    return clock(0)


def numbered_text(number: int) -> bytes:
    return text(str(number))


def plan(number: int) -> bytes:
    make = standard().make
    layout = make("std_msgs/msg/MultiArrayLayout")(dim=[], data_offset=0)
    return messages.encode(
        make("std_msgs/msg/Float64MultiArray")(layout=layout, data=np.arange(number, dtype=np.float64))
    )


MAKE: dict[str, Callable[[int], bytes]] = {
    "joints": state,
    "pose": pose,
    "command": state,
    "plan": plan,
    "front": front,
    "side": side,
    "depth": depth,
}
NEEDED = ("joints", "pose", "command", "front", "side", "depth")


class Rig:
    """Publishers and a recorder of one robot."""

    def __init__(self, made: Publishers, recorder: Recorder) -> None:
        self.publishers, self.recorder, self._heard = made, recorder, 0

    @property
    def session(self) -> Any:
        return self.recorder.session

    def tick_until(self, done: Callable[[], object], timeout_s: float = 60.0) -> None:
        limit = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > limit:
                raise TimeoutError([said.text for said in self.session.said()])
            self.recorder.tick()
            time.sleep(0.02)

    def open(self, *names: str, reliable: bool = True, latched: bool = False) -> None:
        """Make publishers, and wait until they are heard; what they send is heard from then on."""
        prefix = self.recorder.embodiment.binding.namespace
        for name in names:
            topic, msgtype = TOPICS[name.split("#")[0]]
            self.publishers.open(
                name, f"/{prefix}{topic}" if prefix else topic, msgtype, reliable=reliable, latched=latched
            )
        self.publishers.wait(*names)

    def send(self, name: str, *sent: bytes) -> None:
        self.publishers.send(name, *sent)

    def wake(self, *names: str) -> None:
        """Send messages of each until all topics count as heard, with the QoS that stays."""
        wanted = {TOPICS[name][0]: name for name in names or NEEDED}

        def heard() -> bool:
            silent = [name for topic, name in wanted.items() if topic in self.session.missing()]
            for name in silent:
                self.send(name, MAKE[name](0))
            return not silent

        self.tick_until(lambda: all(self._asked(name) for name in wanted))
        self.tick_until(heard)

    def _facts(self, topic: str) -> TopicFacts | None:
        facts = {topic: facts for status in self.recorder.statuses for topic, facts in status.topics.items()}
        return facts.get(topic)

    def _asked(self, topic: str) -> bool:
        facts = self._facts(topic)
        return facts is not None and facts.publishers > 0

    def problem(self, topic: str) -> str:
        """Return why a topic's publishers are not heard."""
        facts = self._facts(topic)
        return facts.problem if facts is not None else ""

    def episode(self, act: Callable[[], object]) -> Episode:
        """Record while `act` runs, save as success where nothing ended the episode, and return it sealed."""
        name = self.session.start()
        act()
        self.recorder.tick()
        if self.session.phase.value == "recording":
            self.session.save("success")
        return self.sealed(name)

    def until_stopped(self) -> None:
        """Wait for the recorder to end the episode by itself."""
        self.tick_until(lambda: self.session.phase.value != "recording", 20)

    def sealed(self, name: str) -> Episode:
        self.tick_until(lambda: not self.session.sealing)
        return self.recorder.dataset.episode(name)

    def said(self) -> str:
        """Return everything that was said since the last call, and every finding so far."""
        return "\n".join([*(s.text for s in self.session.said()), *(f["text"] for f in self.recorder.findings)])


@contextmanager
def recording_rig(
    root: Path, embodiment: Embodiment, capture: CaptureOptions | None = None, **options: Any
) -> Iterator[Rig]:
    """Yield a rig that records into a new dataset."""
    wanted = SessionOptions(**{"min_free_bytes": 0, **options})
    config = RecorderConfig(root, embodiment, Plan("test", "do it"), wanted, capture or CaptureOptions())
    with publishers() as made, Recorder(config) as recorder:
        yield Rig(made, recorder)
