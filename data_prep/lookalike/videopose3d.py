"""Write a world's poses as VideoPose3D has them; see `data_prep.readers.videopose3d`."""

from pathlib import Path

import numpy as np
import torch

from data_prep.lookalike.image_trees import write_image_tree
from data_prep.lookalike.world import Performance, World
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES
from pose3d.geometry.skeleton import HUMAN36M_17

POINTS_SURPLUS = 2
"""2-D labels that there are more than poses."""


def renamed(performance: Performance) -> str:
    """The name of S1's files in other projects, which let all subjects be alike."""
    name = performance.file_name.replace("TakingPhoto", "Photo")
    return name.replace("WalkingDog", "WalkDog")


def write_videopose3d(world: World, folder: Path, *, images: str | None = "posenet") -> None:
    """Write data_3d_h36m.npz and data_2d_h36m_gt.npz, and images beside them.

    S11's Directions is left out, as that project does.

    Args:
        world: What was recorded.
        folder: Where the files go.
        images: The tree of the images, see `write_image_tree`; no images if None.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    poses: dict[str, dict[str, np.ndarray]] = {}
    points: dict[str, dict[str, list[np.ndarray]]] = {}
    for performance in world.performances:
        subject, action = f"S{performance.subject}", renamed(performance)
        if (subject, action) == ("S11", "Directions"):
            continue
        metres = (performance.joints32_world_mm / 1000).astype(np.float32)
        poses.setdefault(subject, {})[action] = metres
        points.setdefault(subject, {})[action] = [
            _points_px(world, performance, name) for name in HUMAN36M_CAMERA_NAMES
        ]
    left, right = ([pair[side] for pair in HUMAN36M_17.mirror_pairs] for side in (1, 0))
    metadata = {"num_joints": 17, "keypoints_symmetry": [left, right], "layout_name": "h36m"}
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(poses, object))
    np.savez_compressed(
        folder / "data_2d_h36m_gt.npz",
        positions_2d=np.array(points, object),
        metadata=np.array(metadata, object),
    )
    if images is not None:
        write_image_tree(world, folder, kind=images)


def _points_px(world: World, performance: Performance, name: str) -> np.ndarray:
    """Distorted projections, and a few more of the last one."""
    camera = world.camera(performance.subject, name)
    joints = camera.world_to_camera(torch.from_numpy(performance.joints_world_mm))
    points = camera.camera_to_image(joints).numpy().astype(np.float32)
    return np.concatenate([points, points[-1:].repeat(POINTS_SURPLUS, axis=0)])
