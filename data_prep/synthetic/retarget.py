"""Motion capture on a synthetic body: inverse kinematics in closed form, for all frames at once.

A clip is resampled, turned and centred in the capture area and brought to the body's bone lengths;
trunk and arms keep their bones' directions, ankles go where the clip's, scaled, are and stand still
while they are planted, elbows and knees turn about one axis, and feet keep to the floor.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_prep.human36m import FRAMES_PER_S
from data_prep.synthetic.body import Body
from data_prep.synthetic.limits import limit_excess
from data_prep.synthetic.mocap_clips import Clip
from data_prep.synthetic.motion import Motion
from data_prep.synthetic.retarget_area import best_turn_rad, middle_mm
from data_prep.synthetic.retarget_bones import arm_rotations, leg_rotations, trunk_rotations
from data_prep.synthetic.retarget_ground import foot_rotation, lift_mm, place
from data_prep.synthetic.retarget_pose import proportions_for, resampled, rescaled
from data_prep.synthetic.retarget_seat import seat_under
from data_prep.synthetic.rotations import rotation_z


@dataclass(frozen=True, kw_only=True, eq=False)
class Retargeted:
    """A clip on a body, and how far its joints are from the clip's."""

    motion: Motion
    error_mm: Float[np.ndarray, "frames 17"]
    """Distance of each joint, from the pelvis, to the clip's pose with the body's bone lengths
    (`retarget_pose.rescaled`): what the inverse kinematics leave."""
    raw_error_mm: Float[np.ndarray, "frames 17"]
    """Distance of each joint, from the pelvis, to the clip's own: other bone lengths included."""
    limit_excess_rad: Float[np.ndarray, " frames"]
    """By how much the clip's poses exceed the joint limits of `limits`, in sum."""


def retarget(clip: Clip, body: Body, *, frames_per_s: float = FRAMES_PER_S) -> Retargeted:
    """Move a body as a clip moves.

    Args:
        clip: What to do; cut by `cut_to_area` if it is to stay in the capture area.
        body: Who does it.
        frames_per_s: Rate of the motion.
    """
    joints = resampled(clip, frames_per_s)
    scale = body.leg_mm / clip.leg_mm
    joints = joints @ rotation_z(best_turn_rad(scale * joints[:, 0, :2])).T
    joints = joints - [*middle_mm(joints[:, 0, :2]), 0.0]
    proportions = proportions_for(clip, body)
    pose = rescaled(joints, proportions, clip.upright_mm)
    placed = place(joints, pose, body, leg_mm=clip.leg_mm, frames_per_s=frames_per_s)
    root = placed.root_mm
    local = trunk_rotations(body, pose, proportions)
    local |= arm_rotations(pose, local, frames_per_s)
    ankles = {side: ankle - root for side, ankle in placed.ankles_mm.items()}
    local |= leg_rotations(body, pose, local["pelvis"], ankles, frames_per_s)
    skeleton = body.pose_frames(local, root)
    for side in ("l", "r"):
        shank = skeleton.rotations[:, body.index[f"{side}_shank"]]
        height = skeleton.heads_mm[:, body.index[f"{side}_foot"], 2]
        local[f"{side}_foot"] = foot_rotation(body, side, shank, height, frames_per_s)
    lift = lift_mm(body, body.pose_frames(local, root), frames_per_s)
    root = root + lift[:, None] * [0.0, 0.0, 1.0]
    skeleton = body.pose_frames(local, root)
    reached = proportions.joints_mm(body, skeleton) - root[:, None]
    return Retargeted(
        motion=Motion(
            local=local,
            root_mm=root,
            frames_per_s=frames_per_s,
            seat=seat_under(body, skeleton, frames_per_s),
            source=f"motion capture, {clip.name}: {clip.action}",
        ),
        error_mm=np.linalg.norm(reached - pose, axis=-1),
        raw_error_mm=np.linalg.norm(reached - (joints - joints[:, :1]), axis=-1),
        limit_excess_rad=np.broadcast_to(limit_excess(local), len(root)),
    )
