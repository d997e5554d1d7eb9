"""Rotations of a body's bones from the joints it shall have, bone by bone in closed form."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from data_prep.synthetic.body import Body
from data_prep.synthetic.limits import ELBOW_LIMIT_RAD, KNEE_LIMIT_RAD
from data_prep.synthetic.mocap_clips import Joints
from data_prep.synthetic.retarget_pose import Proportions
from data_prep.synthetic.rotations import (
    Matrix,
    Vector,
    apply,
    frame_of,
    limited_turn,
    reach,
    rotation_x,
    shortest_rotation,
    transposed,
    twist_angle,
    unit,
)
from pose3d.geometry.skeleton import HUMAN36M_17

CLAVICLE_LIMIT_RAD = np.radians(30.0)
NECK_LIMIT_RAD = np.radians(58.0)
STRAIGHT = 0.25
"""Sine of the bend below which the plane of a limb is no longer read off the limb alone."""
_X, _DOWN = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])
_FRONT = np.array([0.0, -1.0, 0.0])
_NAME = HUMAN36M_17.index

Local = dict[str, Matrix]


def trunk_rotations(body: Body, pose_mm: Joints, proportions: Proportions) -> Local:
    """Pelvis, spine, chest, clavicles, neck and head.

    The pelvis turns with the hips and the lower trunk, the spine takes the rest of the lower
    trunk's lean and half of the twist between hips and shoulders, the chest follows neck and
    shoulders, clavicles lift the shoulders where the chest alone does not bring them.

    Args:
        body: Whose bones turn.
        pose_mm: Joints with the body's bone lengths, from the pelvis.
        proportions: How the pose defines its neck.
    """

    def at(name: str) -> np.ndarray:
        return pose_mm[:, _NAME(name)]

    neutral = proportions.neutral_mm
    lower = neutral[_NAME("Torso")]
    hips = at("L_Hip") - at("R_Hip")
    pelvis = frame_of(hips, at("Torso")) @ frame_of(_X, lower).T
    spine = shortest_rotation(lower, apply(transposed(pelvis), at("Torso")))
    upper = neutral[_NAME("Neck")] - lower
    shoulders = at("L_Shoulder") - at("R_Shoulder")
    chest = frame_of(at("Neck") - at("Torso"), shoulders) @ frame_of(upper, _X).T
    half_twist = 0.5 * twist_angle(transposed(pelvis @ spine) @ chest)
    spine = spine @ Rotation.from_rotvec(half_twist[:, None] * unit(lower)).as_matrix()
    local = {"pelvis": pelvis, "spine": spine, "chest": transposed(pelvis @ spine) @ chest}
    bones, index = body.offsets_mm, body.index
    for side in ("l", "r"):
        root = at("Torso") + chest @ bones[index[f"{side}_clavicle"]]
        wanted = apply(transposed(chest), at(f"{side.upper()}_Shoulder") - root)
        local[f"{side}_clavicle"] = limited_turn(
            bones[index[f"{side}_upperarm"]], wanted, limit_rad=CLAVICLE_LIMIT_RAD
        )
    wanted = at("Nose") - at("Torso") - chest @ bones[index["neck"]]
    local["neck"] = limited_turn(
        bones[index["head"]], apply(transposed(chest), wanted), limit_rad=NECK_LIMIT_RAD
    )
    wanted = apply(transposed(chest @ local["neck"]), at("Head") - at("Nose"))
    local["head"] = limited_turn(body.landmarks_mm["head_top"], wanted, limit_rad=NECK_LIMIT_RAD)
    return local


def arm_rotations(pose_mm: Joints, local: Local, frames_per_s: float) -> Local:
    """Upper arms and forearms, which keep their directions; the elbow turns about x alone."""
    chest = local["pelvis"] @ local["spine"] @ local["chest"]
    turns = {}
    for side in ("l", "r"):
        shoulder, elbow, wrist = (
            pose_mm[:, _NAME(f"{side.upper()}_{name}")] for name in ("Shoulder", "Elbow", "Wrist")
        )
        girdle = chest @ local[f"{side}_clavicle"]
        upper, bend = hinged_limb(
            elbow - shoulder,
            wrist - elbow,
            parent=girdle,
            bend_sign=-1.0,
            limit_rad=ELBOW_LIMIT_RAD,
            frames_per_s=frames_per_s,
        )
        turns[f"{side}_upperarm"] = transposed(girdle) @ upper
        turns[f"{side}_forearm"] = rotation_x(-bend)
    return turns


def leg_rotations(
    body: Body,
    pose_mm: Joints,
    pelvis: Matrix,
    ankles_mm: dict[str, Float[np.ndarray, "frames 3"]],
    frames_per_s: float,
) -> Local:
    """Thighs and shanks that bring the ankles to their places, knees to where the pose has them.

    Args:
        body: Whose legs turn.
        pose_mm: Joints with the body's bone lengths, from the pelvis.
        pelvis: Orientation of the pelvis.
        ankles_mm: Wanted place of each ankle ("l", "r") from the pelvis.
        frames_per_s: The poses' rate.
    """
    turns = {}
    for side in ("l", "r"):
        hip, knee, ankle = (
            pose_mm[:, _NAME(f"{side.upper()}_{name}")] for name in ("Hip", "Knee", "Ankle")
        )
        thigh, _ = hinged_limb(
            knee - hip,
            ankle - knee,
            parent=pelvis,
            bend_sign=1.0,
            limit_rad=KNEE_LIMIT_RAD,
            frames_per_s=frames_per_s,
        )
        thigh, bend = reach(
            ankles_mm[side] - hip,
            body.length_mm(f"{side}_shank"),
            body.length_mm(f"{side}_foot"),
            pole=thigh @ _FRONT,
            bend_sign=1.0,
            limit_rad=KNEE_LIMIT_RAD,
        )
        turns[f"{side}_thigh"] = transposed(pelvis) @ thigh
        turns[f"{side}_shank"] = rotation_x(bend)
    return turns


def hinged_limb(
    first: Vector,
    second: Vector,
    *,
    parent: Matrix,
    bend_sign: float,
    limit_rad: float,
    frames_per_s: float,
) -> tuple[Matrix, Float[np.ndarray, " frames"]]:
    """Orientation of a limb's first bone and the bend of its hinge, from its bones' directions.

    A limb that is nearly straight, or bent the wrong way by an inaccurate recording, does not
    show where its hinge is: there the frames before and after and the hinge that an untwisted
    limb would have take over.

    Args:
        first: Direction of the first bone, over time.
        second: Direction of the second bone.
        parent: Orientation of the bone that the limb hangs from.
        bend_sign: -1 where the second bone bends forward (elbow), +1 backward (knee).
        limit_rad: Largest bend.
        frames_per_s: Rate of the frames.
    """
    upper, lower = unit(first), unit(second)
    hinge = bend_sign * np.cross(upper, lower)
    untwisted = parent @ shortest_rotation(_DOWN, apply(transposed(parent), upper))
    expected = untwisted[..., 0]
    sine = np.linalg.norm(hinge, axis=-1)[:, None]
    near = gaussian_filter1d(hinge, 0.1 * frames_per_s, axis=0, mode="nearest")
    missing = np.clip(1.0 - sine / STRAIGHT, 0.0, 1.0)
    axis = hinge + missing * (0.5 * near + 0.4 * STRAIGHT * expected)
    orientation = frame_of(upper, axis) @ frame_of(_DOWN, _X).T
    in_limb = apply(transposed(orientation), lower)
    bend = np.arctan2(bend_sign * in_limb[:, 1], -in_limb[:, 2])
    return orientation, np.clip(bend, 0.0, limit_rad)
