"""The PyBullet connection: one DIRECT client, checked and typed at its edge."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def quiet_c_output() -> Iterator[None]:
    """Send what C code prints to nowhere; Bullet writes banners to stdout, where `--json` is to stand alone."""
    kept = os.dup(1), os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for fd in (*kept, sink):
            os.close(fd)


with quiet_c_output():
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

STEP_HZ = 200
"""Physics rate; 100, 50, 20 and 10 Hz divide it, so no stream's stamp is rounded."""

STEP_NS = 1_000_000_000 // STEP_HZ

if not pybullet.isNumpyEnabled():
    raise ImportError(
        "PyBullet was built without numpy, so camera images would come back as tuples; "
        "rebuild it with numpy in the build environment: `uv sync --reinstall-package pybullet`."
    )


@dataclass(frozen=True)
class Light:
    """One directional light for the renderer."""

    direction: tuple[float, float, float] = (0.5, 0.3, 1.0)
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.5
    specular: float = 0.0


class Physics:
    """A private DIRECT-mode Bullet client.

    Positions are metres in the world frame (the robot's base frame), quaternions are x, y, z, w.
    """

    def __init__(self) -> None:
        with quiet_c_output():
            self.client: Any = BulletClient(connection_mode=pybullet.DIRECT)
        self.steps = 0

    def reset(self, iterations: int = 60) -> None:
        """Empty the world; a reloaded world is bit-identical for a seed, a rewound one is not.

        `iterations` of the constraint solver per step: what a robot of many joints costs goes with them.
        """
        p = self.client
        p.resetSimulation()
        p.setGravity(0, 0, -9.81)
        p.setPhysicsEngineParameter(
            fixedTimeStep=1 / STEP_HZ, numSolverIterations=iterations, deterministicOverlappingPairs=1
        )
        self.steps = 0

    def step(self, count: int = 1) -> None:
        """Advance by `count` steps of 1 / STEP_HZ s."""
        for _ in range(count):
            self.client.stepSimulation()
        self.steps += count

    @property
    def time_ns(self) -> int:
        """Simulation time since the reset [ns]."""
        return self.steps * STEP_NS

    def close(self) -> None:
        """Disconnect; a second call does nothing."""
        if self.client is not None:
            self.client.disconnect()
            self.client = None

    def box(
        self,
        half: tuple[float, float, float],
        position: tuple[float, float, float],
        rgb: tuple[float, float, float],
        *,
        mass: float = 0.0,
        yaw: float = 0.0,
    ) -> int:
        """Add a box with half extents [m]; mass 0 is fixed. Returns the body id."""
        p = self.client
        shape = p.createCollisionShape(p.GEOM_BOX, halfExtents=half)
        look = p.createVisualShape(p.GEOM_BOX, halfExtents=half, rgbaColor=(*rgb, 1.0))
        return int(p.createMultiBody(mass, shape, look, position, p.getQuaternionFromEuler((0, 0, yaw))))

    def cylinder(
        self,
        radius: float,
        height: float,
        position: tuple[float, float, float],
        rgb: tuple[float, float, float],
        *,
        mass: float,
    ) -> int:
        """Add an upright cylinder [m, kg]. Returns the body id."""
        p = self.client
        shape = p.createCollisionShape(p.GEOM_CYLINDER, radius=radius, height=height)
        look = p.createVisualShape(p.GEOM_CYLINDER, radius=radius, length=height, rgbaColor=(*rgb, 1.0))
        return int(p.createMultiBody(mass, shape, look, position))

    def position(self, body: int) -> NDArray[np.float64]:
        """Return a body's position (3,) [m]."""
        return np.asarray(self.client.getBasePositionAndOrientation(body)[0], dtype=np.float64)

    def speed(self, body: int) -> float:
        """Return a body's linear speed [m/s]."""
        return float(np.linalg.norm(self.client.getBaseVelocity(body)[0]))
