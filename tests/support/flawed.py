"""Demonstrations of arm6 with a flaw of the test's choice, recorded like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.journal import EpisodeMeta, JournalWriter

ARM6 = load_embodiment("arm6")
NAMES = [joint.name for joint in ARM6.contract.joints]
MS, SIZE = 1_000_000, 96
Picture = Callable[[int], NDArray[np.uint8]]


def picture(number: int) -> NDArray[np.uint8]:
    """Return a sharp picture of parts on a table."""
    rng = np.random.default_rng(3)
    small = rng.integers(40, 220, (SIZE // 6, SIZE // 6, 3)).astype(np.uint8)
    return np.ascontiguousarray(np.roll(small.repeat(6, 0).repeat(6, 1), number, axis=1))


def smooth(number: int) -> NDArray[np.uint8]:
    """Return a picture without sharp edges of colour, as most cameras see: a soft ball over a lit table."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    ball = np.exp(-((rows - 48) ** 2 + (columns - 20 - 3 * number % 60) ** 2) / 150)
    image = np.stack([90 + 0.4 * rows + 120 * ball, 110 + 0.3 * columns + 60 * ball, 120 - 0.3 * rows], axis=-1)
    return np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))


def black(number: int) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), number % 3, np.uint8)


def blurred(number: int) -> NDArray[np.uint8]:
    """Return the picture as a shaken camera sees it."""
    image = picture(number).astype(np.float64)
    for _ in range(8):
        image = sum((np.roll(image, (a, b), (0, 1)) for a in (-1, 0, 1) for b in (-1, 0, 1)), np.zeros_like(image)) / 9
    return np.ascontiguousarray(image.astype(np.uint8))


@dataclass(frozen=True)
class Flaw:
    """How a demonstration differs from a good one."""

    seconds: float = 4.0
    lag_ms: float = 60.0
    silent_s: tuple[float, float] = (0.0, 0.0)
    frozen_s: tuple[float, float] = (0.0, 0.0)
    still_from_s: float = 1e9
    shake: float = 0.0
    at_end: bool = False
    front: Picture = picture
    front_until_s: float = 1e9
    wrist: Picture = picture
    follows: bool = False
    """Whether the front camera's picture moves with the first joint, as a camera beside the robot sees it."""
    camera_late_ms: float = 0.0


def add(root: Path, name: str, flaw: Flaw | None = None, *, task: str = "kitting") -> None:
    """Record and seal a demonstration."""
    found = flaw or Flaw()
    with Dataset.open_for_writing(root, create=True) as dataset:
        with JournalWriter(root, EpisodeMeta(name, task, f"do {task}", "arm6", "robot"), ARM6) as journal:
            for tick in range(round(found.seconds * 100)):
                _tick(journal, found, tick)
            journal.close("success", "operator")
        dataset.finish(name)


def _tick(journal: JournalWriter, flaw: Flaw, tick: int) -> None:
    seconds, stamp = tick / 100, 10**18 + tick * 10 * MS
    moving = min(seconds, flaw.still_from_s)
    silent = flaw.silent_s[0] <= seconds < flaw.silent_s[1]
    if not silent:
        position = 0.4 * np.sin((2 + 0.37 * np.arange(7)) * moving + np.arange(7))
        position[-1] = 0.02
        position[:6] += flaw.shake * (-1) ** (tick // 5)
        if flaw.at_end:
            position[0] = ARM6.binding.limits.position["joint1"][1]
        journal.write(
            "/joint_states", messages.joint_state(NAMES, position, -position, [], stamp), received_ns=stamp + 2 * MS
        )
    at = (_path(moving - flaw.lag_ms / 1e3), _path(moving))
    journal.write("/tcp_pose", messages.pose_stamped(at[0], [0, 1, 0, 0], stamp, "cell"), received_ns=stamp + 2 * MS)
    if tick % 5 == 0:
        journal.write("/tcp_command", messages.pose_stamped(at[1], [0, 1, 0, 0], stamp, "cell"), received_ns=stamp)
        gripper = messages.joint_state(["gripper"], [0.02], [], [], stamp)
        journal.write("/gripper_command", gripper, received_ns=stamp)
    if tick % 10 == 0:
        for camera in ("front", "wrist"):
            if camera == "front" and flaw.follows:
                angle = 0.4 * float(np.sin(2 * (seconds - flaw.camera_late_ms / 1e3)))
                _send(journal, camera, swinging(angle), stamp)
                continue
            frozen = camera == "front" and flaw.frozen_s[0] <= seconds < flaw.frozen_s[1]
            number = round(flaw.frozen_s[0] * 10) if frozen else tick // 10
            show = flaw.front if camera == "front" and seconds < flaw.front_until_s else flaw.wrist
            _send(journal, camera, show(number), stamp)


def _send(journal: JournalWriter, camera: str, shown: NDArray[np.uint8], stamp: int) -> None:
    image = messages.compressed_image(bytes(simplejpeg.encode_jpeg(shown, 90)), stamp, camera)
    journal.write(f"/{camera}/image_raw/compressed", image, received_ns=stamp + 30 * MS)


def swinging(angle: float) -> NDArray[np.uint8]:
    """Return a bright, soft-edged arm (the picture's change grows with the movement) at an angle [rad]."""
    columns = np.arange(SIZE)
    band = 40 + 150 * np.exp(-(((columns - SIZE / 2 - 60 * angle) / 14) ** 2))
    return np.ascontiguousarray(np.repeat(band[None, :, None], SIZE, 0).repeat(3, 2).astype(np.uint8))


def _path(seconds: float) -> list[float]:
    return [0.4 + 0.1 * np.sin(2 * seconds), 0.1 * np.cos(3.1 * seconds), 0.2 + 0.05 * np.sin(1.3 * seconds)]
