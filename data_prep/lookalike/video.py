"""Write h264 videos, of any images and of performances."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from data_prep.lookalike.world import Performance, World
from data_prep.pictures import Image

FRAMES_PER_S = 50


def film(
    path: Path, world: World, performance: Performance, camera_name: str, *, count: int
) -> None:
    """Write what a camera saw of a performance; the last frame stands still after the last pose.

    Args:
        path: The file.
        world: Its painter draws.
        performance: What is seen.
        camera_name: Who sees it.
        count: Frames of the video.

    Raises:
        ValueError: If PyAV is missing.
    """
    last = len(performance) - 1
    frames = (min(number, last) for number in range(count))
    images = (world.painter.image(performance, camera_name, frame) for frame in frames)
    write_video(path, images, size_px=world.image_size_px(performance.subject, camera_name))


def write_video(path: Path, images: Iterable[Image], *, size_px: tuple[int, int]) -> None:
    """Write an mp4 file with h264, 50 frames per second.

    Args:
        path: The file.
        images: Its frames, BGR.
        size_px: Width and height of each, pixels, even.

    Raises:
        ValueError: If PyAV is missing.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "writing videos needs PyAV; install it with pip install 'pose3d[human36m]'"
        ) from error
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_S)
        stream.width, stream.height = size_px
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"preset": "ultrafast", "crf": "12", "g": "25"}
        for image in images:
            planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
