"""Write a world as the tree of metro and MeTRAbs; see `data_prep.readers.metro`."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from data_prep.human36m import UNUSABLE_VIDEO
from data_prep.lookalike.images import write_images
from data_prep.lookalike.raw import shifted, write_cdf
from data_prep.lookalike.raw_metadata import metadata_xml
from data_prep.lookalike.world import World


def write_metro(
    world: World,
    folder: Path,
    *,
    every: tuple[int, ...] = (5, 64),
    boxes: str = "frames",
    has_metadata: bool = True,
    is_shifted: bool = False,
) -> None:
    """Write the tree; S11's view without a video is left out.

    Args:
        world: What was recorded.
        folder: Gets S1/Images and so on.
        every: Images are written of frames whose number is a multiple of one of these.
        boxes: Rows of a file of boxes: one per frame ("frames"), one per image ("images"), or no
            files ("none").
        has_metadata: Write Release-v1.2/metadata.xml.
        is_shifted: Put the poses and boxes of S9's three shifted sequences where the release does.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If cdflib is missing.
    """
    num_frames = {}
    for performance in world.performances:
        labelled = shifted(performance) if is_shifted else performance
        place = folder / f"S{performance.subject}"
        poses = place / "MyPoseFeatures/D3_Positions" / f"{performance.file_name}.cdf"
        poses.parent.mkdir(parents=True, exist_ok=True)
        write_cdf(poses, labelled.joints32_world_mm)
        num_frames[performance.key] = (*[len(performance) + 2] * 4, 4 * len(performance))
        frames = [f for f in range(len(performance)) if any(f % step == 0 for step in every)]
        for name in world.camera_names:
            if (*performance.key, name) == UNUSABLE_VIDEO:
                continue
            stem = f"{performance.file_name}.{name}"
            write_images(
                world,
                performance,
                name,
                frames,
                folder=place / "Images" / stem,
                name="frame_{:06d}.jpg",
                first=0,
            )
            if boxes != "none":
                counted = frames if boxes == "images" else range(len(performance))
                (place / "BBoxes").mkdir(exist_ok=True)
                rows = [mask_box(world.painter.mask(labelled, name, f)) for f in counted]
                np.save(place / "BBoxes" / f"{stem}.npy", np.array(rows, np.float32))
        _write_all(place)
    if has_metadata:
        (folder / "Release-v1.2").mkdir(parents=True, exist_ok=True)
        (folder / "Release-v1.2/metadata.xml").write_bytes(metadata_xml(num_frames))


def mask_box(mask: Shaped[np.ndarray, "height width"]) -> Float[np.ndarray, " 4"]:
    """Left, top, width, height around a mask; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4)
    size = (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    return np.array([columns[0], rows[0], *size], np.float64)


def _write_all(place: Path) -> None:
    """The folder of no action that lies beside the others."""
    (place / "Images/_ALL.54138969").mkdir(parents=True, exist_ok=True)
