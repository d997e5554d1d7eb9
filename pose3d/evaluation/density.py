"""The density of the standardised residual, tabulated once, and everything that follows from it.

With a normalised likelihood the label is y = μ + σ·x̄ (per axis), and x̄ has one 3-D density for all
joints and images. It is integrated once, on a tensor grid that follows it (see `quadrature`).

`l1`, `l2` have no predicted scale, and exp(−loss) of the `released` form is no density (its mass
changes with σ). For them the table says `available=False` and why, and holds no numbers.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.interpolate import RegularGridInterpolator

from pose3d.evaluation.npz import read_npz, write_npz
from pose3d.evaluation.quadrature import (
    NODES_PER_CELL,
    Grid,
    LogDensity,
    first_edges,
    refined_edges,
)
from pose3d.model.likelihood import Likelihood

FORMAT = "pose3d-residual-density"
SCHEMA_VERSION = 1
AXIS_PAIRS = ((0, 1), (0, 2), (1, 2))
"""Axes of the pair marginals: (u, v), (u, d), (v, d)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidualDensity:
    """A tabulated density of the standardised residual x̄ = (label − μ)/σ over axes u, v, d.

    All numbers belong to the density divided by its `normaliser`, so that they are those of a
    probability even where the normaliser is off; `normaliser` says how far off it was.

    Attributes:
        available: False where the loss has no residual density; all arrays are then empty.
        reason: Why there is none; empty where there is one.
        normaliser: Integral of the density as the likelihood gives it, 1 when it is normalised.
        normaliser_error: Its change from the coarser grid before, a bound on its error.
        mean: Expectation per axis, units of σ.
        covariance: Covariance of the axes, units of σ².
        geometric_median: The point with the least expected distance, units of σ.
        mode: The node with the highest density, units of σ.
        edges: Cell edges per axis, units of σ.
        cumulative: Probability below each edge, per axis.
        nodes: Quadrature nodes per axis, units of σ.
        node_weights: Their weights, units of σ.
        marginals: Density of each axis at its nodes, 1/σ.
        pair_marginals: Density of the pairs (u, v), (u, d), (v, d) at their nodes, 1/σ².
        density: The joint density at the nodes, 1/σ³.
    """

    available: bool
    reason: str
    normaliser: float
    normaliser_error: float
    mean: Float[np.ndarray, " axes"]
    covariance: Float[np.ndarray, "axes axes"]
    geometric_median: Float[np.ndarray, " axes"]
    mode: Float[np.ndarray, " axes"]
    edges: Float[np.ndarray, "axes edges"]
    cumulative: Float[np.ndarray, "axes edges"]
    nodes: Float[np.ndarray, "axes nodes"]
    node_weights: Float[np.ndarray, "axes nodes"]
    marginals: Float[np.ndarray, "axes nodes"]
    pair_marginals: Float[np.ndarray, "pairs nodes nodes"]
    density: Float[np.ndarray, "nodes nodes nodes"]

    @classmethod
    def from_likelihood(
        cls, likelihood: Likelihood, *, num_cells: int = 24, num_refinements: int = 3
    ) -> "ResidualDensity":
        """Tabulate the residual density of a likelihood, on the device it lives on.

        Args:
            likelihood: A trained likelihood, in evaluation mode.
            num_cells: Cells per axis, each with three nodes; (3·num_cells)³ evaluations.
            num_refinements: How often a coarser grid follows the density before the evaluation.
        """
        reason = reason_without_density(likelihood)
        if reason:
            return cls.unavailable(reason)
        return cls.from_log_density(
            log_density_of(likelihood), num_cells=num_cells, num_refinements=num_refinements
        )

    @classmethod
    def from_log_density(
        cls, log_density: LogDensity, *, num_cells: int = 24, num_refinements: int = 3
    ) -> "ResidualDensity":
        """Tabulate a log density given as a function of points (n, 3) in units of σ.

        Raises:
            ValueError: If `num_cells` < 4, or the density vanishes or is not finite on the grid.
        """
        if num_cells < 4:
            raise ValueError(f"num_cells must be >= 4, got {num_cells}")
        num_coarse = max(4, 2 * num_cells // 3)
        edges, previous = np.tile(first_edges(num_coarse), (3, 1)), np.nan
        for remaining in reversed(range(num_refinements)):
            grid = Grid.over(edges)
            values = grid.evaluate(log_density)
            previous = grid.integrate(values)
            count = num_coarse if remaining else num_cells
            edges = np.stack([refined_edges(grid, values, axis, count) for axis in range(3)])
        grid = Grid.over(edges)
        values = grid.evaluate(log_density)
        normaliser = grid.integrate(values)
        return cls.from_values(grid, values / normaliser, normaliser, abs(normaliser - previous))

    @classmethod
    def from_values(
        cls, grid: Grid, density: np.ndarray, normaliser: float, normaliser_error: float
    ) -> "ResidualDensity":
        """Everything that follows from a normalised density on a grid."""
        mass = density * grid.volumes()
        mean, covariance = moments(grid, mass)
        marginals = np.stack([grid.marginal(density, axis) for axis in range(3)])
        highest = np.unravel_index(density.argmax(), density.shape)
        return cls(
            available=True,
            reason="",
            normaliser=float(normaliser),
            normaliser_error=float(normaliser_error),
            mean=mean,
            covariance=covariance,
            geometric_median=geometric_median(grid, mass, start=mean),
            mode=np.array([grid.nodes[axis, highest[axis]] for axis in range(3)]),
            edges=grid.edges,
            cumulative=cumulative(marginals * grid.weights),
            nodes=grid.nodes,
            node_weights=grid.weights,
            marginals=marginals,
            pair_marginals=np.stack([grid.pair_marginal(density, *pair) for pair in AXIS_PAIRS]),
            density=density.astype(np.float32),
        )

    @classmethod
    def unavailable(cls, reason: str) -> "ResidualDensity":
        """The table of a loss without a residual density; `reason` says why, for the reader."""
        none, flat = np.zeros(0), np.zeros((0, 0))
        return cls(
            available=False,
            reason=reason,
            normaliser=float("nan"),
            normaliser_error=float("nan"),
            mean=none,
            covariance=flat,
            geometric_median=none,
            mode=none,
            edges=flat,
            cumulative=flat,
            nodes=flat,
            node_weights=flat,
            marginals=flat,
            pair_marginals=np.zeros((0, 0, 0)),
            density=np.zeros((0, 0, 0), np.float32),
        )

    @property
    def deviation(self) -> Float[np.ndarray, " 3"]:
        """Standard deviation of the residual per axis, units of σ; 1 where there is no density."""
        return np.sqrt(np.diag(self.covariance)) if self.available else np.ones(3)

    def standardised(self) -> "ResidualDensity":
        """The same density of x̄ / `deviation`: of the residual in standard deviations.

        A scale and a residual density are known only together: (σ, p(x̄)) and (k·σ, k³·p(k·x̄)) per
        axis are one distribution of the label, and training drifts freely between them. With
        k = `deviation`, σ is the standard deviation that the model predicts.
        """
        if not self.available:
            return self
        deviation = self.deviation
        grid = Grid.over(self.edges / deviation[:, None])
        density = self.density.astype(np.float64) * deviation.prod()
        return self.from_values(grid, density, self.normaliser, self.normaliser_error)

    def quantile(self, axis: int, probability: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Quantiles of one axis, units of σ.

        Args:
            axis: 0, 1, 2 for u, v, d.
            probability: Between 0 and 1.

        Raises:
            ValueError: If there is no density, or a probability lies outside [0, 1].
        """
        self._require()
        if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
            raise ValueError(
                f"probability must lie in [0, 1], got {probability.min()} to {probability.max()}"
            )
        return inverse_cumulative(
            self.edges[axis], self.cumulative[axis], self.marginals[axis], probability
        )

    def probability_below(
        self, axis: int, value: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Distribution function of one axis: what `quantile` inverts.

        Args:
            axis: 0, 1, 2 for u, v, d.
            value: Residuals on that axis, units of σ; NaN stays NaN.

        Raises:
            ValueError: If there is no density.
        """
        self._require()
        edges = self.edges[axis]
        inside = np.clip(value, edges[0], edges[-1])
        cell = np.clip(np.searchsorted(edges, inside, side="right") - 1, 0, len(edges) - 2)
        half = np.diff(edges)[cell] / 2
        place = (inside - edges[cell]) / half - 1
        below = self.cumulative[axis][cell] + half * integral_in_cell(
            self.marginals[axis], cell, place
        )
        return np.clip(below, 0, 1)

    def log_density(self, x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Log density of residuals, linear between the nodes of the table, nats.

        Args:
            x: Units of σ. Beyond the outermost nodes, where 1e-7 of the mass is left, the density
                is 0; NaN stays NaN.

        Raises:
            ValueError: If there is no density.
        """
        self._require()
        known = ~np.isnan(x).any(-1)
        values = np.full(len(x), np.nan)
        values[known] = self._interpolated(x[known])
        return values

    def highest_density_level(self, x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """P{p(X) ≥ p(x)}: the probability of the highest-density region that x lies on the edge of.

        0 at the mode, 1 where the density vanishes; uniform where x has this density.

        Args:
            x: Residuals, units of σ; NaN stays NaN.

        Raises:
            ValueError: If there is no density.
        """
        log_density = self.log_density(x)
        ordered, mass_above = self._levels
        place = np.searchsorted(ordered, -log_density, side="right")
        return np.where(np.isnan(log_density), np.nan, mass_above[place])

    def sample(self, number: int, *, seed: int = 0) -> Float[np.ndarray, "number 3"]:
        """Draw residuals, units of σ: a node by its mass, then a point of the box around it.

        The boxes of a cell's three nodes share each of its sides as the quadrature's weights do, so
        that within a box the density counts as even.

        Raises:
            ValueError: If there is no density.
        """
        self._require()
        generator = np.random.default_rng(seed)
        below = self._node_mass.ravel().cumsum()
        chosen = np.searchsorted(below, generator.random(number) * below[-1], side="right")
        index = np.unravel_index(np.minimum(chosen, below.size - 1), self.density.shape)
        place = generator.random((number, 3))
        low = self.edges[:, :1] + np.pad(self.node_weights.cumsum(1)[:, :-1], ((0, 0), (1, 0)))
        return np.stack(
            [
                low[axis][index[axis]] + place[:, axis] * self.node_weights[axis][index[axis]]
                for axis in range(3)
            ],
            axis=-1,
        )

    @cached_property
    def _node_mass(self) -> Float[np.ndarray, "nodes nodes nodes"]:
        """Probability of each node, 1 in all."""
        mass = self.density * np.einsum("i,j,k->ijk", *self.node_weights)
        return mass / mass.sum()

    @cached_property
    def _interpolated(self) -> RegularGridInterpolator:
        values = np.log(np.maximum(self.density, np.finfo(np.float32).tiny))
        axes = tuple(self.nodes)
        return RegularGridInterpolator(axes, values, bounds_error=False, fill_value=-np.inf)

    @cached_property
    def _levels(self) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " levels"]]:
        """−log densities of the nodes in ascending order, and the mass before each, and in all."""
        values = -self._interpolated.values.ravel()
        order = np.argsort(values)
        return values[order], np.concatenate([[0.0], self._node_mass.ravel()[order].cumsum()])

    def _require(self) -> None:
        if not self.available:
            raise ValueError(f"there is no residual density: {self.reason}")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table to one npz without pickled objects, atomically."""
        header: dict[str, Any] = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
        header |= {"axes": ["u", "v", "d"], "unit": "σ", "pairs": AXIS_PAIRS}
        arrays = {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}
        return write_npz(path, {**arrays, "metadata": np.array(json.dumps(header))})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ResidualDensity":
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is no density table or of another schema version.
            FileNotFoundError: If there is no such file.
        """
        arrays = read_npz(path)
        missing = [name for name in (*cls.__dataclass_fields__, "metadata") if name not in arrays]
        if missing:
            raise ValueError(f"{path}: not a residual density, it lacks {', '.join(missing)}")
        version = json.loads(str(arrays.pop("metadata"))).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: residual density of schema version {version}, this release reads "
                f"version {SCHEMA_VERSION}; run the prediction again"
            )
        scalars = ("available", "reason", "normaliser", "normaliser_error")
        values: dict[str, Any] = {name: arrays[name] for name in cls.__dataclass_fields__}
        return cls(**values | {name: values[name].item() for name in scalars})


def reason_without_density(likelihood: Likelihood) -> str:
    """Why a loss has no residual density, in a sentence for the reader; empty where it has one."""
    kind = likelihood.config.kind
    if kind in ("l1", "l2"):
        return f"the {kind} loss predicts no scale, so there is no standardised residual to model"
    if likelihood.conditioned_on_images:
        return "the flow depends on the image, so there is no one density of the residual"
    return likelihood.reason_without_density()


def log_density_of(likelihood: Likelihood) -> LogDensity:
    """`residual_log_prob` as a function of NumPy points, on the likelihood's own device."""
    held = next((p for p in likelihood.parameters()), likelihood.residual_location)

    def log_density(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
        with torch.no_grad():
            values = likelihood.residual_log_prob(torch.from_numpy(points).to(held))
        return values.double().cpu().numpy()

    return log_density


def moments(
    grid: Grid, mass: Float[np.ndarray, "nodes nodes nodes"]
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, "3 3"]]:
    """Mean and covariance of the residual under node masses that sum to 1."""
    single = [mass.sum(tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    mean = np.array([single[axis] @ grid.nodes[axis] for axis in range(3)])
    centred = grid.nodes - mean[:, None]
    covariance = np.diag([single[axis] @ centred[axis] ** 2 for axis in range(3)])
    for first, second in AXIS_PAIRS:
        (dropped,) = {0, 1, 2} - {first, second}
        value = centred[first] @ mass.sum(dropped) @ centred[second]
        covariance[first, second] = covariance[second, first] = value
    return mean, covariance


def geometric_median(
    grid: Grid,
    mass: Float[np.ndarray, "nodes nodes nodes"],
    *,
    start: Float[np.ndarray, " 3"],
    tolerance: float = 1e-6,
    max_steps: int = 200,
) -> Float[np.ndarray, " 3"]:
    """The point with the least expected distance to the residual.

    Source:
        Weiszfeld's iteration (1937), on the quadrature nodes.
    """
    point = start
    for _ in range(max_steps):
        squares = [(grid.nodes[axis] - point[axis]) ** 2 for axis in range(3)]
        distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
        pull = mass / np.maximum(distance, 1e-9)
        total = pull.sum()
        moved = np.array(
            [
                pull.sum(tuple(a for a in range(3) if a != axis)) @ grid.nodes[axis] / total
                for axis in range(3)
            ]
        )
        if np.abs(moved - point).max() < tolerance:
            return moved
        point = moved
    return point


def cumulative(node_mass: Float[np.ndarray, "3 nodes"]) -> Float[np.ndarray, "3 edges"]:
    """Probability below each cell edge, from the mass of each node."""
    cells = node_mass.reshape(3, -1, NODES_PER_CELL).sum(-1)
    below = np.concatenate([np.zeros((3, 1)), cells.cumsum(1)], axis=1)
    return below / below[:, -1:]


def inverse_cumulative(
    edges: Float[np.ndarray, " edges"],
    below: Float[np.ndarray, " edges"],
    marginal: Float[np.ndarray, " nodes"],
    probability: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Invert the distribution function of a density that is a parabola through each cell's nodes.

    Its integral over a cell is the quadrature's, so that it meets `below` at every edge. Bisection
    finds the place in the cell to 1e-12 of its width.
    """
    cell = np.clip(np.searchsorted(below, probability, side="right") - 1, 0, len(edges) - 2)
    half = np.diff(edges)[cell] / 2
    low, high = np.full(len(cell), -1.0), np.ones(len(cell))
    for _ in range(40):
        middle = (low + high) / 2
        is_below = below[cell] + half * integral_in_cell(marginal, cell, middle) < probability
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return edges[cell] + half * (1 + (low + high) / 2)


def integral_in_cell(
    marginal: Float[np.ndarray, " nodes"],
    cell: Int[np.ndarray, " n"],
    place: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Integral from a cell's lower edge to a place in it, in units of half the cell's width.

    Args:
        marginal: At all nodes; within a cell it is the parabola through its three.
        cell: Number of the cell.
        place: From −1, the lower edge, to 1, the upper one.
    """
    unit_nodes = np.polynomial.legendre.leggauss(NODES_PER_CELL)[0]
    to_parabola = np.linalg.inv(np.vander(unit_nodes, increasing=True))
    parabola = marginal.reshape(-1, NODES_PER_CELL)[cell] @ to_parabola.T  # [n powers]
    powers = np.arange(1, NODES_PER_CELL + 1)
    return (parabola * (place[:, None] ** powers - (-1.0) ** powers) / powers).sum(-1)
