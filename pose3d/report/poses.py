"""Pictures of poses: skeletons on crops with their σ, 3-D views the right way up, σ on the body."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.ticker import FixedLocator, MultipleLocator
from mpl_toolkits.mplot3d import Axes3D

from pose3d.report.results import RunResults
from pose3d.report.style import AXIS_MEANING, Theme, new_figure

DASHES = (0, (4, 2))
"""Lines of labels: on for 4, off for 2 line widths."""
OUTLINE = "#101214"
ON_PHOTOGRAPH = {"left": "#ff8c3a", "right": "#4db4ff", "centre": "#f4f2ee"}
"""Colours of joints on a crop, whatever the theme."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Where a 3-D pose is looked at from; the camera itself looks along +y of the plot."""

    title: str
    azimuth_deg: float
    foreshortened: str
    """The plot axis that points at the reader and gets no numbers but 0."""
    elevation_deg: float = 10.0


VIEWS = (
    View(title="Seen from the camera", azimuth_deg=-78.0, foreshortened="y"),
    View(title="Seen from the camera's right", azimuth_deg=-12.0, foreshortened="x"),
)


def case(results: RunResults, theme: Theme, *, example: int) -> Figure:
    """One record: the crop with both skeletons and σ, and two 3-D views beside it."""
    assert results.examples is not None
    row = int(results.examples.rows[example])
    figure = new_figure(10.4, 4.3, is_arranged=False)
    crop = figure.add_axes((0.062, 0.19, 3.2 / 10.4, 3.2 / 4.3))
    draw_crop(crop, results, results.examples.images[example], row=row)
    figure.text(0.062, 0.957, "Input crop", fontsize=11, weight="bold", va="baseline")
    for left, view in zip((0.33, 0.64), VIEWS, strict=True):
        axes = figure.add_axes((left, 0.07, 0.35, 0.9), projection="3d", facecolor="none")
        draw_pose(axes, results, theme, row=row, view=view)
        figure.text(left + 0.05, 0.957, view.title, fontsize=11, weight="bold", va="baseline")
    figure.legend(handles=case_legend(theme), loc="lower center", ncols=5, handlelength=1.6)
    return figure


def case_legend(theme: Theme) -> list[Line2D]:
    """Keys of the case figures."""
    lines = [
        Line2D([], [], color=theme.side(side), linewidth=2.4, label=f"predicted, {side}")
        for side in ("left", "right", "centre")
    ]
    truth = Line2D([], [], color=theme.truth, linewidth=1.2, linestyle=DASHES, label="label")
    ring = Line2D([], [], linestyle="", marker="o", markersize=10, fillstyle="none", label="1σ, 2σ")
    ring.set_color(theme.muted)
    return [*lines, truth, ring]


