"""What legs can do for a while, by name; walking among it."""

import math
from collections.abc import Callable

import numpy as np

from data_prep.synthetic.motion_floor import floor
from data_prep.synthetic.motion_score import AREA_CENTRE_MM, AREA_HALF_MM, Score, in_area
from data_prep.synthetic.motion_seats import chair
from data_prep.synthetic.motion_stances import bend, bow, crouch, half_kneel, lunge, stand, sway


def walk(score: Score, duration_s: float) -> None:
    """Walk round the area: loops, eights and turns, for about a time."""
    start = score.now_s
    half = AREA_HALF_MM * score.uniform(0.8, 1.0)
    length = duration_s * score.style.step_mm / score.style.step_s
    x, y = (score.place[:2] - AREA_CENTRE_MM) / half
    angle = math.atan2(y, x) if math.hypot(x, y) > 0.2 else score.uniform(0.0, 2.0 * math.pi)
    turning = 1.0 if score.rng.random() < 0.5 else -1.0
    is_eight = score.rng.random() < 0.35
    points: list[np.ndarray] = []
    way, last = 0.0, score.place[:2]
    while way < length or len(points) < 2:
        angle += turning * math.radians(
            score.uniform(34, 42) if is_eight else score.uniform(48, 68)
        )
        radius = score.uniform(0.8, 1.0)
        place = half * radius * np.array([math.cos(angle), math.sin(angle)])
        if is_eight:
            place = half * radius * np.array([math.sin(2.0 * angle), math.sin(angle)]) * [0.75, 1.0]
        place = AREA_CENTRE_MM + place
        points.append(place)
        way, last = way + float(np.hypot(*(place - last))), place
    score.walk(np.array(points))
    score.span(start, "walk")


def pace(score: Score, duration_s: float) -> None:
    """Walk a few steps to another place in the area."""
    start = score.now_s
    for _ in range(20):
        target = AREA_CENTRE_MM + score.rng.uniform(-0.75, 0.75, size=2) * AREA_HALF_MM
        way = float(np.hypot(*(target - score.place[:2])))
        if way > 700.0:
            break
    middle = 0.5 * (score.place[:2] + target) + score.rng.normal(0.0, 0.12 * way, size=2)
    score.walk(np.stack([in_area(middle), target]), speed=0.8)
    score.span(start, "walk")
    start = score.now_s
    sway(score, score.uniform(0.4, 0.6) * duration_s)
    score.span(start, "stand")


LEGS: dict[str, Callable[[Score, float], None]] = {
    "stand": stand,
    "lunge": lunge,
    "bow": bow,
    "bend": bend,
    "crouch": crouch,
    "half_kneel": half_kneel,
    "chair": chair,
    "floor": floor,
    "walk": walk,
    "pace": pace,
}
"""What legs can do, by name; each begins and ends with standing over both feet."""
