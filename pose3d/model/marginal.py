"""The integral of the residual density over depth, for joints whose label has no depth.

∫ Q(t)·G(c(u, v, t)) dt, or without Q, by points that Student's t with two degrees of freedom, about
the running location and spread of the residuals in d, spreads over the line: t_k = W⁻¹((k + r)/n).
The integrand over W falls to 0 at both ends of (0, 1), where an equidistant rule is at its best.

In training few nodes do, and r is another number for every joint and every step. Sharp turns of
the flow between fixed nodes would go unpunished, and training would make them; with r uniform the
integral is right in expectation, and its logarithm, if anything, too small: the loss is an upper
bound of the exact one. In evaluation the nodes are many and r = 1/2.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pose3d.model.base_density import BaseDensity
from pose3d.model.proposal import Proposal

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""Its multiples modulo 1 spread the shifts of the joints over (0, 1) evenly."""


def depth_nodes(
    proposal: Proposal,
    base: BaseDensity | None,
    rows: Int[Tensor, " rows"],
    *,
    num_nodes: int,
    shift: Float[Tensor, ""] | None,
) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
    """Nodes along d under each of the rows, and the logs of their weights.

    Args:
        proposal: W, which places them.
        base: Q; None is 1.
        rows: Numbers of the joints that lack a depth.
        num_nodes: For each row.
        shift: In (0, 1), from which every row has its own; None is 1/2 for all.
    """
    step = torch.arange(num_nodes, device=rows.device, dtype=proposal.spread.dtype)
    if shift is None:
        place = ((step + 0.5) / num_nodes).expand(len(rows), -1)
    else:
        place = (step + ((rows * GOLDEN_RATIO + shift) % 1)[:, None]) / num_nodes
    nodes, log_density = proposal.along_depth(place)
    log_weight = -log_density - math.log(num_nodes)
    if base is not None:
        log_weight = log_weight - base.energy(nodes) - base.log_constant
    return nodes, log_weight


def with_depth(
    plane: Float[Tensor, "rows 2"], nodes: Float[Tensor, "rows nodes"]
) -> Float[Tensor, "rows nodes 3"]:
    """Put every depth node under each (u, v)."""
    plane = plane[:, None].expand(-1, nodes.shape[-1], -1)
    return torch.cat([plane, nodes[..., None]], dim=-1)
