"""The seat under a retargeted person, who sits on what the recording does not show."""

import numpy as np
from scipy.ndimage import binary_closing

from data_prep.synthetic.body import STANDARD_LEG_MM, Body, PosedSkeletons
from data_prep.synthetic.mocap_clips import stretches
from data_prep.synthetic.motion import Seat
from data_prep.synthetic.retarget_ground import FLESH_MM

LEAST_SITTING_S = 1.0
LEVEL_THIGH = 0.5
"""A sitting thigh drops by less than that part of its length from hip to knee."""
LOWEST_PELVIS = 0.3
"""In leg lengths: below, people sit on the floor or squat."""
FOOT_HEIGHT_MM = 100.0
STILL_MM_PER_S = 250.0
SEAT_MM = (430.0, 400.0)
BEHIND_PELVIS_MM = 110.0
"""How far a seat reaches behind the pelvis."""


def seat_under(body: Body, skeleton: PosedSkeletons, frames_per_s: float) -> Seat | None:
    """The seat of the longest time that somebody sits; None where nobody does for a second.

    Sitting is: thighs level, the pelvis still and well above the floor, feet near it.
    """
    root = skeleton.heads_mm[:, body.index["pelvis"]]
    is_sitting = root[:, 2] > LOWEST_PELVIS * body.leg_mm
    if len(root) > 1:
        speed = np.linalg.norm(np.gradient(root, axis=0), axis=-1) * frames_per_s
        is_sitting &= speed < STILL_MM_PER_S
    for side in ("l", "r"):
        hip, knee, ankle = (
            body.point_mm(skeleton, f"{side}_{bone}")[:, 2] for bone in ("thigh", "shank", "foot")
        )
        is_sitting &= hip - knee < LEVEL_THIGH * body.length_mm(f"{side}_shank")
        is_sitting &= ankle < body.ankle_height_mm + FOOT_HEIGHT_MM
    is_sitting = binary_closing(is_sitting, np.ones(2 * round(0.2 * frames_per_s) + 1))
    longest = max(stretches(is_sitting), key=lambda run: run[1] - run[0], default=(0, 0))
    if longest[1] - longest[0] < LEAST_SITTING_S * frames_per_s:
        return None
    frames = slice(*longest)
    back = np.median(skeleton.rotations[frames, body.index["pelvis"], :2, 1], axis=0)
    back /= np.linalg.norm(back)
    flesh = FLESH_MM["pelvis"] * body.leg_mm / STANDARD_LEG_MM
    height = float(np.percentile(root[frames, 2], 20)) - flesh
    return Seat(
        centre_mm=np.median(root[frames, :2], axis=0) - (SEAT_MM[1] / 2 - BEHIND_PELVIS_MM) * back,
        size_mm=np.array([*SEAT_MM, height]),
        heading_rad=float(np.arctan2(-back[0], back[1])),
    )
