"""Arms of a drawn pose: hands come to the ear, the hips, the knees, the floor, or hang."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.body import PosedSkeleton
from data_prep.synthetic.draft import Draft, Mixture, outward_sign
from data_prep.synthetic.limits import ELBOW_LIMIT_RAD
from data_prep.synthetic.rotations import (
    Vector,
    limited_turn,
    reach,
    rotation_x,
    rotation_y,
    rotation_z,
    shortest_rotation,
    unit,
)

WRIST_BEND_RAD = math.radians(65.0)
_DOWN = np.array([0.0, 0.0, -1.0])

FREE_ARM: Mixture = {"hang": 0.55, "gesture": 0.2, "hip": 0.1, "front": 0.15}
"""What the other arm does while one is busy."""


def draw_arms(draft: Draft, arms: tuple[str, str]) -> None:
    """Set both arms, (left, right), by name: "hang" or one of `TARGETS`."""
    over = "l" if draft.rng.random() < 0.5 else "r"
    for side, name in zip(("l", "r"), arms, strict=True):
        if name == "hang":
            _hang(draft, side)
        else:
            _reach_for(draft, side, TARGETS[name], is_over=side == over)


def _hang(draft: Draft, side: str) -> None:
    """Let an arm hang, along gravity more than along a bent trunk."""
    outward = outward_sign(side)
    forward = draft.degrees(4.0, 8.0)
    bend = abs(draft.degrees(24.0, 10.0))
    aside = outward * draft.degrees(11.0, 4.0)
    trunk = draft.skeleton().rotations[draft.body.index["chest"]]
    level = shortest_rotation(_DOWN, trunk.T @ _DOWN)
    twist = -outward * draft.degrees(20.0, 15.0)
    swing = rotation_y(-aside) @ rotation_x(-forward) @ rotation_z(twist)
    draft.local[f"{side}_upperarm"] = level @ swing
    draft.local[f"{side}_forearm"] = rotation_x(-bend)
    draft.local[f"{side}_hand"] = _wrist(draft)


def _wrist(draft: Draft) -> np.ndarray:
    """A small turn of the hand."""
    twist = rotation_z(draft.degrees(0.0, 18.0))
    return twist @ rotation_x(draft.degrees(0.0, 12.0)) @ rotation_y(draft.degrees(0.0, 8.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """Where an arm goes, in the body's axes from the pelvis."""

    wrist_mm: Vector
    elbow: Vector
    """Direction to which the elbow points."""
    hand: Vector | None = None
    """Direction of the hand; in line with the forearm if not given."""


Target = Callable[[Draft, PosedSkeleton, str, bool], Reach]
"""Draws a reach for a side ("l" or "r"); the flag says whether this arm lies over the other."""


