"""A pose while its arms are drawn: turned bones, and how numbers and names are drawn."""

import math
from dataclasses import dataclass, field

import numpy as np

from data_prep.synthetic.body import Body, PosedSkeleton

Mixture = dict[str, float]
"""Names and how often each is drawn, in any unit."""


@dataclass(kw_only=True)
class Draft:
    """A pose while it is drawn: turned bones, with the pelvis at the origin."""

    body: Body
    rng: np.random.Generator
    local: dict[str, np.ndarray] = field(default_factory=dict)

    def skeleton(self) -> PosedSkeleton:
        """The bones turned so far."""
        return self.body.pose(self.local, np.zeros(3))

    def degrees(self, mean: float, deviation: float, limit: float = 2.5) -> float:
        """A truncated normal angle in degrees, returned in radians."""
        return math.radians(mean + deviation * float(np.clip(self.rng.normal(), -limit, limit)))

    def uniform(self, low: float, high: float) -> float:
        """A number between two."""
        return float(self.rng.uniform(low, high))


def choose(mixture: Mixture, rng: np.random.Generator) -> str:
    """Draw one name of a mixture."""
    shares = np.cumsum(list(mixture.values()))
    place = int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))
    return list(mixture)[place]


def outward_sign(side: str) -> float:
    """+1 on the left, -1 on the right: the direction of outward along x."""
    return 1.0 if side == "l" else -1.0
