"""Charts of metrics.json and log.jsonl: σ and errors per joint and action, ranks, curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from pose3d.report.results import RunResults
from pose3d.report.style import AXIS_MEANING, Theme, grid_along, new_figure

NUM_BINS = 12
MOST_POINTS = 6000
"""Points of a scatter plot; more are thinned evenly."""
CURVES: dict[str, tuple[str, str, dict[str, str]]] = {
    "loss": (
        "Loss",
        "loss and its parts (nats)",
        {
            "loss": "sum",
            "base": "−log Q",
            "log_scale": "log σ",
            "flow": "−log G",
            "log_s": "−log s",
        },
    ),
    "error": (
        "Validation error",
        "error (mm)",
        {
            "mpjpe_mm": "MPJPE",
            "pa_mpjpe_mm": "PA-MPJPE",
            "mean_pose_mpjpe_mm": "mean pose",
        },
    ),
    "sigma": (
        "Predicted σ",
        "median σ (1, normalised)",
        {f"sigma_{axis}_median": AXIS_MEANING[axis] for axis in "uvd"},
    ),
    "learning_rate": ("Learning rate", "learning rate (1)", {"learning_rate": "learning rate"}),
}
"""Panels of the training curves: title, label with unit, keys of the log with their names."""


def sigma_per_joint(results: RunResults, theme: Theme) -> Figure:
    """Mean predicted σ of every joint along each axis: normalised and in millimetres."""
    names = results.predictions.joint_names
    figure = new_figure(9.2, 0.33 * len(names) + 1.5)
    both = figure.subplots(1, 2, sharey=True)
    panels = (
        ("In the crop", "sigma_uvd", "uvd", "mean σ (1, normalised)"),
        ("In millimetres", "sigma_mm", "xyz", "mean σ (mm)"),
    )
    for axes, (title, key, axis_names, label) in zip(both, panels, strict=True):
        for number, axis in enumerate(axis_names):
            values = column(results, key, axis)
            if number == 2:  # the root's depth is given, so that its σ is not trained
                values[results.predictions.root] = np.nan
            place = np.arange(len(names)) + 0.27 * (number - 1)
            meaning = AXIS_MEANING[axis]
            axes.barh(place, values, height=0.25, color=theme.axes[number], label=meaning)
        axes.set_xlabel(label)
        legend_above(axes, title)
        name_joints(axes, names)
    return figure


def error_per_joint(results: RunResults, theme: Theme) -> Figure:
    """MPJPE of every joint as a bar, after alignment as a dot; the mean error along each axis."""
    names = results.predictions.joint_names
    figure = new_figure(9.2, 0.33 * len(names) + 1.5)
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))
    colours = [theme.side(side) for side in results.sides]
    left.barh(rows, column(results, "mpjpe_mm"), height=0.62, color=colours, alpha=0.85)
    aligned = column(results, "pa_mpjpe_mm")
    dots(left, aligned, rows, theme, label="after alignment (PA)")
    left.set_xlabel("mean error (mm)")
    legend_above(left, "Distance")
    for number, axis in enumerate("xyz"):
        values, place = column(results, "absolute_error_mm", axis), rows + 0.27 * (number - 1)
        meaning = AXIS_MEANING[axis]
        right.barh(place, values, height=0.25, color=theme.axes[number], label=meaning)
    right.set_xlabel("mean absolute error (mm)")
    legend_above(right, "By camera axis")
    name_joints(left, names)
    name_joints(right, names)
    return figure


def error_per_action(results: RunResults, theme: Theme) -> Figure | None:
    """MPJPE and PA-MPJPE of every action, best first, both averages as lines; None for one."""
    table = sorted(results.metrics["per_action"].items(), key=lambda item: item[1]["mpjpe_mm"])
    if len(table) < 2:
        return None
    figure = new_figure(9.2, 0.36 * len(table) + 1.7)
    axes = figure.subplots()
    rows = np.arange(len(table))
    axes.barh(
        rows,
        [row["mpjpe_mm"] for _, row in table],
        height=0.62,
        color=theme.bar,
        label="MPJPE",
    )
    dots(axes, [row["pa_mpjpe_mm"] for _, row in table], rows, theme, label="PA-MPJPE")
    for key, line, label in (
        ("mpjpe_mm", "-", "MPJPE, mean over records"),
        ("mpjpe_mm_action_average", ":", "MPJPE, mean over actions"),
    ):
        axes.axvline(results.metrics[key], color=theme.ink, linewidth=1.2, ls=line, label=label)
    axes.set_yticks(rows, [f"{name}  (n = {row['samples']})" for name, row in table])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel("mean error (mm)")
    legend_above(axes, "", reverse=True)
    grid_along(axes, "x")
    return figure


def dots(
    axes: Axes,
    x: Sequence[float] | Float[np.ndarray, " n"],
    y: Int[np.ndarray, " n"],
    theme: Theme,
    *,
    label: str,
) -> None:
    """Open dots over bars."""
    colours = {"markerfacecolor": theme.surface, "markeredgecolor": theme.ink}
    axes.plot(x, y, "o", markersize=5.5, markeredgewidth=1.4, label=label, **colours)  # type: ignore[arg-type]


def error_against_sigma(results: RunResults, theme: Theme) -> Figure:
    """Error of every joint against its predicted σ, binned; rank correlation of each joint."""
    figure = new_figure(9.2, 0.33 * len(results.predictions.joint_names) + 1.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    rank = results.metrics["sigma_error_spearman"]
    scatter_with_bins(left, results, theme)
    left.set_title(f"All joints: Spearman {number_or_dash(rank['overall'])}")
    table = list(rank["per_joint"].items())
    rows = np.arange(len(table))
    sides = dict(zip(results.predictions.joint_names, results.sides, strict=True))
    colours = [theme.side(sides[name]) for name, _ in table]
    values = [np.nan if value is None else value for _, value in table]
    right.barh(rows, values, height=0.62, color=colours, alpha=0.85)
    right.set_xlim(min(0.0, *np.nan_to_num(values)) * 1.1, 1)
    if rank["within_joint"] is not None:
        right.axvline(rank["within_joint"], color=theme.ink, linewidth=1.2, ls=":")
    right.set_title(f"Within each joint: mean {number_or_dash(rank['within_joint'])}")
    right.set_xlabel("Spearman rank correlation (1)")
    name_joints(right, [name for name, _ in table])
    return figure


def scatter_with_bins(axes: Axes, results: RunResults, theme: Theme) -> None:
    """Radius of σ against the error on logarithmic axes, with quantiles in bins of equal count."""
    predictions = results.predictions
    chosen = predictions.labelled.copy()
    chosen[:, predictions.root] = False
    error = predictions.predicted_root_relative_mm - predictions.target_root_relative_mm
    distance = np.maximum(np.linalg.norm(error[chosen], axis=-1), 0.1)
    radius = np.linalg.norm(predictions.sigma_mm[chosen], axis=-1)
    thin = slice(None, None, -(-len(radius) // MOST_POINTS))
    axes.scatter(radius[thin], distance[thin], s=5, color=theme.axes[0], alpha=0.25, linewidths=0)
    centres, quantiles = binned_quantiles(radius, distance)
    axes.fill_between(
        centres, quantiles[0], quantiles[2], color=theme.ink, alpha=0.14, label="10–90 % of a bin"
    )
    axes.plot(centres, quantiles[1], color=theme.ink, lw=2, marker="o", ms=4, label="median")
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(*np.quantile(radius, [0.0005, 0.9995]) * [0.9, 1.1])
    axes.set_ylim(np.quantile(distance, 0.002), distance.max() * 1.2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.grid(visible=True)
    axes.set_xlabel("predicted σ radius (mm)")
    axes.set_ylabel("error of the joint (mm)")
    axes.legend(loc="lower right")


def binned_quantiles(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, "3 bins"]]:
    """Median x of bins with equal counts, and the 10, 50, 90 % quantiles of y in them."""
    groups = np.array_split(x.argsort(), min(NUM_BINS, max(1, len(x) // 10)))
    centres = np.array([np.median(x[group]) for group in groups])
    return centres, np.stack([np.quantile(y[group], [0.1, 0.5, 0.9]) for group in groups], axis=1)


def training_curves(results: RunResults, theme: Theme) -> Figure | None:
    """Loss, validation errors and whatever else the log holds per epoch; None without a log."""
    panels = [(name, lines) for name in CURVES if (lines := curve_lines(results.log, name))]
    if not panels:
        return None
    columns = 3 if len(panels) == 3 else min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(9.2, 3.0 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, lines) in zip(grid, panels, strict=False):
        colours = theme.axes if name == "sigma" else (theme.ink, *theme.axes, theme.bar)
        for (label, x, y), colour in zip(lines, colours, strict=False):
            few = "o" if len(x) < 30 else None
            axes.plot(x, y, color=colour, linewidth=1.8, marker=few, ms=3.5, label=label)
        title, unit, _ = CURVES[name]
        axes.set_ylabel(unit)
        axes.set_xlabel("epoch")
        axes.grid(visible=True)
        if name == "learning_rate":
            axes.set_yscale("log")
        axes.set_title(title)
        if len(lines) > 1:
            legend_above(axes, title)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    return figure


def curve_lines(
    log: list[dict[str, Any]], name: str
) -> list[tuple[str, Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Label, epochs and values of the curves of one panel."""
    epochs = [entry for entry in log if entry.get("event", "epoch") == "epoch"]
    lines = []
    for key, label in CURVES[name][2].items():
        points = [
            (float(entry.get("epoch", number)), float(entry[key]))
            for number, entry in enumerate(epochs)
            if isinstance(entry.get(key), int | float)
        ]
        if len(points) > 1:
            x, y = np.array(points).T
            lines.append((label, x, y))
    return lines


def column(results: RunResults, *keys: str) -> Float[np.ndarray, " joints"]:
    """One column of the per-joint table; NaN where a joint has no label."""
    values = []
    for name in results.predictions.joint_names:
        value: Any = results.metrics["per_joint"][name]
        for key in keys:
            value = value.get(key, {}) if isinstance(value, dict) else value
        values.append(float(value) if isinstance(value, int | float) else np.nan)
    return np.array(values)


def name_joints(axes: Axes, names: Sequence[str]) -> None:
    """Joint names down the vertical axis, the first on top, with quiet vertical grid lines."""
    axes.set_yticks(np.arange(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    grid_along(axes, "x")


def legend_above(axes: Axes, title: str, *, reverse: bool = False) -> None:
    """The title on the left above the panel, the legend on the right of it."""
    axes.legend(
        reverse=reverse,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=5,
        handlelength=0.9,
        handletextpad=0.5,
        columnspacing=1.2,
        borderaxespad=0.3,
    )
    axes.set_title(title)


def number_or_dash(value: float | None) -> str:
    """Two decimals, or a dash where the value is undefined."""
    return "–" if value is None else f"{value:.2f}"
