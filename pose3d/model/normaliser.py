"""log s of the residual density P = s·Q·G: quasi-random points where P may hold its mass.

With c(x), x clamped to ±bound on each axis, 1/s = ∫ Q(x)·G(c(x)) dx.

1/s = E_{z~N}[Q(f(z))] is blind where the flow is wide, and heavy-tailed residuals make it so: G
must then outweigh Q's tails, and nearly all its mass lies where Q has none. 1/s = E_{x~Q}[G(x)] is
blind where the flow is sharp, and to what P holds beyond Q's bulk. Training exploits a blind
estimate: it moves mass to where nothing is counted, and runs away. Half of the points are therefore
drawn from the flow and half from W, which knows the residuals seen in training and Q's bulk (see
`proposal`).
Both are weighed by the balance heuristic (Veach & Guibas 1995),

    1/s = E_{x~W}[Q·G / (W+G)] + E_{x~G}[Q·G / (W+G)],

where, beyond the bound, W's points count Q·G(c(x)) / W and the flow's count 0. The gradient is
pathwise. With 1,024 points the rms error is 0.001 to 0.024 nats on narrow, heavy, off-centre and
unequal residuals and 0.065 on residuals of 6 σ; of structures much finer than W which fill its bulk
(clusters, a bent sheet) it was 0.4 (benchmarks/bench_normaliser.py, EXPERIMENTS.md).

A conditioned flow has one normaliser per context: points stand in groups, one for each, and all
contexts go through the flow together.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pose3d.model.base_density import BaseDensity
from pose3d.model.flow import Flow, standard_normal_log_prob
from pose3d.model.proposal import EDGE, Proposal


@dataclass(frozen=True, slots=True)
class ResidualPoints:
    """Points of W and of the flow, both in groups of one context each."""

    wide: Float[Tensor, "groups points 3"]
    """Of W."""
    normal: Float[Tensor, "groups points 3"]
    """Of N(0, I), which the flow moves to where its own mass is."""
    context: Float[Tensor, "groups context_dim"] | None
    """Of each group; None where the flow is unconditional."""

    @classmethod
    def from_uniform(
        cls,
        uniform: Float[Tensor, "2 groups points 3"],
        proposal: Proposal,
        context: Float[Tensor, "groups context_dim"] | None,
    ) -> "ResidualPoints":
        """Move points of the unit cube to where they belong."""
        normal = torch.special.ndtri(uniform[1].clamp(EDGE, 1 - EDGE))
        return cls(proposal.points(uniform[0]), normal, context)


@dataclass(frozen=True, slots=True)
class WeightedPoints:
    """Points x with the logs of their shares in ∫ Q(x)·G(c(x)) dx, nats."""

    x: Float[Tensor, "groups points 3"]
    log_share: Float[Tensor, "groups points"]

    def log_mass(self) -> Float[Tensor, " groups"]:
        """log ∫ Q(x)·G(c(x)) dx = −log s of each group, nats."""
        return self.log_share.logsumexp(-1)

    @torch.no_grad()
    def geometric_median(self, *, num_steps: int = 100) -> Float[Tensor, "groups 3"]:
        """The point with the least expected distance to P, of each group.

        Source:
            Weiszfeld's iteration (1937), on the weighted points.
        """
        share = self.log_share.softmax(-1)[..., None]
        point = (share * self.x).sum(-2, keepdim=True)
        for _ in range(num_steps):
            pull = share / (self.x - point).norm(dim=-1, keepdim=True).clamp_min(1e-6)
            point = (pull * self.x).sum(-2, keepdim=True) / pull.sum(-2, keepdim=True)
        return point[..., 0, :]


def weighted_points(
    flow: Flow,
    base: BaseDensity,
    bound: float,
    proposal: Proposal,
    points: ResidualPoints,
    log_flow_of_wide: Float[Tensor, "groups points"] | None = None,
) -> WeightedPoints:
    """Weigh points by the balance heuristic; see the module's docstring.

    Args:
        flow: G.
        base: Q.
        bound: Of the clamp c.
        proposal: W.
        points: Of W and of N(0, I).
        log_flow_of_wide: log G(c(x)) at those of W, where they went through the flow already.
    """
    context = None if points.context is None else points.context[:, None]
    if log_flow_of_wide is None:
        log_flow_of_wide = flow.log_prob(points.wide.clamp(-bound, bound), context)
    from_flow, log_abs_det = flow.from_base(points.normal, context)
    log_flow_of_flow = standard_normal_log_prob(points.normal) - log_abs_det
    x = torch.cat([points.wide, from_flow], dim=-2)
    log_flow = torch.cat([log_flow_of_wide, log_flow_of_flow], dim=-1)
    log_wide = proposal.log_prob(x)
    num_wide = points.wide.shape[-2]
    # Beyond the bound log W for points of W, infinite, so that they count nothing, for the others.
    is_of_flow = torch.arange(x.shape[-2], device=x.device) >= num_wide
    log_mixture = torch.where(
        (x.abs() <= bound).all(-1),
        torch.logaddexp(log_wide, log_flow),
        log_wide.masked_fill(is_of_flow, math.inf),
    )
    log_share = base.log_prob(x) + log_flow - log_mixture - math.log(num_wide)
    return WeightedPoints(x, log_share)
