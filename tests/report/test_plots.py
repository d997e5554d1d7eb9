"""Figures: every axis carries its unit, up is up, and drawn numbers are those of the results."""

import dataclasses
import re

import numpy as np
import pytest
from mpl_toolkits.mplot3d import Axes3D
from scipy import stats

from pose3d.evaluation.predictions import evaluate_predictions
from pose3d.report import charts, plots, poses, residuals
from pose3d.report.results import read_results
from pose3d.report.style import LIGHT, drawing

UNIT = re.compile(r"\((mm|px|σ|1|1/σ|nats|1, normalised)\)$")


@pytest.fixture(scope="module")
def results(run):
    log = [
        {
            "event": "epoch",
            "epoch": epoch,
            "loss": 3 - epoch,
            "mpjpe_mm": 90 - epoch,
            "learning_rate": 1e-3,
        }
        for epoch in (1, 2, 3)
    ]
    return dataclasses.replace(read_results(run), log=log)


def figure(draw, results, **options):
    with drawing(LIGHT):
        return draw(results, LIGHT, **options)


ALL = [
    *((text.name, draw) for text, draw in plots.CHARTS),
    ("case", lambda results, theme: poses.case(results, theme, example=0)),
]


@pytest.mark.parametrize(("name", "draw"), ALL, ids=[name for name, _ in ALL])
def test_every_axis_carries_its_unit(results, name, draw):
    drawn = figure(draw, results)
    drawn.draw_without_rendering()
    visible = [axes for axes in drawn.axes if axes.get_visible()]
    assert visible
    for axes in visible:
        for axis in (axes.xaxis, axes.yaxis, *([axes.zaxis] if isinstance(axes, Axes3D) else [])):
            label = axis.get_label_text()
            ticks = [t.get_text() for t in axis.get_ticklabels() if t.get_visible()]
            is_named = any(re.match(r"[A-Z] ?[a-z]", text) for text in ticks)
            is_plain = not any(ticks)
            assert UNIT.search(label) or label == "epoch" or is_named or is_plain, (label, ticks)


def test_up_is_up_and_distances_stay():
    head, foot = np.array([10.0, -700.0, 30.0]), np.array([0.0, 850.0, -20.0])
    drawn = poses.upright(np.stack([head, foot]))
    assert drawn[0, 2] > drawn[1, 2]
    np.testing.assert_array_equal(drawn[0], [10, 30, 700])
    assert np.linalg.norm(drawn[0] - drawn[1]) == pytest.approx(np.linalg.norm(head - foot))


def test_three_axes_of_a_pose_have_the_same_scale(results):
    drawn = figure(poses.case, results, example=0)
    for axes in drawn.axes:
        if isinstance(axes, Axes3D):
            spans = [
                np.ptp(limits) for limits in (axes.get_xlim(), axes.get_ylim(), axes.get_zlim())
            ]
            np.testing.assert_allclose(spans, spans[0])
            np.testing.assert_allclose(axes._box_aspect, axes._box_aspect[0])


def test_joints_on_a_crop_lie_on_the_drawn_limbs(results):
    example = int(np.flatnonzero(results.examples.kind == "best")[0])
    image = results.examples.images[example].astype(int)
    row = results.examples.rows[example]
    drawn = figure(poses.case, results, example=example)
    lines = [line.get_xydata() for line in drawn.axes[0].lines]
    targets = np.concatenate(lines[: len(results.bones)])
    for x, y in targets.round().astype(int):
        red, _, blue = image[y, x]
        assert red > blue, f"row {row}: no limb at ({x}, {y})"


def test_predicted_joints_on_a_crop_are_those_of_the_full_image(results):
    drawn = figure(poses.case, results, example=0)
    predictions, row = results.predictions, results.examples.rows[0]
    image_px = np.column_stack([predictions.predicted_image_px[row], np.ones(17)])
    expected = (image_px @ predictions.crop_from_image[row].T)[:, :2]
    lines = drawn.axes[0].lines[len(results.bones) :]
    for line, bone in zip(lines, results.bones, strict=True):
        np.testing.assert_allclose(line.get_xydata(), expected[list(bone)], atol=0.01)


