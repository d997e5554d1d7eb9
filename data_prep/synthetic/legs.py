"""Legs of a drawn pose: standing, walking, sitting, kneeling; feet where the floor will be."""

import math

import numpy as np

from data_prep.synthetic.draft import Draft, lean_trunk, outward_sign
from data_prep.synthetic.limits import KNEE_LIMIT_RAD
from data_prep.synthetic.rotations import (
    Angle,
    Matrix,
    Vector,
    reach,
    rotation_x,
    rotation_y,
    rotation_z,
)


def _hip_mm(draft: Draft, side: str) -> Vector:
    """Position of a hip, from the pelvis."""
    return draft.local["pelvis"] @ draft.body.offsets_mm[draft.body.index[f"{side}_thigh"]]


def _set_leg(draft: Draft, side: str, thigh: Matrix, knee_rad: Angle, foot: Matrix) -> None:
    """Set a leg from the thigh's and the foot's orientation and the knee's bend."""
    draft.local[f"{side}_thigh"] = draft.local["pelvis"].T @ thigh
    draft.local[f"{side}_shank"] = rotation_x(knee_rad)
    draft.local[f"{side}_foot"] = (thigh @ rotation_x(knee_rad)).T @ foot


def _step(draft: Draft, side: str, ankle: Vector, *, yaw_rad: float, pole: Vector) -> None:
    """Bring an ankle to a place from the pelvis, with the foot flat and turned by a yaw."""
    body = draft.body
    thigh, knee = reach(
        ankle - _hip_mm(draft, side),
        body.length_mm(f"{side}_shank"),
        body.length_mm(f"{side}_foot"),
        pole=pole,
        bend_sign=1.0,
        limit_rad=KNEE_LIMIT_RAD,
    )
    _set_leg(draft, side, thigh, knee, rotation_z(yaw_rad))


def _leg_mm(draft: Draft) -> float:
    return draft.body.length_mm("l_shank") + draft.body.length_mm("l_foot")


def _plant(draft: Draft, ankles: dict[str, Vector], *, extension: float, toe_out: float) -> None:
    """Stand on both feet: ankles given in the plane (x, y), pelvis as high as they allow."""
    reach_mm = extension * _leg_mm(draft)
    heights = []
    for side, ankle in ankles.items():
        hip = _hip_mm(draft, side)
        across = (ankle[:2] - hip[:2]) @ (ankle[:2] - hip[:2])
        heights.append(math.sqrt(max(reach_mm**2 - across, (0.4 * reach_mm) ** 2)) - hip[2])
    height = min(heights)
    for side, ankle in ankles.items():
        yaw = outward_sign(side) * draft.degrees(toe_out, 6)
        pole = rotation_z(yaw) @ np.array([0.0, -1.0, 0.1])
        target = np.array([ankle[0], ankle[1], -height])
        _step(draft, side, target, yaw_rad=yaw, pole=pole)


def _feet(draft: Draft, *, width: tuple[float, float], stagger_mm: float) -> dict[str, Vector]:
    """Two places to stand, either side of the pelvis."""
    shift = draft.rng.normal(size=2) * [25.0, 15.0]
    stagger = draft.uniform(-stagger_mm, stagger_mm)
    feet = {}
    for side in ("l", "r"):
        x = outward_sign(side) * draft.uniform(*width)
        feet[side] = np.array([x + shift[0], shift[1] + outward_sign(side) * stagger, 0.0])
    return feet


def _stand(draft: Draft) -> None:
    feet = _feet(draft, width=(75.0, 190.0), stagger_mm=110.0)
    _plant(draft, feet, extension=draft.uniform(0.965, 0.998), toe_out=10.0)


def _lunge(draft: Draft) -> None:
    feet = _feet(draft, width=(80.0, 330.0), stagger_mm=330.0)
    lean_trunk(draft, draft.uniform(-5.0, 12.0), draft.uniform(-5.0, 10.0))
    _plant(draft, feet, extension=draft.uniform(0.93, 0.995), toe_out=14.0)