def draw_crop(
    axes: Axes, results: RunResults, image: UInt8[np.ndarray, "height width 3"], *, row: int
) -> None:
    """The crop with the label (white, dashed), the prediction and its ellipses at 1σ and 2σ."""
    size = image.shape[0]
    predictions = results.predictions
    predicted = (predictions.mean_uvd[row, :, :2] + 0.5) * size
    target = (predictions.target_uvd[row, :, :2] + 0.5) * size
    sigma = predictions.scale_uvd[row, :, :2] * size
    axes.imshow(image, interpolation="bilinear")
    labelled = predictions.labelled[row]
    for parent, child in results.bones:
        if labelled[parent] and labelled[child]:
            bone(axes, target[[parent, child]], "white", width=1.1, linestyle=DASHES)
    for parent, child in results.bones:
        bone(axes, predicted[[parent, child]], bone_colour(results, parent, child), width=1.9)
    for joint, side in enumerate(results.sides):
        colour = ON_PHOTOGRAPH[side]
        for factor, alpha in ((1, 0.12), (2, 0.0)):
            width, height = 2 * factor * sigma[joint]
            axes.add_patch(
                Ellipse(
                    tuple(predicted[joint]),
                    width,
                    height,
                    facecolor=(*rgb(colour), alpha),
                    edgecolor=(*rgb(colour), 0.9 if factor == 1 else 0.45),
                    linewidth=0.9 if factor == 1 else 0.7,
                    zorder=2,
                )
            )
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    axes.set_xlabel("u in the crop (px)")
    axes.set_ylabel("v in the crop (px)")
    axes.set_xticks([0, size // 2, size - 1])
    axes.set_yticks([0, size // 2, size - 1])
    for spine in axes.spines.values():
        spine.set_visible(False)


def bone(
    axes: Axes,
    ends: Float[np.ndarray, "2 2"],
    colour: str,
    *,
    width: float,
    linestyle: str | tuple[int, tuple[int, ...]] = "-",
) -> None:
    """A line with a dark edge, to be seen on any photograph."""
    edge = [patheffects.Stroke(linewidth=width + 1.2, foreground=OUTLINE, alpha=0.55)]
    axes.plot(
        *ends.T,
        color=colour,
        linewidth=width,
        linestyle=linestyle,
        solid_capstyle="round",
        path_effects=[*edge, patheffects.Normal()] if linestyle == "-" else None,
        zorder=3,
    )


def bone_colour(results: RunResults, parent: int, child: int) -> str:
    """Colour of a bone on a photograph: that of the limb it belongs to."""
    side = results.sides[child] if results.sides[child] != "centre" else results.sides[parent]
    return ON_PHOTOGRAPH[side]


def rgb(colour: str) -> tuple[float, float, float]:
    """A #rrggbb colour as three numbers between 0 and 1."""
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def draw_pose(
    axes: Axes3D,
    results: RunResults,
    theme: Theme,
    *,
    row: int,
    view: View,
) -> None:
    """Prediction and label, root-relative, plotted as (x, z, −y) with equal axes."""
    predictions = results.predictions
    predicted = upright(predictions.predicted_root_relative_mm[row])
    target = upright(predictions.target_root_relative_mm[row])
    labelled = predictions.labelled[row]
    for parent, child in results.bones:
        if labelled[parent] and labelled[child]:
            ends = target[[parent, child]].T
            axes.plot(*ends, color=theme.truth, linewidth=1.2, linestyle=DASHES)
        side = results.sides[child] if results.sides[child] != "centre" else results.sides[parent]
        axes.plot(*predicted[[parent, child]].T, color=theme.side(side), linewidth=2.4)
    equal_axes(axes, np.concatenate([predicted, target[labelled]]))
    axes.set_proj_type("ortho")
    axes.view_init(elev=view.elevation_deg, azim=view.azimuth_deg)
    soften(axes, theme, foreshortened=view.foreshortened)


def upright(joints_camera_mm: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Camera axes (x right, y down, z forward) as plot axes (x, z, −y), so that up is up."""
    x, y, z = np.moveaxis(joints_camera_mm, -1, 0)
    return np.stack([x, z, -y], axis=-1)


def equal_axes(axes: Axes3D, points: Float[np.ndarray, "points 3"]) -> None:
    """The same span on all three axes, around the points."""
    middle = (points.max(0) + points.min(0)) / 2
    half = max(float(np.ptp(points, axis=0).max()) / 2 * 1.04, 100.0)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_zlim(middle[2] - half, middle[2] + half)
    axes.set_box_aspect((1, 1, 1), zoom=1.04)


def soften(axes: Axes3D, theme: Theme, *, foreshortened: str) -> None:
    """Quiet panes and few ticks, with names and units."""
    axes.set(xlabel="x (mm)", ylabel="z (mm)", zlabel="up, −y (mm)")
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis), ("z", axes.zaxis)):
        axis.set_pane_color((0, 0, 0, 0))
        axis.line.set_color(theme.grid)
        axis.set_major_locator(FixedLocator([0]) if name == foreshortened else MultipleLocator(500))
        axis.set_tick_params(labelsize=7.5, pad=1 if name == "z" else -2)
        axis.label.set_size(8.5)
        axis.labelpad = -5 if name == "z" else -7
    axes.tick_params(length=0)


def sigma_on_skeleton(results: RunResults, theme: Theme) -> Figure:
    """The mean pose from the front, once per camera axis; size and colour of a joint show its σ."""
    pose = facing_mean_pose(results)
    names = results.predictions.joint_names
    sigma = np.array(
        [
            [
                results.metrics["per_joint"][name].get("sigma_mm", {}).get(axis, np.nan)
                for name in names
            ]
            for axis in "xyz"
        ]
    )
    sigma[2, results.predictions.root] = np.nan
    scale = Normalize(0, float(np.nanmax(sigma)))
    reach = max(300.0, float(np.abs(pose[:, 0]).max()))
    height = float(np.ptp(pose[:, 1])) / reach
    figure = new_figure(9.2, min(6.0, 1.2 + 1.05 * height))
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, values, axis in zip(panels, sigma, "xyz", strict=True):
        for parent, child in results.bones:
            axes.plot(*pose[[parent, child]].T, color=theme.grid, linewidth=4, zorder=1)
        drawn = axes.scatter(
            *pose.T,
            s=40 + 420 * np.nan_to_num(scale(values)) ** 2,
            c=values,
            cmap=theme.colormap,
            norm=scale,
            edgecolors=theme.muted,
            linewidths=0.7,
            plotnonfinite=False,
            zorder=2,
        )
        axes.set_title(f"σ along {AXIS_MEANING[axis]}")
        axes.set_aspect("equal")
        axes.set_xlim(-1.3 * reach, 1.3 * reach)
        axes.margins(y=0.07)
        axes.set_xlabel("sideways (mm)")
    panels[0].set_ylabel("up (mm)")
    figure.colorbar(
        drawn, ax=panels, label="mean σ (mm)", shrink=0.8, pad=0.02
    ).outline.set_visible(False)
    return figure


def facing_mean_pose(results: RunResults) -> Float[np.ndarray, "joints 2"]:
    """Mean labelled pose after turning everybody to face the reader: sideways and up, mm.

    Poses are turned about the camera's vertical so that the hips lie sideways, the right hip on
    the reader's left; without that, people facing all ways average to a stick.
    """
    predictions, names = results.predictions, results.predictions.joint_names
    judged = predictions.labelled.all(-1)
    poses = predictions.target_root_relative_mm[judged if judged.any() else slice(None)]
    if "L_Hip" in names and "R_Hip" in names:
        across = poses[:, names.index("L_Hip")] - poses[:, names.index("R_Hip")]
        turn = np.arctan2(across[:, 2], across[:, 0])[:, None]
        sideways = poses[..., 0] * np.cos(turn) + poses[..., 2] * np.sin(turn)
    else:
        sideways = poses[..., 0]
    return np.stack([sideways.mean(0), -poses[..., 1].mean(0)], axis=-1)
