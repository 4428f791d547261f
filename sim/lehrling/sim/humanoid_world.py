"""The humanoid's world of one episode: table, robot, head camera; commands are joint positions."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.cameras import Camera, Pose, render_rgbd
from lehrling.sim.humanoid_arm import Palm, arm_joints
from lehrling.sim.humanoid_model import JOINTS, NAMES, SIDES, group, urdf
from lehrling.sim.physics import STEP_HZ, Physics
from lehrling.sim.seeding import Seeds
from lehrling.sim.station import Size
from lehrling.sim.world import Appearance, draw_appearance

COMMAND_HZ = 50
STEPS_PER_COMMAND = STEP_HZ // COMMAND_HZ
HEAD = Camera("head_camera", 62.0, near=0.1, far=4.0)
LOWER = np.array([joint.lower for joint in JOINTS])
UPPER = np.array([joint.upper for joint in JOINTS])
STEP_MAX_RAD = np.array([joint.velocity for joint in JOINTS]) / COMMAND_HZ
EFFORTS = [joint.effort for joint in JOINTS]
HEAD_HOME = (0.0, 0.8)
HAND_HOME = (0.2, 0.2, 0.35, 0.35, 0.35, 0.35)
TABLE_X_M = 0.66
SOLVER_ITERATIONS = 25
"""Half the cost of a step at 60, and the grip holds as well."""


def posture(
    waist: tuple[float, float, float],
    head: tuple[float, float],
    palms: tuple[Palm, Palm],
    hand: tuple[float, float, float, float, float, float],
) -> NDArray[np.float64]:
    """Return all joints (31,) [rad], within their limits: arms solved for the left and the right palm, both hands alike."""
    arms = [angle for side, palm in zip(SIDES, palms, strict=True) for angle in arm_joints(side, waist, palm)]
    return np.clip(np.array([*waist, *head, *arms, *hand, *hand]), LOWER, UPPER)


class HumanoidWorld:
    """The humanoid at a table."""

    def __init__(self, size: Size) -> None:
        self.physics, self.size = Physics(), size
        self._urdf = urdf()
        self._seen: tuple[int, NDArray[np.uint8], NDArray[np.float64]] | None = None

    def reset(self, seeds: Seeds) -> None:
        """Reload everything for an episode's seeds; the hands start somewhere before the chest."""
        self.physics.reset(SOLVER_ITERATIONS)
        self._seen = None
        self.appearance: Appearance = draw_appearance(seeds["appearance"])
        self.physics.box((0.42, 0.70, 0.02), (TABLE_X_M, 0.0, -0.02), self.appearance.table)
        self._load()
        self.camera = replace(HEAD, fov_deg=HEAD.fov_deg + float(seeds["camera"].uniform(-1, 1)))
        self._target = self._start(seeds["start"])
        for index, angle in zip(self.joints_in_engine, self._target, strict=True):
            self.physics.client.resetJointState(self.body, index, float(angle))
        self.disturbance: NDArray[np.float64] = np.zeros(len(NAMES))

    def _load(self) -> None:
        client = self.physics.client
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upper_humanoid.urdf"
            path.write_text(self._urdf, encoding="utf-8")
            self.body = int(client.loadURDF(str(path), useFixedBase=True, flags=client.URDF_USE_INERTIA_FROM_FILE))
        joints, links = {}, {}
        for index in range(client.getNumJoints(self.body)):
            info = client.getJointInfo(self.body, index)
            joints[info[1].decode()], links[info[12].decode()] = index, index
        self.joints_in_engine, self.links = [joints[name] for name in NAMES], links
        self._grips = {side: {links[f"{name}_link"] for name in self._gripping(side)} for side in SIDES}
        for link in (link for links in self._grips.values() for link in links):
            client.changeDynamics(self.body, link, lateralFriction=1.4, spinningFriction=0.05)

    @staticmethod
    def _gripping(side: str) -> tuple[str, ...]:
        return (f"{side}_wrist_yaw", *group(side, "hand"))

    @staticmethod
    def _start(rng: np.random.Generator) -> NDArray[np.float64]:
        draw = [float(value) for value in rng.uniform(-1, 1, 10)]
        waist = (0.15 * draw[0], 0.03 * draw[1], 0.05 + 0.05 * draw[2])
        head = (HEAD_HOME[0] + 0.1 * draw[3], HEAD_HOME[1] + 0.05 * draw[4])
        height = 0.26 + 0.04 * draw[5]
        palms = tuple(
            Palm(
                (0.36 + 0.03 * draw[6 + k], sign * (0.27 + 0.04 * draw[8 + k]), height),
                (0.96, 0.0, -0.28),
                (0.0, -sign, 0.0),
            )
            for k, sign in enumerate((1.0, -1.0))
        )
        return posture(waist, head, (palms[0], palms[1]), HAND_HOME)

    @property
    def target(self) -> NDArray[np.float64]:
        """The joint targets in force (31,) [rad]."""
        return self._target.copy()

    def command(self, joints: NDArray[np.float64]) -> None:
        """Take joint targets (31,) [rad] for one command period, within position and velocity limits."""
        wanted = np.clip(joints, LOWER, UPPER)
        self._target = self._target + np.clip(wanted - self._target, -STEP_MAX_RAD, STEP_MAX_RAD)
        executed = np.clip(self._target + self.disturbance, LOWER, UPPER)
        p = self.physics.client
        p.setJointMotorControlArray(
            self.body, self.joints_in_engine, p.POSITION_CONTROL, targetPositions=executed.tolist(), forces=EFFORTS
        )

    def joints(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions [rad] and velocities [rad/s] of all joints (31,)."""
        states = self.physics.client.getJointStates(self.body, self.joints_in_engine)
        return np.array([s[0] for s in states]), np.array([s[1] for s in states])

    def link_pose(self, link: str) -> Pose:
        """Return a link frame's position [m] and quaternion x, y, z, w in the cell frame."""
        state = self.physics.client.getLinkState(self.body, self.links[link], computeForwardKinematics=True)
        return np.asarray(state[4]), np.asarray(state[5])

    def look(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return the head camera's colour (h, w, 3) uint8 and depth (h, w) [m]; one rendering serves both."""
        if self._seen is None or self._seen[0] != self.physics.steps:
            pose, light = self.link_pose("head_camera"), self.appearance.light
            self._seen = (self.physics.steps, *render_rgbd(self.physics.client, self.camera, self.size, light, pose))
        return self._seen[1], self._seen[2]

    def holds(self, side: str, body: int) -> bool:
        """Whether a hand touches a body."""
        contacts = self.physics.client.getContactPoints(self.body, body)
        return any(contact[3] in self._grips[side] for contact in contacts)

    def close(self) -> None:
        """Disconnect from Bullet."""
        self.physics.close()
