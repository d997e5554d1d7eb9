"""Sitting on a seat: to it, down, up, and what the feet do meanwhile."""

import math

import numpy as np

from data_prep.synthetic.motion import Seat
from data_prep.synthetic.motion_score import SIDES, Score
from data_prep.synthetic.motion_stances import sway
from data_prep.synthetic.rotations import rotation_x

SEAT_BEHIND = 0.25
"""How far the seat's front edge is behind those who stand before it, in leg lengths."""
CROSSING = (("l", 0.13, 0.24), ("r", -0.055, 0.0), ("l", -0.055, 0.24))
"""Feet that cross the ankles, one after the other: outward and forward, in leg lengths."""
UNCROSSING = (("l", 0.14, 0.24), ("r", 0.14, 0.0))
SINK_MM = 5.0
"""How far a body sinks into what it sits on."""


def chair(score: Score, duration_s: float) -> None:
    """Sit down on the seat, sit, rearrange the feet, and stand up again."""
    start = score.now_s
    seat = place_seat(score)
    _step_before(score, seat)
    down = score.uniform(1.1, 1.6) * score.style.tempo
    _sit(score, seat, down)
    score.span(start, "chair")
    _hold_chair(score, seat, max(2.0, duration_s - 2.0 * down))
    start = score.now_s
    stance = score.stance()
    for i, side in enumerate(SIDES):
        begin = start + 0.3 * i
        score.feet[side].step(
            score.foot_place(side, stance[side]), begin, begin + 0.45, lift_mm=25.0
        )
    score.advance(0.75)
    score.lean(32.0, 12.0, 0.0, 0.6 * down)
    score.move("offset", np.zeros(2), 0.2 * down, 0.8 * down)
    score.move("height", score.standing_mm(score.style.extension), 0.3 * down, 0.9 * down)
    score.move("load", 1.0, 0.6 * down, 0.6 * down)
    for side in SIDES:
        score.move(f"{side}_knee", 0.0, 0.0, down)
    score.advance(0.6 * down)
    score.lean(0.0, 3.0, 0.0, 0.8 * down)
    score.advance(0.6 * down)
    score.span(start, "rise")
    start = score.now_s
    sway(score, score.uniform(0.8, 4.0))
    score.span(start, "stand")


def seat_depth_mm(score: Score, *, tilt_deg: float, flexion_deg: float) -> float:
    """From the pelvis down to what it sits on, by the skin of the body when it sits."""
    body, flexion = score.body, rotation_x(-math.radians(flexion_deg))
    local = {"pelvis": rotation_x(math.radians(tilt_deg)), "l_thigh": flexion, "r_thigh": flexion}
    bones = [body.index[name] for name in ("pelvis", "l_hip_twist", "r_hip_twist")]
    sits = body.model.weights[:, bones].sum(axis=1) > 0.7
    return -float(body.skin(body.pose(local, np.zeros(3)))[sits, 2].min())


def place_seat(score: Score) -> Seat:
    """The seat: behind somebody who stands there when it is first asked for."""
    if score.seat is None:
        leg = score.leg_mm
        height = score.uniform(0.46, 0.56) * leg
        depth = score.uniform(0.36, 0.46) * leg
        # The front edge lies behind the middle of the thighs of those who sit.
        behind = SEAT_BEHIND * leg + 0.5 * depth
        heading = score.place[2]
        centre = score.place[:2] + behind * np.array([-math.sin(heading), math.cos(heading)])
        score.seat = Seat(
            centre_mm=centre,
            size_mm=np.array([score.uniform(360.0, 480.0), depth, height]),
            heading_rad=float(heading),
        )
    return score.seat


def _step_before(score: Score, seat: Seat) -> None:
    """Go to stand in front of the seat, with the back to it."""
    turns = 2.0 * math.pi
    heading = seat.heading_rad + turns * round((score.place[2] - seat.heading_rad) / turns)
    behind = SEAT_BEHIND * score.leg_mm + 0.5 * float(seat.size_mm[1])
    back = np.array([-math.sin(heading), math.cos(heading)])
    target = np.append(seat.centre_mm - behind * back, heading)
    if np.hypot(*(target - score.place)[:2]) > 5.0 or abs(heading - score.place[2]) > 0.02:
        score.step_to(target)


def _sit(score: Score, seat: Seat, down: float) -> None:
    depth = seat_depth_mm(score, tilt_deg=0.0, flexion_deg=84.0)
    score.lean(30.0, 15.0, 0.0, 0.7 * down)
    score.move("offset", np.array([0.0, 0.47 * score.leg_mm]), 0.0, 0.85 * down)
    score.move("height", float(seat.size_mm[2]) + depth, 0.2 * down, 0.8 * down)
    score.move("load", 0.0, 0.2 * down, 0.8 * down)
    score.advance(0.75 * down)
    _lean_seated(score, seat, 0.7)
    score.advance(0.25 * down)


def _lean_seated(score: Score, seat: Seat, duration_s: float) -> None:
    """Lean anew; the pelvis goes up or down so that its skin stays on the seat."""
    pelvis_deg = score.uniform(-15.0, 9.0)
    tilt_deg = pelvis_deg + math.degrees(score.style.lean_rad)
    depth = seat_depth_mm(score, tilt_deg=tilt_deg, flexion_deg=84.0 + tilt_deg)
    score.lean(pelvis_deg, score.uniform(-4.0, 23.0), 0.0, duration_s)
    score.move("height", float(seat.size_mm[2]) + depth - SINK_MM, 0.0, duration_s)


def _hold_chair(score: Score, seat: Seat, duration_s: float) -> None:
    """Sit; move a foot, cross the ankles, lean anew."""
    start, end = score.now_s, score.now_s + duration_s
    is_crossed = False
    while score.now_s < end:
        if score.rng.random() < 0.6:
            if is_crossed or score.rng.random() < 0.25:
                _move_feet(score, UNCROSSING if is_crossed else CROSSING)
                is_crossed = not is_crossed
            else:
                _place_seated_feet(score)
        if score.rng.random() < 0.6:
            _lean_seated(score, seat, score.uniform(0.8, 1.6))
        score.advance(min(max(0.3, end - score.now_s), score.uniform(1.5, 6.0)))
    if is_crossed:
        _move_feet(score, UNCROSSING)
    score.span(start, "chair")


def _place_seated_feet(score: Score) -> None:
    shank = score.body.length_mm("l_foot")
    width = score.uniform(70.0, 190.0)
    for side in SIDES:
        if score.rng.random() < 0.3:
            continue
        ahead = score.uniform(-0.12, 0.42) * shank
        offset = (width + score.uniform(-40, 40), ahead, score.degrees(-4, 22))
        begin = score.now_s + score.uniform(0.0, 0.5)
        place = score.foot_place(side, offset)
        score.feet[side].step(place, begin, begin + score.uniform(0.5, 0.8), lift_mm=35.0)
        score.move(f"{side}_knee", score.degrees(-4, 16), 0.0, 1.2)
    score.advance(1.3)


def _move_feet(score: Score, moves: tuple[tuple[str, float, float], ...]) -> None:
    """Move one foot after the other while sitting."""
    for side, out, ahead in moves:
        offset = (
            out * score.leg_mm + score.uniform(-12, 12),
            (ahead + score.uniform(-0.02, 0.02)) * score.leg_mm,
            score.degrees(0, 10),
        )
        place, end_s = score.foot_place(side, offset), score.now_s + 0.65
        score.feet[side].step(place, score.now_s, end_s, lift_mm=40.0)
        score.move(f"{side}_knee", score.degrees(8, 18), 0.0, 0.65)
        score.advance(0.6)
