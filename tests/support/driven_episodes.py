"""Episodes whose commands a robot can follow, for the tests of replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from guard_checks import FloatArray
from view_robots import Message, humanoid_messages, jpeg, record

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.episode import Episode

MS = 1_000_000
EPOCH_NS = 1_700_000_000_000_000_000
DOWN = np.array([0.0, 1.0, 0.0, 0.0])


def commanded(seconds: float) -> FloatArray:
    """Where the TCP is told to be: it starts at 0.4, 0.1, 0.2 and moves slowly."""
    return np.array([0.4 + 0.05 * np.sin(seconds), 0.1 - 0.04 * seconds, 0.2 + 0.03 * (np.cos(seconds) - 1)])


def arm_episode(
    root: Path, name: str = "slow", seconds: float = 2.0, *, jump: float = 0.0, commands_from: int = 0
) -> Episode:
    """Record arm6: commands at 20 Hz from a tick on, joints and pose at 100 Hz, a camera at 10 Hz.

    `jump` [m] is added at half time.
    """
    joints = [joint.name for joint in load_embodiment("arm6").contract.joints]
    sent: list[Message] = []
    for tick in range(round(seconds * 100)):
        at, stamp = tick * 0.01, EPOCH_NS + tick * 10 * MS
        position = np.sin(np.arange(7) + at) * 0.1
        state = messages.joint_state(joints, position, position / 2, [], stamp)
        sent.append(Message(stamp + 2 * MS, "/joint_states", state))
        pose = messages.pose_stamped(commanded(at), DOWN, stamp, "cell")
        sent.append(Message(stamp + 2 * MS, "/tcp_pose", pose))
        if tick % 5 == 0 and tick >= commands_from:
            target = commanded(at) + np.array([0, jump * (at >= seconds / 2), 0])
            sent.append(Message(stamp, "/tcp_command", messages.pose_stamped(target, DOWN, stamp, "cell")))
            grip = messages.joint_state(["gripper"], [1.0 if at < seconds / 2 else -1.0], [], [], stamp)
            sent.append(Message(stamp, "/gripper_command", grip))
        if tick % 10 == 0:
            for camera in ("front", "wrist"):
                image = messages.compressed_image(jpeg(tick, 1, 96), stamp, camera)
                sent.append(Message(stamp + 30 * MS, f"/{camera}/image_raw/compressed", image))
    record(root, name, sorted(sent, key=lambda message: message.received))
    return Dataset.open(root).episode(name)


def humanoid_episode(root: Path, name: str = "body") -> Episode:
    """Record a humanoid whose body and hands report on topics of their own."""
    record(root, name, humanoid_messages(10), load_embodiment("humanoid"))
    return Dataset.open(root).episode(name)
