"""Which reading of a camera's pose was meant, where people stand behind it or out of its image."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from pose3d.geometry.camera import Camera

ENOUGH_IN_VIEW = 0.5
CLEARLY_IN_VIEW = 0.8


def share_in_view(
    joints_mm: Float[np.ndarray, "n joints 3"],
    camera: Camera,
    image_size_px: Int[np.ndarray, "n 2"],
    counted: Bool[np.ndarray, "n joints"],
) -> float:
    """Share of people wholly before the camera with most joints in the image (without distortion).

    Args:
        joints_mm: Joints in the camera's frame, millimetres.
        camera: One camera, or one per person.
        image_size_px: Width and height.
        counted: Joints that are labelled.
    """
    depth = joints_mm[..., 2:]
    focal, point = (t.numpy()[..., None, :] for t in (camera.focal_px, camera.principal_point_px))
    image_px = joints_mm[..., :2] / np.where(depth > 0, depth, np.nan) * focal + point
    inside = ((image_px >= -0.5) & (image_px < image_size_px[:, None] - 0.5)).all(-1)
    is_before = ((depth[..., 0] > 0) | ~counted).all(1)
    num_inside, num_counted = (inside & counted).sum(1), counted.sum(1)
    return float((is_before & (2 * num_inside >= np.maximum(num_counted, 1))).mean())


def meant_convention(
    joints_mm: Float[np.ndarray, "n joints 3"],
    camera: Camera,
    image_size_px: Int[np.ndarray, "n 2"],
    counted: Bool[np.ndarray, "n joints"],
) -> str | None:
    """Say what reading of R and t would bring people into view, if few are in view as read.

    As read, X_camera = R (X_world - C). Tried instead: R transposed (the file holds world from
    camera), t that is -R C taken for C and the reverse, and both.

    Args:
        joints_mm: Joints in the camera's frame as read, millimetres, finite.
        camera: One camera with its pose, or one per person.
        image_size_px: Width and height.
        counted: Joints that are labelled.

    Returns:
        A sentence; None where at least half of the people are in view, or nobody is there.
    """
    if not len(joints_mm):
        return None
    found = share_in_view(joints_mm, camera, image_size_px, counted)
    if found >= ENOUGH_IN_VIEW:
        return None
    head = f"only {found:.0%} of the people stand before the camera and in its image"
    world = camera.camera_to_world(torch.from_numpy(joints_mm))
    shares = {
        reading: share_in_view(other.world_to_camera(world).numpy(), camera, image_size_px, counted)
        for reading, other in _readings(camera).items()
    }
    best = max(shares, key=lambda reading: shares[reading])
    if shares[best] >= max(CLEARLY_IN_VIEW, found):
        return f"{head}; {shares[best]:.0%} would if {best}"
    return f"{head}; camera and joints must belong together, in millimetres"


def _readings(camera: Camera) -> dict[str, Camera]:
    """The camera under other readings of the same numbers."""
    rotation, centre = camera.rotation, camera.centre_world_mm
    turned_back = rotation.transpose(-1, -2)

    def times(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        return (matrix @ vector[..., None])[..., 0]

    return {
        "R were camera from world, not world from camera (transpose it)": replace(
            camera, rotation=turned_back
        ),
        "t were −R·C, not the camera's centre C": replace(
            camera, centre_world_mm=-times(turned_back, centre)
        ),
        "t were the camera's centre C, not −R·C": replace(
            camera, centre_world_mm=-times(rotation, centre)
        ),
        "R were to be transposed and t were −R·C": replace(
            camera, rotation=turned_back, centre_world_mm=-times(rotation, centre)
        ),
        "R were camera from world, and t = −R·C with that R": replace(
            camera, rotation=turned_back, centre_world_mm=times(rotation @ rotation, centre)
        ),
    }
