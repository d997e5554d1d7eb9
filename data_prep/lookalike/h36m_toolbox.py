"""Write a world with the labels of H36M-Toolbox; see `data_prep.readers.h36m_toolbox`."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from data_prep.human36m import RAW_17, UNUSABLE_VIDEO
from data_prep.lookalike.h36m_fetch import UNIVERSAL
from data_prep.lookalike.images import write_images
from data_prep.lookalike.world import Performance, World, unit_name
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera

RAW_OF_TOOLBOX = tuple(16 if joint == 13 else joint for joint in RAW_17)


def write_h36m_toolbox(world: World, folder: Path) -> None:
    """Write labels and images, all frames; S11's view without a video is left out.

    Args:
        world: What was recorded.
        folder: Gets annot/ and images/.

    Raises:
        OSError: If a file cannot be written.
    """
    records: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for number, performance in enumerate(world.performances):
        for name in world.camera_names:
            if (*performance.key, name) == UNUSABLE_VIDEO:
                continue
            unit = unit_name(performance, name)
            write_images(
                world,
                performance,
                name,
                range(len(performance)),
                folder=folder / "images" / unit,
                name=unit + "_{:06d}.jpg",
            )
            video_id = 4 * number + HUMAN36M_CAMERA_NAMES.index(name)
            split = "validation" if performance.is_test else "train"
            records[split] += _records(world, performance, name, video_id=video_id)
    (folder / "annot").mkdir(parents=True, exist_ok=True)
    for split, content in records.items():
        if content:
            (folder / f"annot/h36m_{split}.pkl").write_bytes(pickle.dumps(content))


def _records(
    world: World, performance: Performance, name: str, *, video_id: int
) -> list[dict[str, Any]]:
    """The records of one view, which share one dictionary of the camera."""
    camera = world.camera(performance.subject, name)
    world_mm = torch.from_numpy(performance.joints32_world_mm[:, RAW_OF_TOOLBOX])
    joints = camera.world_to_camera(world_mm)
    points_px = camera.camera_to_image(joints).numpy()
    unit, entry = unit_name(performance, name), _camera(camera)
    records = []
    for frame, (pose, points) in enumerate(zip(joints.numpy(), points_px, strict=True)):
        box = _box(pose, camera)
        records.append(
            {
                "image": f"{unit}/{unit}_{frame + 1:06d}.jpg",
                "joints_2d": points,
                "joints_3d": pose[:1] + UNIVERSAL * (pose - pose[:1]),
                "joints_3d_camera": pose,
                "joints_vis": np.ones((17, 3)),
                "video_id": video_id,
                "image_id": frame + 1,
                "subject": performance.subject,
                "action": performance.action,
                "subaction": performance.subaction,
                "camera_id": HUMAN36M_CAMERA_NAMES.index(name),
                "source": "h36m",
                "camera": entry,
                "center": tuple((box[:2] + box[2:]) / 2),
                "scale": tuple((box[2:] - box[:2]) / 200),
                "box": box,
            }
        )
    return records


def _camera(camera: Camera) -> dict[str, Any]:
    """A record's camera; numbers are arrays of one element."""
    focal, point = camera.focal_px.numpy()[:, None], camera.principal_point_px.numpy()[:, None]
    return {
        "R": camera.rotation.numpy(),
        "T": camera.centre_world_mm.numpy()[:, None],
        "fx": focal[0],
        "fy": focal[1],
        "cx": point[0],
        "cy": point[1],
        "k": camera.radial.numpy()[:, None],
        "p": camera.tangential.numpy()[:, None],
    }


def _box(joints_mm: Float[np.ndarray, "17 3"], camera: Camera) -> Float[np.ndarray, " 4"]:
    """Left, top, right, bottom of 2000 mm at the root's depth, 100 mm below the root, pinhole."""
    x, y, z = joints_mm[0]
    corners = np.array([[x - 1000, y - 900], [x + 1000, y + 1100]]) / z
    return (corners * camera.focal_px.numpy() + camera.principal_point_px.numpy()).ravel()
