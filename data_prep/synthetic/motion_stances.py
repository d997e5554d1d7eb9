"""What people do on their feet: stand, step about, bow, bend, crouch, kneel on one knee."""

import math

import numpy as np

from data_prep.synthetic.motion_score import SIDES, Score, Stance, in_area


def sway(score: Score, duration_s: float, *, restless: float = 1.0) -> None:
    """Hold what the legs do, and shift the weight now and then."""
    end = score.now_s + duration_s
    while score.now_s < end - 1e-6:
        hold = min(end - score.now_s, score.uniform(1.2, 4.5) / restless)
        if hold > 1.0:
            side = score.rng.choice([-1.0, -0.3, 0.0, 0.3, 1.0])
            shift = side * score.uniform(0.4, 1.0)
            score.move("shift", shift, 0.0, min(hold, score.uniform(0.8, 1.6)))
            extension = score.style.extension - 0.005 * abs(shift)
            score.move("height", score.standing_mm(extension), 0.0, min(hold, 1.2))
        score.advance(hold)
    score.move("shift", 0.0, -0.6, 0.6)


def stand(score: Score, duration_s: float) -> None:
    """Stand, shift the weight, and now and then step and turn."""
    start, end = score.now_s, score.now_s + duration_s
    while score.now_s < end:
        sway(score, min(max(0.3, end - score.now_s), score.uniform(2.0, 7.0)))
        if score.now_s < end and score.rng.random() < 0.75:
            restep(score)
    score.span(start, "stand")


def restep(score: Score, *, turn_deg: float = 75.0, stance: Stance | None = None) -> None:
    """Take a few steps to another place nearby and turn, inside the area, clear of the seat."""
    target = in_area(score.place[:2] + score.rng.normal(0.0, 130.0, size=2))
    if score.seat is not None:
        away = target - score.seat.centre_mm
        clear_mm = 0.6 * float(np.hypot(*score.seat.size_mm[:2])) + 190.0
        target = score.seat.centre_mm + away * max(1.0, clear_mm / float(np.hypot(*away)))
    turn = math.radians(turn_deg) * float(np.clip(score.rng.normal(), -2.2, 2.2))
    score.step_to(np.append(target, score.place[2] + turn), stance=stance)


def lunge(score: Score, duration_s: float) -> None:
    """Stand with the feet far apart."""
    start = score.now_s
    restep(score, turn_deg=40.0, stance=score.stance(width=score.uniform(0.9, 1.9), stagger_mm=270))
    score.lean(score.uniform(-4, 12), score.uniform(-5, 10), -0.4, 0.8)
    sway(score, max(1.0, duration_s), restless=0.7)
    score.lean(0.0, score.uniform(-2, 6), 0.0, 0.7)
    score.step_to(score.place, stance=score.stance())
    score.span(start, "stand")


def bow(score: Score, duration_s: float) -> None:
    """Bow and come up again."""
    start, lean = score.now_s, score.uniform(18.0, 50.0)
    down = score.uniform(0.7, 1.2)
    score.lean(0.6 * lean, 0.4 * lean, 0.0, down)
    score.move("offset", np.array([0.0, 1.6 * lean]), 0.0, down)
    score.advance(down + score.uniform(0.2, max(0.4, min(1.6, duration_s - 2.0 * down))))
    score.lean(0.0, score.uniform(-2, 6), 0.0, down)
    score.move("offset", np.zeros(2), 0.0, down)
    score.advance(down)
    score.span(start, "bow")


def bend(score: Score, duration_s: float) -> None:
    """Bend down to reach low, with the knees a little bent."""
    start, lean = score.now_s, score.uniform(30.0, 58.0)
    down = score.uniform(0.9, 1.4) * score.style.tempo
    score.lean(lean, score.uniform(12.0, 36.0), 0.0, down)
    score.move("offset", np.array([0.0, 2.0 * lean]), 0.0, down)
    score.move("height", score.standing_mm(score.uniform(0.84, 0.96)), 0.0, down)
    score.advance(down)
    score.span(start, "bend")
    middle = score.now_s
    score.advance(max(0.6, duration_s - 2.0 * down))
    score.span(middle, "bend")
    rise(score, down)


def rise(score: Score, duration_s: float) -> None:
    """Come up to stand over the feet."""
    score.lean(0.0, score.uniform(-2, 6), 0.0, duration_s)
    score.move("offset", np.zeros(2), 0.0, duration_s)
    score.move("height", score.standing_mm(score.style.extension), 0.0, duration_s)
    for side in SIDES:
        score.move(f"{side}_knee", 0.0, 0.0, duration_s)
    start = score.now_s
    score.advance(duration_s)
    score.span(start, "rise")


def crouch(score: Score, duration_s: float) -> None:
    """Go down on bent knees, heels up when deep."""
    start, depth = score.now_s, score.uniform(0.42, 0.75)
    down = score.uniform(0.9, 1.4) * score.style.tempo
    score.lean(score.uniform(12, 32), score.uniform(8, 28), 0.0, down)
    score.move("offset", np.array([0.0, score.uniform(0.02, 0.1) * score.leg_mm]), 0.0, down)
    score.move("height", score.standing_mm(depth), 0.0, down)
    heel = math.radians(max(0.0, (0.66 - depth) * 120.0))
    for side in SIDES:
        score.move(f"{side}_knee", score.degrees(4, 22), 0.0, down)
        score.feet[side].pitch.move(heel, score.now_s + 0.3 * down, score.now_s + down)
    score.advance(down)
    score.span(start, "crouch")
    middle = score.now_s
    score.advance(max(0.5, duration_s - 2.0 * down))
    score.span(middle, "crouch")
    for side in SIDES:
        score.feet[side].pitch.move(0.0, score.now_s, score.now_s + 0.8 * down)
    rise(score, down)


def half_kneel(score: Score, duration_s: float) -> None:
    """One knee on the floor, the other foot in front; up again."""
    start, body = score.now_s, score.body
    down, front = ("l", "r") if score.rng.random() < 0.5 else ("r", "l")
    thigh, shank = body.length_mm("l_shank"), body.length_mm("l_foot")
    half = 0.9 * score.style.half_width_mm
    ahead = score.uniform(0.55, 0.85) * shank
    places = {
        front: score.foot_place(front, (half + 20.0, ahead, score.degrees(0, 12))),
        down: score.foot_place(down, (half, -0.97 * shank, 0.0)),
    }
    time = score.now_s
    for side in (front, down):
        score.feet[side].step(places[side], time, time + 0.65, lift_mm=60.0)
        time += 0.6
    tucked = math.radians(score.uniform(66.0, 74.0))
    score.feet[down].pitch.move(tucked, time - 0.5, time + 0.9)
    hip = body.offsets_mm[body.index["l_thigh"], 2]
    score.move("height", thigh + 62.0 - hip, 0.5, 1.6)
    score.lean(score.uniform(0, 14), score.uniform(0, 14), 0.3, 1.4)
    score.move("load", 0.4, 0.3, 1.0)
    score.advance(2.2)
    score.span(start, "half_kneel")
    middle = score.now_s
    score.advance(max(0.8, duration_s - 4.4))
    score.span(middle, "half_kneel")
    start = score.now_s
    score.feet[down].pitch.move(0.0, score.now_s + 0.5, score.now_s + 1.5)
    score.move("load", 1.0, 0.8, 1.0)
    rise(score, 1.4)
    score.now_s = start + 0.9
    score.step_to(score.place, stance=score.stance())
    score.span(start, "rise")
