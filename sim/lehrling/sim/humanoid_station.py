"""The humanoid at its tasks: topics of body, hands, palms and head camera; commands as joint positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.sim.bimanual_expert import BimanualExpert
from lehrling.sim.disturbance import Wander
from lehrling.sim.humanoid_model import BODY_COUNT, JOINTS, NAMES, SIDES, urdf
from lehrling.sim.humanoid_world import STEPS_PER_COMMAND, HumanoidWorld
from lehrling.sim.physics import Physics
from lehrling.sim.seeding import Seeds
from lehrling.sim.sensing import SENSORS, compressed, raw
from lehrling.sim.station import FRAME, Message, Reader, Size
from lehrling.sim.tasks.bimanual_lift import BimanualLift
from lehrling.sim.variants import resized

ROBOT, JOINT_COMMANDS = "upper_humanoid", "/joint_commands"
DISTURBANCE_RAD = 0.01
DEPTH_NOISE = 0.0015
"""Standard deviation of a depth reading at 1 m [m]; it grows with the square of the distance."""
DEPTH_MAX_M = 3.0
PLACES = {name: index for index, name in enumerate(NAMES)}


class HumanoidExpert:
    """The scripted expert; its commands as messages."""

    def __init__(self, world: HumanoidWorld, task: BimanualLift) -> None:
        self._expert = BimanualExpert(world, task)

    def act(self, stamp_ns: int) -> Sequence[Message]:
        """Return the joint command of the next period."""
        return [(JOINT_COMMANDS, messages.joint_state(NAMES, self._expert.act(), [], [], stamp_ns))]


def millimetres(depth_m: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return a depth image as a sensor gives it: noisy, in millimetres, 0 where nothing is near enough."""
    noisy = depth_m + rng.normal(size=depth_m.shape) * DEPTH_NOISE * depth_m**2
    return np.where(depth_m < DEPTH_MAX_M, np.clip(np.rint(noisy * 1000), 0, 65535), 0).astype(np.uint16)


class HumanoidStation:
    """The humanoid at its table."""

    period_steps = STEPS_PER_COMMAND
    time_limit_s = BimanualLift.time_limit_s
    task_name = BimanualLift.name

    def __init__(self, size: Size) -> None:
        self.world, self.task = HumanoidWorld(size), BimanualLift()
        self.embodiment = resized(load_embodiment(ROBOT), size)

    @property
    def physics(self) -> Physics:
        """The world's clock and engine."""
        return self.world.physics

    @property
    def instruction(self) -> str:
        """The goal in words."""
        return self.task.goal.instruction

    @property
    def readers(self) -> Mapping[str, Reader]:
        """Joints of body and hands, both palms, colour both as JPEG and as it is, depth."""
        colour, name = self._colour, "head_camera"
        return {
            "/body/joint_states": self._joints(slice(0, BODY_COUNT)),
            "/hands/joint_states": self._joints(slice(BODY_COUNT, None)),
            **{f"/{side}_tcp_pose": self._palm(f"{side}_tcp") for side in SIDES},
            "/head/color/image_raw/compressed": compressed(colour, name),
            "/head/color/image_raw": raw(colour, "rgb8", name),
            "/head/depth/image_raw": self._depth,
        }

    def _joints(self, part: slice) -> Reader:
        def read(stamp_ns: int, rng: np.random.Generator) -> bytes:
            position, velocity = (values[part] for values in self.world.joints())
            noisy = position + rng.normal(size=position.shape) * SENSORS.joint_noise_rad
            return messages.joint_state(NAMES[part], noisy, velocity, [], stamp_ns)

        return read

    def _palm(self, link: str) -> Reader:
        def read(stamp_ns: int, _: np.random.Generator) -> bytes:
            return messages.pose_stamped(*self.world.link_pose(link), stamp_ns, FRAME)

        return read

    def _colour(self) -> NDArray[np.uint8]:
        return self.world.look()[0]

    def _depth(self, stamp_ns: int, rng: np.random.Generator) -> bytes:
        return messages.image(millimetres(self.world.look()[1], rng), "16UC1", stamp_ns, "head_depth")

    def reset(self, seeds: Seeds, *, disturb: bool) -> None:
        """Lay out the episode of these seeds."""
        self.world.reset(seeds)
        self.task.reset(self.world, seeds)
        loose = np.array([not name.startswith("head") and place < BODY_COUNT for name, place in PLACES.items()])
        self._wander = Wander(seeds["disturbance"], DISTURBANCE_RAD * disturb * loose)
        self._heard = self.world.target

    def expert(self) -> HumanoidExpert:
        """Return the scripted expert."""
        return HumanoidExpert(self.world, self.task)

    def hear(self, topic: str, cdr: bytes) -> None:
        """Take joint targets; joints that the message does not name keep theirs.

        Raises:
            InputError: an unknown joint, names without positions, or numbers that are not finite.
        """
        message: Any = messages.decode(cdr, "sensor_msgs/msg/JointState")
        names, values = list(message.name), np.asarray(message.position, dtype=np.float64)
        unknown = [name for name in names if name not in PLACES]
        if topic != JOINT_COMMANDS or unknown or not names or len(values) != len(names):
            what = f"joint {unknown[0][:64]!r}" if unknown else f"{len(names)} names and {len(values)} positions"
            raise InputError(
                f"Topic {topic}: expected a position for each of this robot's {len(JOINTS)} joints named, got {what}."
            )
        if not np.isfinite(values).all():
            raise InputError(f"Topic {topic}: expected finite positions, got {values.tolist()[:8]}.")
        self._heard[[PLACES[name] for name in names]] = values

    def apply(self) -> None:
        """Move towards the joint targets heard last; without any, stay."""
        self.world.disturbance = self._wander.push()
        self.world.command(self._heard)

    def judge(self) -> bool:
        """Whether the named box is held at its height."""
        return self.task.update(self.world)

    def urdf(self) -> str:
        """Return the robot's description."""
        return urdf()

    def close(self) -> None:
        """Give the engine back."""
        self.world.close()
