"""What a body cannot do: joint limits, and limbs inside one another."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.body import STANDARD_LEG_MM, Body, PosedSkeleton, PosedSkeletons
from data_prep.synthetic.rotations import dot, segment_gaps, twist_angle

ELBOW_LIMIT_RAD = math.radians(148.0)
KNEE_LIMIT_RAD = math.radians(152.0)

TURN_LIMITS_DEG = {
    "spine": 45.0,
    "chest": 45.0,
    "neck": 60.0,
    "head": 60.0,
    "l_clavicle": 35.0,
    "r_clavicle": 35.0,
    "l_hand": 75.0,
    "r_hand": 75.0,
    "l_foot": 75.0,
    "r_foot": 75.0,
}
"""Largest whole turn of a bone against its parent."""
HIP_FLEXION_DEG = (-35.0, 130.0)
HIP_OUTWARD_DEG = (-35.0, 65.0)
HIP_TWIST_DEG = 75.0
SHOULDER_TWIST_DEG = 115.0
SHOULDER_BACK_DEG = 65.0
"""How far behind the trunk's side plane an upper arm may point."""
SHOULDER_ACROSS_DEG = 55.0
"""How far across the trunk's middle an upper arm may point."""


def turn_angle(rotation: Float[np.ndarray, "*frames 3 3"]) -> Float[np.ndarray, "*frames"]:
    """Angle of a rotation, radians."""
    return np.arccos(np.clip((np.trace(rotation, axis1=-2, axis2=-1) - 1.0) / 2.0, -1.0, 1.0))


def hip_angles(
    rotation: Float[np.ndarray, "*frames 3 3"], *, outward: float
) -> tuple[
    Float[np.ndarray, "*frames"], Float[np.ndarray, "*frames"], Float[np.ndarray, "*frames"]
]:
    """Flexion, outward swing and twist of a thigh against the pelvis, radians.

    Args:
        rotation: The thigh's local rotation.
        outward: +1 on the left, -1 on the right.
    """
    x, y, z = np.moveaxis(-rotation[..., 2], -1, 0)
    out = np.arcsin(np.clip(outward * x, -1.0, 1.0))
    return np.arctan2(-y, -z), out, twist_angle(rotation)


def limit_excess(
    local: Mapping[str, Float[np.ndarray, "*frames 3 3"]],
) -> Float[np.ndarray, "*frames"]:
    """By how much a pose exceeds its joint limits, radians in sum; 0 where it keeps them all."""
    excess: np.ndarray = np.zeros(())
    for name, limit in TURN_LIMITS_DEG.items():
        if name in local:
            excess = excess + np.maximum(0.0, turn_angle(local[name]) - math.radians(limit))
    for side, outward in (("l", 1.0), ("r", -1.0)):
        if f"{side}_thigh" in local:
            excess = excess + _hip_excess(local[f"{side}_thigh"], outward)
        if f"{side}_upperarm" in local:
            excess = excess + _shoulder_excess(local[f"{side}_upperarm"], outward)
        for bone, sign, limit_rad in (
            (f"{side}_forearm", -1.0, ELBOW_LIMIT_RAD),
            (f"{side}_shank", 1.0, KNEE_LIMIT_RAD),
        ):
            if bone in local:
                bend = sign * np.arctan2(local[bone][..., 2, 1], local[bone][..., 1, 1])
                excess = excess + np.maximum(0.0, np.maximum(bend - limit_rad, -bend) - 1e-9)
    return excess


def _outside(
    angle_rad: Float[np.ndarray, "*frames"], limits_deg: tuple[float, float]
) -> Float[np.ndarray, "*frames"]:
    """Distance of an angle from an interval."""
    low, high = (math.radians(limit) for limit in limits_deg)
    return np.maximum(0.0, np.maximum(low - angle_rad, angle_rad - high))


def _hip_excess(
    rotation: Float[np.ndarray, "*frames 3 3"], outward: float
) -> Float[np.ndarray, "*frames"]:
    flexion, out, twist = hip_angles(rotation, outward=outward)
    # Flexion means nothing for a thigh straight out.
    bent = np.where(np.abs(out) < math.radians(60.0), _outside(flexion, HIP_FLEXION_DEG), 0.0)
    twisted = np.maximum(0.0, np.abs(twist) - math.radians(HIP_TWIST_DEG))
    return bent + _outside(out, HIP_OUTWARD_DEG) + twisted


def _shoulder_excess(
    rotation: Float[np.ndarray, "*frames 3 3"], outward: float
) -> Float[np.ndarray, "*frames"]:
    x, y, z = np.moveaxis(-rotation[..., 2], -1, 0)
    back = np.arcsin(np.clip(y, -1.0, 1.0))
    across = np.arcsin(np.clip(-outward * x, -1.0, 1.0))
    excess = np.maximum(0.0, back - math.radians(SHOULDER_BACK_DEG))
    excess = excess + np.maximum(0.0, across - math.radians(SHOULDER_ACROSS_DEG))
    twist = np.abs(twist_angle(rotation)) - math.radians(SHOULDER_TWIST_DEG)
    # The twist is not defined for an arm straight up.
    return excess + np.where(z < 0.9, np.maximum(0.0, twist), 0.0)


