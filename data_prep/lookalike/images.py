"""Image files of a look-alike tree."""

from collections.abc import Iterable
from pathlib import Path

import cv2

from data_prep.lookalike.world import Performance, World

JPEG_QUALITY = 95


def write_images(
    world: World,
    performance: Performance,
    camera_name: str,
    frames: Iterable[int],
    *,
    folder: Path,
    name: str,
    first: int = 1,
) -> None:
    """Draw frames of a performance and write them as JPEG files.

    Args:
        world: Its painter draws.
        performance: What is seen.
        camera_name: Who sees it.
        frames: Numbers of frames, from 0.
        folder: Where the files go.
        name: Their names with a place for the number, e.g. "img_{:06d}.jpg".
        first: The number of frame 0.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        image = world.painter.image(performance, camera_name, frame)
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        (folder / name.format(frame + first)).write_bytes(jpeg.tobytes())
