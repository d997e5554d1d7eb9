"""An arm's pose as an array that moves can add up in; what is wrong with it; drawing one."""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from data_prep.synthetic.arms import draw_arms
from data_prep.synthetic.body import Body
from data_prep.synthetic.draft import Draft
from data_prep.synthetic.limits import limit_excess, overlaps
from data_prep.synthetic.motion_curves import ease
from data_prep.synthetic.motion_solve import Carried
from data_prep.synthetic.rotations import rotation_x, rotation_z, shortest_rotation, transposed

ArmPose = Float[np.ndarray, "14"]
"""Quaternions of clavicle, upper arm and hand, the elbow's bend, and how much the arm hangs."""

HANGING = ("hang", "two_swing")
"""What hangs by gravity rather than along a bent trunk."""
ARM_BONES = ("clavicle", "upperarm", "hand")
WAY_PHASES = np.linspace(0.08, 0.92, 8)
"""Where on its way an arm is judged."""
TOLERATED_MM = 6.0
FAULT_PER_RAD = 100.0
_NUM_ATTEMPTS = 5
_DOWN = np.array([0.0, 0.0, -1.0])


def pack(local: dict[str, np.ndarray], side: str, name: str) -> ArmPose:
    """One arm of a drawn pose."""
    turns = [local.get(f"{side}_{bone}", np.eye(3)) for bone in ARM_BONES]
    if name in HANGING:  # kept as it would be on an upright trunk
        trunk = local["pelvis"] @ local["spine"] @ local["chest"]
        turns[1] = shortest_rotation(_DOWN, trunk.T @ _DOWN).T @ turns[1]
    quaternions = Rotation.from_matrix(np.stack(turns)).as_quat().ravel()
    fore = local[f"{side}_forearm"]
    bend = math.atan2(-fore[2, 1], fore[1, 1])
    return np.concatenate([quaternions, [bend, float(name in HANGING)]])


def unpack(
    side: str,
    pose: Float[np.ndarray, "frames 14"],
    level: Float[np.ndarray, "frames 3"],
    more_rad: Float[np.ndarray, "frames 3"] | float = 0.0,
) -> dict[str, Float[np.ndarray, "frames 3 3"]]:
    """Local rotations of an arm.

    Args:
        side: "l" or "r".
        pose: The arm's pose in each frame.
        level: From `level_of`.
        more_rad: What swings and twists the upper arm and bends the elbow besides.
    """
    clavicle, upperarm, hand = (
        Rotation.from_quat(pose[:, 4 * i : 4 * i + 4]).as_matrix() for i in range(3)
    )
    more = np.broadcast_to(more_rad, (len(pose), 3))
    hung = Rotation.from_rotvec(level * pose[:, 13:14]).as_matrix()
    return {
        f"{side}_clavicle": clavicle,
        f"{side}_upperarm": hung @ rotation_x(more[:, 0]) @ rotation_z(more[:, 1]) @ upperarm,
        f"{side}_forearm": rotation_x(-np.clip(pose[:, 12] + more[:, 2], 0.02, 2.55)),
        f"{side}_hand": hand,
    }


def level_of(
    body: Body, local: dict[str, np.ndarray], root_mm: Float[np.ndarray, "frames 3"]
) -> Float[np.ndarray, "frames 3"]:
    """Rotation vector that turns the chest's down to where gravity pulls."""
    chest = body.pose_frames(local, root_mm).rotations[:, body.index["chest"]]
    return Rotation.from_matrix(shortest_rotation(_DOWN, transposed(chest) @ _DOWN)).as_rotvec()


def nearest_sign(pose: ArmPose, before: ArmPose) -> ArmPose:
    """The same pose with the quaternions' signs nearest to those before."""
    out = pose.copy()
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        if out[part] @ before[part] < 0:
            out[part] *= -1.0
    return out


def turn_between(pose: ArmPose, before: ArmPose) -> float:
    """How far the upper arm or the elbow has to turn, radians."""
    cosine = min(1.0, abs(float(pose[4:8] @ before[4:8])))
    return max(2.0 * math.acos(cosine), abs(float(pose[12] - before[12])))


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmJudge:
    """Draws arms for a solved trunk and legs, and says what is wrong with them."""

    body: Body
    carried: Carried
    rng: np.random.Generator
    level: Float[np.ndarray, "frames 3"] = field(init=False)

    def __post_init__(self) -> None:
        level = level_of(self.body, self.carried.local, self.carried.root_mm)
        object.__setattr__(self, "level", level)

    def fault(self, frames: list[int], poses: dict[str, np.ndarray]) -> float:
        """How much arms break their limits or enter body or floor in some frames, at worst.

        Args:
            frames: Numbers of the frames.
            poses: Per side a pose for each of the frames, or one for all.
        """
        root_mm = self.carried.root_mm[frames]
        local = {name: turns[frames] for name, turns in self.carried.local.items()}
        arms: dict[str, np.ndarray] = {}
        for side, pose in poses.items():
            pose = np.broadcast_to(pose, (len(frames), 14))
            arms |= unpack(side, pose, self.level[frames])
        skeleton = self.body.pose_frames(local | arms, root_mm)
        found = overlaps(self.body, skeleton)
        own = [_is_of_arms(pair, tuple(poses)) for pair in found.pairs]
        fault = np.maximum(0.0, found.depth_mm[:, own].max(axis=1) - TOLERATED_MM)
        fault = fault + FAULT_PER_RAD * limit_excess(arms)
        for side in poses:
            fault = fault + np.maximum(0.0, -self.body.hand_height_mm(skeleton, side))
        return float(fault.max())

    def way_fault(self, side: str, frames: list[int], before: ArmPose, after: ArmPose) -> float:
        """The fault of an arm on the straight way between two poses, at `WAY_PHASES`."""
        way = nearest_sign(after, before) - before
        return self.fault(frames, {side: before + ease(WAY_PHASES)[:, None] * way})

    def draw(self, frames: list[int], names: dict[str, str]) -> tuple[dict[str, ArmPose], float]:
        """Draw arms that stay for some frames, with the least fault of a few; and that fault.

        Args:
            frames: Numbers of the frames; the pose is drawn for the middle one.
            names: Per side what the hand reaches for, or how it hangs.
        """
        frame = frames[len(frames) // 2]
        own = {name: turns[frame] for name, turns in self.carried.local.items()}
        own["pelvis"] = rotation_z(-self.carried.heading_rad[frame]) @ own["pelvis"]
        plain = {s: "hang" if n in HANGING else n for s, n in names.items()}
        best: dict[str, np.ndarray] = {}
        least = math.inf
        for _ in range(_NUM_ATTEMPTS):
            draft = Draft(body=self.body, rng=self.rng, local=dict(own))
            draw_arms(draft, (plain.get("l", "hang"), plain.get("r", "hang")))
            poses = {side: pack(draft.local, side, name) for side, name in names.items()}
            fault = self.fault(frames, poses)
            if fault < least:
                best, least = poses, fault
            if least <= 2.0:
                break
        return best, least


def _is_of_arms(pair: tuple[str, str], sides: tuple[str, ...]) -> bool:
    """Whether a pair of limbs has an arm of these sides, and no arm of another."""
    arms = {limb[0] for limb in pair if limb.endswith(("arm", "hand"))}
    return bool(arms) and arms <= set(sides)
