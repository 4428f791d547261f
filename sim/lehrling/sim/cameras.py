"""Cameras: poses with jitter, and rendering by TinyRenderer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.physics import Light

RENDERER = "tinyrenderer"
Pose = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Position (3,) [m] and quaternion (4,) x, y, z, w."""


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


def project(client: Any, camera: Camera, link_pose: Pose, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where a point [m] appears: column and row as fractions of the image, (0, 0) at the top left."""
    view = np.asarray(view_matrix(client, camera, link_pose)).reshape(4, 4).T
    lens = np.asarray(client.computeProjectionMatrixFOV(camera.fov_deg, 1.0, camera.near, camera.far))
    clip = lens.reshape(4, 4).T @ view @ np.append(xyz, 1.0)
    x, y = clip[:2] / max(float(clip[3]), 1e-9)
    return np.array([(x + 1) / 2, (1 - y) / 2])


def view_matrix(client: Any, camera: Camera, link_pose: Pose) -> tuple[float, ...]:
    """Return the OpenGL view matrix; a camera without an eye looks along its link's z axis."""
    if camera.eye is not None:
        return tuple(client.computeViewMatrix(camera.eye, camera.target, (0, 0, 1)))
    position, rotation = link_pose[0], _rotation(link_pose[1])
    target = position + rotation[:, 2]
    return tuple(client.computeViewMatrix(position.tolist(), target.tolist(), (-rotation[:, 0]).tolist()))


def _picture(
    client: Any, camera: Camera, size: tuple[int, int], light: Light, link_pose: Pose, flags: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
    """Return colour (h, w, 4), depth buffer (h, w) and body ids (h, w), the last only where `flags` ask for them."""
    height, width = size
    _, _, rgba, depth, bodies = client.getCameraImage(
        width,
        height,
        view_matrix(client, camera, link_pose),
        client.computeProjectionMatrixFOV(camera.fov_deg, width / height, camera.near, camera.far),
        lightDirection=light.direction,
        lightColor=light.colour,
        lightAmbientCoeff=light.ambient,
        lightDiffuseCoeff=light.diffuse,
        lightSpecularCoeff=light.specular,
        shadow=0,
        flags=flags,
        renderer=client.ER_TINY_RENDERER,
    )
    return rgba, depth, bodies


def render(
    client: Any, camera: Camera, size: tuple[int, int], light: Light, link_pose: Pose, *, mask: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
    """Render (h, w, 3) uint8 RGB of `size` (h, w), and the body id per pixel (h, w) where `mask` is set."""
    flags = 0 if mask else client.ER_NO_SEGMENTATION_MASK
    rgba, _, bodies = _picture(client, camera, size, light, link_pose, flags)
    image = np.ascontiguousarray(rgba[:, :, :3]).astype(np.uint8, copy=False)
    return image, (bodies.astype(np.int32) if mask else None)


def render_rgbd(
    client: Any, camera: Camera, size: tuple[int, int], light: Light, link_pose: Pose
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Render (h, w, 3) uint8 RGB and (h, w) distance along the optical axis [m], `far` where nothing is, in one pass."""
    rgba, buffer, _ = _picture(client, camera, size, light, link_pose, client.ER_NO_SEGMENTATION_MASK)
    near, far = camera.near, camera.far
    depth = far * near / (far - (far - near) * np.asarray(buffer, dtype=np.float64))
    return np.ascontiguousarray(rgba[:, :, :3]).astype(np.uint8, copy=False), depth
