"""A robot that a policy drives in a test: no ROS, no server, a clock that the test owns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from driven_robots import DrivenArm
from guard_checks import FloatArray
from numpy.typing import NDArray
from recordings import jpeg

from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.view_spec import Field, ViewSpec
from lehrling.deploy.cycle import Recipe
from lehrling.deploy.guard_events import Command
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_link import Outgoing
from lehrling.deploy.inference import Question, Reply
from lehrling.deploy.policy_drive import PolicyDrive
from lehrling.deploy.policy_facts import PolicyFacts

MS = 1_000_000
CHUNK = 8
ARM6 = load_embodiment("arm6")
VIEW = ViewSpec(
    rate_hz=10.0,
    image_px=96,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position", latency_ms=5.0),),
    action=(Field(stream="tcp_command", select=("x", "y", "z")), Field(stream="gripper_command")),
    image_latency_ms=40.0,
)
NAMES = ("tcp_command.x", "tcp_command.y", "tcp_command.z", "gripper_command.gripper")
CAMERAS = ("front", "wrist")
JOINTS = ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper")


def hello(**changes: Any) -> dict[str, Any]:
    """Return what a server of two policies, `left` and `right`, tells."""
    told = {
        "view": VIEW.canonical_json,
        "contract": ARM6.contract_hash,
        "statistics_hash": "5" * 64,
        "action_names": list(NAMES),
        "action_horizon": CHUNK,
    }
    return {"adapters": {name: {**told, "model_hash": name * 3, **changes} for name in ("left", "right")}}


def recipe(number: int = 1, adapter: str = "left", **changes: Any) -> Recipe:
    return Recipe(number, f"recipe {number}", "put it there", adapter, **changes)


def towards(x: float, y: float, z: float, gripper: float = 1.0) -> Callable[[Question], NDArray[np.float32]]:
    """Return a policy that leads the TCP to a place in steps of a centimetre, from where the arm is."""

    def act(question: Question) -> NDArray[np.float32]:
        here = np.asarray(question.content["test/tcp"], dtype=np.float64)
        step = np.array([x, y, z]) - here
        share = np.minimum(1.0, 0.01 * np.arange(1, CHUNK + 1) / max(float(np.linalg.norm(step)), 1e-9))
        return np.column_stack([here + share[:, None] * step, np.full(CHUNK, gripper)]).astype(np.float32)

    return act


@dataclass
class Answers:
    """Stands in for the thread that asks a server.

    Attributes:
        delay_ticks: how long each answer takes.
        silent: whether no answer comes.
    """

    act: Callable[[Question], NDArray[np.float32]]
    delay_ticks: int = 3
    connected: bool = True
    silent: bool = False
    problem: str = ""
    refuses: str = ""
    hello: dict[str, Any] = field(default_factory=hello)
    questions: list[Question] = field(default_factory=list)
    waiting: list[tuple[int, Reply]] = field(default_factory=list)
    tick: int = 0
    tcp: FloatArray = field(default_factory=lambda: np.zeros(3))

    def ask(self, question: Question) -> None:
        self.questions.append(question)
        seen = Question(
            question.cycle, question.step, question.at_ns, {**question.content, "test/tcp": self.tcp.copy()}
        )
        if not self.silent:
            actions = None if self.refuses else self.act(seen)
            self.waiting.append((self.tick + self.delay_ticks, Reply(question, actions, 0.0, self.refuses)))

    def take(self) -> list[Reply]:
        due = [reply for tick, reply in self.waiting if tick <= self.tick]
        self.waiting = [(tick, reply) for tick, reply in self.waiting if tick > self.tick]
        return due


@dataclass
class Cell:
    """arm6 with a policy, its cameras and joints, and what the audit was told.

    Attributes:
        blind: cameras that send nothing.
        frozen: cameras that send one picture under new stamps.
        enabled: whether the permission to move is renewed.
        settled: whether all that was told is written.
        order: in which the robot names its joints.
        jump_ns: by which the wall clock is off.
        hand: prefix of the operator's device's topics; `device` makes its pose command for a tick.
    """

    answers: Answers
    config: GuardConfig = field(default_factory=GuardConfig)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    blind: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    enabled: bool = True
    settled: bool = True
    hand: str = ""
    device: Callable[[int], bytes | None] | None = None
    order: tuple[str, ...] = JOINTS
    jump_ns: int = 0
    refuse: Exception | None = None
    unwritten: Exception | None = None

    def __post_init__(self) -> None:
        facts = PolicyFacts.from_hello(self.answers.hello, "left")
        self.drive = PolicyDrive(ARM6, facts, self.answers, self.config, self._tell, self._settled, self.hand)
        self.arm = DrivenArm(self.drive.link)
        self.positions = {name: 0.1 * place for place, name in enumerate(JOINTS)}

    def _tell(self, kind: str, facts: Any) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.told.append((kind, dict(facts)))

    def _settled(self) -> bool:
        if self.unwritten is not None:
            raise self.unwritten
        return self.settled

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.told if name == kind]

    def run(self, ticks: int) -> Command:
        return self.arm.run(ticks, self._step)

    def run_until(self, done: Callable[[], bool], ticks: int = 3000) -> None:
        for _ in range(ticks):
            if done():
                return
            self.run(1)
        raise AssertionError(f"not within {ticks} ticks: {self.drive.state}")

    def _step(self, now_ns: int, wall_ns: int) -> tuple[Command, list[Outgoing]]:
        wall_ns += self.jump_ns
        self.happen(now_ns, wall_ns)
        return self.drive.tick(now_ns, wall_ns)

    def happen(self, now_ns: int, wall_ns: int) -> None:
        """Let the drive hear all that there is to hear in a tick."""
        self.answers.tick, self.answers.tcp = self.arm.tick, self.arm.pose[:3].copy()
        self._tell_joints(now_ns, wall_ns)
        if self.arm.tick % 10 == 0:
            for camera in CAMERAS:
                if camera not in self.blind:
                    shown = 7 if camera in self.frozen else self.arm.tick
                    image = messages.compressed_image(jpeg(shown), wall_ns - 30 * MS, camera)
                    self.drive.hear(f"/{camera}/image_raw/compressed", image, now_ns, wall_ns)
        told = None if self.device is None else self.device(self.arm.tick)
        if told is not None:
            self.drive.hear(f"{self.hand}/tcp_command", told, now_ns, wall_ns)
        if self.enabled:
            self.drive.set_enabled(True, now_ns)

    def _tell_joints(self, now_ns: int, wall_ns: int) -> None:
        positions = [self.positions[name] for name in self.order]
        joints = messages.joint_state(list(self.order), positions, [0.0] * 7, [], wall_ns)
        self.drive.hear("/joint_states", joints, now_ns, wall_ns)

    def ready(self) -> None:
        """Load a recipe and see and hear everything once."""
        self.drive.load(recipe())
        self.run(30)
