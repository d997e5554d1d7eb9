"""Where residuals were seen: the density W that places the points of every integral over them.

W is heavy-tailed, so that no residual density is missed beyond it: Student's t with two degrees of
freedom, on each axis for one half of W and trivariate for the other, about a running location and
spread of the residuals. Because it follows them, no scale of σ escapes it.
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
LOG_CONSTANT_OF_BALL = math.lgamma(2.5) - 1.5 * math.log(2 * math.pi)
"""Log density at 0 of the trivariate Student's t with two degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """W at one moment: half product, half trivariate Student's t, with two degrees of freedom."""

    location: Float[Tensor, "3"]
    """Of the residuals, units of σ."""
    spread: Float[Tensor, "3"]
    """Mean absolute deviation of the same."""

    def points(self, uniform: Float[Tensor, "*batch points 4"]) -> Float[Tensor, "*batch points 3"]:
        """Points of W from points of the unit cube, of which the first half go to the product."""
        axis, ball = uniform.clamp(EDGE, 1 - EDGE).chunk(2, dim=-2)
        ball = torch.special.ndtri(ball[..., :3]) / (-ball[..., 3:].log()).sqrt()
        return torch.addcmul(
            self.location, self.spread, torch.cat([_student(axis[..., :3]), ball], dim=-2)
        )

    def log_prob(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Log density of W, nats."""
        square = ((x - self.location) / self.spread).square()
        axis = -1.5 * (2 + square).log().sum(-1)
        ball = LOG_CONSTANT_OF_BALL - 2.5 * torch.log1p(square.sum(-1) / 2)
        return torch.logaddexp(axis, ball) - (math.log(2) + self.spread.log().sum())

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
