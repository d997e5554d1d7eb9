"""What legs do for a while: stand, sit on a chair or the floor, crouch, kneel, bend, walk."""

import math
from collections.abc import Callable

import numpy as np

from data_prep.synthetic.motion import Seat
from data_prep.synthetic.motion_score import AREA_CENTRE_MM, AREA_HALF_MM, Score, Stance, in_area
from data_prep.synthetic.rotations import rotation_x

SITES = ("l", "r")
SEAT_BEHIND = 0.25
"""How far the seat's front edge is behind those who stand before it, in leg lengths."""
SINK_MM = 8.0
"""How far a body sinks into what it sits on."""
FLOOR_SEAT = 0.68
"""How far behind the feet people sit down on the floor, in leg lengths."""


def _sway(score: Score, duration_s: float, *, restless: float = 1.0) -> None:
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
        _sway(score, min(max(0.3, end - score.now_s), score.uniform(2.0, 7.0)))
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
    _sway(score, max(1.0, duration_s), restless=0.7)
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
    start, lean = score.now_s, score.uniform(35.0, 70.0)
    down = score.uniform(0.9, 1.4) * score.style.tempo
    score.lean(lean, score.uniform(15.0, 40.0), 0.0, down)
    score.move("offset", np.array([0.0, 2.0 * lean]), 0.0, down)
    score.move("height", score.standing_mm(score.uniform(0.84, 0.96)), 0.0, down)
    score.advance(down)
    score.span(start, "bend")
    middle = score.now_s
    score.advance(max(0.6, duration_s - 2.0 * down))
    score.span(middle, "bend")
    _rise(score, down)


def _rise(score: Score, duration_s: float) -> None:
    """Come up to stand over the feet."""
    score.lean(0.0, score.uniform(-2, 6), 0.0, duration_s)
    score.move("offset", np.zeros(2), 0.0, duration_s)
    score.move("height", score.standing_mm(score.style.extension), 0.0, duration_s)
    for side in SITES:
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
    for side in SITES:
        score.move(f"{side}_knee", score.degrees(4, 22), 0.0, down)
        score.feet[side].pitch.move(heel, score.now_s + 0.3 * down, score.now_s + down)
    score.advance(down)
    score.span(start, "crouch")
    middle = score.now_s
    score.advance(max(0.5, duration_s - 2.0 * down))
    score.span(middle, "crouch")
    for side in SITES:
        score.feet[side].pitch.move(0.0, score.now_s, score.now_s + 0.8 * down)
    _rise(score, down)


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
    _rise(score, 1.4)
    score.now_s = start + 0.9
    score.step_to(score.place, stance=score.stance())
    score.span(start, "rise")


def chair(score: Score, duration_s: float) -> None:
    """Sit down on the seat, sit, rearrange the feet, and stand up again."""
    start = score.now_s
    seat = place_seat(score)
    _step_before(score, seat)
    down = score.uniform(1.1, 1.6) * score.style.tempo
    depth = seat_depth_mm(score, tilt_deg=-4.0, flexion_deg=82.0)
    _sit(score, seat.size_mm[2] + depth - SINK_MM, down)
    score.span(start, "chair")
    _hold_chair(score, max(2.0, duration_s - 2.0 * down))
    start = score.now_s
    stance = score.stance()
    for i, side in enumerate(SITES):
        begin = start + 0.3 * i
        score.feet[side].step(
            score.foot_place(side, stance[side]), begin, begin + 0.45, lift_mm=25.0
        )
    score.advance(0.75)
    score.lean(32.0, 12.0, 0.0, 0.6 * down)
    score.move("offset", np.zeros(2), 0.2 * down, 0.8 * down)
    score.move("height", score.standing_mm(score.style.extension), 0.3 * down, 0.9 * down)
    score.move("load", 1.0, 0.6 * down, 0.6 * down)
    for side in SITES:
        score.move(f"{side}_knee", 0.0, 0.0, down)
    score.advance(0.6 * down)
    score.lean(0.0, 3.0, 0.0, 0.8 * down)
    score.advance(0.6 * down)
    score.span(start, "rise")


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


def _sit(score: Score, height_mm: float, down: float) -> None:
    score.lean(30.0, 15.0, 0.0, 0.7 * down)
    score.move("offset", np.array([0.0, 0.47 * score.leg_mm]), 0.0, 0.85 * down)
    score.move("height", height_mm, 0.2 * down, 0.8 * down)
    score.move("load", 0.0, 0.2 * down, 0.8 * down)
    score.advance(0.75 * down)
    score.lean(score.uniform(-14, 8), score.uniform(-4, 22), 0.0, 0.7)
    score.advance(0.25 * down)


def _hold_chair(score: Score, duration_s: float) -> None:
    """Sit; move a foot, lean anew."""
    start, end = score.now_s, score.now_s + duration_s
    while score.now_s < end:
        if score.rng.random() < 0.6:
            _place_seated_feet(score)
        if score.rng.random() < 0.6:
            score.lean(score.uniform(-16, 10), score.uniform(-4, 24), 0.0, score.uniform(0.8, 1.6))
        score.advance(min(max(0.3, end - score.now_s), score.uniform(1.5, 6.0)))
    score.span(start, "chair")


def _place_seated_feet(score: Score) -> None:
    shank = score.body.length_mm("l_foot")
    width = score.uniform(70.0, 190.0)
    for side in SITES:
        if score.rng.random() < 0.3:
            continue
        ahead = score.uniform(-0.12, 0.42) * shank
        offset = (width + score.uniform(-40, 40), ahead, score.degrees(-4, 22))
        begin = score.now_s + score.uniform(0.0, 0.5)
        place = score.foot_place(side, offset)
        score.feet[side].step(place, begin, begin + score.uniform(0.5, 0.8), lift_mm=35.0)
        score.move(f"{side}_knee", score.degrees(-4, 16), 0.0, 1.2)
    score.advance(1.3)


def floor(score: Score, duration_s: float) -> None:
    """Sit down on the floor, stretch, draw up or cross the legs, and get up again."""
    start, leg = score.now_s, score.leg_mm
    down = score.uniform(1.6, 2.3) * score.style.tempo
    seat = seat_depth_mm(score, tilt_deg=-20.0, flexion_deg=115.0)
    score.lean(18.0, 40.0, 0.0, 0.45 * down)
    score.move("offset", np.array([0.0, FLOOR_SEAT * leg]), 0.0, 0.95 * down)
    score.move("height", seat, 0.05 * down, down)
    score.move("load", 0.0, 0.3 * down, 0.6 * down)
    for side in SITES:
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
    for i, side in enumerate(SITES):
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
    for side in SITES:
        score.move(f"{side}_knee", 0.0, 0.3 * duration_s, duration_s)
    score.advance(0.55 * duration_s)
    score.lean(0.0, 4.0, 0.0, 0.75 * duration_s)
    score.advance(0.65 * duration_s)
    score.span(start, "rise")


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
    _sway(score, score.uniform(0.4, 0.6) * duration_s)
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
