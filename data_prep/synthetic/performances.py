"""Where the motion of a take comes from."""

from typing import Protocol

import numpy as np

from data_prep.synthetic.body import Body
from data_prep.synthetic.motion import Motion
from data_prep.synthetic.motion_model import draw_motion
from data_prep.synthetic.slots import Performance, model_performances


class Motions(Protocol):
    """A source of motion."""

    @property
    def description(self) -> str:
        """What it is, in words; the same words mean the same motion."""
        ...

    def performances(self, split: str) -> list[Performance]:
        """What can be filmed for a split."""
        ...

    def motion(
        self,
        body: Body,
        subject: int,
        action: str,
        take: int,
        *,
        rng: np.random.Generator,
        num_frames: int,
    ) -> Motion:
        """The motion of a body in a take.

        Args:
            body: Who moves.
            subject: The body's subject.
            action: Action's name.
            take: Number of the take, from 1.
            rng: All randomness comes from here.
            num_frames: How many frames are wanted, at 50 a second.

        Raises:
            ValueError: If the action is unknown.
        """
        ...


class ModelMotions:
    """Motion from the motion model."""

    description = "motion model"

    def performances(self, split: str) -> list[Performance]:
        """All takes of all actions by the subjects of a split."""
        return model_performances(split)

    def motion(
        self,
        body: Body,
        subject: int,
        action: str,
        take: int,
        *,
        rng: np.random.Generator,
        num_frames: int,
    ) -> Motion:
        """Draw a motion; see `Motions.motion`."""
        return draw_motion(body, action, take, rng=rng, num_frames=num_frames)
