"""Write a world as Martinez et al.'s h36m.zip; see `data_prep.readers.martinez`."""

from pathlib import Path

import h5py
import numpy as np

from data_prep.lookalike.image_trees import write_image_tree
from data_prep.lookalike.videopose3d import renamed
from data_prep.lookalike.world import World
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES


def write_martinez(
    world: World, folder: Path, *, images: str | None = "posenet", is_transposed: bool = True
) -> None:
    """Write poses and cameras into `h36m`, and images beside it.

    Args:
        world: What was recorded.
        folder: Where the folders go.
        images: The tree of the images, see `write_image_tree`; no images if None.
        is_transposed: Whether R is world from camera on disk, as in the real file.

    Raises:
        OSError: If a file cannot be written.
    """
    inner = folder / "h36m"
    for performance in world.performances:
        place = inner / f"S{performance.subject}" / "MyPoses" / "3D_positions"
        place.mkdir(parents=True, exist_ok=True)
        flat = performance.joints32_world_mm.reshape(-1, 96).T
        with h5py.File(place / f"{renamed(performance)}.h5", "w") as file:
            file["3D_positions"] = flat
    with h5py.File(inner / "cameras.h5", "w") as file:
        for subject in world.subjects:
            for number, name in enumerate(HUMAN36M_CAMERA_NAMES, 1):
                camera = world.camera(subject, name)
                rotation = camera.rotation.numpy()
                group = file.create_group(f"subject{subject}/camera{number}")
                group["R"] = rotation.T if is_transposed else rotation
                group["T"] = camera.centre_world_mm.numpy()[:, None]
                group["f"] = camera.focal_px.numpy()[:, None]
                group["c"] = camera.principal_point_px.numpy()[:, None]
                group["k"] = camera.radial.numpy()[:, None]
                group["p"] = camera.tangential.numpy()[:, None]
                group["Name"] = np.array([[ord(letter)] for letter in name], np.uint16)
    if images is not None:
        write_image_tree(world, folder, kind=images)
