"""Write a world as the processed tree of h36m-fetch; see `data_prep.readers.h36m_fetch`."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int

from data_prep.human36m import UNUSABLE_VIDEO
from data_prep.lookalike.images import write_images
from data_prep.lookalike.raw_metadata import ACTION_NAMES
from data_prep.lookalike.world import Performance, World

ACTION_FOLDERS = ACTION_NAMES[1:]
"""From action 2 on."""
UNIVERSAL = 1.06
"""Stands for the one size that the release's universal poses give everybody."""
MOVED_MM = 40.0


def performance_folder(performance: Performance) -> str:
    """The folder of a performance, e.g. "S1/Directions-1"."""
    action = ACTION_FOLDERS[performance.action - 2]
    return f"S{performance.subject}/{action}-{performance.subaction}"


def write_h36m_fetch(
    world: World,
    folder: Path,
    *,
    every_frame: bool = True,
    without: Sequence[tuple[int, int, int, str]] = (UNUSABLE_VIDEO,),
) -> None:
    """Write the tree.

    Args:
        world: What was recorded.
        folder: The tree's folder, `processed`.
        every_frame: Whether all frames are kept; else, as the tool does, every 64th of S9 and S11
            and, of the others, those in which a joint has moved 40 mm.
        without: Subject, action, subaction and camera of views that are left out.

    Raises:
        OSError: If a file cannot be written.
    """
    for performance in world.performances:
        names = [name for name in world.camera_names if (*performance.key, name) not in without]
        place = folder / performance_folder(performance)
        place.mkdir(parents=True, exist_ok=True)
        views = [_view(world, performance, name, every_frame=every_frame) for name in names]
        joined = {name: np.concatenate([view[name] for view in views]) for name in views[0]}
        with h5py.File(place / "annot.h5", "w") as file:
            for name, values in joined.items():
                file.create_dataset(name, data=values)
            for name, view in zip(names, views, strict=True):
                file[f"intrinsics/{name}"] = estimated(view["pose/2d"], view["pose/3d"])
                file[f"intrinsics-univ/{name}"] = estimated(view["pose/2d"], view["pose/3d-univ"])
        for name, view in zip(names, views, strict=True):
            write_images(
                world,
                performance,
                name,
                (view["frame"] - 1).tolist(),
                folder=place / "imageSequence" / name,
                name="img_{:06d}.jpg",
            )


def _view(
    world: World, performance: Performance, name: str, *, every_frame: bool
) -> dict[str, np.ndarray]:
    """The rows of one camera."""
    camera = world.camera(performance.subject, name)
    joints = camera.world_to_camera(torch.from_numpy(performance.joints32_world_mm))
    points_px = camera.camera_to_image(joints).numpy()
    joints_mm = joints.numpy()
    universal_mm = joints_mm[:, :1] + UNIVERSAL * (joints_mm - joints_mm[:, :1])
    frames = np.arange(len(performance))
    if not every_frame:
        frames = _thinned(universal_mm, is_test=performance.is_test)
    return {
        "pose/2d": points_px[frames],
        "pose/3d": joints_mm[frames],
        "pose/3d-univ": universal_mm[frames],
        "frame": frames + 1,
        "camera": np.full(len(frames), int(name)),
        "subject": np.full(len(frames), performance.subject),
        "action": np.full(len(frames), performance.action),
        "subaction": np.full(len(frames), performance.subaction),
    }


def _thinned(joints_mm: Float[np.ndarray, "n 32 3"], *, is_test: bool) -> Int[np.ndarray, " k"]:
    """The frames that the tool keeps."""
    if is_test:
        return np.arange(0, len(joints_mm), 64)
    kept = [0]
    for frame, joints in enumerate(joints_mm):
        if np.linalg.norm(joints - joints_mm[kept[-1]], axis=-1).max() >= MOVED_MM:
            kept.append(frame)
    return np.array(kept)


def estimated(
    points_px: Float[np.ndarray, "n joints 2"], joints_mm: Float[np.ndarray, "n joints 3"]
) -> Float[np.ndarray, " 4"]:
    """fx, cx, fy, cy that fit best without distortion, each equation weighted by its depth."""
    rows = []
    for axis in (0, 1):
        known = joints_mm[..., [axis, 2]].reshape(-1, 2)
        wanted = (points_px[..., axis] * joints_mm[..., 2]).ravel()
        rows.append(np.linalg.lstsq(known, wanted, rcond=None)[0])
    return np.concatenate(rows)
