"""Tables of errors and scales over judged poses: per record, action, joint and axis, and by rank.

Everything takes plain arrays, averages over what is labelled, and gives what JSON can hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import stats

from pose3d.evaluation import metrics

AXES = ("x", "y", "z")
NORMALISED_AXES = ("u", "v", "d")
SAMPLE_METRICS = ("mpjpe_mm", "pa_mpjpe_mm", "pa_mpjpe_rigid_mm", "n_mpjpe_mm", "pck150", "auc")


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedPoses:
    """Root-relative poses with their labels and which joints of them count."""

    predicted_mm: Float[np.ndarray, "samples joints 3"]
    """Prediction less the predicted root, camera axes."""
    target_mm: Float[np.ndarray, "samples joints 3"]
    """Label less the labelled root, camera axes."""
    sigma_mm: Float[np.ndarray, "samples joints 3"]
    """Predicted scale along the camera axes."""
    scale_uvd: Float[np.ndarray, "samples joints 3"]
    """Predicted scale in normalised coordinates."""
    labelled: Bool[np.ndarray, "samples joints"]
    """Joints that count; a record without any is left out."""
    root: int
    """Position of the root joint."""

    @property
    def signed_errors_mm(self) -> Float[np.ndarray, "samples joints 3"]:
        """Prediction less label, camera axes, in float64."""
        return self.predicted_mm.astype(np.float64) - self.target_mm

    @property
    def labelled_without_root(self) -> Bool[np.ndarray, "samples joints"]:
        """The joints that count less the root, whose root-relative error is 0 by definition."""
        return self.labelled & (np.arange(self.labelled.shape[1]) != self.root)


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleValues:
    """Metrics of each record, NaN where it is left out."""

    metrics: dict[str, Float[np.ndarray, " samples"]]
    """Each of `SAMPLE_METRICS`, and each with the suffix `_without_root`."""
    aligned_errors_mm: Float[np.ndarray, "samples joints"]
    """Distance of each joint after the similarity alignment, NaN where it has no label."""


def sample_values(poses: JudgedPoses) -> SampleValues:
    """Every metric per record; alignments use all labelled joints of the record.

    Records that share the same labelled joints are computed together: one batch for complete
    labels, a few more where joints are missing, never a loop over records.
    """
    samples, joints = poses.labelled.shape
    names = [name + suffix for name in SAMPLE_METRICS for suffix in ("", "_without_root")]
    values = {name: np.full(samples, np.nan) for name in names}
    aligned = np.full((samples, joints), np.nan)
    for rows, columns in label_patterns(poses.labelled):
        block = np.ix_(rows, columns)
        predicted = poses.predicted_mm[block].astype(np.float64)
        target = poses.target_mm[block].astype(np.float64)
        result, aligned[block] = pattern_values(predicted, target, keep=columns != poses.root)
        for name, value in result.items():
            values[name][rows] = value
    return SampleValues(metrics=values, aligned_errors_mm=aligned)


def label_patterns(
    labelled: Bool[np.ndarray, "samples joints"],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows that share the same labelled joints, with those joints; empty rows are left out."""
    patterns, membership = np.unique(labelled, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        if pattern.any():
            yield np.flatnonzero(membership.ravel() == number), np.flatnonzero(pattern)


def pattern_values(
    predicted: Float[np.ndarray, "samples joints 3"],
    target: Float[np.ndarray, "samples joints 3"],
    *,
    keep: Bool[np.ndarray, " joints"],
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "samples joints"]]:
    """The metrics of records with the same joints, and their errors after alignment, mm."""
    aligned = metrics.similarity_align(predicted, target, allow_scale=True)
    rigid = metrics.similarity_align(predicted, target, allow_scale=False)
    similarity_errors = np.asarray(metrics.joint_errors(aligned, target))
    rigid_errors = np.asarray(metrics.joint_errors(rigid, target))
    values: dict[str, np.ndarray] = {}
    for suffix, joints in (("", np.ones_like(keep)), ("_without_root", keep)):
        p, t = predicted[:, joints], target[:, joints]
        values |= {
            f"mpjpe_mm{suffix}": np.asarray(metrics.mpjpe(p, t)),
            f"pa_mpjpe_mm{suffix}": similarity_errors[:, joints].mean(-1),
            f"pa_mpjpe_rigid_mm{suffix}": rigid_errors[:, joints].mean(-1),
            f"n_mpjpe_mm{suffix}": np.asarray(metrics.n_mpjpe(p, t)),
            f"pck150{suffix}": 100 * np.asarray(metrics.pck(p, t, threshold_mm=150)),
            f"auc{suffix}": 100 * np.asarray(metrics.pck_auc(p, t)),
        }
    return values, similarity_errors


