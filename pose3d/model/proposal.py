"""Where s·Q·G may have its mass: W, the density that places the points of every integral over it.

Half of W lies where residuals were seen, about their running location and spread, so that no scale
of σ escapes it. The other half lies where Q has its bulk, no wider than that: as long as the flow
does not outweigh Q, wide residuals leave the mass of Q·G there, and points among the residuals
alone then miss it (0.1 nats at 1,024 points). Both are products of Student's t with two degrees of
freedom, heavy-tailed, so that no residual density is missed beyond them.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PACE = 0.1
"""Share of the newest batch in the running location and spread."""
SMALLEST_SPREAD = 1e-3
EDGE = 1e-6
"""Points of the unit cube are kept this far from its faces."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """W at one moment: two products of Student's t, one about the residuals, one about Q's bulk."""

    location: Float[Tensor, "3"]
    """Of the residuals, units of σ."""
    spread: Float[Tensor, "3"]
    """Mean absolute deviation of the same."""

    def points(self, uniform: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Points of W from points of the unit cube, of which the first half go to the residuals."""
        unit = _student(uniform.clamp(EDGE, 1 - EDGE))
        halves = zip(unit.chunk(2, dim=-2), self._halves(), strict=True)
        return torch.cat([torch.addcmul(at, width, x) for x, (at, width) in halves], dim=-2)

    def log_prob(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Log density of W, nats."""
        seen, bulk = (
            -1.5 * (2 + ((x - at) / width).square()).log().sum(-1) - width.log().sum()
            for at, width in self._halves()
        )
        return torch.logaddexp(seen, bulk) - math.log(2)

    def _halves(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Location and spread of either half; Q's mean absolute deviation is 1, about 0."""
        ratio = self.spread.reciprocal().clamp_max(1)
        return (self.location, self.spread), (ratio * self.location, ratio * self.spread)

    def along_depth(
        self, uniform: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Points along d, from points of (0, 1), and the log density of d there (Student's t)."""
        unit = _student(uniform.clamp(EDGE, 1 - EDGE))
        log_prob = -1.5 * (2 + unit.square()).log() - self.spread[2].log()
        return self.location[2] + self.spread[2] * unit, log_prob


def _student(uniform: Tensor) -> Tensor:
    """Quantiles of Student's t with two degrees of freedom."""
    return (2 * uniform - 1) * (2 * uniform * (1 - uniform)).rsqrt()


@torch.no_grad()
def followed(
    location: Float[Tensor, "3"],
    spread: Float[Tensor, "3"],
    x: Float[Tensor, "rows 3"],
    labelled: Bool[Tensor, "rows 3"] | None,
) -> Float[Tensor, "2 3"]:
    """Running location and spread after another batch of residuals.

    Args:
        location: Before it.
        spread: Before it.
        x: Residuals of the batch.
        labelled: Which of them count; None is all. An axis without any stays where it was, and so
            does one whose residuals are not finite.

    Returns:
        Location and spread, one below the other.
    """
    if labelled is None:
        labelled = torch.ones_like(x, dtype=torch.bool)
    count = labelled.sum(0)
    seen = count.clamp_min(1)
    centre = (x * labelled).sum(0) / seen
    deviation = ((x - centre).abs() * labelled).sum(0) / seen
    new = torch.stack([centre, deviation.clamp_min(SMALLEST_SPREAD)])
    held = torch.stack([location, spread]).to(x.dtype)
    is_sound = (count > 0) & new.isfinite().all(0)
    return torch.where(is_sound, held.lerp(new, PACE), held)
