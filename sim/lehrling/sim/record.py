"""Record a demonstration: the simulator publishes the messages a real robot would, into a journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment, load_embodiment
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.sim.cameras import RENDERER
from lehrling.sim.disturbance import Disturbance
from lehrling.sim.env import CAMERAS
from lehrling.sim.expert import Expert
from lehrling.sim.physics import STEP_HZ
from lehrling.sim.robots import Robot
from lehrling.sim.seeding import Seeds
from lehrling.sim.tasks.base import Task
from lehrling.sim.world import STEPS_PER_COMMAND, World

STATE_EVERY, CAMERA_EVERY = STEP_HZ // 100, STEP_HZ // 10
AFTER_DONE_S = 0.5
JPEG_QUALITY = 92
FRAME = "cell"
Send = Callable[[str, bytes, int, int], None]
"""Called with topic, CDR, stamp [ns] and receive time [ns]."""


@dataclass(frozen=True)
class SensorModel:
    """Noise and latency of the simulated sensors.

    Attributes:
        joint_noise_rad, opening_noise_m: standard deviations of one reading.
        state_latency_ms, camera_latency_ms: mean time from stamp to receipt; each receipt adds up to 20 % of it.
    """

    joint_noise_rad: float = 0.0005
    opening_noise_m: float = 0.0002
    state_latency_ms: float = 2.0
    camera_latency_ms: float = 30.0


@dataclass
class Sensors:
    """Reads the world and sends stamped messages, in the order in which they would arrive."""

    world: World
    rng: np.random.Generator
    send: Send
    model: SensorModel = field(default_factory=SensorModel)
    _pending: list[tuple[int, int, str, bytes, int]] = field(default_factory=list)
    _count: int = 0

    def _queue(self, topic: str, cdr: bytes, latency_ms: float) -> None:
        stamp = self.world.physics.time_ns
        received = stamp + int(latency_ms * 1e6 * (1 + 0.2 * self.rng.random()))
        self._pending.append((received, self._count, topic, cdr, stamp))
        self._count += 1

    def deliver(self, until_ns: int) -> None:
        """Send what has arrived by `until_ns`."""
        self._pending.sort()
        while self._pending and self._pending[0][0] <= until_ns:
            received, _, topic, cdr, stamp = self._pending.pop(0)
            self.send(topic, cdr, stamp, received)

    def joints(self) -> None:
        """Send joint states and the TCP pose."""
        world, model, stamp = self.world, self.model, self.world.physics.time_ns
        position, velocity = world.joints()
        noise = self.rng.normal(size=position.shape) * model.joint_noise_rad
        noise[-1] *= model.opening_noise_m / model.joint_noise_rad
        names = list(world.robot.joint_names)
        joint_state = messages.joint_state(names, position + noise, velocity, [], stamp)
        self._queue("/joint_states", joint_state, model.state_latency_ms)
        xyz, quaternion = world.tcp()
        pose = messages.pose_stamped(xyz, quaternion, stamp, FRAME)
        self._queue("/tcp_pose", pose, model.state_latency_ms)

    def camera(self, name: str) -> None:
        """Send one compressed image."""
        jpeg = simplejpeg.encode_jpeg(self.world.render(name), quality=JPEG_QUALITY, colorsubsampling="444")
        message = messages.compressed_image(jpeg, self.world.physics.time_ns, name)
        self._queue(f"/{name}/image_raw/compressed", message, self.model.camera_latency_ms)

    def commands(self, xyz: NDArray[np.float64], gripper: float) -> None:
        """Send the TCP target and the gripper command; the commander hears itself at once."""
        stamp = self.world.physics.time_ns
        pose = messages.pose_stamped(xyz, np.array([0.0, 1.0, 0.0, 0.0]), stamp, FRAME)
        self._queue("/tcp_command", pose, 0.0)
        self._queue("/gripper_command", messages.joint_state(["gripper"], [gripper], [], [], stamp), 0.0)

    def tick(self) -> None:
        """Read the sensors that are due at this physics step."""
        if self.world.physics.steps % STATE_EVERY == 0:
            self.joints()
        if self.world.physics.steps % CAMERA_EVERY == 0:
            for name in CAMERAS:
                self.camera(name)


def demonstrate(world: World, task: Task, seeds: Seeds, send: Send, *, disturb: bool = True) -> bool:
    """Run the expert on a world and task just reset, sending every message; return whether it succeeded."""
    expert = Expert(world, task)
    disturbance = Disturbance(seeds["disturbance"], scale_m=0.008 if disturb else 0.0, slip_chance=0.004 * disturb)
    sensors, done, remaining = Sensors(world, seeds["sensor"], send), False, int(AFTER_DONE_S * 20)
    for _ in range(int(task.time_limit_s * 20)):
        target, gripper = expert.act()
        sensors.commands(target, gripper)
        world.disturbance = disturbance.push(float(world.tcp()[0][2]))
        world.command(target, disturbance.gripper(gripper))
        for _ in range(STEPS_PER_COMMAND):
            sensors.tick()
            world.step(1)
            sensors.deliver(world.physics.time_ns)
        done = task.update(world) or done
        remaining -= done
        if remaining == 0:
            break
    sensors.deliver(2**62)
    return done


def episode_id(task: str, robot: str, seed: int) -> str:
    """Return the id of a simulated episode, which its task, robot and seed determine."""
    return f"{task}-{robot}-{seed:08d}"


def embodiment_for(robot: Robot, image_px: int) -> Embodiment:
    """Return the shipped embodiment with its cameras at the size rendered."""
    shipped = load_embodiment(robot.name)
    sizes = {(camera.height, camera.width) for camera in shipped.contract.cameras}
    if sizes == {(image_px, image_px)}:
        return shipped
    cameras = tuple(
        camera.model_copy(update={"height": image_px, "width": image_px}) for camera in shipped.contract.cameras
    )
    contract = shipped.contract.model_copy(update={"cameras": cameras})
    return shipped.model_copy(update={"contract": contract})


def record_episode(root: Path, world: World, task: Task, seed: int) -> bool:
    """Record one demonstration into the dataset's journals; return whether the expert succeeded."""
    seeds = Seeds(seed)
    embodiment = embodiment_for(world.robot, world.px)
    details = {"seeds": seeds.describe(), "renderer": RENDERER, "expert": "scripted"}
    name = episode_id(task.name, world.robot.name, seed)
    world.reset(seeds)
    task.reset(world, seeds)
    meta = EpisodeMeta(
        id=name,
        task=task.name,
        instruction=task.goal.instruction,
        robot=world.robot.name,
        origin="simulation",
        seed=seed,
        operator="scripted-expert",
        details=details,
    )
    with JournalWriter(root, meta, embodiment) as journal:

        def send(topic: str, cdr: bytes, stamp_ns: int, received_ns: int) -> None:
            journal.write(topic, cdr, received_ns=received_ns, publish_ns=stamp_ns, monotonic_ns=received_ns)

        done = demonstrate(world, task, seeds, send)
        journal.close("success" if done else "failure", "task done" if done else "time limit")
    return done
