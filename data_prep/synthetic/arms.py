"""Arms of a drawn pose: hands come to the ear, the hips, the knees, or hang and swing."""

import math
from collections.abc import Callable

import numpy as np

from data_prep.synthetic.body import PosedSkeleton
from data_prep.synthetic.draft import Draft, Mixture, outward_sign
from data_prep.synthetic.limits import ELBOW_LIMIT_RAD
from data_prep.synthetic.rotations import (
    Vector,
    reach,
    rotation_x,
    rotation_y,
    rotation_z,
    shortest_rotation,
    unit,
)

FREE_ARM: Mixture = {"hang": 0.55, "gesture": 0.2, "hip": 0.1, "front": 0.15}
"""What the other arm does while one is busy."""


def draw_arms(draft: Draft, mixture: Mixture) -> tuple[str, str]:
    """Set both arms by names drawn from a mixture; say which (left, right)."""
    name = draft.choose(mixture)
    if name.startswith("two_"):
        names = {"l": name, "r": name}
    elif name.startswith("one:"):
        busy, free = ("l", "r") if draft.rng.random() < 0.5 else ("r", "l")
        names = {busy: name.removeprefix("one:"), free: draft.choose(FREE_ARM)}
    else:
        names = {"l": name, "r": name if draft.rng.random() < 0.6 else draft.choose(mixture)}
        if names["r"].startswith(("two_", "one:")):
            names["r"] = name
    over = "l" if draft.rng.random() < 0.5 else "r"
    for side in ("l", "r"):
        if names[side] in ("hang", "two_swing"):
            _swing(draft, side, walking=names[side] == "two_swing")
        else:
            _reach_for(draft, side, TARGETS[names[side]], is_over=side == over)
    return names["l"], names["r"]


def _swing(draft: Draft, side: str, *, walking: bool) -> None:
    """Let an arm hang; while walking it swings against the leg of its side."""
    outward = outward_sign(side)
    forward = draft.degrees(4.0, 8.0)
    bend = abs(draft.degrees(14.0, 10.0))
    if walking:
        stride = -math.cos(draft.phase_rad) * outward
        forward = math.radians(22.0) * stride * draft.uniform(0.6, 1.3) + draft.degrees(2.0, 3.0)
        bend = math.radians(18.0) + max(0.0, forward) * draft.uniform(0.3, 1.2)
    aside = outward * draft.degrees(11.0, 4.0)
    trunk = draft.skeleton().rotations[draft.body.index["chest"]]
    # Arms hang along gravity more than along a bent trunk.
    level = shortest_rotation(np.array([0.0, 0.0, -1.0]), trunk.T @ np.array([0.0, 0.0, -1.0]))
    twist = -outward * draft.degrees(20.0, 15.0)
    swing = rotation_y(-aside) @ rotation_x(-forward) @ rotation_z(twist)
    draft.local[f"{side}_upperarm"] = level @ swing
    draft.local[f"{side}_forearm"] = rotation_x(-bend)
    draft.local[f"{side}_hand"] = _wrist(draft)


def _wrist(draft: Draft) -> np.ndarray:
    """A small turn of the hand."""
    twist = rotation_z(draft.degrees(0.0, 18.0))
    return twist @ rotation_x(draft.degrees(0.0, 12.0)) @ rotation_y(draft.degrees(0.0, 8.0))


Target = Callable[[Draft, PosedSkeleton, str, bool], tuple[Vector, Vector]]
"""Wanted wrist and the elbow's direction, both in the axes of the body, from the pelvis."""


def _reach_for(draft: Draft, side: str, target: Target, *, is_over: bool) -> None:
    """Lift the shoulder girdle as the arm needs, then bring the wrist to its target."""
    body = draft.body
    skeleton = draft.skeleton()
    wrist, pole = target(draft, skeleton, side, is_over)
    chest = skeleton.rotations[body.index["chest"]]
    shoulder = body.point_mm(skeleton, f"{side}_upperarm")
    direction = chest.T @ unit(wrist - shoulder)
    outward = outward_sign(side)
    lift = math.radians(2.0 + 16.0 * max(0.0, float(direction[2]) + 0.3))
    forward = math.radians(9.0 * max(0.0, -float(direction[1])))
    draft.local[f"{side}_clavicle"] = rotation_z(-outward * forward) @ rotation_y(-outward * lift)
    skeleton = draft.skeleton()
    girdle = skeleton.rotations[body.index[f"{side}_clavicle"]]
    upper, bend = reach(
        wrist - body.point_mm(skeleton, f"{side}_upperarm"),
        body.length_mm(f"{side}_forearm"),
        body.length_mm(f"{side}_hand"),
        pole=pole,
        bend_sign=-1.0,
        limit_rad=ELBOW_LIMIT_RAD,
    )
    draft.local[f"{side}_upperarm"] = girdle.T @ upper
    draft.local[f"{side}_forearm"] = rotation_x(-bend)
    draft.local[f"{side}_hand"] = _wrist(draft)


def _from_chest(draft: Draft, skeleton: PosedSkeleton, vector: Vector) -> Vector:
    return skeleton.rotations[draft.body.index["chest"]] @ vector


def _arm_mm(draft: Draft) -> float:
    return draft.body.length_mm("l_forearm") + draft.body.length_mm("l_hand")


def _elbow_out(draft: Draft, skeleton: PosedSkeleton, side: str, *, out: float) -> Vector:
    """The elbow hangs: down, back and a little outward."""
    pole = np.array([outward_sign(side) * (out + 0.25 * draft.rng.normal()), 0.35, -1.0])
    return _from_chest(draft, skeleton, pole)


