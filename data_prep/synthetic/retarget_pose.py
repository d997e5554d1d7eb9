"""A clip's poses in the proportions of a body: every bone in the clip's direction, of the body's
length."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from data_prep.synthetic.body import Body, PosedSkeletons
from data_prep.synthetic.mocap_clips import Clip, Joints
from data_prep.synthetic.rotations import unit
from pose3d.geometry.skeleton import HUMAN36M_17

NECK_IS_BETWEEN_SHOULDERS_MM = 10.0
"""A clip whose neck is nearer than that to the middle of the shoulders has it there."""
_TRUNK = ("Torso", "Neck", "Nose", "Head")
_NAME = HUMAN36M_17.index
_PARENTS = list(HUMAN36M_17.parents)


@dataclass(frozen=True, kw_only=True, eq=False)
class Proportions:
    """A body as a tree of Human3.6M's joints."""

    lengths_mm: Float[np.ndarray, "17"]
    """From each joint's parent to the joint; 0 for the pelvis."""
    neutral_mm: Float[np.ndarray, "17 3"]
    """The joints of the neutral stance, from the pelvis."""
    neck_is_between_shoulders: bool
    """Whether the neck is the middle of the shoulders, as in most rigs, or the body's own."""

    def joints_mm(self, body: Body, skeleton: PosedSkeletons) -> Joints:
        """Joints of a posed body, with the neck where these proportions have it."""
        joints = body.joints_mm(skeleton)
        return _with_middle_neck(joints) if self.neck_is_between_shoulders else joints


def proportions_for(clip: Clip, body: Body) -> Proportions:
    """The body as a tree of joints, with the neck defined as the clip has it."""
    middle = _with_middle_neck(clip.joints_mm)
    gap = np.linalg.norm((middle - clip.joints_mm)[:, _NAME("Neck")], axis=-1)
    is_middle = bool(np.median(gap) < NECK_IS_BETWEEN_SHOULDERS_MM)
    neutral = body.joints_mm(body.pose_frames({}, np.zeros((1, 3))))
    neutral = (_with_middle_neck(neutral) if is_middle else neutral)[0]
    lengths = np.linalg.norm(neutral - neutral[_PARENTS], axis=-1)
    lengths[HUMAN36M_17.root] = 0.0
    return Proportions(lengths_mm=lengths, neutral_mm=neutral, neck_is_between_shoulders=is_middle)


def resampled(clip: Clip, frames_per_s: float) -> Joints:
    """The clip's joints at another rate, by cubic splines; smoothed first where it is lower."""
    joints = clip.joints_mm
    if clip.num_frames < 2 or clip.frames_per_s == frames_per_s:
        return joints
    if clip.frames_per_s > frames_per_s:
        joints = gaussian_filter1d(joints, 0.4 * clip.frames_per_s / frames_per_s, axis=0)
    seconds = np.arange(clip.num_frames) / clip.frames_per_s
    count = int(np.floor(clip.duration_s * frames_per_s + 1e-6)) + 1
    wanted = np.minimum(np.arange(count) / frames_per_s, seconds[-1])
    return CubicSpline(seconds, joints, axis=0)(wanted)


def rescaled(
    joints_mm: Joints, proportions: Proportions, upright_mm: Float[np.ndarray, "17 3"] | None
) -> Joints:
    """The poses with the body's bone lengths, pelvis at the origin.

    Every bone keeps its direction, but for those of trunk and head where a rig's upright stance is
    known: rigs set spine, neck and head at different depths in the body, which would tilt the
    synthetic body's chest and head all the time. Their bones are turned in the sagittal plane by
    the constant angle between the two upright stances.

    Args:
        joints_mm: The poses, in room axes.
        proportions: The body's.
        upright_mm: Upright stance of the clip's rig.
    """
    turns = _trunk_turns(proportions, upright_mm)
    pose = np.zeros_like(joints_mm)
    hips = unit(joints_mm[:, _NAME("L_Hip")] - joints_mm[:, _NAME("R_Hip")])
    shoulders = unit(joints_mm[:, _NAME("L_Shoulder")] - joints_mm[:, _NAME("R_Shoulder")])
    for joint, parent in enumerate(_PARENTS):
        if parent < 0:
            continue
        direction = unit(joints_mm[:, joint] - joints_mm[:, parent])
        if joint in turns:
            axis = hips if joint == _NAME("Torso") else shoulders
            direction = Rotation.from_rotvec(turns[joint] * axis).apply(direction)
        pose[:, joint] = pose[:, parent] + proportions.lengths_mm[joint] * direction
    return pose


def _trunk_turns(
    proportions: Proportions, upright_mm: Float[np.ndarray, "17 3"] | None
) -> dict[int, float]:
    """By how much to turn each bone of trunk and head forward, radians."""
    if upright_mm is None:
        return {}
    turns = {}
    body, rig = (_pitches(stance) for stance in (proportions.neutral_mm, upright_mm))
    for name in _TRUNK:
        turns[_NAME(name)] = body[name] - rig[name]
    return turns


def _pitches(stance_mm: Float[np.ndarray, "17 3"]) -> dict[str, float]:
    """How far each bone of trunk and head leans forward of the line from pelvis to neck."""

    def pitch(vector: np.ndarray) -> float:
        return float(np.arctan2(-vector[1], vector[2]))

    line = pitch(stance_mm[_NAME("Neck")] - stance_mm[_NAME("Pelvis")])
    return {
        name: pitch(stance_mm[_NAME(name)] - stance_mm[_PARENTS[_NAME(name)]]) - line
        for name in _TRUNK
    }


def _with_middle_neck(joints_mm: Joints) -> Joints:
    joints = joints_mm.copy()
    both = joints[:, [_NAME("L_Shoulder"), _NAME("R_Shoulder")]]
    joints[:, _NAME("Neck")] = both.mean(axis=1)
    return joints
