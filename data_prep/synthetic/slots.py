"""What each record of the data set shows: subject, action, take, camera and frame by number."""

from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.subjects import SPLIT_SUBJECTS
from pose3d.data.store import HUMAN36M_ACTIONS
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

NUM_TAKES = 2
FRAME_STEP = {"train": 5, "test": 64}
"""Frames between records of a sequence, as Human3.6M is customarily thinned out."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What a record's number says about it."""

    split: str
    index: int
    subject: int
    action: str
    take: int
    camera_name: str
    frame: int


def slot_of(split: str, index: int) -> Slot:
    """Subject, action, take, camera and frame of a record, balanced over any run of numbers.

    No two records have one frame of one take: each is a pose of its own, seen by one camera.

    Args:
        split: "train" or "test".
        index: Number of the record in its split, from 0.
    """
    subjects = SPLIT_SUBJECTS[split]
    counts = (len(HUMAN36M_CAMERA_NAMES), len(subjects), len(HUMAN36M_ACTIONS), NUM_TAKES)
    total = int(np.prod(counts))
    round_number, place = divmod(index, total)
    # A stride prime to the total, near the golden section of it, visits all combinations evenly.
    place = place * _stride(total) % total
    camera, subject, action, take = np.unravel_index(place, counts)
    return Slot(
        split=split,
        index=index,
        subject=subjects[subject],
        action=HUMAN36M_ACTIONS[action],
        take=int(take) + 1,
        camera_name=HUMAN36M_CAMERA_NAMES[camera],
        frame=(round_number * counts[0] + int(camera)) * FRAME_STEP[split],
    )


def _stride(total: int) -> int:
    stride = round(total * 0.6180339887)
    while np.gcd(stride, total) != 1:
        stride += 1
    return stride
