"""Write a world with learnable-triangulation's labels; see its reader of the same name."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from data_prep.human36m import LEARNABLE_FROM_17, SUBJECTS, UNUSABLE_VIDEO
from data_prep.lookalike.h36m_fetch import ACTION_FOLDERS, performance_folder
from data_prep.lookalike.images import write_images
from data_prep.lookalike.world import Performance, World
from data_prep.pictures import read_image
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera

ACTION_NAMES = [f"{name}-{number}" for name in ACTION_FOLDERS for number in (1, 2)]
TABLE_DTYPE = np.dtype(
    [
        ("subject_idx", np.int8),
        ("action_idx", np.int8),
        ("frame_idx", np.int16),
        ("keypoints", np.float32, (17, 3)),
        ("bbox_by_camera_tlbr", np.int16, (4, 4)),
    ]
)
CAMERA_DTYPE = np.dtype(
    [
        ("R", np.float32, (3, 3)),
        ("t", np.float32, (3, 1)),
        ("K", np.float32, (3, 3)),
        ("dist", np.float32, 5),
    ]
)


def write_learnable_triangulation(
    world: World,
    folder: Path,
    *,
    every: int = 1,
    sequences: Sequence[str] = ("imageSequence",),
    translation: str = "minus-rc",
    without: Sequence[tuple[int, int, int, str]] = (UNUSABLE_VIDEO,),
) -> None:
    """Write labels and images.

    Args:
        world: What was recorded.
        folder: Gets extra/ with the labels, and processed/ with the images.
        every: Every how manieth frame is kept.
        sequences: "imageSequence" and/or "imageSequence-undistorted".
        translation: What `t` is: "minus-rc", or "centre", which no real file has.
        without: Subject, action, subaction and camera of missing views.

    Raises:
        OSError: If a file cannot be written.
    """
    table = []
    for performance in world.performances:
        rows = np.zeros(len(range(0, len(performance), every)), TABLE_DTYPE)
        rows["subject_idx"] = SUBJECTS.index(performance.subject)
        rows["action_idx"] = 2 * (performance.action - 2) + performance.subaction - 1
        rows["frame_idx"] = np.arange(0, len(performance), every)
        rows["keypoints"] = performance.joints_world_mm[::every][:, LEARNABLE_FROM_17]
        for name in world.camera_names:
            if (*performance.key, name) in without:
                continue
            column = HUMAN36M_CAMERA_NAMES.index(name)
            for row in rows:
                mask = world.painter.mask(performance, name, int(row["frame_idx"]))
                row["bbox_by_camera_tlbr"][column] = square_tlbr(mask)
            for sequence in sequences:
                _write_sequence(world, performance, name, folder, sequence, every=every)
        table.append(rows)
    content = {
        "subject_names": [f"S{subject}" for subject in SUBJECTS],
        "camera_names": list(HUMAN36M_CAMERA_NAMES),
        "action_names": ACTION_NAMES,
        "cameras": _cameras(world, translation=translation),
        "table": np.concatenate(table),
    }
    labels = folder / "extra/human36m-multiview-labels-GTbboxes.npy"
    labels.parent.mkdir(parents=True, exist_ok=True)
    np.save(labels, content)  # type: ignore[arg-type]  # a dictionary in an array of no axes


def square_tlbr(mask: Shaped[np.ndarray, "height width"]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right around a mask, the last two exclusive, the shorter side grown."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    width, height = right - left, bottom - top
    if height < width:
        top = round((top + bottom - width) / 2)
        bottom = top + width
    else:
        left = round((left + right - height) / 2)
        right = left + height
    return int(top), int(left), int(bottom), int(right)


def _write_sequence(
    world: World, performance: Performance, name: str, folder: Path, sequence: str, *, every: int
) -> None:
    place = folder / "processed" / performance_folder(performance) / sequence / name
    frames = range(0, len(performance), every)
    write_images(world, performance, name, frames, folder=place, name="img_{:06d}.jpg")
    if sequence.endswith("-undistorted"):
        camera = world.camera(performance.subject, name)
        for path in place.iterdir():
            cv2.imwrite(str(path), undistorted(read_image(path), camera))


def undistorted(
    image: UInt8[np.ndarray, "height width 3"], camera: Camera
) -> UInt8[np.ndarray, "height width 3"]:
    """The image that the same camera takes with a perfect lens."""
    height, width = image.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    rays = (torch.from_numpy(grid) - camera.principal_point_px) / camera.focal_px
    x, y = camera.rays_to_image(rays).numpy().astype(np.float32).T.reshape(2, height, width)
    return cv2.remap(image, x, y, cv2.INTER_CUBIC)


def _cameras(world: World, *, translation: str) -> Shaped[np.ndarray, "subjects cameras"]:
    """The table of cameras of all subjects."""
    cameras = np.zeros((len(SUBJECTS), len(HUMAN36M_CAMERA_NAMES)), CAMERA_DTYPE)
    for row, subject in enumerate(SUBJECTS):
        for column, name in enumerate(HUMAN36M_CAMERA_NAMES):
            camera, entry = world.camera(subject, name), cameras[row, column]
            rotation, centre = camera.rotation.numpy(), camera.centre_world_mm.numpy()
            offset = -rotation @ centre if translation == "minus-rc" else centre
            (k1, k2, k3), (p1, p2) = camera.radial.tolist(), camera.tangential.tolist()
            entry["R"], entry["t"] = rotation, offset[:, None]
            entry["K"][[0, 1], [0, 1]] = camera.focal_px.numpy()
            entry["K"][:2, 2], entry["K"][2, 2] = camera.principal_point_px.numpy(), 1
            entry["dist"] = (k1, k2, p1, p2, k3)
    return cameras
