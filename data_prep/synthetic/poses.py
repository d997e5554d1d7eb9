"""Random poses under Human3.6M's action names, within joint limits and off the own body.

An action is a mixture of legs (standing, walking, sitting, ...) and of arms (hanging, at the ear,
on the hips, ...). Legs and arms reach for drawn targets with two bones, so that feet stand on the
floor and hands come where the action wants them. A pose that breaks a limit or runs one limb
through another is drawn again.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.arms import choose_arms, draw_arms
from data_prep.synthetic.body import Body
from data_prep.synthetic.draft import Draft, Mixture, draw_trunk
from data_prep.synthetic.legs import LEGS
from data_prep.synthetic.limits import intersection_mm, limit_excess

NUM_ATTEMPTS = 32
ATTEMPTS_PER_CHOICE = 16
TOLERATED_INTERSECTION_MM = 12.0


@dataclass(frozen=True, kw_only=True)
class ActionPrior:
    """How often an action has which legs and arms."""

    legs: Mixture
    arms: Mixture
    """For both arms together (two_*) or for each by itself; 'one:X' leaves the other free."""


_FREE: Mixture = {"hang": 0.5, "gesture": 0.3, "hip": 0.08, "front": 0.12}
_STAND: Mixture = {"stand": 0.9, "lunge": 0.1}

ACTION_PRIORS: dict[str, ActionPrior] = {
    "Directions": ActionPrior(
        legs=_STAND, arms={"one:raise": 0.35, "raise": 0.15, "gesture": 0.3, "one:gesture": 0.2}
    ),
    "Discussion": ActionPrior(
        legs=_STAND, arms={"gesture": 0.5, "one:gesture": 0.2, "two_crossed": 0.15, "front": 0.15}
    ),
    "Eating": ActionPrior(legs={"chair": 0.7, "stand": 0.3}, arms={"one:mouth": 0.7, "front": 0.3}),
    "Greeting": ActionPrior(
        legs={"stand": 0.85, "bow": 0.15},
        arms={"one:wave": 0.45, "wave": 0.15, "one:gesture": 0.2, "hang": 0.1, "raise": 0.1},
    ),
    "Phoning": ActionPrior(
        legs={"stand": 0.5, "chair": 0.35, "walk": 0.15}, arms={"one:ear": 0.9, "one:front": 0.1}
    ),
    "Posing": ActionPrior(
        legs={"stand": 0.7, "lunge": 0.3},
        arms={"hip": 0.3, "one:hip": 0.25, "raise": 0.15, "two_head": 0.15, "gesture": 0.15},
    ),
    "Purchases": ActionPrior(
        legs={"stand": 0.4, "bend": 0.3, "crouch": 0.2, "walk": 0.1},
        arms={"low": 0.4, "front": 0.3, "one:low": 0.3},
    ),
    "Sitting": ActionPrior(
        legs={"chair": 1.0},
        arms={"knee": 0.4, "gesture": 0.15, "front": 0.25, "two_crossed": 0.1, "one:mouth": 0.1},
    ),
    "SittingDown": ActionPrior(
        legs={"floor": 0.6, "kneel": 0.2, "crouch": 0.2},
        arms={"knee": 0.35, "behind": 0.2, "front": 0.2, "one:behind": 0.15, "low": 0.1},
    ),
    "Smoking": ActionPrior(
        legs={"stand": 0.6, "chair": 0.4}, arms={"one:mouth": 0.7, "one:front": 0.2, "hang": 0.1}
    ),
    "Photo": ActionPrior(
        legs={"stand": 0.75, "crouch": 0.12, "half_kneel": 0.13},
        arms={"two_camera": 0.75, "one:camera": 0.25},
    ),
    "Waiting": ActionPrior(
        legs={"stand": 0.75, "chair": 0.15, "lunge": 0.1},
        arms={"hang": 0.35, "two_crossed": 0.2, "hip": 0.15, "front": 0.2, "one:head": 0.1},
    ),
    "Walking": ActionPrior(legs={"walk": 1.0}, arms={"two_swing": 0.85, "hang": 0.15}),
    "WalkDog": ActionPrior(
        legs={"walk": 0.65, "stand": 0.15, "bend": 0.1, "crouch": 0.1},
        arms={"one:leash": 0.8, "two_swing": 0.1, "one:low": 0.1},
    ),
    "WalkTogether": ActionPrior(
        legs={"walk": 0.9, "stand": 0.1},
        arms={"two_swing": 0.6, "one:gesture": 0.25, "gesture": 0.15},
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """A drawn pose: rotations in the parents' frames, and whether it needs a seat."""

    local: dict[str, Float[np.ndarray, "3 3"]]
    sits_on_chair: bool
    legs: str
    arms: tuple[str, str]
    excess: float
    """0 where every limit holds and no limb is in another; what was left otherwise."""


def draw_pose(body: Body, action: str, *, rng: np.random.Generator) -> Pose:
    """Draw a pose of an action.

    Args:
        body: The shape that is posed: lengths decide how far limbs reach.
        action: One of `ACTION_PRIORS`.
        rng: All randomness comes from here.

    Returns:
        The first drawn pose without fault, or the one with the least of `NUM_ATTEMPTS`.

    Raises:
        ValueError: If the action is unknown.
    """
    if action not in ACTION_PRIORS:
        raise ValueError(f"unknown action {action!r}, known: {', '.join(ACTION_PRIORS)}")
    prior = ACTION_PRIORS[action]
    best: Pose | None = None
    for attempt in range(NUM_ATTEMPTS):
        if attempt % ATTEMPTS_PER_CHOICE == 0:  # else what is hard to draw would be rare
            choice = Draft(body=body, rng=rng)
            choice.legs = choice.choose(prior.legs)
            arms = choose_arms(choice, prior.arms)
        pose = _attempt(Draft(body=body, rng=rng, legs=choice.legs), arms)
        if best is None or pose.excess < best.excess:
            best = pose
        if best.excess == 0.0:
            break
    assert best is not None
    return best


def _attempt(draft: Draft, arms: tuple[str, str]) -> Pose:
    """Draw the details of a pose, faults counted."""
    draw_trunk(draft)
    LEGS[draft.legs](draft)
    draw_arms(draft, arms)
    skeleton = draft.skeleton()
    inside = max(0.0, float(intersection_mm(draft.body, skeleton)) - TOLERATED_INTERSECTION_MM)
    return Pose(
        local=draft.local,
        sits_on_chair=draft.legs == "chair",
        legs=draft.legs,
        arms=arms,
        excess=float(inside + 100.0 * limit_excess(draft.local)),
    )