def test_ellipses_have_one_and_two_sigma_as_half_axes(results):
    drawn = figure(poses.case, results, example=0)
    row, size = results.examples.rows[0], results.examples.images.shape[1]
    expected = results.predictions.scale_uvd[row, :, :2] * size
    ellipses = drawn.axes[0].patches
    for factor, chosen in ((1, ellipses[0::2]), (2, ellipses[1::2])):
        half = np.array([(patch.width / 2, patch.height / 2) for patch in chosen])
        np.testing.assert_allclose(half, factor * expected, rtol=1e-5)


def test_the_mean_pose_faces_the_reader(results):
    pose, names = poses.facing_mean_pose(results), results.predictions.joint_names
    assert pose[names.index("R_Hip"), 0] == pytest.approx(-130, abs=3)
    assert pose[names.index("L_Hip"), 0] == pytest.approx(130, abs=3)
    assert pose[names.index("Head"), 1] > 600 > 0 > pose[names.index("L_Ankle"), 1]


def test_bars_have_the_lengths_of_the_metrics(results):
    drawn = figure(charts.error_per_joint, results)
    widths = [patch.get_width() for patch in drawn.axes[0].patches]
    metrics = evaluate_predictions(results.predictions)["per_joint"]
    assert widths == pytest.approx([row["mpjpe_mm"] for row in metrics.values()])
    names = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert names[0] == "Pelvis"
    assert drawn.axes[0].yaxis_inverted()


def test_sigma_of_the_roots_depth_is_not_drawn(results):
    drawn = figure(charts.sigma_per_joint, results)
    for axes in drawn.axes:
        widths = np.array([patch.get_width() for patch in axes.patches]).reshape(3, -1)
        assert np.isnan(widths[2, 0])
        assert np.isfinite(widths[:, 1:]).all()


def test_bins_hold_equal_counts_and_the_quantiles_of_their_values():
    rng = np.random.default_rng(5)
    x = rng.uniform(10, 20, 50000)
    y = rng.exponential(x)
    centres, quantiles = charts.binned_quantiles(x, y)
    np.testing.assert_allclose(quantiles[1], stats.expon.ppf(0.5, scale=centres), rtol=0.06)
    np.testing.assert_allclose(np.diff(centres), 10 / charts.NUM_BINS, rtol=0.1)


def test_contours_hold_the_shares_they_claim(results):
    drawn = figure(residuals.residual_density, results)
    residual = results.predictions.standardised_residual.reshape(-1, 3)
    residual = residual[np.isfinite(residual).all(-1)]
    for axes, pair in zip(drawn.axes[:3], ((0, 1), (0, 2), (1, 2)), strict=True):
        (contour,) = [c for c in axes.collections if type(c).__name__ == "QuadContourSet"]
        for path, share in zip(contour.get_paths(), residuals.SHARES, strict=True):
            inside = path.contains_points(residual[:, pair]).mean()
            assert inside == pytest.approx(share, abs=0.02)


def test_histograms_integrate_to_the_share_they_show(results):
    drawn = figure(residuals.residual_density, results)
    for axes in drawn.axes[3:6]:
        heights, edges, _ = axes.patches[0].get_data()
        assert (heights * np.diff(edges)).sum() == pytest.approx(0.99, abs=0.015)


def test_a_run_without_a_log_has_no_training_curves(results):
    assert figure(charts.training_curves, dataclasses.replace(results, log=[])) is None


def test_a_single_action_is_not_compared(results):
    table = {"Walking": results.metrics["per_action"]["Walking"]}
    alone = dataclasses.replace(results, metrics={**results.metrics, "per_action": table})
    assert figure(charts.error_per_action, alone) is None


def test_worst_cases_come_first_and_no_kind_crowds_out_the_others(results):
    names = [text.name for text, _ in plots.cases(results)]
    assert names[0] == "case_worst_1"
    assert names[-1].startswith("case_best")
    many = np.repeat(["best", "worst"], [8, 1])
    examples = dataclasses.replace(
        results.examples,
        images=np.zeros((9, 8, 8, 3), np.uint8),
        rows=np.arange(9),
        kind=many,
    )
    crowded = plots.cases(dataclasses.replace(results, examples=examples))
    shown = [text.name for text, _ in crowded]
    assert shown == ["case_worst_1", "case_best_1", "case_best_2", "case_best_3"]


def test_settings_of_a_theme_end_with_the_drawing():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with drawing(LIGHT):
        assert mpl.rcParams["axes.titlelocation"] == "left"
    assert dict(mpl.rcParams) == before