def _off_shoulder(
    low: tuple[float, float, float], high: tuple[float, float, float], *, out: float = 0.35
) -> Target:
    """A target box from the shoulder in arm lengths: (outward, forward, up)."""

    def target(
        draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool
    ) -> tuple[Vector, Vector]:
        x, forward, up = draft.rng.uniform(low, high)
        vector = _arm_mm(draft) * np.array([outward_sign(side) * x, -forward, up])
        shoulder = draft.body.point_mm(skeleton, f"{side}_upperarm")
        wrist = shoulder + _from_chest(draft, skeleton, vector)
        return wrist, _elbow_out(draft, skeleton, side, out=out)

    return target


def _off_head(
    low: tuple[float, float, float], high: tuple[float, float, float], *, out: float = 0.5
) -> Target:
    """A target box from the middle of the head in mm: (outward, forward, up)."""

    def target(
        draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool
    ) -> tuple[Vector, Vector]:
        x, forward, up = draft.rng.uniform(low, high)
        head = skeleton.rotations[draft.body.index["head"]]
        centre = draft.body.point_mm(skeleton, "head")
        wrist = centre + head @ np.array([outward_sign(side) * x, -forward, up])
        return wrist, _elbow_out(draft, skeleton, side, out=out)

    return target


def _hip(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> tuple[Vector, Vector]:
    outward = outward_sign(side)
    offset = np.array([outward * draft.uniform(85, 120), draft.uniform(-40, 60), 0.0])
    offset[2] = draft.uniform(70, 150)
    wrist = draft.body.point_mm(skeleton, f"{side}_thigh") + draft.local["pelvis"] @ offset
    return wrist, _from_chest(draft, skeleton, np.array([outward, draft.uniform(-0.1, 0.8), 0.0]))


def _crossed(
    draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool
) -> tuple[Vector, Vector]:
    outward = outward_sign(side)
    offset = np.array([-outward * draft.uniform(70, 120), -185.0 - 75.0 * is_over, 25.0])
    offset[2] += 45.0 * is_over + draft.uniform(-30, 40)
    chest = draft.body.point_mm(skeleton, "chest")
    wrist = chest + _from_chest(draft, skeleton, offset)
    return wrist, _from_chest(draft, skeleton, np.array([0.7 * outward, 0.1, -1.0]))


def _knee(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> tuple[Vector, Vector]:
    """On the thigh near the knee, on the side that looks up."""
    body = draft.body
    hip, knee = (body.point_mm(skeleton, f"{side}_{bone}") for bone in ("thigh", "shank"))
    place = hip + draft.uniform(0.62, 1.0) * (knee - hip)
    wrist = place + np.array([draft.uniform(-25, 25), 0.0, draft.uniform(110, 140)])
    return wrist, _elbow_out(draft, skeleton, side, out=0.7)


def _behind(
    draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool
) -> tuple[Vector, Vector]:
    """On the floor behind the pelvis."""
    outward = outward_sign(side)
    wrist = np.array([outward * draft.uniform(180, 340), draft.uniform(150, 330), -60.0])
    return wrist, np.array([0.3 * outward, 1.0, 0.0])


def _leash(
    draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool
) -> tuple[Vector, Vector]:
    """Held out, low and in front, to a pulling dog."""
    length = draft.uniform(0.8, 0.99) * _arm_mm(draft)
    direction = unit(
        np.array(
            [
                outward_sign(side) * draft.uniform(0.05, 0.6),
                -draft.uniform(0.2, 0.9),
                -draft.uniform(0.5, 1.0),
            ]
        )
    )
    wrist = draft.body.point_mm(skeleton, f"{side}_upperarm") + length * direction
    return wrist, _elbow_out(draft, skeleton, side, out=0.3)


TARGETS: dict[str, Target] = {
    "gesture": _off_shoulder((-0.25, 0.3, -0.55), (0.45, 0.75, 0.15)),
    "front": _off_shoulder((-0.3, 0.28, -0.75), (0.1, 0.55, -0.4), out=0.5),
    "low": _off_shoulder((-0.2, 0.35, -0.95), (0.3, 0.8, -0.5), out=0.4),
    "raise": _off_shoulder((-0.1, 0.05, -0.1), (0.85, 0.85, 0.75), out=0.3),
    "wave": _off_shoulder((0.2, 0.1, 0.2), (0.75, 0.5, 0.75), out=0.5),
    "ear": _off_head((105.0, -5.0, -75.0), (140.0, 55.0, -30.0), out=0.6),
    "mouth": _off_head((0.0, 150.0, -120.0), (60.0, 215.0, -50.0), out=0.5),
    "head": _off_head((100.0, -40.0, 40.0), (140.0, 60.0, 110.0), out=1.2),
    "camera": _off_head((35.0, 190.0, -50.0), (110.0, 330.0, 40.0), out=0.8),
    "two_camera": _off_head((50.0, 190.0, -40.0), (75.0, 300.0, 15.0), out=0.8),
    "two_head": _off_head((95.0, -110.0, -20.0), (130.0, -70.0, 50.0), out=2.0),
    "hip": _hip,
    "two_crossed": _crossed,
    "knee": _knee,
    "behind": _behind,
    "leash": _leash,
}
"""What the hands reach for, by name; names with two_ hold for both arms together."""
