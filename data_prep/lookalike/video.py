"""Write images to an h264 video."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from data_prep.pictures import Image

FRAMES_PER_S = 50


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
