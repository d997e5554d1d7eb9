"""The learned density of the standardised residual against the residuals that were found."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pose3d.evaluation.density import AXIS_PAIRS, ResidualDensity
from pose3d.report.results import RunResults
from pose3d.report.style import Theme, new_figure

AXES = ("u", "v", "d")
SHARES = (0.95, 0.8, 0.5)
"""Shares of the probability inside the contours, outermost first."""
SHOWN = 0.99
"""Share of the residuals inside the frame, per axis."""


def residual_density(results: RunResults, theme: Theme) -> Figure:
    """Pairs of axes above, single axes below: residuals found, and the learned density as lines."""
    density = results.density if results.density is not None and results.density.available else None
    residual = results.predictions.standardised_residual
    residual = residual[np.isfinite(residual[..., :2]).all(-1)]
    reach = [frame(residual[:, axis], density, axis) for axis in range(3)]
    figure = new_figure(9.2, 6.4)
    panels = figure.subplots(2, 3, height_ratios=(1.25, 1))
    for axes, pair, number in zip(panels[0], AXIS_PAIRS, range(3), strict=True):
        draw_pair(axes, residual, theme, pair=pair, reach=(reach[pair[0]], reach[pair[1]]))
        if density is not None:
            contours(axes, density, theme, number=number, pair=pair)
        axes.set_title(f"{AXES[pair[0]]} and {AXES[pair[1]]}")
    for axis, axes in enumerate(panels[1]):
        draw_axis(axes, residual[:, axis], density, theme, axis=axis, reach=reach[axis])
    keys = [Line2D([], [], ls="", marker="h", ms=9, color=theme.axes[0], label="residuals found")]
    if density is not None:
        label = "learned density, 50 / 80 / 95 % inside"
        keys.append(Line2D([], [], color=theme.left, linewidth=1.8, label=label))
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


def frame(residual: Float[np.ndarray, " n"], density: ResidualDensity | None, axis: int) -> float:
    """Half the width that shows nearly all residuals and nearly all of the density, units of σ."""
    tails = np.array([(1 - SHOWN) / 2, (1 + SHOWN) / 2])
    finite = residual[np.isfinite(residual)]
    ends = np.abs(np.quantile(finite, tails)) if finite.size else np.ones(2)
    if density is not None:
        ends = np.concatenate([ends, np.abs(density.quantile(axis, tails))])
    return float(ends.max())


def draw_pair(
    axes: Axes,
    residual: Float[np.ndarray, "n 3"],
    theme: Theme,
    *,
    pair: tuple[int, int],
    reach: tuple[float, float],
) -> None:
    """Hexagons coloured by how many residuals fall into each."""
    x, y = (residual[:, axis] for axis in pair)
    inside = (np.abs(x) < reach[0]) & (np.abs(y) < reach[1])
    axes.hexbin(
        x[inside],
        y[inside],
        gridsize=34,
        extent=(-reach[0], reach[0], -reach[1], reach[1]),
        cmap=theme.colormap,
        norm=LogNorm(vmin=1),
        mincnt=1,
        linewidths=0.2,
    )
    axes.axhline(0, color=theme.muted, linewidth=0.6, alpha=0.6)
    axes.axvline(0, color=theme.muted, linewidth=0.6, alpha=0.6)
    axes.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]))
    axes.set_xlabel(f"residual of {AXES[pair[0]]} (σ)")
    axes.set_ylabel(f"residual of {AXES[pair[1]]} (σ)")


def contours(
    axes: Axes, density: ResidualDensity, theme: Theme, *, number: int, pair: tuple[int, int]
) -> None:
    """Lines around the densest regions that hold 50, 80 and 95 % of the learned density."""
    values = density.pair_marginals[number]
    first, second = pair
    mass = values * np.outer(density.node_weights[first], density.node_weights[second])
    order = np.argsort(values, axis=None)[::-1]
    inside = mass.ravel()[order].cumsum()
    levels = [
        values.ravel()[order][min(np.searchsorted(inside, s), len(order) - 1)] for s in SHARES
    ]
    levels = sorted(set(map(float, levels)))
    axes.contour(
        density.nodes[first],
        density.nodes[second],
        values.T,
        levels=levels,
        colors=[theme.left],
        linewidths=np.linspace(1.0, 2.0, len(levels)),
    )


def draw_axis(
    axes: Axes,
    residual: Float[np.ndarray, " n"],
    density: ResidualDensity | None,
    theme: Theme,
    *,
    axis: int,
    reach: float,
) -> None:
    """Histogram of one axis' residuals with the learned marginal over it."""
    finite = residual[np.isfinite(residual)]
    edges = np.linspace(-reach, reach, 49)
    counts, _ = np.histogram(finite, edges)
    heights = counts / max(finite.size, 1) / np.diff(edges)
    axes.stairs(heights, edges, fill=True, color=theme.axes[0], alpha=0.45)
    if density is not None:
        axes.plot(density.nodes[axis], density.marginals[axis], color=theme.left, linewidth=1.8)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, axis="y")
    axes.set_xlabel(f"residual of {AXES[axis]} (σ)")
    axes.set_ylabel("density (1/σ)")
