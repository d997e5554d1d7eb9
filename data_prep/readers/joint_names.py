"""Joints by whatever name people give them, as joints of `HUMAN36M_18`.

Known are Human3.6M's names, MPII's and COCO's, with left and right in front ("L_Hip", "left_hip",
"lhip"), in any case and with any separators.
"""

import re

import numpy as np
from jaxtyping import Bool, Float

from pose3d.geometry.skeleton import HUMAN36M_18, did_you_mean

_MIDDLE = {
    "Pelvis": ("pelvis", "pelv", "midhip", "root"),
    "Torso": ("torso", "spine"),
    "Neck": ("neck", "upperneck"),
    "Nose": ("nose",),
    "Head": ("head", "headtop"),
    "Thorax": ("thorax", "throax", "thrx", "midshoulder"),  # the second as MPII's converter has it
}
_SIDED = ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist")
_SIDES = {"L": ("l", "left"), "R": ("r", "right")}
_JOINT_BY_NAME = {
    **{name: joint for joint, names in _MIDDLE.items() for name in names},
    **{
        f"{side_name}{joint.lower()}": f"{side}_{joint}"
        for side, side_names in _SIDES.items()
        for side_name in side_names
        for joint in _SIDED
    },
}
_LEFT_OUT = {
    f"{side_name}{part}"
    for side_names in _SIDES.values()
    for side_name in side_names
    for part in ("eye", "ear", "bigtoe", "smalltoe", "heel", "toe", "foot", "hand")
}

_LEFT_HIP, _RIGHT_HIP = HUMAN36M_18.index("L_Hip"), HUMAN36M_18.index("R_Hip")
_LEFT_SHOULDER = HUMAN36M_18.index("L_Shoulder")
_RIGHT_SHOULDER = HUMAN36M_18.index("R_Shoulder")
_MIDPOINTS = (
    (HUMAN36M_18.index("Pelvis"), _LEFT_HIP, _RIGHT_HIP),
    (HUMAN36M_18.index("Thorax"), _LEFT_SHOULDER, _RIGHT_SHOULDER),
)


def joint_of(name: str) -> str | None:
    """The joint of `HUMAN36M_18` of this name; None for eyes, ears, hands and feet.

    Raises:
        ValueError: If the name is unknown; the nearest joint is given.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain in _LEFT_OUT:
        return None
    if plain not in _JOINT_BY_NAME:
        raise ValueError(f"unknown joint {name!r}{did_you_mean(name, HUMAN36M_18.joint_names)}")
    return _JOINT_BY_NAME[plain]


def fill_midpoints(
    joints: Float[np.ndarray, "n 18 c"], visible: Bool[np.ndarray, "n 18"]
) -> tuple[Float[np.ndarray, "n 18 c"], Bool[np.ndarray, "n 18"]]:
    """Put the pelvis between the hips and the thorax between the shoulders where they are missing.

    Args:
        joints: Joints in the order of `HUMAN36M_18`, any unit; NaN where there is no label.
        visible: Whether each is seen.

    Returns:
        The same with the midpoints; missing where one of the two joints is. A midpoint is seen
        where both joints are.
    """
    joints, visible = joints.copy(), visible.copy()
    for middle, left, right in _MIDPOINTS:
        missing = ~np.isfinite(joints[:, middle]).all(-1)
        joints[missing, middle] = (joints[missing, left] + joints[missing, right]) / 2
        visible[missing, middle] = visible[missing, left] & visible[missing, right]
    return joints, visible


def fill_unlabelled(joints: Float[np.ndarray, "n 18 c"]) -> Float[np.ndarray, "n 18 c"]:
    """Put joints without a label where the mean of the others is: finite, but of weight 0."""
    missing = ~np.isfinite(joints)
    count = np.maximum((~missing).sum(1, keepdims=True), 1)
    mean = np.where(missing, 0, joints).sum(1, keepdims=True) / count
    return np.where(missing, mean, joints)
