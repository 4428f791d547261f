"""Cameras: poses with jitter, and rendering by TinyRenderer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.physics import Light

RENDERER = "tinyrenderer"


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        eye, target: in the base frame [m]; None for a camera on the wrist.
        fov_deg: vertical field of view.
    """

    name: str
    fov_deg: float
    eye: tuple[float, float, float] | None = None
    target: tuple[float, float, float] | None = None
    near: float = 0.02
    far: float = 2.5


FRONT = Camera("front", 27.0, eye=(1.0, 0.0, 0.95), target=(0.425, 0.0, 0.02), near=0.2)
WRIST = Camera("wrist", 78.0)


def jittered(camera: Camera, rng: np.random.Generator) -> Camera:
    """Return the camera as a careless fitter would mount it: ±1 cm, ±0.5 cm at the target, ±1 degree of lens."""
    fov = camera.fov_deg + float(rng.uniform(-1, 1))
    if camera.eye is None or camera.target is None:
        return replace(camera, fov_deg=fov)
    eye = np.asarray(camera.eye) + rng.uniform(-0.01, 0.01, 3)
    target = np.asarray(camera.target) + rng.uniform(-0.005, 0.005, 3)
    return replace(camera, fov_deg=fov, eye=tuple(eye.tolist()), target=tuple(target.tolist()))


def _rotation(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def project(
    client: Any, camera: Camera, link_pose: tuple[NDArray[np.float64], NDArray[np.float64]], xyz: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return where a point [m] appears: column and row as fractions of the image, (0, 0) at the top left."""
    view = np.asarray(view_matrix(client, camera, link_pose)).reshape(4, 4).T
    lens = np.asarray(client.computeProjectionMatrixFOV(camera.fov_deg, 1.0, camera.near, camera.far))
    clip = lens.reshape(4, 4).T @ view @ np.append(xyz, 1.0)
    x, y = clip[:2] / max(float(clip[3]), 1e-9)
    return np.array([(x + 1) / 2, (1 - y) / 2])


def view_matrix(
    client: Any, camera: Camera, link_pose: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[float, ...]:
    """Return the OpenGL view matrix; a camera without an eye looks along its link's z axis."""
    if camera.eye is not None:
        return tuple(client.computeViewMatrix(camera.eye, camera.target, (0, 0, 1)))
    position, rotation = link_pose[0], _rotation(link_pose[1])
    target = position + rotation[:, 2]
    return tuple(client.computeViewMatrix(position.tolist(), target.tolist(), (-rotation[:, 0]).tolist()))


def render(
    client: Any,
    camera: Camera,
    px: int,
    light: Light,
    link_pose: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    mask: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
    """Render (px, px, 3) uint8 RGB, and the body id per pixel (px, px) where `mask` is set."""
    projection = client.computeProjectionMatrixFOV(camera.fov_deg, 1.0, camera.near, camera.far)
    _, _, rgba, _, segmentation = client.getCameraImage(
        px,
        px,
        view_matrix(client, camera, link_pose),
        projection,
        lightDirection=light.direction,
        lightColor=light.colour,
        lightAmbientCoeff=light.ambient,
        lightDiffuseCoeff=light.diffuse,
        lightSpecularCoeff=light.specular,
        shadow=0,
        flags=0 if mask else client.ER_NO_SEGMENTATION_MASK,
        renderer=client.ER_TINY_RENDERER,
    )
    image = np.ascontiguousarray(rgba[:, :, :3]).astype(np.uint8, copy=False)
    return image, (segmentation.astype(np.int32) if mask else None)