def _bow(draft: Draft) -> None:
    lean = draft.uniform(15.0, 50.0)
    lean_trunk(draft, 0.6 * lean, 0.4 * lean)
    feet = {
        side: foot - [0.0, 1.5 * lean, 0.0]
        for side, foot in _feet(draft, width=(70.0, 150.0), stagger_mm=60.0).items()
    }
    _plant(draft, feet, extension=draft.uniform(0.96, 0.995), toe_out=8.0)


def _bend(draft: Draft) -> None:
    lean = draft.uniform(35.0, 75.0)
    lean_trunk(draft, lean, draft.uniform(10.0, 45.0))
    feet = {
        side: foot - [0.0, 1.8 * lean, 0.0]
        for side, foot in _feet(draft, width=(90.0, 220.0), stagger_mm=150.0).items()
    }
    _plant(draft, feet, extension=draft.uniform(0.85, 0.99), toe_out=12.0)


def _crouch(draft: Draft) -> None:
    extension = draft.uniform(0.45, 0.8)
    lean_trunk(draft, draft.uniform(15.0, 40.0), draft.uniform(5.0, 30.0))
    forward = draft.uniform(80.0, 190.0)
    feet = {
        side: foot - [0.0, forward, 0.0]
        for side, foot in _feet(draft, width=(110.0, 230.0), stagger_mm=120.0).items()
    }
    _plant(draft, feet, extension=extension, toe_out=18.0)


def _walk(draft: Draft) -> None:
    """Hip, knee and ankle over one stride; the legs half a stride apart."""
    phase = draft.phase_rad = draft.uniform(0.0, 2.0 * math.pi)
    swing = draft.degrees(23.0, 4.0)
    lean_trunk(draft, draft.uniform(-1.0, 6.0), draft.uniform(0.0, 6.0))
    turn = 0.25 * swing * math.cos(phase)  # the pelvis turns with the advancing left leg
    draft.local["pelvis"] = rotation_z(-turn) @ draft.local["pelvis"]
    draft.local["chest"] = rotation_z(1.6 * turn) @ draft.local["chest"]
    lift = draft.uniform(35.0, 60.0)
    for side, angle in (("l", phase), ("r", phase + math.pi)):
        hip = math.radians(6.0) + swing * math.cos(angle)  # > 0: thigh forward
        swings = max(0.0, -math.sin(angle - 0.35))  # the leg comes forward
        knee = math.radians(6.0 + lift * swings**1.5) + abs(draft.degrees(0.0, 2.0))
        behind = max(0.0, -math.cos(angle)) * (1.0 - 0.5 * swings)
        ahead = max(0.0, math.cos(angle))
        pitch = math.radians(24.0 * behind - 13.0 * ahead + 12.0 * swings)
        outward = outward_sign(side) * draft.degrees(1.0, 1.5)
        yaw = outward_sign(side) * draft.degrees(6.0, 4.0)
        thigh = rotation_z(0.5 * yaw) @ rotation_y(-outward) @ rotation_x(-hip)
        _set_leg(draft, side, thigh, knee, rotation_z(yaw) @ rotation_x(pitch))


def _chair(draft: Draft) -> None:
    body = draft.body
    seat = draft.uniform(390.0, 500.0) * _leg_mm(draft) / 850.0
    lean_trunk(draft, draft.uniform(-18.0, 12.0), draft.uniform(-5.0, 25.0))
    forward = draft.uniform(0.75, 1.35) * body.length_mm("l_shank")
    width = draft.uniform(70.0, 210.0)
    height = seat + 90.0 - body.ankle_height_mm
    for side in ("l", "r"):
        ankle = np.array(
            [
                outward_sign(side) * (width + draft.uniform(-50.0, 50.0)),
                -forward + draft.uniform(-110.0, 110.0),
                -height,
            ]
        )
        yaw = outward_sign(side) * draft.degrees(8.0, 8.0)
        pole = np.array([outward_sign(side) * draft.uniform(-0.1, 0.5), -0.5, 1.0])
        _step(draft, side, ankle, yaw_rad=yaw, pole=pole)