# A limb is a capsule: where it starts and ends (a blend of two points), and its radius relative
# to `STANDARD_LEG_MM`.
_CAPSULES: dict[str, tuple[tuple[str, str, float], tuple[str, str, float], float]] = {
    "trunk": (("pelvis", "chest", 0.0), ("chest", "neck", 0.6), 100.0),
    "l_trunk": (("pelvis", "l_thigh", 0.55), ("chest", "l_upperarm", 0.5), 88.0),
    "r_trunk": (("pelvis", "r_thigh", 0.55), ("chest", "r_upperarm", 0.5), 88.0),
    "skull": (("head", "head_top", 0.1), ("head", "head_top", 0.7), 72.0),
}
for _side in ("l", "r"):
    _CAPSULES |= {
        f"{_side}_forearm": (
            (f"{_side}_forearm", f"{_side}_hand", 0.3),
            (f"{_side}_forearm", f"{_side}_hand", 1.0),
            32.0,
        ),
        f"{_side}_hand": (
            (f"{_side}_hand", f"{_side}_knuckle", 0.2),
            (f"{_side}_hand", f"{_side}_knuckle", 1.6),
            24.0,
        ),
        f"{_side}_upperarm": (
            (f"{_side}_upperarm", f"{_side}_forearm", 0.55),
            (f"{_side}_upperarm", f"{_side}_forearm", 1.0),
            36.0,
        ),
        f"{_side}_thigh": (
            (f"{_side}_thigh", f"{_side}_shank", 0.25),
            (f"{_side}_thigh", f"{_side}_shank", 1.0),
            62.0,
        ),
        f"{_side}_shank": (
            (f"{_side}_shank", f"{_side}_foot", 0.1),
            (f"{_side}_shank", f"{_side}_foot", 1.0),
            44.0,
        ),
        f"{_side}_foot": (
            (f"{_side}_foot", f"{_side}_toe", 0.0),
            (f"{_side}_foot", f"{_side}_toe", 1.0),
            34.0,
        ),
    }

_TRUNK = ("trunk", "l_trunk", "r_trunk")
_PAIRS: list[tuple[str, str]] = [("l_shank", "r_shank"), ("l_foot", "r_foot")]
_PAIRS += [("l_thigh", "r_thigh"), ("l_forearm", "r_forearm"), ("l_hand", "r_hand")]
_PAIRS += [("l_forearm", "r_hand"), ("l_hand", "r_forearm")]
_PAIRS += [("l_hand", "r_upperarm"), ("r_hand", "l_upperarm")]
for _side, _other in (("l", "r"), ("r", "l")):
    _PAIRS += [(f"{_side}_{limb}", trunk) for limb in ("forearm", "hand") for trunk in _TRUNK]
    _PAIRS += [(f"{_side}_upperarm", "trunk"), (f"{_side}_shank", f"{_other}_foot")]
    _PAIRS += [(f"{_side}_thigh", f"{_other}_shank"), (f"{_side}_thigh", f"{_other}_foot")]
    _PAIRS += [(f"{_side}_{limb}", "skull") for limb in ("forearm", "hand")]
    _PAIRS += [
        (f"{_side}_{limb}", f"{leg}_{part}")
        for limb in ("forearm", "hand")
        for leg in ("l", "r")
        for part in ("thigh", "shank")
    ]


@lru_cache(maxsize=1)
def _tables() -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Point names; blends of points at capsule starts and ends; radii; pairs of capsules."""
    names = sorted({point for a, b, _ in _CAPSULES.values() for point in (a[0], a[1], b[0], b[1])})
    blend = np.zeros((2, len(_CAPSULES), len(names)))
    for row, (start, end, _) in enumerate(_CAPSULES.values()):
        for which, (a, b, fraction) in enumerate((start, end)):
            blend[which, row, names.index(a)] += 1.0 - fraction
            blend[which, row, names.index(b)] += fraction
    order = list(_CAPSULES)
    pairs = np.array([(order.index(a), order.index(b)) for a, b in _PAIRS])
    return names, blend, np.array([radius for *_, radius in _CAPSULES.values()]), pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlaps:
    """Pairs of limbs that must not be inside one another."""

    pairs: tuple[tuple[str, str], ...]
    depth_mm: Float[np.ndarray, "*frames pairs"]
    """How deep the two are inside one another; negative where they are apart."""
    apart: Float[np.ndarray, "*frames pairs 3"]
    """Direction that leads the first away from the second."""


def overlaps(body: Body, skeleton: PosedSkeleton | PosedSkeletons) -> Overlaps:
    """How deep limbs are inside one another.

    Forearms, hands, legs, trunk and skull are capsules of the body's size.
    """
    names, blend, radii, pairs = _tables()
    points = np.stack([body.point_mm(skeleton, name) for name in names], axis=-2)
    starts, ends = blend[0] @ points, blend[1] @ points
    size = body.leg_mm / STANDARD_LEG_MM
    first, second = pairs[:, 0], pairs[:, 1]
    gaps = segment_gaps(
        starts[..., first, :], ends[..., first, :], starts[..., second, :], ends[..., second, :]
    )
    distances = np.sqrt(dot(gaps, gaps))
    return Overlaps(
        pairs=tuple(_PAIRS),
        depth_mm=size * (radii[first] + radii[second]) - distances,
        apart=gaps / np.maximum(distances, 1e-6)[..., None],
    )


def intersection_mm(
    body: Body, skeleton: PosedSkeleton | PosedSkeletons
) -> Float[np.ndarray, "*frames"]:
    """How deep the deepest limb is inside another part of the body, millimetres; 0 if none is."""
    return np.maximum(0.0, overlaps(body, skeleton).depth_mm.max(axis=-1))
