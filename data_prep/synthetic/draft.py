"""A pose while it is drawn: the trunk, and what legs and arms share."""

import math
from dataclasses import dataclass, field

import numpy as np

from data_prep.synthetic.body import Body, PosedSkeleton
from data_prep.synthetic.rotations import rotation_x, rotation_y, rotation_z

Mixture = dict[str, float]
"""Names and how often each is drawn, in any unit."""


@dataclass(kw_only=True)
class Draft:
    """A pose while it is drawn: turned bones, with the pelvis at the origin."""

    body: Body
    rng: np.random.Generator
    local: dict[str, np.ndarray] = field(default_factory=dict)
    legs: str = "stand"
    phase_rad: float = 0.0
    """Place within the stride of those who walk."""

    def skeleton(self) -> PosedSkeleton:
        """The bones turned so far."""
        return self.body.pose(self.local, np.zeros(3))

    def degrees(self, mean: float, deviation: float, limit: float = 2.5) -> float:
        """A truncated normal angle in degrees, returned in radians."""
        return math.radians(mean + deviation * float(np.clip(self.rng.normal(), -limit, limit)))

    def uniform(self, low: float, high: float) -> float:
        """A number between two."""
        return float(self.rng.uniform(low, high))

    def choose(self, mixture: Mixture) -> str:
        """One name of a mixture."""
        names = list(mixture)
        shares = np.cumsum([mixture[name] for name in names])
        return names[int(np.searchsorted(shares, self.rng.random() * shares[-1], side="right"))]


def outward_sign(side: str) -> float:
    """+1 on the left, -1 on the right: the direction of outward along x."""
    return 1.0 if side == "l" else -1.0


def draw_trunk(draft: Draft) -> None:
    """Turn pelvis, spine, chest, neck and head a little, as an upright person does."""

    def bent(flexion: float, twist: float, side: float) -> np.ndarray:
        return rotation_z(twist) @ rotation_x(flexion) @ rotation_y(side)

    d = draft.degrees
    draft.local["pelvis"] = bent(d(2, 4), d(0, 5), d(0, 2.5))
    draft.local["spine"] = bent(d(2, 5), d(0, 6), d(0, 4))
    draft.local["chest"] = bent(d(3, 6), d(0, 7), d(0, 4))
    draft.local["neck"] = bent(d(2, 8), d(0, 12), d(0, 5))
    draft.local["head"] = bent(d(-1, 7), d(0, 14), d(0, 4))


def lean_trunk(draft: Draft, pelvis_deg: float, spine_deg: float) -> None:
    """Bend pelvis and spine forward beyond the upright trunk; the head looks up against it."""
    half = math.radians(0.5 * spine_deg)
    draft.local["pelvis"] = draft.local["pelvis"] @ rotation_x(math.radians(pelvis_deg))
    draft.local["spine"] = draft.local["spine"] @ rotation_x(half)
    draft.local["chest"] = draft.local["chest"] @ rotation_x(half)
    back = math.radians(min(25.0, 0.35 * max(0.0, pelvis_deg + spine_deg)))
    draft.local["neck"] = draft.local["neck"] @ rotation_x(-back)