def _floor(draft: Draft) -> None:
    """Sit on the floor: each leg stretched out, drawn up, or crossed under."""
    legs = draft.choose({"out": 0.35, "up": 0.35, "crossed": 0.3})
    lean_trunk(draft, draft.uniform(-22.0, 5.0), draft.uniform(0.0, 35.0))
    full = _leg_mm(draft)
    for side in ("l", "r"):
        kind = legs
        if legs != "crossed" and draft.rng.random() < 0.3:
            kind = draft.choose({"out": 0.5, "up": 0.5})
        outward = outward_sign(side)
        if kind == "out":
            forward, x = draft.uniform(0.86, 0.99) * full, draft.uniform(60.0, 300.0)
            pole, pitch = np.array([0.25 * outward, 0.0, 1.0]), -60.0
        elif kind == "up":
            forward, x = draft.uniform(0.42, 0.75) * full, draft.uniform(70.0, 200.0)
            pole, pitch = np.array([draft.uniform(0.0, 0.4) * outward, -0.3, 1.0]), 0.0
        else:
            forward = draft.uniform(0.34, 0.4) * full + 105.0 * (side == "l")
            x = draft.uniform(-90.0, 40.0)
            pole, pitch = np.array([1.0 * outward, -0.35, 0.25]), 0.0
        height = 105.0 - (60.0 if kind == "crossed" else draft.body.ankle_height_mm)
        ankle = np.array([outward * x, -forward, -height])
        yaw = outward * draft.degrees(8.0, 8.0)
        _step(draft, side, ankle, yaw_rad=yaw, pole=pole)
        if kind == "crossed":
            draft.local[f"{side}_foot"] = rotation_x(math.radians(30.0))
            continue
        thigh = draft.local["pelvis"] @ draft.local[f"{side}_thigh"]
        shank = thigh @ draft.local[f"{side}_shank"]
        draft.local[f"{side}_foot"] = shank.T @ rotation_z(yaw) @ rotation_x(math.radians(pitch))


def _kneel(draft: Draft) -> None:
    """Both knees on the floor, upright or sitting back on the heels."""
    hip = math.radians(draft.uniform(-2.0, 62.0))
    lean_trunk(draft, draft.uniform(-5.0, 15.0), draft.uniform(0.0, 25.0))
    for side in ("l", "r"):
        outward = outward_sign(side) * draft.degrees(9.0, 4.0)
        thigh = rotation_y(-outward) @ rotation_x(-hip)
        knee = min(hip + math.radians(draft.uniform(84.0, 90.0)), KNEE_LIMIT_RAD)
        foot = thigh @ rotation_x(knee) @ rotation_x(math.radians(draft.uniform(35.0, 50.0)))
        _set_leg(draft, side, thigh, knee, foot)


def _half_kneel(draft: Draft) -> None:
    """One knee on the floor, the other foot in front."""
    down = "l" if draft.rng.random() < 0.5 else "r"
    up = "r" if down == "l" else "l"
    body = draft.body
    hip = math.radians(draft.uniform(-12.0, 15.0))
    lean_trunk(draft, draft.uniform(0.0, 15.0), draft.uniform(0.0, 15.0))
    thigh = rotation_x(-hip)
    knee = hip + math.radians(draft.uniform(86.0, 95.0))
    foot = thigh @ rotation_x(knee) @ rotation_x(math.radians(-15.0))
    _set_leg(draft, down, thigh, knee, foot)
    height = body.length_mm(f"{down}_shank") * math.cos(hip) - _hip_mm(draft, down)[2] + 55.0
    ankle = np.array(
        [
            outward_sign(up) * draft.uniform(110.0, 220.0),
            -draft.uniform(0.7, 1.1) * body.length_mm(f"{up}_shank"),
            body.ankle_height_mm - height,
        ]
    )
    _step(draft, up, ankle, yaw_rad=0.0, pole=np.array([0.2 * outward_sign(up), -0.5, 1.0]))


LEGS = {
    "stand": _stand,
    "lunge": _lunge,
    "bow": _bow,
    "bend": _bend,
    "crouch": _crouch,
    "walk": _walk,
    "chair": _chair,
    "floor": _floor,
    "kneel": _kneel,
    "half_kneel": _half_kneel,
}
"""What draws the legs, by name; each may also lean the trunk."""
