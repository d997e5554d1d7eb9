"""What people do under each of Human3.6M's action names: legs, for how long, and arms meanwhile."""

import math
from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.body import Body
from data_prep.synthetic.draft import Mixture, choose
from data_prep.synthetic.motion_legs import LEGS
from data_prep.synthetic.motion_score import AREA_CENTRE_MM, AREA_HALF_MM, TRUNK, Score
from data_prep.synthetic.motion_seats import place_seat
from data_prep.synthetic.motion_style import draw_style

LEGS_S: dict[str, tuple[float, float]] = {
    "stand": (6.0, 18.0),
    "lunge": (2.5, 6.0),
    "bow": (2.0, 3.5),
    "bend": (3.0, 6.0),
    "crouch": (3.5, 8.0),
    "half_kneel": (7.0, 11.0),
    "chair": (18.0, 45.0),
    "floor": (14.0, 30.0),
    "walk": (8.0, 20.0),
    "pace": (3.0, 7.0),
}
"""How long legs stay with one thing, from and to."""

_DOWN_ARMS: dict[str, Mixture] = {
    "rise": {"pick": 0.4, "hang": 0.3, "front": 0.3},
    "lower": {"pick": 0.5, "front": 0.5},
    "bend": {"pick": 0.6, "one:pick": 0.4},
    "crouch": {"pick": 0.5, "front": 0.3, "one:pick": 0.2},
}


@dataclass(frozen=True, kw_only=True)
class Action:
    """How often an action has which legs and arms; a take keeps to one of the `legs`."""

    legs: tuple[Mixture, Mixture]
    """Of one take and of the other."""
    arms: dict[str, Mixture]
    """By what the legs do; "" for all others."""
    gaze_deg: float = 22.0


_SEATED: Mixture = {"knee": 0.35, "gesture": 0.2, "front": 0.25, "two_crossed": 0.08}

ACTIONS: dict[str, Action] = {
    "Directions": Action(
        legs=({"stand": 0.8, "walk": 0.2}, {"stand": 0.9, "lunge": 0.1}),
        arms={"": {"one:raise": 0.4, "raise": 0.12, "gesture": 0.25, "one:gesture": 0.23}},
        gaze_deg=30.0,
    ),
    "Discussion": Action(
        legs=({"stand": 1.0}, {"stand": 0.8, "pace": 0.2}),
        arms={"": {"gesture": 0.5, "one:gesture": 0.25, "two_crossed": 0.08, "front": 0.17}},
        gaze_deg=28.0,
    ),
    "Eating": Action(
        legs=({"chair": 1.0}, {"stand": 0.7, "pace": 0.3}),
        arms={"": {"one:mouth": 0.5, "one:front": 0.3, "front": 0.2}},
    ),
    "Greeting": Action(
        legs=({"stand": 0.7, "bow": 0.3}, {"stand": 0.6, "pace": 0.2, "bow": 0.2}),
        arms={
            "": {"one:wave": 0.45, "wave": 0.1, "one:gesture": 0.2, "hang": 0.15, "raise": 0.1},
            "bow": {"hang": 0.6, "front": 0.4},
        },
    ),
    "Phoning": Action(
        legs=({"stand": 0.5, "pace": 0.5}, {"chair": 1.0}),
        arms={"": {"one:ear": 1.0}},
    ),
    "Posing": Action(
        legs=({"stand": 0.6, "lunge": 0.4}, {"stand": 0.5, "lunge": 0.3, "half_kneel": 0.2}),
        arms={
            "": {"hip": 0.25, "one:hip": 0.25, "raise": 0.15, "two_head": 0.15, "gesture": 0.2},
        },
    ),
    "Purchases": Action(
        legs=({"stand": 0.4, "bend": 0.4, "pace": 0.2}, {"stand": 0.4, "crouch": 0.4, "pace": 0.2}),
        arms={"": {"low": 0.4, "front": 0.3, "one:low": 0.3}} | _DOWN_ARMS,
    ),
    "Sitting": Action(
        legs=({"chair": 1.0}, {"chair": 1.0}),
        arms={"": {**_SEATED, "one:mouth": 0.1}},
    ),
    "SittingDown": Action(
        legs=({"floor": 1.0}, {"floor": 0.8, "crouch": 0.2}),
        arms={
            "": {"low": 0.4, "hang": 0.3, "front": 0.3},
            "floor": {
                "behind": 0.15,
                "beside": 0.2,
                "shin": 0.25,
                "knee": 0.1,
                "gesture": 0.1,
                "one:behind": 0.1,
                "one:beside": 0.1,
            },
            **_DOWN_ARMS,
        },
    ),
    "Smoking": Action(
        legs=({"stand": 0.75, "pace": 0.25}, {"chair": 1.0}),
        arms={"": {"one:mouth": 0.5, "one:front": 0.3, "hang": 0.2}},
    ),
    "Photo": Action(
        legs=({"stand": 0.8, "pace": 0.2}, {"stand": 0.5, "half_kneel": 0.25, "crouch": 0.25}),
        arms={"": {"two_camera": 0.75, "one:camera": 0.25}, "rise": {"front": 1.0}},
    ),
    "Waiting": Action(
        legs=({"stand": 0.8, "pace": 0.2}, {"stand": 0.5, "lunge": 0.2, "chair": 0.3}),
        arms={"": {"hang": 0.35, "two_crossed": 0.2, "hip": 0.15, "front": 0.2, "one:head": 0.1}},
        gaze_deg=30.0,
    ),
    "Walking": Action(legs=({"walk": 1.0}, {"walk": 1.0}), arms={"": {"two_swing": 1.0}}),
    "WalkDog": Action(
        legs=(
            {"walk": 0.6, "stand": 0.2, "bend": 0.2},
            {"walk": 0.6, "crouch": 0.25, "pace": 0.15},
        ),
        arms={"": {"one:leash": 1.0}, "bend": {"one:pick": 1.0}, "crouch": {"one:pick": 1.0}},
    ),
    "WalkTogether": Action(
        legs=({"walk": 1.0}, {"walk": 0.85, "stand": 0.15}),
        arms={"": {"two_swing": 0.6, "one:gesture": 0.25, "gesture": 0.15}},
        gaze_deg=30.0,
    ),
}
"""Human3.6M's fifteen actions."""


