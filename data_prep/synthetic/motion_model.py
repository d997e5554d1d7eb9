"""A motion model of our own: continuous motion under Human3.6M's action names.

An action writes a score (`motion_actions`, `motion_legs`): when which foot goes where, how trunk
and pelvis move, what the hands are at. Feet are planted or swing; the pelvis is carried as high as
the legs allow; legs reach from the hips to the feet (`motion_solve`). Hands move between poses
that are drawn within the joint limits and off the own body (`motion_arms`), and what still runs
into the body on the way is pushed out (`motion_repair`).
"""

import numpy as np

from data_prep.human36m import FRAMES_PER_S
from data_prep.synthetic.body import Body
from data_prep.synthetic.motion import Motion
from data_prep.synthetic.motion_actions import ACTIONS, write_score
from data_prep.synthetic.motion_arms import draw_arm_motion
from data_prep.synthetic.motion_repair import part_limbs
from data_prep.synthetic.motion_solve import solve_carried

LEAD_IN_S = (0.6, 4.0)
"""How much of a score is left out before the first frame, from and to."""
MARGIN_FRAMES = 25
"""More than is asked for, at both ends, so that smoothing over time has both of its sides."""


def draw_motion(
    body: Body, action: str, take: int, *, rng: np.random.Generator, num_frames: int
) -> Motion:
    """Draw a motion.

    Args:
        body: The shape that moves: its lengths decide how far limbs reach.
        action: One of Human3.6M's fifteen.
        take: 1 or 2; the takes of an action differ in what they mix.
        rng: All randomness comes from here.
        num_frames: How many frames at 50 per second, at least 1.

    Raises:
        ValueError: If the action is unknown, or take or number of frames are out of range.
    """
    if num_frames < 1:
        raise ValueError(f"a motion has at least 1 frame, got num_frames={num_frames}")
    if action not in ACTIONS:
        raise ValueError(f"unknown action {action!r}, known: {', '.join(ACTIONS)}")
    if take not in (1, 2):
        raise ValueError(f"a take is 1 or 2, got {take}")
    # Takes and actions differ even where they are drawn from generators that are alike.
    key = [*rng.integers(0, 2**32, size=4), list(ACTIONS).index(action), take]
    rng = np.random.default_rng(key)
    lead_s = float(rng.uniform(*LEAD_IN_S))
    times_s = lead_s + np.arange(-MARGIN_FRAMES, num_frames + MARGIN_FRAMES) / FRAMES_PER_S
    score = write_score(body, action, take, rng=rng, end_s=float(times_s[-1]))
    carried = solve_carried(score, times_s, rng=rng)
    arms = draw_arm_motion(score, carried, times_s, ACTIONS[action].arms, rng=rng)
    local = carried.local | arms
    part_limbs(body, local, carried.root_mm)
    kept = slice(MARGIN_FRAMES, MARGIN_FRAMES + num_frames)
    return Motion(
        local={name: turns[kept] for name, turns in local.items()},
        root_mm=carried.root_mm[kept],
        frames_per_s=FRAMES_PER_S,
        seat=score.seat,
        source=f"motion model, {action} {take}",
    )