def _reach_for(draft: Draft, side: str, target: Target, *, is_over: bool) -> None:
    """Lift the shoulder girdle as the arm needs, then bring the wrist to its target."""
    body = draft.body
    skeleton = draft.skeleton()
    aim = target(draft, skeleton, side, is_over)
    chest = skeleton.rotations[body.index["chest"]]
    direction = chest.T @ unit(aim.wrist_mm - body.point_mm(skeleton, f"{side}_upperarm"))
    outward = outward_sign(side)
    lift = math.radians(2.0 + 16.0 * max(0.0, float(direction[2]) + 0.3))
    forward = math.radians(9.0 * max(0.0, -float(direction[1])))
    draft.local[f"{side}_clavicle"] = rotation_z(-outward * forward) @ rotation_y(-outward * lift)
    girdle = chest @ draft.local[f"{side}_clavicle"]
    root = body.point_mm(skeleton, f"{side}_clavicle")
    shoulder = root + girdle @ body.offsets_mm[body.index[f"{side}_upperarm"]]
    upper, bend = reach(
        aim.wrist_mm - shoulder,
        body.length_mm(f"{side}_forearm"),
        body.length_mm(f"{side}_hand"),
        pole=aim.elbow,
        bend_sign=-1.0,
        limit_rad=ELBOW_LIMIT_RAD,
    )
    draft.local[f"{side}_upperarm"] = girdle.T @ upper
    draft.local[f"{side}_forearm"] = rotation_x(-bend)
    hand = _wrist(draft)
    if aim.hand is not None:
        wanted = draft.local[f"{side}_forearm"].T @ upper.T @ aim.hand
        hand = limited_turn(_DOWN, wanted, limit_rad=WRIST_BEND_RAD)
    draft.local[f"{side}_hand"] = hand


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

    def target(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
        x, forward, up = draft.rng.uniform(low, high)
        vector = _arm_mm(draft) * np.array([outward_sign(side) * x, -forward, up])
        shoulder = draft.body.point_mm(skeleton, f"{side}_upperarm")
        return Reach(
            wrist_mm=shoulder + _from_chest(draft, skeleton, vector),
            elbow=_elbow_out(draft, skeleton, side, out=out),
        )

    return target


def _off_head(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    *,
    elbow: tuple[float, float, float],
    hand: tuple[float, float, float] | None = None,
) -> Target:
    """A target box from the middle of the head in mm: (outward, forward, up).

    `elbow` and `hand` are directions in the same axes, the elbow's by the chest.
    """

    def turned(side: str, vector: tuple[float, float, float] | np.ndarray) -> Vector:
        return np.array([outward_sign(side), -1.0, 1.0]) * vector

    def target(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
        head = skeleton.rotations[draft.body.index["head"]]
        offset = head @ turned(side, draft.rng.uniform(low, high))
        pole = turned(side, np.array(elbow) + 0.2 * draft.rng.normal(size=3))
        return Reach(
            wrist_mm=draft.body.point_mm(skeleton, "head") + offset,
            elbow=_from_chest(draft, skeleton, pole),
            hand=None if hand is None else head @ turned(side, hand),
        )

    return target


def _hip(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """On the hip: the hand points forward and down along it."""
    outward, pelvis = outward_sign(side), draft.local["pelvis"]
    offset = np.array([outward * draft.uniform(95, 130), draft.uniform(10, 70), 0.0])
    offset[2] = draft.uniform(70, 140)
    pole = np.array([outward, draft.uniform(0.1, 0.9), 0.0])
    return Reach(
        wrist_mm=draft.body.point_mm(skeleton, f"{side}_thigh") + pelvis @ offset,
        elbow=_from_chest(draft, skeleton, pole),
        hand=pelvis @ np.array([-0.1 * outward, -0.8, draft.uniform(-0.9, -0.3)]),
    )


def _crossed(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """Forearms across the front of the chest, one over the other."""
    outward = outward_sign(side)
    offset = np.array([-outward * draft.uniform(10, 50), -205.0, draft.uniform(-15, 10)])
    offset += np.array([0.0, -45.0, 85.0]) * is_over
    return Reach(
        wrist_mm=draft.body.point_mm(skeleton, "chest") + _from_chest(draft, skeleton, offset),
        elbow=_from_chest(draft, skeleton, np.array([0.9 * outward, 0.1, -1.0])),
        hand=_from_chest(draft, skeleton, np.array([-outward, 0.2, 0.4 if is_over else -0.6])),
    )


def _knee(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """On the thigh near the knee, on the side that looks up."""
    body = draft.body
    hip, knee = (body.point_mm(skeleton, f"{side}_{bone}") for bone in ("thigh", "shank"))
    place = hip + draft.uniform(0.6, 0.95) * (knee - hip)
    above = np.array([draft.uniform(-25, 25), 0.0, draft.uniform(115, 145)])
    return Reach(
        wrist_mm=place + above,
        elbow=_elbow_out(draft, skeleton, side, out=0.7),
        hand=knee - hip,
    )


def _behind(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """On the floor behind the pelvis."""
    outward = outward_sign(side)
    return Reach(
        wrist_mm=np.array([outward * draft.uniform(200, 340), draft.uniform(170, 330), -12.0]),
        elbow=np.array([0.3 * outward, 1.0, 0.0]),
        hand=np.array([0.3 * outward, 1.0, -0.05]),
    )


def _shin(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """Outside the own knee, as one who sits on the floor holds the legs."""
    outward = outward_sign(side)
    knee = draft.body.point_mm(skeleton, f"{side}_shank")
    offset = np.array([outward * draft.uniform(85, 130), -draft.uniform(0, 90), 0.0])
    offset[2] = draft.uniform(-60, 60)
    return Reach(
        wrist_mm=knee + offset,
        elbow=np.array([outward, 0.3, -0.7]),
        hand=np.array([-0.5 * outward, -0.8, -0.2]),
    )


def _beside(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """On the floor beside the pelvis."""
    outward = outward_sign(side)
    return Reach(
        wrist_mm=np.array([outward * draft.uniform(270, 400), draft.uniform(-90, 170), -12.0]),
        elbow=np.array([0.6 * outward, 1.0, 0.0]),
        hand=np.array([0.5 * outward, draft.uniform(-0.6, 0.6), -0.05]),
    )


def _pick(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """Down towards the floor in front of the feet, however the trunk is bent."""
    outward = outward_sign(side)
    length = draft.uniform(0.75, 0.98) * _arm_mm(draft)
    x, forward, down = draft.rng.uniform([-0.15, 0.0, 0.7], [0.3, 0.6, 1.0])
    direction = unit(np.array([outward * x, -forward, -down]))
    return Reach(
        wrist_mm=draft.body.point_mm(skeleton, f"{side}_upperarm") + length * direction,
        elbow=np.array([0.8 * outward, 0.8, 0.3]),
    )


def _leash(draft: Draft, skeleton: PosedSkeleton, side: str, is_over: bool) -> Reach:
    """Held out, low and in front, to a pulling dog."""
    length = draft.uniform(0.8, 0.99) * _arm_mm(draft)
    x, y, z = draft.rng.uniform([0.05, -0.9, -1.0], [0.6, -0.2, -0.5])
    direction = unit(np.array([outward_sign(side) * x, y, z]))
    return Reach(
        wrist_mm=draft.body.point_mm(skeleton, f"{side}_upperarm") + length * direction,
        elbow=_elbow_out(draft, skeleton, side, out=0.3),
    )


_UP = (-0.1, -0.3, 1.0)
TARGETS: dict[str, Target] = {
    "gesture": _off_shoulder((-0.25, 0.3, -0.55), (0.45, 0.75, 0.15)),
    "front": _off_shoulder((-0.3, 0.3, -0.7), (0.1, 0.55, -0.35), out=0.5),
    "low": _off_shoulder((-0.2, 0.35, -0.95), (0.3, 0.8, -0.5), out=0.4),
    "raise": _off_shoulder((-0.1, 0.05, -0.1), (0.85, 0.85, 0.75), out=0.3),
    "wave": _off_shoulder((0.2, 0.1, 0.2), (0.75, 0.5, 0.75), out=0.5),
    "ear": _off_head((100.0, 20.0, -90.0), (130.0, 65.0, -45.0), elbow=(1.0, 0.5, -0.5), hand=_UP),
    "mouth": _off_head(
        (10.0, 140.0, -130.0), (70.0, 190.0, -70.0), elbow=(0.6, 0.0, -1.0), hand=(-0.5, -0.4, 1.0)
    ),
    "head": _off_head((105.0, 0.0, -20.0), (135.0, 60.0, 50.0), elbow=(1.0, 0.5, 0.0), hand=_UP),
    "camera": _off_head(
        (35.0, 190.0, -60.0), (110.0, 330.0, 20.0), elbow=(0.8, 0.0, -1.0), hand=_UP
    ),
    "two_camera": _off_head(
        (60.0, 190.0, -60.0), (85.0, 300.0, 0.0), elbow=(0.8, 0.0, -1.0), hand=_UP
    ),
    "two_head": _off_head(
        (105.0, -30.0, -10.0), (135.0, 30.0, 60.0), elbow=(1.0, 0.3, 0.2), hand=(-0.2, -0.6, 0.8)
    ),
    "hip": _hip,
    "two_crossed": _crossed,
    "knee": _knee,
    "pick": _pick,
    "shin": _shin,
    "behind": _behind,
    "beside": _beside,
    "leash": _leash,
}
"""What the hands reach for, by name; names with two_ hold for both arms together."""
