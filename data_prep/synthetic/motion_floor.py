"""Sitting on the floor: down, with the legs stretched out, drawn up or crossed, and up again."""

import math

import numpy as np

from data_prep.synthetic.motion_score import SIDES, Score
from data_prep.synthetic.motion_seats import seat_depth_mm

FLOOR_SEAT = 0.68
"""How far behind the feet people sit down on the floor, in leg lengths."""


def floor(score: Score, duration_s: float) -> None:
    """Sit down on the floor, stretch, draw up or cross the legs, and get up again."""
    start, leg = score.now_s, score.leg_mm
    down = score.uniform(1.6, 2.3) * score.style.tempo
    seat = seat_depth_mm(score, tilt_deg=-20.0, flexion_deg=115.0)
    score.lean(18.0, 40.0, 0.0, 0.45 * down)
    score.move("offset", np.array([0.0, FLOOR_SEAT * leg]), 0.0, 0.95 * down)
    score.move("height", seat, 0.05 * down, down)
    score.move("load", 0.0, 0.3 * down, 0.6 * down)
    for side in SIDES:
        score.move(f"{side}_knee", score.degrees(6, 18), 0.0, down)
    score.advance(0.6 * down)
    score.span(start, "lower")
    middle = score.now_s
    score.lean(score.uniform(-24, -14), score.uniform(20, 45), -0.15 * down, 0.6 * down)
    score.advance(0.5 * down)
    end = score.now_s + max(2.0, duration_s - 2.0 * down)
    while score.now_s < end:
        _arrange_floor_legs(score)
        score.lean(score.uniform(-26, -14), score.uniform(12, 48), 0.0, score.uniform(1.0, 1.8))
        score.advance(min(max(0.4, end - score.now_s), score.uniform(2.0, 7.0)))
    score.span(middle, "floor")
    _get_up(score, down)


def _arrange_floor_legs(score: Score) -> None:
    """Move both legs to be stretched out, drawn up, or crossed."""
    leg = score.leg_mm
    both = score.rng.choice(["out", "up", "crossed"], p=[0.35, 0.4, 0.25])
    # The left foot crosses in front: it comes last and goes first.
    for i, side in enumerate(("r", "l") if both == "crossed" else ("l", "r")):
        kind = both
        if both != "crossed" and score.rng.random() < 0.35:
            kind = score.rng.choice(["out", "up"])
        begin = score.now_s + 0.85 * i
        pitch, lift, knee = 0.0, 50.0, score.degrees(0, 20)
        if kind == "out":
            ahead, x, pitch = score.uniform(0.86, 0.97), score.uniform(70, 240), -50.0
        elif kind == "up":
            ahead, x = score.uniform(0.66, 0.84), score.uniform(80, 180)
        else:
            ahead, x = 0.46 + 0.21 * (side == "l"), score.uniform(-95, -45)
            knee = score.degrees(24, 36)
        offset = (x, (ahead - FLOOR_SEAT) * leg, score.degrees(0, 14))
        place = score.foot_place(side, offset)
        score.feet[side].step(place, begin, begin + 0.9, lift_mm=lift)
        score.feet[side].pitch.move(math.radians(pitch), begin, begin + 0.9)
        score.channels[f"{side}_knee"].move(knee, begin, begin + 0.9)
    score.advance(1.8)


def _get_up(score: Score, duration_s: float) -> None:
    """Draw the feet in, lean forward, rise."""
    start = score.now_s
    for i, side in enumerate(SIDES):
        begin = score.now_s + 0.4 * i
        offset = (score.style.half_width_mm, -0.02 * score.leg_mm, score.style.toe_out_rad)
        score.feet[side].step(score.foot_place(side, offset), begin, begin + 0.8, lift_mm=50.0)
        score.feet[side].pitch.move(0.0, begin, begin + 0.8)
        score.channels[f"{side}_knee"].move(score.degrees(8, 20), begin, begin + 0.8)
    score.advance(1.0)
    score.span(start, "floor")
    start = score.now_s
    score.lean(10.0, 30.0, 0.0, 0.5 * duration_s)
    score.move("offset", np.zeros(2), 0.0, 0.95 * duration_s)
    score.move("height", score.standing_mm(score.style.extension), 0.05 * duration_s, duration_s)
    score.move("load", 1.0, 0.6 * duration_s, 0.6 * duration_s)
    for side in SIDES:
        score.move(f"{side}_knee", 0.0, 0.3 * duration_s, duration_s)
    score.advance(0.55 * duration_s)
    score.lean(0.0, 4.0, 0.0, 0.75 * duration_s)
    score.advance(0.65 * duration_s)
    score.span(start, "rise")
