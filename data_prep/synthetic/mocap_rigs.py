"""From the joints of a rig, by name, to Human3.6M's 17.

What a rig has for each joint of `HUMAN36M_17`:

- hips, knees, ankles, shoulders, elbows, wrists: the rig's joint of that name, under any of its
  usual names (CMU's ASF and BVH, `Hips/LeftUpLeg/...`, Mixamo, Daz, `LeftHip/LeftKnee/...`).
- Pelvis: the middle of the hips.
- Neck: the middle of the shoulders. Rigs put their neck joint anywhere up to the chin; the middle
  of the shoulders is the same place in each.
- Torso: of the rig's spine joints the one that comes nearest to half-way from pelvis to neck, and
  the half-way point itself where none is in the middle half.
- Nose: where the rig's head bone starts.
- Head: the end of the head bone; where the rig has no end of it, the neck-to-nose line goes on by
  as much as Human3.6M's does (0.95 of the length from neck to nose).
"""

import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.mocap_bvh import END
from pose3d.geometry.skeleton import HUMAN36M_17

Points = Mapping[str, Float[np.ndarray, "frames 3"]]

_LIMBS = {
    "Hip": ("upleg", "thigh", "femur", "upperleg", "hip"),
    "Knee": ("knee", "shin", "calf", "tibia", "lowleg", "lowerleg", "leg"),
    "Ankle": ("ankle", "foot"),
    "Shoulder": ("arm", "uparm", "upperarm", "humerus", "shldr", "shoulder"),
    "Elbow": ("elbow", "forearm", "lowarm", "lowerarm", "radius"),
    "Wrist": ("wrist", "hand"),
}
"""Names of a limb's joint without their side, the surest first."""
_SIDES = {"L": ("left", "l"), "R": ("right", "r")}
_SPINE = ("spine", "chest", "abdomen", "back", "thorax", "torso")
_HEAD = ("head",)
_HEAD_TOP = ("headtop", "headend", "headtopend", "headnub")
_MIDDLE_HALF = (0.25, 0.75)


def human36m_joints(points: Points, *, where: str) -> Float[np.ndarray, "frames 17 3"]:
    """Joints of `HUMAN36M_17` from those of a rig, in the rig's axes and units.

    Args:
        points: Every joint of the rig by its name; the end of a bone under "bone end".
        where: The file, for messages.

    Raises:
        ValueError: If joints cannot be found; they and the rig's own are listed.
    """
    plain = {_plain(name): at for name, at in points.items()}
    found: dict[str, np.ndarray] = {}
    missing = []
    for joint, names in _LIMBS.items():
        for side, prefixes in _SIDES.items():
            candidates = [f"{prefix}{name}" for name in names for prefix in prefixes]
            candidates += [f"{name}{prefix}" for name in names for prefix in prefixes]
            at = _first(plain, candidates)
            if at is None:
                missing.append(f"{side}_{joint}")
            else:
                found[f"{side}_{joint}"] = at
    head = _first(plain, _HEAD)
    if head is None:
        missing.append("Head")
    if missing or head is None:
        raise ValueError(
            f"{where}: no joint of the rig is known as {', '.join(missing)}; "
            f"the rig has {', '.join(points)}"
        )
    found["Pelvis"] = (found["L_Hip"] + found["R_Hip"]) / 2
    found["Neck"] = (found["L_Shoulder"] + found["R_Shoulder"]) / 2
    found["Torso"] = _torso(plain, found["Pelvis"], found["Neck"])
    found["Nose"] = head
    found["Head"] = _head_top(plain, neck=found["Neck"], nose=head)
    return np.stack([found[name] for name in HUMAN36M_17.joint_names], axis=1)


def _plain(name: str) -> str:
    """A name without the rig's prefix, case and punctuation: "mixamorig:LeftUpLeg" is leftupleg."""
    end = name.endswith(END)
    base = name.removesuffix(END).rpartition(":")[2].lower()
    base = re.sub(r"^(mixamorig\d*|bip\d*|jnt|def|b)[ _\-.]+", "", base)
    return re.sub(r"[^a-z0-9]", "", base) + (END if end else "")


def _first(points: Points, names: list[str] | tuple[str, ...]) -> np.ndarray | None:
    return next((points[name] for name in names if name in points), None)


def _torso(points: Points, pelvis: np.ndarray, neck: np.ndarray) -> np.ndarray:
    axis = neck - pelvis
    squared = (axis * axis).sum(axis=-1)
    best, nearest = (pelvis + neck) / 2, _MIDDLE_HALF[1] - 0.5
    for name, at in points.items():
        if not name.rstrip("0123456789").endswith(_SPINE):
            continue
        fraction = float(np.median(((at - pelvis) * axis).sum(axis=-1) / squared))
        if abs(fraction - 0.5) < nearest:
            best, nearest = at, abs(fraction - 0.5)
    return best


def _head_top(points: Points, *, neck: np.ndarray, nose: np.ndarray) -> np.ndarray:
    for name in (*_HEAD_TOP, f"head{END}"):
        if name in points and np.linalg.norm(points[name] - nose, axis=-1).min() > 0:
            return points[name]
    return nose + 0.95 * (nose - neck)
