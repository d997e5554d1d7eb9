"""Write a world in PoseNet's JSON layouts; see `data_prep.readers.posenet_json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from data_prep.human36m import action_name
from data_prep.lookalike.image_trees import write_image_tree
from data_prep.lookalike.world import Performance, World, unit_name
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

BOX_ENLARGE = 1.2


def write_posenet_json(
    world: World,
    folder: Path,
    *,
    translation: str = "minus-rc",
    every: int = 1,
    is_first_layout: bool = False,
    bbox_root: bool = False,
) -> None:
    """Write the tree: labels of cameras without distortion, images with it.

    Args:
        world: What was recorded.
        folder: The tree's folder.
        translation: What t is: "minus-rc", as in the files that are given out, or "centre", as the
            published script writes it.
        every: Keep images whose number from 0 is a multiple of this; joints are kept of all.
        is_first_layout: Write the layout of 2019, one file per subject, where t is the centre.
        bbox_root: Write a detector's boxes and roots for S9 and S11.

    Raises:
        OSError: If a file cannot be written.
    """
    write_image_tree(world, folder, kind="posenet", every=every)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    detected: list[dict[str, Any]] = []
    for subject in world.subjects:
        images, annotations, joints = _subject(world, subject, every=every, detected=detected)
        reading = "centre" if is_first_layout else translation
        cameras = {
            str(HUMAN36M_CAMERA_NAMES.index(name) + 1): camera_values(world, subject, name, reading)
            for name in world.camera_names
        }
        content = {"images": images, "annotations": annotations}
        start = folder / "annotations" / f"Human36M_subject{subject}"
        if is_first_layout:
            for image, annotation in zip(images, annotations, strict=True):
                image["cam_param"] = cameras[str(image["cam_idx"])]
                poses = joints[str(image["action_idx"])][str(image["subaction_idx"])]
                annotation["keypoints_world"] = poses[str(image["frame_idx"])]
            _write(Path(f"{start}.json"), content)
        else:
            _write(Path(f"{start}_data.json"), content)
            _write(Path(f"{start}_camera.json"), cameras)
            _write(Path(f"{start}_joint_3d.json"), joints)
    if bbox_root:
        (folder / "bbox_root").mkdir()
        _write(folder / "bbox_root" / "bbox_root_human36m_output.json", detected)


def _subject(
    world: World, subject: int, *, every: int, detected: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
    """Images, annotations and joints of a subject; what a detector finds is added to a list."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    joints: dict[str, dict[str, dict[str, Any]]] = {}
    for performance in world.performances:
        if performance.subject != subject:
            continue
        frames = range(0, len(performance), every)
        poses = joints.setdefault(str(performance.action), {})
        poses[str(performance.subaction)] = {
            str(frame): joints_mm.tolist()
            for frame, joints_mm in enumerate(performance.joints_world_mm)
        }
        for name in world.camera_names:
            for frame in frames:
                record = frame_labels(world, performance, name, frame, number=len(detected))
                for values, found in zip(record, (images, annotations, detected), strict=True):
                    found.append(values)
    return images, annotations, joints


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def camera_values(world: World, subject: int, name: str, translation: str) -> dict[str, Any]:
    """A camera as PoseNet's layouts have it; no distortion. See `write_posenet_json`."""
    camera = world.camera(subject, name)
    rotation, centre = camera.rotation.numpy(), camera.centre_world_mm.numpy()
    return {
        "R": rotation.tolist(),
        "t": (centre if translation == "centre" else -rotation @ centre).tolist(),
        "f": camera.focal_px.tolist(),
        "c": camera.principal_point_px.tolist(),
    }


def frame_labels(
    world: World, performance: Performance, name: str, frame: int, *, number: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Image, annotation and a detector's box of one frame, in PoseNet's layout.

    Args:
        world: What was recorded.
        performance: What is seen.
        name: The camera.
        frame: Number of the frame, from 0.
        number: The record's id.
    """
    camera = world.camera(performance.subject, name)
    joints = camera.world_to_camera(torch.from_numpy(performance.joints_world_mm[frame])).numpy()
    points = joints[:, :2] / joints[:, 2:] * camera.focal_px.numpy()
    points = points + camera.principal_point_px.numpy()
    width, height = world.image_size_px(performance.subject, name)
    folder = unit_name(performance, name)
    image = {
        "id": number,
        "file_name": f"{folder}/{folder}_{frame + 1:06d}.jpg",
        "width": width,
        "height": height,
        "subject": performance.subject,
        "action_name": action_name(performance.action),
        "action_idx": performance.action,
        "subaction_idx": performance.subaction,
        "cam_idx": HUMAN36M_CAMERA_NAMES.index(name) + 1,
        "frame_idx": frame,
    }
    inside = ((points >= 0) & (points < [width, height])).all(1)
    annotation = {
        "id": number,
        "image_id": number,
        "keypoints_vis": inside.tolist(),
        "bbox": _box(points).tolist(),
    }
    side = 1.25 * max(annotation["bbox"][2:])
    middle = (points.min(0) + points.max(0)) / 2
    box = [*(middle - side / 2).tolist(), side, side]
    return image, annotation, {"image_id": number, "bbox": box, "root_cam": joints[0].tolist()}


def _box(points_px: Float[np.ndarray, "17 2"]) -> Float[np.ndarray, " 4"]:
    """The layout's box: tight, less one pixel, enlarged about its middle."""
    low, high = points_px.min(0), points_px.max(0)
    size = BOX_ENLARGE * (high - low - 1)
    return np.concatenate([(low + high) / 2 - size / 2, size])