def action_rows(
    action: Shaped[np.ndarray, " samples"], labelled: Bool[np.ndarray, "samples joints"]
) -> dict[str, Bool[np.ndarray, " samples"]]:
    """The judged records of each action, by name; actions without any are left out."""
    judged = labelled.any(-1)
    rows = {str(name): (action == name) & judged for name in np.unique(action)}
    return {name: chosen for name, chosen in rows.items() if chosen.any()}


def headline(
    values: SampleValues, actions: dict[str, Bool[np.ndarray, " samples"]]
) -> dict[str, float]:
    """Both averages of every metric, with the root's zero and without."""
    result = {}
    for name in SAMPLE_METRICS:
        for suffix in ("", "_without_root"):
            value = values.metrics[name + suffix]
            result[name + suffix] = float(np.nanmean(value))
            means = [np.nanmean(value[rows]) for rows in actions.values()]
            result[f"{name}_action_average{suffix}"] = float(np.mean(means))
    return result


def action_row(values: SampleValues, rows: Bool[np.ndarray, " samples"]) -> dict[str, Any]:
    """The metrics of one action's records."""
    names = (*SAMPLE_METRICS, "mpjpe_mm_without_root")
    means = {name: float(np.nanmean(values.metrics[name][rows])) for name in names}
    return {"samples": int(rows.sum()), **means}


def joint_row(
    poses: JudgedPoses, joint: int, *, aligned_errors_mm: Float[np.ndarray, "samples joints"]
) -> dict[str, Any]:
    """Errors and mean σ of one joint; only the count where it has no label at all."""
    rows = poses.labelled[:, joint]
    if not rows.any():
        return {"samples": 0}
    error = poses.signed_errors_mm[rows, joint]
    sigma = poses.sigma_mm[rows, joint].astype(np.float64)
    normalised = poses.scale_uvd[rows, joint].astype(np.float64)
    distance = np.linalg.norm(error, axis=-1)
    return {
        "samples": int(rows.sum()),
        "mpjpe_mm": float(distance.mean()),
        "median_error_mm": float(np.median(distance)),
        "pa_mpjpe_mm": float(aligned_errors_mm[rows, joint].mean()),
        "absolute_error_mm": by_axis(np.abs(error).mean(0)),
        "bias_mm": by_axis(error.mean(0)),
        "sigma_mm": by_axis(sigma.mean(0)),
        "sigma_uvd": by_axis(normalised.mean(0), names=NORMALISED_AXES),
        "sigma_radius_mm": float(np.linalg.norm(sigma, axis=-1).mean()),
    }


def axis_rows(poses: JudgedPoses) -> dict[str, dict[str, float]]:
    """Errors and σ along each camera axis over all judged joints but the root."""
    chosen = poses.labelled_without_root
    error, sigma = poses.signed_errors_mm[chosen], poses.sigma_mm[chosen].astype(np.float64)
    return {
        axis: {
            "absolute_error_mm": float(np.abs(error[:, number]).mean()),
            "root_mean_square_error_mm": float(np.sqrt((error[:, number] ** 2).mean())),
            "bias_mm": float(error[:, number].mean()),
            "sigma_mm": float(sigma[:, number].mean()),
            "sigma_median_mm": float(np.median(sigma[:, number])),
        }
        for number, axis in enumerate(AXES)
    }


def sigma_error_spearman(poses: JudgedPoses, *, joint_names: tuple[str, ...]) -> dict[str, Any]:
    """Rank correlation of the predicted radius ‖σ‖ and the error ‖e‖, mm; the root is left out.

    `overall` pools joints and records (it also rewards knowing that wrists are harder than hips),
    `per_joint` looks at each joint alone, `within_joint` is the mean of those, `per_axis` compares
    σ and |e| along one camera axis.
    """
    chosen, error = poses.labelled_without_root, poses.signed_errors_mm
    sigma = poses.sigma_mm.astype(np.float64)
    distance, radius = np.linalg.norm(error, axis=-1), np.linalg.norm(sigma, axis=-1)
    by_joint = {
        name: spearman(radius[chosen[:, joint], joint], distance[chosen[:, joint], joint])
        for joint, name in enumerate(joint_names)
        if joint != poses.root
    }
    known = [value for value in by_joint.values() if value is not None]
    return {
        "overall": spearman(radius[chosen], distance[chosen]),
        "within_joint": float(np.mean(known)) if known else None,
        "per_joint": by_joint,
        "per_axis": {
            axis: spearman(sigma[chosen][:, number], np.abs(error[chosen][:, number]))
            for number, axis in enumerate(AXES)
        },
    }


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float | None:
    """Spearman's rank correlation, or None where one side is constant or has under two values."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)


def by_axis(
    values: Float[np.ndarray, " 3"], *, names: tuple[str, str, str] = AXES
) -> dict[str, float]:
    """Three numbers under the names of their axes."""
    return {name: float(value) for name, value in zip(names, values, strict=True)}
