"""From a score to pelvis, trunk and legs in every frame: feet first, then what they carry."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from data_prep.human36m import FRAMES_PER_S
from data_prep.synthetic.body import STANDARD_LEG_MM, Body
from data_prep.synthetic.draft import outward_sign
from data_prep.synthetic.limits import KNEE_LIMIT_RAD, hip_angles
from data_prep.synthetic.motion_curves import lower_envelope, smooth, smooth_noise
from data_prep.synthetic.motion_score import TRUNK, Score
from data_prep.synthetic.rotations import (
    apply,
    dot,
    reach,
    rotation_x,
    rotation_y,
    rotation_z,
    transposed,
    unit,
)

SUPPORT_REACH = 0.998
"""How straight a leg may become, as a part of its full length."""
ANKLE_LIMIT_RAD = math.radians(70.0)
HIP_COMFORT_RAD = math.radians(122.0)
"""How far hips bend before the pelvis tilts back."""
NUM_ROUNDS = 4
STRIDE_MM = 620.0
"""One ankle ahead of the other by this much, on legs of 850 mm, swings arms and trunk in full."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """Pelvis, trunk and legs of a motion; the arms still hang."""

    local: dict[str, Float[np.ndarray, "frames 3 3"]]
    root_mm: Float[np.ndarray, "frames 3"]
    heading_rad: Float[np.ndarray, " frames"]
    stride: Float[np.ndarray, " frames"]
    """How far the left foot is ahead: 1 in a full step."""


def solve_carried(
    score: Score, times_s: Float[np.ndarray, " frames"], *, rng: np.random.Generator
) -> Carried:
    """Solve everything but the arms."""
    body = score.body
    root = score.root_at(times_s)
    heading = rotation_z(root[:, 2])
    channels = {name: channel.at(times_s) for name, channel in score.channels.items()}
    feet = {side: track.at(times_s) for side, track in score.feet.items()}
    ahead = apply(transposed(heading), feet["r"][0] - feet["l"][0])[:, 1]
    scale = STRIDE_MM * score.leg_mm / STANDARD_LEG_MM
    stride = np.clip(ahead / scale, -1.2, 1.2) * channels["load"]
    walking = smooth(np.hypot(*np.gradient(root[:, :2], axis=0).T) * FRAMES_PER_S, 0.15) / 800.0
    swing = stride * np.clip(walking, 0.0, 1.0)
    turns = _trunk_turns(channels, swing, times_s, rng)
    across = _across(score, times_s, feet, root, channels)
    noise = smooth_noise(rng, times_s, period_s=2.6, size=2) * [7.0, 5.0]
    offset = (
        channels["offset"]
        + (noise + np.stack([across, 0.0 * across], 1)) * (channels["load"][:, None])
    )
    position = np.concatenate([root[:, :2], channels["height"][:, None]], axis=1)
    position[:, :2] += apply(heading, np.pad(offset, ((0, 0), (0, 1))))[:, :2]
    height = smooth(position[:, 2], 0.04)
    for _ in range(NUM_ROUNDS):
        local = _turned(turns)
        local["pelvis"] = heading @ local["pelvis"]
        position[:, 2] = np.minimum(height, _highest(body, local["pelvis"], position, feet))
        for side in ("l", "r"):
            knee_out = channels[f"{side}_knee"]
            _leg(body, local, side, position, *feet[side], knee_out, channels["load"])
        if not _untilt(turns, local):
            break
    return Carried(local=local, root_mm=position, heading_rad=root[:, 2], stride=swing)


def _untilt(turns: dict[str, Float[np.ndarray, "frames 3"]], local: dict[str, np.ndarray]) -> bool:
    """Tilt the pelvis back where hips would bend too far, and round the back instead."""
    flexions = [hip_angles(local[f"{s}_thigh"], outward=outward_sign(s))[0] for s in ("l", "r")]
    excess = np.maximum(0.0, np.maximum(*flexions) - HIP_COMFORT_RAD)
    if not excess.any():
        return False
    tilt = -lower_envelope(-excess, 0.08)
    turns["pelvis"][:, 0] -= tilt
    for name in ("spine", "chest"):
        turns[name][:, 0] = np.minimum(turns[name][:, 0] + 0.5 * tilt, math.radians(32.0))
    return True


def _trunk_turns(
    channels: dict[str, np.ndarray],
    swing: Float[np.ndarray, " frames"],
    times_s: Float[np.ndarray, " frames"],
    rng: np.random.Generator,
) -> dict[str, Float[np.ndarray, "frames 3"]]:
    """Flexion, twist and bend of pelvis (without heading) and trunk: moves, gait, breath, sway."""
    turns = {name: channels[name] + channels[f"{name}_turn"] for name in TRUNK}
    turns["pelvis"] = channels["pelvis"].copy()
    slow = smooth_noise(rng, times_s, period_s=2.2, size=15) * np.radians(0.9)
    for i, name in enumerate(turns):
        turns[name] += slow[:, 3 * i : 3 * i + 3] * (0.5 if name == "pelvis" else 1.0)
    shift = channels["shift"] * channels["load"]
    turns["pelvis"] += np.stack([0.0 * swing, -0.11 * swing, -0.07 * shift], axis=1)
    turns["spine"] += np.stack([0.0 * swing, 0.1 * swing, 0.05 * shift], axis=1)
    turns["chest"] += np.stack([0.0 * swing, 0.11 * swing, 0.03 * shift], axis=1)
    turns["neck"] += np.stack([0.0 * swing, -0.1 * swing, 0.0 * swing], axis=1)
    breath = np.sin(2.0 * math.pi * (0.27 * times_s + rng.random()))
    turns["chest"][:, 0] -= math.radians(0.6) * breath
    return turns


def _turned(
    turns: dict[str, Float[np.ndarray, "frames 3"]],
) -> dict[str, Float[np.ndarray, "frames 3 3"]]:
    """Rotations: a bend to the side, then flexion, then a twist about z."""
    return {
        name: rotation_z(t[:, 1]) @ rotation_x(t[:, 0]) @ rotation_y(t[:, 2])
        for name, t in turns.items()
    }


def _across(
    score: Score,
    times_s: Float[np.ndarray, " frames"],
    feet: dict[str, tuple[np.ndarray, np.ndarray]],
    root: Float[np.ndarray, "frames 3"],
    channels: dict[str, np.ndarray],
) -> Float[np.ndarray, " frames"]:
    """How far the pelvis goes to its left: over the foot that stands, and by a shift of weight."""
    planted = {
        s: smooth(1.0 - track.swings(times_s), 0.09) + 0.05 for s, track in score.feet.items()
    }
    total = planted["l"] + planted["r"]
    carried = (planted["l"][:, None] * feet["l"][0] + planted["r"][:, None] * feet["r"][0]) / total[
        :, None
    ]
    left = np.stack([np.cos(root[:, 2]), np.sin(root[:, 2])], axis=1)
    over = smooth(dot(carried[:, :2] - root[:, :2], left), 0.08)
    return 0.4 * over + 0.45 * score.style.half_width_mm * channels["shift"]


def _highest(
    body: Body,
    pelvis: Float[np.ndarray, "frames 3 3"],
    position_mm: Float[np.ndarray, "frames 3"],
    feet: dict[str, tuple[np.ndarray, np.ndarray]],
) -> Float[np.ndarray, " frames"]:
    """How high the pelvis may be for both feet to be reached, smooth in time."""
    reach_mm = SUPPORT_REACH * body.leg_mm
    limits = []
    for side, (ankle, _) in feet.items():
        hip = pelvis @ body.offsets_mm[body.index[f"{side}_thigh"]]
        way = ankle[:, :2] - position_mm[:, :2] - hip[:, :2]
        drop = np.sqrt(np.maximum(reach_mm**2 - dot(way, way), (0.1 * reach_mm) ** 2))
        limits.append(ankle[:, 2] + drop - hip[:, 2])
    return lower_envelope(np.minimum(*limits), 0.03)


def _leg(
    body: Body,
    local: dict[str, np.ndarray],
    side: str,
    position_mm: Float[np.ndarray, "frames 3"],
    ankle_mm: Float[np.ndarray, "frames 3"],
    foot: Float[np.ndarray, "frames 3 3"],
    knee_out_rad: Float[np.ndarray, " frames"],
    load: Float[np.ndarray, " frames"],
) -> None:
    """Bring an ankle to its place; the knee points over a foot that carries, or outward."""
    pelvis, outward = local["pelvis"], outward_sign(side)
    hip = position_mm + pelvis @ body.offsets_mm[body.index[f"{side}_thigh"]]
    hinge = unit(pelvis[:, :, 0] * [1.0, 1.0, 0.0])
    hinge = unit(hinge + load[:, None] * foot[:, :, 0] * [1.0, 1.0, 0.0])
    way = unit(ankle_mm - hip)
    forward = unit(np.cross(way, hinge))
    aside = np.cross(forward, way)
    cosine, sine = np.cos(knee_out_rad)[:, None], np.sin(knee_out_rad)[:, None]
    thigh, bend = reach(
        ankle_mm - hip,
        body.length_mm(f"{side}_shank"),
        body.length_mm(f"{side}_foot"),
        pole=cosine * forward + outward * sine * aside,
        bend_sign=1.0,
        limit_rad=KNEE_LIMIT_RAD,
    )
    local[f"{side}_thigh"] = transposed(pelvis) @ thigh
    local[f"{side}_shank"] = rotation_x(bend)
    shank = thigh @ local[f"{side}_shank"]
    local[f"{side}_foot"] = limited_rotation(transposed(shank) @ foot, ANKLE_LIMIT_RAD)


def limited_rotation(
    rotation: Float[np.ndarray, "frames 3 3"], limit_rad: float
) -> Float[np.ndarray, "frames 3 3"]:
    """The rotation, turned by no more than a limit about its axis."""
    vector = Rotation.from_matrix(rotation).as_rotvec()
    angle = np.sqrt(dot(vector, vector))
    scale = np.minimum(1.0, limit_rad / np.maximum(angle, 1e-9))
    return Rotation.from_rotvec(vector * scale[:, None]).as_matrix()
