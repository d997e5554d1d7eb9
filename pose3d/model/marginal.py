"""The integral of the residual density over depth, for joints whose label has no depth.

∫ Q(t)·G(c(u, v, t)) dt, or ∫ G(u, v, t) dt, after the substitution t = W⁻¹(p) by the quantiles of
Student's t with two degrees of freedom, about the running location and spread of the residuals in
d: nodes then lie where residuals were seen, whatever the scale of σ.

In training few nodes do: p_k = (k + r)/n, with another r for every joint and every step. Sharp
turns of the flow between fixed nodes would go unpunished, and training would make them; with r
uniform the integral is right in expectation, and its logarithm, if anything, too small: the loss
is an upper bound of the exact one.

In evaluation a Gauss-Legendre rule on either side of 0, where Q may have
its kink, follows twice the spread; beyond the bound, where G(c) is constant, two last nodes hold
all the mass of Q. With 32 nodes its error is below 0.01 nats on flows fitted to heavy tails.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pose3d.model.base_density import BaseDensity
from pose3d.model.proposal import EDGE, Proposal

GaussRule = tuple[list[float], list[float]]
"""Nodes in (0, 1) and their weights: numbers, which a compiled graph takes as they are."""
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""Its multiples modulo 1 spread the shifts of the joints over (0, 1) evenly."""


def depth_nodes(
    proposal: Proposal,
    base: BaseDensity | None,
    rows: Int[Tensor, " rows"],
    *,
    num_nodes: int,
    shift: Float[Tensor, ""],
) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
    """Randomly shifted nodes along d under each of the rows, and the logs of their weights.

    Args:
        proposal: W, which places them.
        base: Q; None is 1.
        rows: Numbers of the joints that lack a depth.
        num_nodes: For each row.
        shift: In (0, 1), from which every row has its own.
    """
    step = torch.arange(num_nodes, device=rows.device, dtype=proposal.spread.dtype)
    place = (step + ((rows * GOLDEN_RATIO + shift) % 1)[:, None]) / num_nodes
    nodes, log_density = proposal.along_depth(place)
    log_weight = -log_density - math.log(num_nodes)
    if base is not None:
        log_weight = log_weight - base.energy(nodes) - base.log_constant
    return nodes, log_weight


def fixed_depth_nodes(
    proposal: Proposal, base: BaseDensity | None, bound: float, *, rule: GaussRule
) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    """The accurate nodes along d, the same under every row, and the logs of their weights.

    Args:
        proposal: W, of which twice the spread places them.
        base: Q; None is 1, and leaves the line without a bound.
        bound: Of the clamp c.
        rule: Its nodes stand on either side of 0; with Q there are two more.
    """
    location, spread = proposal.location[2], 2 * proposal.spread[2]
    unit, weight = (location.new_tensor(row) for row in rule)
    edge = bound if base is not None else math.inf
    edges = (location.new_tensor([-edge, 0, edge]) - location) / spread
    # The distribution function; (2 + t²)^½ would make it inf/inf at an infinite edge.
    places = 0.5 + 0.5 * torch.sign(edges) * (1 + 2 / edges.square()).rsqrt()
    width = places.diff()[:, None]
    place = (places[:-1, None] + width * unit).flatten().clamp(EDGE, 1 - EDGE)
    student = (2 * place - 1) * (2 * place * (1 - place)).rsqrt()
    nodes = location + spread * student
    log_density = -1.5 * (2 + student.square()).log() - spread.log()
    log_weight = (width * weight).flatten().log() - log_density
    if base is None:
        return nodes, log_weight
    tail = base.log_tail(location.new_tensor([bound, bound]))
    nodes = torch.cat([nodes, location.new_tensor([-bound, bound])])
    return nodes, torch.cat([log_weight + base.log_prob(nodes[:-2, None]), tail])


def gauss_rule(num_nodes: int) -> GaussRule:
    """Gauss-Legendre nodes and weights on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()


def with_depth(
    plane: Float[Tensor, "rows 2"], nodes: Float[Tensor, "rows nodes"]
) -> Float[Tensor, "rows nodes 3"]:
    """Put every depth node under each (u, v)."""
    plane = plane[:, None].expand(-1, nodes.shape[-1], -1)
    return torch.cat([plane, nodes[..., None]], dim=-1)