GAZE_SHARES = {"spine": 0.12, "chest": 0.18, "neck": 0.35, "head": 0.35}
"""How much of a look to the side each part of the trunk turns."""
NOD_DEG = {"spine": 2.0, "chest": 2.5, "neck": 6.0, "head": 6.0}
"""How much each part bends forward and back by the way."""


def write_score(
    body: Body, action: str, take: int, *, rng: np.random.Generator, end_s: float
) -> Score:
    """Write what somebody does until a time, in one of the takes 1 and 2 of an action."""
    start = AREA_CENTRE_MM + rng.uniform(-0.6, 0.6, size=2) * AREA_HALF_MM
    place = np.append(start, rng.uniform(0.0, 2.0 * math.pi))
    score = Score(body=body, rng=rng, style=draw_style(rng, body.leg_mm), place=place)
    legs = ACTIONS[action].legs[take - 1]
    if "chair" in legs:
        place_seat(score)
    score.advance(0.5)
    score.span(0.0, "stand")
    while score.now_s < end_s:
        name = choose(legs, rng)
        LEGS[name](score, float(rng.uniform(*LEGS_S[name])))
    _look_around(score, ACTIONS[action].gaze_deg)
    return score


def _look_around(score: Score, gaze_deg: float) -> None:
    """Let trunk, neck and head turn to what there is to see, all the time."""
    rng, now = score.rng, 0.3
    while now < score.now_s:
        duration = float(rng.uniform(0.5, 1.3))
        gaze = math.radians(gaze_deg) * float(np.clip(rng.normal(), -2.0, 2.0))
        for name in TRUNK:
            channel = score.channels[f"{name}_turn"]
            nod = math.radians(NOD_DEG[name]) * float(np.clip(rng.normal(), -2.0, 2.0))
            side = math.radians(2.5) * float(np.clip(rng.normal(), -2.0, 2.0))
            channel.move(np.array([nod, GAZE_SHARES[name] * gaze, side]), now, now + duration)
        now += duration + float(rng.uniform(0.3, 3.5))
