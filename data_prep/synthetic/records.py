"""From a drawn shot to a record of a store."""

import cv2
import numpy as np

from data_prep.human36m_cameras import IMAGE_SIZES_PX
from data_prep.synthetic.scene import Shot
from pose3d.data.store import StoreRecord

QUALITY_RANGE = 35
"""How far JPEG quality varies below the store's."""


def record_of(shot: Shot, *, split: str, number: int, jpeg_quality: int) -> StoreRecord:
    """Encode a shot as a store's record; every joint counts, hidden ones too.

    Args:
        shot: What was drawn.
        split: "train" or "test".
        number: Of the record in its split.
        jpeg_quality: The best quality; the shot's own lies up to `QUALITY_RANGE` below.
    """
    lowest = max(1, jpeg_quality - QUALITY_RANGE)
    quality = round(lowest + shot.quality_share * (jpeg_quality - lowest))
    image_bgr = cv2.cvtColor(shot.image, cv2.COLOR_RGB2BGR)
    is_encoded, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert is_encoded
    return StoreRecord(
        image_jpeg=jpeg.tobytes(),
        joints_camera_mm=shot.joints_camera_mm,
        weight=np.ones((len(shot.joints_camera_mm), 3)),
        visibility=shot.visibility,
        camera=shot.camera,
        camera_name=shot.camera_name,
        store_from_image=shot.store_from_image,
        box_image_px=shot.box_image_px,
        subject=shot.subject,
        action=shot.action,
        subaction=shot.take,
        frame=shot.frame,
        split=split,
        source_file=f"synthetic/{split}/{number:06d}",
        image_size_px=IMAGE_SIZES_PX[shot.subject, shot.camera_name],
    )
