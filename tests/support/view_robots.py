"""Small recordings for the tests of views: an arm and a humanoid, through journals and the sealer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment, load_embodiment
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.sealer import seal

if TYPE_CHECKING:
    from pathlib import Path

    from lehrling.datasets.journal import Outcome

MS = 1_000_000
JOINTS = ["joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper"]


@dataclass(frozen=True)
class Message:
    """One message on its way into a journal."""

    received: int
    topic: str
    cdr: bytes


def jpeg(number: int, seed: int, size: int) -> bytes:
    """Return a frame that tells its number and seed apart from all others."""
    image = np.random.default_rng((seed, number)).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.kron(image, np.ones((8, 8, 1), np.uint8)), 90, "RGB", "444"))


def arm_messages(seed: int, steps: int = 40, frames: int | None = None) -> list[Message]:
    """Return 100 Hz joints, 20 Hz commands and two 10 Hz cameras over steps * 50 ms, in order of receipt."""
    rng = np.random.default_rng(seed)
    out: list[Message] = []
    for tick in range(steps * 5):
        stamp = tick * 10 * MS
        received = stamp + 2 * MS + int(rng.integers(0, 8 * MS))
        position = np.sin(tick / 50 + np.arange(7)) + seed
        out.append(Message(received, "/joint_states", messages.joint_state(JOINTS, position, position * 2, [], stamp)))
        quaternion = np.array([0.0, 1.0, 0.0, 0.0])
        pose = messages.pose_stamped(position[:3], quaternion, stamp, "cell")
        out.append(Message(received, "/tcp_pose", pose))
    for tick in range(steps):
        stamp = tick * 50 * MS
        command = messages.pose_stamped(np.full(3, tick + 100.0 * seed), np.array([0, 1.0, 0, 0]), stamp, "cell")
        out.append(Message(stamp, "/tcp_command", command))
        gripper = messages.joint_state(["gripper"], [1.0 if tick % 2 else -1.0], [], [], stamp)
        out.append(Message(stamp, "/gripper_command", gripper))
    for number in range(steps // 2 if frames is None else frames):
        stamp = number * 100 * MS
        received = stamp + 30 * MS + int(rng.integers(0, 6 * MS))
        for camera, side in (("front", 0), ("wrist", 1)):
            image = messages.compressed_image(jpeg(number, 2 * seed + side, 96), stamp, camera)
            out.append(Message(received, f"/{camera}/image_raw/compressed", image))
    return sorted(out, key=lambda message: message.received)


def humanoid_messages(steps: int = 20) -> list[Message]:
    """Return a humanoid whose body and hands report on topics of their own, and once in part."""
    names = list(load_embodiment("humanoid").contract.stream("joint_position").names)
    body, hands = names[:31], names[31:]
    out: list[Message] = []

    def send(delay_ms: float, stamp: int, topic: str, cdr: bytes) -> None:
        out.append(Message(stamp + round(delay_ms * MS), topic, cdr))

    for tick in range(steps * 10):
        stamp = tick * 5 * MS
        part = body if tick % 2 else body[:20]
        values = np.arange(len(part)) + tick / 1000
        send(2, stamp, "/body/joint_states", messages.joint_state(part, values, values, [], stamp))
        if tick % 2 == 0 and stamp >= 50 * MS:
            values = 100 + np.arange(len(hands)) + tick / 1000
            send(4, stamp, "/hands/joint_states", messages.joint_state(hands, values, values, [], stamp))
        if tick % 4 == 0:
            xyz = np.array([tick / 100, 0.0, 0.9])
            send(5, stamp, "/base_pose", messages.pose_stamped(xyz, np.array([0, 0, 0, 1.0]), stamp, "map"))
            values = np.arange(len(names)) * 1.0
            send(0, stamp, "/joint_commands", messages.joint_state(names, values, [], [], stamp))
    for number in range(steps * 50 // 33):
        stamp = number * 33 * MS
        image = simplejpeg.encode_jpeg(
            np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8), 90, "RGB", "444"
        )
        cdr = messages.compressed_image(image, stamp, "head_camera")
        send(40, stamp, "/head/color/image_raw/compressed", cdr)
    return sorted(out, key=lambda message: message.received)


def record(
    root: Path,
    name: str,
    sent: list[Message],
    embodiment: Embodiment | None = None,
    outcome: Outcome = "success",
    task: str = "stack",
) -> None:
    """Record messages as an episode, seal it and make it valid."""
    robot = embodiment or load_embodiment("arm6")
    meta = EpisodeMeta(name, task, f"{task} the {name}", robot.name, "robot")
    with Dataset.open_for_writing(root, create=True) as dataset:
        with JournalWriter(root, meta, robot) as journal:
            for message in sent:
                journal.write(message.topic, message.cdr, received_ns=message.received)
            journal.close(outcome, "done")
        dataset.commit(seal(root, name))
