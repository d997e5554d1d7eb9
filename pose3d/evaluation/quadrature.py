"""Integrals of a 3-D density on a tensor grid whose cells follow the density.

A composite Gauss–Legendre rule: each axis is cut into cells, each cell holds three nodes. The first
cells span everything a residual can be; refined cells are narrow where the density is high and end
where nothing is left. Zero is always an edge, since a Laplace density has its kink there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

NODES_PER_CELL = 3
WIDEST_RESIDUAL = 1e3
"""Half the width of the first, coarse grid, in units of σ."""
NEGLIGIBLE_MASS = 1e-7
"""Probability that may lie beyond either end of an axis."""
MASS_SHARE = 0.3
"""Share of the cells that is spread evenly over the probability."""
CHUNK = 65536
"""Points evaluated at once."""

LogDensity = Callable[[Float[np.ndarray, "points 3"]], Float[np.ndarray, " points"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A tensor grid of Gauss–Legendre nodes in cells along u, v, d."""

    edges: Float[np.ndarray, "3 edges"]
    nodes: Float[np.ndarray, "3 nodes"]
    weights: Float[np.ndarray, "3 nodes"]

    @classmethod
    def over(cls, edges: Float[np.ndarray, "3 edges"]) -> "Grid":
        """Put `NODES_PER_CELL` nodes into each cell between the edges."""
        unit_nodes, unit_weights = np.polynomial.legendre.leggauss(NODES_PER_CELL)
        half = np.diff(edges, axis=1)[..., None] / 2  # [3 cells 1]
        middle = (edges[:, 1:] + edges[:, :-1])[..., None] / 2
        nodes, weights = middle + half * unit_nodes, half * unit_weights
        return cls(edges=edges, nodes=nodes.reshape(3, -1), weights=weights.reshape(3, -1))

    def evaluate(self, log_density: LogDensity) -> Float[np.ndarray, "nodes nodes nodes"]:
        """The density at every node, evaluated plane by plane to bound the memory."""
        u, v, d = self.nodes
        plane = np.stack(np.meshgrid(v, d, indexing="ij"), axis=-1).reshape(-1, 2)
        values = np.empty((len(u), len(v), len(d)))
        planes_at_once = max(1, CHUNK // len(plane))
        for start in range(0, len(u), planes_at_once):
            chosen = u[start : start + planes_at_once]
            points = np.concatenate(
                [np.repeat(chosen, len(plane))[:, None], np.tile(plane, (len(chosen), 1))], axis=1
            )
            values[start : start + len(chosen)] = log_density(points).reshape(-1, *values.shape[1:])
        with np.errstate(over="ignore"):
            density = np.exp(values)
        if not np.isfinite(density).all() or not density.any():
            raise ValueError(
                "the residual density must be finite and somewhere positive, got log values "
                f"from {values.min()} to {values.max()} nats"
            )
        return density

    def volumes(self) -> Float[np.ndarray, "nodes nodes nodes"]:
        """Weight of every node in the integral."""
        return np.einsum("i,j,k->ijk", *self.weights)

    def integrate(self, values: Float[np.ndarray, "nodes nodes nodes"]) -> float:
        """Integral over the grid."""
        return float(np.einsum("ijk,i,j,k->", values, *self.weights, optimize=True))

    def marginal(self, values: np.ndarray, axis: int) -> Float[np.ndarray, " nodes"]:
        """Density along one axis at its nodes."""
        first = 1 if axis == 0 else 0
        pair = self.pair_marginal(values, *sorted((axis, first)))
        return np.tensordot(pair, self.weights[first], axes=(1 if axis < first else 0, 0))

    def pair_marginal(
        self, values: np.ndarray, first: int, second: int
    ) -> Float[np.ndarray, "nodes nodes"]:
        """Density of two axes, first < second, at their nodes."""
        (dropped,) = {0, 1, 2} - {first, second}
        return np.tensordot(values, self.weights[dropped], axes=(dropped, 0))


def first_edges(num_cells: int) -> Float[np.ndarray, " edges"]:
    """Cells from 0.05 σ at zero, growing to the widest residual on both sides."""
    half = np.concatenate([[0.0], np.geomspace(0.05, WIDEST_RESIDUAL, num_cells // 2)])
    return np.concatenate([-half[:0:-1], half])


def refined_edges(
    grid: Grid, density: np.ndarray, axis: int, num_cells: int
) -> Float[np.ndarray, " edges"]:
    """Edges for the next pass: cells follow the marginal, and zero stays an edge.

    Most cells follow the fourth root of the marginal, since the error of a cell grows with a high
    power of its width and only linearly with the density; the rest follow the mass itself, so that
    a narrow peak on a wide foot is not lost.
    """
    marginal, nodes, weights = grid.marginal(density, axis), grid.nodes[axis], grid.weights[axis]
    mass = marginal * weights / (marginal @ weights)
    low = nodes[max(0, int((mass.cumsum() < NEGLIGIBLE_MASS).sum()) - 1)]
    high = nodes[min(len(nodes) - 1, int((mass[::-1].cumsum() >= NEGLIGIBLE_MASS).sum()))]
    inside = (nodes >= low) & (nodes <= high)
    effort = np.where(inside, marginal, 0.0) ** 0.25 * weights
    effort = (1 - MASS_SHARE) * effort / effort.sum() + MASS_SHARE * mass
    reached = effort.cumsum() - effort / 2
    chosen = np.interp(np.linspace(0, 1, num_cells + 1), reached, nodes)
    chosen[[0, -1]] = low, high
    if low < 0 < high:
        chosen[1 + np.abs(chosen[1:-1]).argmin()] = 0.0
    return chosen
