"""Where a retargeted person stands: the pelvis's path, planted ankles, feet on the floor."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt, gaussian_filter1d, maximum_filter1d
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from data_prep.synthetic.body import Body, PosedSkeletons
from data_prep.synthetic.mocap_clips import ANKLE_HEIGHT_PER_LEG, Joints, stretches
from data_prep.synthetic.rotations import (
    Matrix,
    dot,
    rotation_x,
    transposed,
    unit,
)
from pose3d.geometry.skeleton import HUMAN36M_17

PLANTED_MM_PER_S = 200.0
PLANTED_HEIGHT_MM = 60.0
"""A planted ankle is slower than that, and no higher above where it stands."""
LEAST_PLANTED_S = 0.08
HALF_STRIDE_S = 0.3
"""So long before and after a hold the ankle's place is still shifted as in it."""
CREEP_MM = 50.0
"""An ankle that moves by less than that in one hold does not move."""
FREE_FOOT_MM = 160.0
"""So far above where it stands an ankle's foot no longer cares for the floor."""
SOLE_SINKS_MM = 3.0
"""Flesh of the sole that a step presses flat."""
KNEELING = 0.25
"""Cosine of the shank's lean above which it stands."""
FOOT_SMOOTHING_S = 0.02
RELAXED_FOOT_RAD = np.radians(12.0)
FLESH_MM = {
    **dict.fromkeys(("l_shank", "r_shank"), 50.0),
    **dict.fromkeys(("l_forearm", "r_forearm"), 35.0),
    **dict.fromkeys(("l_hand", "r_hand"), 20.0),
    **dict.fromkeys(("l_knuckle", "r_knuckle"), 10.0),
    **{"pelvis": 95.0, "chest": 90.0, "head": 60.0, "head_top": 15.0},
}
"""What lies about points of the body that may come near the floor."""
_NAME = HUMAN36M_17.index
_ANKLE = {"l": _NAME("L_Ankle"), "r": _NAME("R_Ankle")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """Where pelvis and ankles go in the room."""

    root_mm: Float[np.ndarray, "frames 3"]
    ankles_mm: dict[str, Float[np.ndarray, "frames 3"]]
    """In the room, by side ("l", "r")."""


def place(
    joints_mm: Joints, pose_mm: Joints, body: Body, *, leg_mm: float, frames_per_s: float
) -> Placed:
    """The pelvis's path scaled to the body's legs, and ankles that stand still where they stand.

    In the plane an ankle keeps its place from the pelvis, but is held for as long as the clip's
    ankle is planted; in between the difference passes from one hold to the next, or fades where
    they are far apart. Its height is the clip's, scaled, from where ankles of this body stand.

    Args:
        joints_mm: The clip's joints in the room.
        pose_mm: The same poses with the body's bone lengths, from the pelvis.
        body: Who moves now.
        leg_mm: Length of the clip's thigh and shank together.
        frames_per_s: Rate of the frames.
    """
    scale = body.leg_mm / leg_mm
    lift = np.array([0.0, 0.0, body.ankle_height_mm - ANKLE_HEIGHT_PER_LEG * body.leg_mm])
    clip = {side: scale * joints_mm[:, ankle] + lift for side, ankle in _ANKLE.items()}
    planted = {side: _planted(clip[side], body.ankle_height_mm, frames_per_s) for side in _ANKLE}
    root = scale * joints_mm[:, _NAME("Pelvis")] + lift
    own = {side: root + pose_mm[:, ankle] for side, ankle in _ANKLE.items()}
    drop = _drop({side: own[side][:, 2] - clip[side][:, 2] for side in _ANKLE}, planted)
    root[:, 2] -= gaussian_filter1d(drop, 0.08 * frames_per_s, mode="nearest")
    ankles = {}
    for side in _ANKLE:
        target = _held(own[side], clip[side], planted[side], frames_per_s)
        target[:, 2] = clip[side][:, 2]
        ankles[side] = _above_floor(target, pose_mm, side, body.ankle_height_mm)
    return Placed(root_mm=root, ankles_mm=ankles)


def _drop(
    gap_mm: dict[str, Float[np.ndarray, " frames"]],
    planted: dict[str, Bool[np.ndarray, " frames"]],
) -> Float[np.ndarray, " frames"]:
    """By how much the pelvis is too high for its planted feet; in between, interpolated.

    A body with other thighs and shanks than the clip's needs another height to bend its knees as
    the clip does.
    """
    count = planted["l"].astype(float) + planted["r"]
    at = np.flatnonzero(count)
    if not len(at):
        return np.zeros(len(count))
    total = np.stack([np.where(planted[side], gap_mm[side], 0.0) for side in planted]).sum(axis=0)
    return np.interp(np.arange(len(count)), at, total[at] / count[at])


def _planted(
    ankle_mm: Float[np.ndarray, "frames 3"], height_mm: float, frames_per_s: float
) -> Bool[np.ndarray, " frames"]:
    """Frames in which an ankle stands still for a while near the floor."""
    if len(ankle_mm) < 3:
        return np.zeros(len(ankle_mm), bool)
    speed = np.linalg.norm(np.gradient(ankle_mm, axis=0), axis=-1) * frames_per_s
    still = (speed < PLANTED_MM_PER_S) & (ankle_mm[:, 2] < height_mm + PLANTED_HEIGHT_MM)
    for start, stop in stretches(still):
        if stop - start < LEAST_PLANTED_S * frames_per_s:
            still[start:stop] = False
    return still


def _held(
    own_mm: Float[np.ndarray, "frames 3"],
    clip_mm: Float[np.ndarray, "frames 3"],
    planted: Bool[np.ndarray, " frames"],
    frames_per_s: float,
) -> Float[np.ndarray, "frames 3"]:
    """The ankle's own path, shifted so that it rests where it is planted."""
    if not planted.any():
        return own_mm.copy()
    correction = np.zeros_like(own_mm)
    for start, stop in stretches(planted):
        hold = slice(start, stop)
        still = clip_mm[hold] + (own_mm[hold] - clip_mm[hold]).mean(axis=0)
        if np.ptp(clip_mm[hold, :2], axis=0).max() < CREEP_MM:
            still = own_mm[hold].mean(axis=0)
        correction[hold] = still - own_mm[hold]
    frames, at = np.arange(len(own_mm)), np.flatnonzero(planted)
    for axis in range(3):
        correction[:, axis] = np.interp(frames, at, correction[at, axis])
    away_s = distance_transform_edt(~planted) / frames_per_s
    fade = np.clip(1.0 - (away_s - HALF_STRIDE_S) / HALF_STRIDE_S, 0.0, 1.0)
    return own_mm + fade[:, None] * correction


def _above_floor(
    ankle_mm: Float[np.ndarray, "frames 3"], pose_mm: Joints, side: str, height_mm: float
) -> Float[np.ndarray, "frames 3"]:
    """Raise an ankle that would press its foot into the floor.

    Under an upright shank the sole is below the ankle; under a lying one only the heel's side is.
    """
    shank = pose_mm[:, _NAME(f"{side.upper()}_Knee")] - pose_mm[:, _NAME(f"{side.upper()}_Ankle")]
    upright = np.clip(2.0 * unit(shank)[:, 2], 0.0, 1.0)
    lowest = height_mm * (0.7 + 0.3 * upright)
    return np.concatenate([ankle_mm[:, :2], np.maximum(ankle_mm[:, 2], lowest)[:, None]], axis=1)


def foot_rotation(
    body: Body,
    side: str,
    shank: Matrix,
    ankle_height_mm: Float[np.ndarray, " frames"],
    frames_per_s: float,
) -> Matrix:
    """Turn of a foot against its shank: flat on the floor, rolling over toes or heel, or free.

    A free foot keeps its angle with the shank. Near the floor its pitch is limited by toe and heel
    touching it, and it loses its roll; a clip of 17 joints says nothing more of feet.

    Args:
        body: Whose foot it is.
        side: "l" or "r".
        shank: Orientation of the shank.
        ankle_height_mm: Height of the ankle above the floor.
        frames_per_s: Rate of the frames.
    """
    sole = sole_mm(body, side)
    free = shank @ rotation_x(RELAXED_FOOT_RAD)
    up = np.broadcast_to([0.0, 0.0, 1.0], (len(shank), 3))
    left = unit(shank[..., 0] * [1.0, 1.0, 0.0])
    level = np.cross(left, up)
    yaw = np.stack([left, -level, up], axis=-1)
    front = -free[..., 1]
    room = np.maximum(ankle_height_mm, body.ankle_height_mm) + SOLE_SINKS_MM
    pitch = np.clip(np.arctan2(-front[:, 2], dot(front, level)), *_pitch_limits(sole, room))
    standing = yaw @ rotation_x(pitch)
    upright = np.clip(4.0 * (shank[:, 2, 2] - 0.2), 0.0, 1.0)
    raised = ankle_height_mm - body.ankle_height_mm
    near = np.clip(1.0 - raised / FREE_FOOT_MM, 0.0, 1.0)
    weight = upright * near**2 * (3.0 - 2.0 * near)
    turn = transposed(free) @ standing
    blended = free @ _fraction(turn, weight)
    local = _clear_of_floor(transposed(shank) @ blended, shank, sole, room)
    return _smoothed(local, FOOT_SMOOTHING_S * frames_per_s)


def sole_mm(body: Body, side: str) -> Float[np.ndarray, "points 3"]:
    """Points of a foot's skin that may touch the floor, from the ankle, in the foot's axes."""
    skeleton = body.pose_frames({}, np.zeros((1, 3)))
    skin = body.skin(skeleton)[0] - body.point_mm(skeleton, f"{side}_foot")[0]
    foot = skin[body.model.weights[:, body.index[f"{side}_foot"]] > 0.5]
    return foot[ConvexHull(foot).vertices]


def _pitch_limits(
    sole: Float[np.ndarray, "points 3"], room_mm: Float[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
    """Least and most pitch, toes down positive, of a foot with so much room below its ankle."""
    limits = []
    for sign in (-1.0, 1.0):
        angles = np.radians(np.arange(0.0, 85.0, 2.5))
        depth = -(rotation_x(sign * angles) @ sole.T)[:, 2].min(axis=-1)
        limits.append(sign * np.interp(room_mm, np.maximum.accumulate(depth), angles))
    return limits[0], limits[1]


def _clear_of_floor(
    local: Matrix,
    shank: Matrix,
    sole: Float[np.ndarray, "points 3"],
    room_mm: Float[np.ndarray, " frames"],
) -> Matrix:
    """Turn feet about their x, by the least angle, until they have no point below their room.

    Toes go up under a shank that stands, and back under one that lies, as in kneeling.
    """

    def depth_mm(turned: Matrix, frames: Int[np.ndarray, " some"]) -> np.ndarray:
        low = (shank[frames, 2:3] @ turned @ sole.T)[:, 0].min(axis=-1)
        return -low - room_mm[frames]

    cleared = local.copy()
    frames = np.flatnonzero(depth_mm(local, np.arange(len(local))) > SOLE_SINKS_MM)
    best = depth_mm(local[frames], frames)
    sign = np.where(shank[frames, 2, 2] > KNEELING, -1.0, 1.0)
    for angle in np.radians(np.arange(2.5, 90.0, 2.5)):
        turned = local[frames] @ rotation_x(sign * angle)
        depth = depth_mm(turned, frames)
        is_better = (best > SOLE_SINKS_MM) & (depth < best)
        cleared[frames[is_better]] = turned[is_better]
        best = np.where(is_better, depth, best)
    return cleared


def _fraction(turn: Matrix, weight: Float[np.ndarray, " frames"]) -> Matrix:
    """A part of each rotation, from none (0) to all of it (1)."""
    vectors = Rotation.from_matrix(turn).as_rotvec()
    return Rotation.from_rotvec(weight[:, None] * vectors).as_matrix()


def _smoothed(turn: Matrix, sigma_frames: float) -> Matrix:
    """Mean rotations over a short time (the nearest rotation to the mean matrix)."""
    u, _, v = np.linalg.svd(gaussian_filter1d(turn, sigma_frames, axis=0, mode="nearest"))
    v[..., 2, :] *= np.linalg.det(u @ v)[:, None]
    return u @ v


def lift_mm(
    body: Body, skeleton: PosedSkeletons, frames_per_s: float
) -> Float[np.ndarray, " frames"]:
    """By how much to raise a person of whom something other than feet is below the floor."""
    depth = np.zeros(len(skeleton.heads_mm))
    for name, flesh in FLESH_MM.items():
        depth = np.maximum(depth, flesh - body.point_mm(skeleton, name)[:, 2])
    if not depth.any():
        return depth
    width = 2 * round(0.2 * frames_per_s) + 1
    return gaussian_filter1d(maximum_filter1d(depth, width), 0.08 * frames_per_s, mode="nearest")
