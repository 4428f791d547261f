"""The recording benchmark's robot: four 640x480 cameras at 30 Hz, 43 joints at 1 kHz, six streams at 100 Hz."""

from __future__ import annotations

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment, parse_embodiment

HEIGHT, WIDTH, CAMERAS, JOINTS, POSES = 480, 640, 4, 43, 6
CAMERA_HZ, JOINT_HZ, POSE_HZ = 30, 1000, 100
NAMES = [f"joint_{k:02d}" for k in range(JOINTS)]
FRAMES = 16
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINT_STATE, POSE = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"


def embodiment(*, compressed: bool, cameras: int = CAMERAS, journal_images: str = "jpeg") -> Embodiment:
    """Return the robot, with raw or compressed cameras."""
    joints = {"names": NAMES, "shape": [JOINTS]}
    streams: list[dict[str, Any]] = [
        {"name": "joint_position", "kind": "joint_position", "unit": "rad", **joints},
        {"name": "joint_velocity", "kind": "joint_velocity", "unit": "rad/s", "role": "auxiliary", **joints},
    ]
    sources: dict[str, Any] = {
        f"joint_{field}": [{"topic": "/joint_states", "type": JOINT_STATE, "field": field, "rate_hz": JOINT_HZ}]
        for field in ("position", "velocity")
    }
    for k in range(POSES):
        streams.append(
            {"name": f"pose_{k}", "kind": "pose", "shape": [7], "role": "action" if k == 0 else "observation"}
        )
        sources[f"pose_{k}"] = [{"topic": f"/pose_{k}", "type": POSE, "field": "pose", "rate_hz": POSE_HZ}]
    for k in range(cameras):
        sources[f"camera_{k}"] = [
            {
                "topic": camera_topic(k, compressed=compressed),
                "type": COMPRESSED if compressed else IMAGE,
                "rate_hz": CAMERA_HZ,
            }
        ]
    contract = {
        "joints": [{"name": name} for name in NAMES],
        "cameras": [{"name": f"camera_{k}", "height": HEIGHT, "width": WIDTH} for k in range(cameras)],
        "streams": streams,
    }
    data = {
        "name": "bench_robot",
        "contract": contract,
        "binding": {"sources": sources, "journal_images": journal_images},
    }
    return parse_embodiment(data, "the benchmark's robot")


def camera_topic(number: int, *, compressed: bool) -> str:
    """Return a camera's topic."""
    return f"/camera_{number}/image_raw" + ("/compressed" if compressed else "")


def frames() -> list[NDArray[np.uint8]]:
    """Return frames (480, 640, 3) with edges, gradients and sensor noise, as a camera over a table gives."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    base = np.stack([80 + rows / 6, 90 + columns / 9, 120 - rows / 8], axis=-1)
    made = []
    for k in range(FRAMES):
        image = base.copy()
        for part in range(12):
            x, y = 40 + 45 * part, 60 + (part * 67 + 9 * k) % 360
            image[y : y + 50, x : x + 40] = rng.uniform(20, 230, 3)
        made.append(np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8))
    return made


def camera_messages(*, compressed: bool) -> list[bytes]:
    """Return one message per frame; bytes 4 to 12 are the stamp."""
    if compressed:
        return [messages.compressed_image(simplejpeg.encode_jpeg(f, 90, "RGB", "420"), 0, "camera") for f in frames()]
    return [messages.image(frame, "rgb8", 0, "camera") for frame in frames()]


def numeric_messages() -> dict[str, list[bytes]]:
    """Return messages of the numeric topics; bytes 4 to 12 are the stamp."""
    turns = np.linspace(0, 2 * np.pi, 50)
    phase, still = np.arange(JOINTS), np.zeros(JOINTS)
    states = [messages.joint_state(NAMES, np.sin(t + phase), np.cos(t + phase), still, 0) for t in turns]
    poses = [messages.pose_stamped([np.sin(t), np.cos(t), 0.1], [0, 0, 0, 1], 0, "cell") for t in turns]
    return {"/joint_states": states} | {f"/pose_{k}": poses for k in range(POSES)}
