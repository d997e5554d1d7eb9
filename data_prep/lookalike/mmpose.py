"""Write a world in mmpose's layout of Human3.6M; see `data_prep.readers.mmpose`."""

import pickle
from pathlib import Path

import numpy as np
import torch

from data_prep.human36m import UNUSABLE_VIDEO
from data_prep.lookalike.images import write_images
from data_prep.lookalike.world import Performance, World
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

ROWS_STATED = {"54138969": 1002, "55011271": 1000, "58860488": 1000, "60457274": 1002}
"""Image heights as cameras.pkl states them, of S7 too, whose images all have 1002."""


def sequence_name(performance: Performance, camera_name: str) -> str:
    """The name of folder and images, e.g. "S1_Directions_1.54138969"."""
    name = performance.file_name.replace(" ", "_")
    return f"S{performance.subject}_{name}.{camera_name}"


def write_mmpose(
    world: World, folder: Path, *, every: int = 1, labels_of_unusable_video: bool = False
) -> None:
    """Write the layout.

    Args:
        world: What was recorded.
        folder: Gets annotation_body3d/ and images/.
        every: Every how manieth frame is kept: 1 for 50 frames a second, 5 for 10.
        labels_of_unusable_video: Write labels, but neither names nor images, of S11's view whose
            video cannot be read, as the tool does.

    Raises:
        OSError: If a file cannot be written.
    """
    annotations = folder / "annotation_body3d"
    rate = annotations / f"fps{50 // every}"
    rate.mkdir(parents=True, exist_ok=True)
    (annotations / "cameras.pkl").write_bytes(pickle.dumps(cameras(world)))
    for split in ("train", "test"):
        rows: dict[str, list[np.ndarray]] = {}
        for performance in world.performances:
            if performance.is_test != (split == "test"):
                continue
            for name in world.camera_names:
                view = _rows(world, performance, name, every=every)
                if (*performance.key, name) == UNUSABLE_VIDEO:
                    del view["imgname"]
                    if not labels_of_unusable_video:
                        continue
                else:
                    _write_sequence(world, performance, name, folder, every=every)
                for key, values in view.items():
                    rows.setdefault(key, []).append(values)
        if rows:
            joined = {key: np.concatenate(values) for key, values in rows.items()}
            np.savez(rate / f"h36m_{split}.npz", **joined)  # type: ignore[arg-type]


def _write_sequence(
    world: World, performance: Performance, name: str, folder: Path, *, every: int
) -> None:
    sequence = sequence_name(performance, name)
    write_images(
        world,
        performance,
        name,
        range(0, len(performance), every),
        folder=folder / "images" / f"S{performance.subject}" / sequence,
        name=sequence + "_{:06d}.jpg",
    )


def _rows(
    world: World, performance: Performance, name: str, *, every: int
) -> dict[str, np.ndarray]:
    """The rows of one view."""
    camera = world.camera(performance.subject, name)
    frames = np.arange(0, len(performance), every)
    joints = camera.world_to_camera(torch.from_numpy(performance.joints_world_mm[frames]))
    points_px = camera.camera_to_image(joints).numpy()
    low, high = points_px.min(1), points_px.max(1)
    ones = np.ones((len(frames), 17, 1))
    sequence = sequence_name(performance, name)
    place = f"S{performance.subject}/{sequence}/{sequence}"
    return {
        "imgname": np.array([f"{place}_{frame + 1:06d}.jpg" for frame in frames]),
        "center": (low + high) / 2,
        "scale": 1.2 * (high - low).max(1) / 200,
        "part": np.concatenate([points_px, ones], axis=2),
        "S": np.concatenate([joints.numpy() / 1000, ones], axis=2),
    }


def cameras(world: World) -> dict[tuple[str, str], dict[str, object]]:
    """The content of cameras.pkl."""
    content: dict[tuple[str, str], dict[str, object]] = {}
    for subject in world.subjects:
        for number, name in enumerate(HUMAN36M_CAMERA_NAMES, start=1):
            camera = world.camera(subject, name)
            content[f"S{subject}", name] = {
                "R": camera.rotation.numpy().T,
                "T": camera.centre_world_mm.numpy()[:, None] / 1000,
                "c": camera.principal_point_px.numpy()[:, None],
                "f": camera.focal_px.numpy()[:, None],
                "k": camera.radial.numpy()[:, None],
                "p": camera.tangential.numpy()[:, None],
                "w": 1000,
                "h": ROWS_STATED[name],
                "name": f"camera{number}",
                "id": name,
            }
    return content
