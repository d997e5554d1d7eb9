"""From what is kept of the runs of a comparison to its numbers: means over seeds and intervals.

Sequences are resampled, seeds are averaged within a resample, and all variants see the same
resamples, so that a difference of two variants is a paired one. How far seeds scatter is not in the
interval; every number comes with its values by seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pose3d.engine.judge import COVERAGE_LEVELS
from pose3d.engine.variants import Plan, Variant
from pose3d.evaluation.bootstrap import (
    interval,
    resample_counts,
    resampled_ratio,
    resampled_spearman,
)
from pose3d.evaluation.tables import spearman

NUM_RESAMPLES = 1000
NUM_RANKED = 500
"""Resamples of those for rank correlations, which are dear."""
LEVEL = 0.95
RECORD_METRICS = ("mpjpe_mm", "pa_mpjpe_mm", "mpjpe_mm_centred", "pa_mpjpe_mm_centred")
DEFINITIONS = {
    "mpjpe_mm": "mean over records of the mean root-relative error of the joints, mm",
    "pa_mpjpe_mm": "the same after the best similarity of each pose, mm",
    "mpjpe_mm_centred": "MPJPE at μ + σ·c, c the geometric median of the residual density "
    "(its u is 0 under a flip test), mm",
    "pa_mpjpe_mm_centred": "PA-MPJPE at the same place, mm",
    "nats_per_joint": "−log density of the label in uvd (1 = a crop side, or the depth range), "
    "per labelled joint, image alone (no flip test); the root has the density of its (u, v)",
    "sigma_error_spearman": "rank correlation of the radius of σ and the error, mm, "
    "within each joint, mean over joints, root left out",
    "coverage": "share of labels, per axis, within the predicted central interval; mean over axes",
    "images_per_second": "in training, median over epochs, then over seeds",
    "parameters": "of backbone, heads and likelihood",
    "difference": "variant less reference over the seeds that both have, paired by sequence",
    "interval": f"{LEVEL:.0%} percentile bootstrap of {NUM_RESAMPLES} resamples (Spearman: "
    f"{NUM_RANKED}) of whole sequences (subject, action, sub-action; all cameras); seeds averaged "
    "within a resample",
    "checkpoint": "last (average weights where the variant has them), not the best on the test "
    "split",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord:
    """What is kept of one run."""

    summary: dict[str, Any]
    """See judge_run; with status done or failed, and then a message."""
    arrays: dict[str, np.ndarray]
    """See judge_run; empty where it failed."""

    @property
    def is_done(self) -> bool:
        """Whether it has numbers."""
        return bool(self.summary["status"] == "done")


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """A number with its bootstrap distribution, empty where there is none."""

    value: float
    samples: Float[np.ndarray, " resamples"]

    def to_json(self) -> dict[str, float | None]:
        """value, low and high; None for what is undefined."""
        low, high = interval(self.samples, level=LEVEL)
        numbers = {"value": self.value, "low": low, "high": high}
        return {name: v if np.isfinite(v) else None for name, v in numbers.items()}


def scoreboard(
    plan: Plan, records: Mapping[tuple[str, int], RunRecord], *, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """The row of every variant, as JSON has it; what is not there yet is named as missing.

    Args:
        plan: What was to be trained.
        records: What is kept of the runs so far, by name and seed.
        seeds: Seeds to average over.

    Raises:
        ValueError: If runs were judged on different records.
    """
    done = {key: record for key, record in records.items() if record.is_done}
    _check_same_records(done)
    counts = _counts(done)
    estimates = {key: run_estimates(record, counts) for key, record in done.items()}
    return [
        _row(variant, plan.reference, records, estimates, seeds=seeds) for variant in plan.variants
    ]


def run_estimates(
    record: RunRecord, counts: Int[np.ndarray, "resamples sequences"]
) -> dict[str, Estimate]:
    """Every metric of one run that its loss has."""
    arrays = record.arrays
    ones = np.ones(len(arrays["sequence"]))
    pairs = {name: (arrays[name], ones) for name in RECORD_METRICS if name in arrays}
    if "nats" in arrays:
        pairs["nats_per_joint"] = (arrays["nats"], arrays["nats_joints"])
    if "covered" in arrays:
        covered, coverable = arrays["covered"].sum(1), arrays["coverable"].sum(1)
        for number, level in enumerate(COVERAGE_LEVELS):
            pairs[coverage_name(level)] = (covered[:, number].astype(float), coverable)
    found = {
        name: Estimate(
            value=float(np.nansum(total) / number[~np.isnan(total)].sum()),
            samples=resampled_ratio(total.astype(float), number, arrays["sequence"], counts),
        )
        for name, (total, number) in pairs.items()
    }
    if "error_mm" in arrays:
        found["sigma_error_spearman"] = _spearman(arrays, counts)
    return found


def coverage_name(level: float) -> str:
    """Name of the coverage of a central interval."""
    return f"coverage_{100 * level:g}"


def _spearman(
    arrays: Mapping[str, np.ndarray], counts: Int[np.ndarray, "resamples sequences"]
) -> Estimate:
    values, samples = [], []
    for error, radius in zip(arrays["error_mm"].T, arrays["sigma_radius_mm"].T, strict=True):
        known = np.isfinite(error)
        value = spearman(radius[known], error[known])
        if value is not None:
            values.append(value)
            sequence = arrays["sequence"][known]
            pair = radius[known], error[known]
            samples.append(resampled_spearman(*pair, sequence, counts[:NUM_RANKED]))
    if not values:
        return Estimate(value=float("nan"), samples=np.empty(0))
    return Estimate(value=float(np.mean(values)), samples=np.mean(samples, axis=0))


def _check_same_records(done: Mapping[tuple[str, int], RunRecord]) -> None:
    first: tuple[str, np.ndarray] | None = None
    for (name, seed), record in done.items():
        here = f"{name} seed {seed}", record.arrays["store_index"]
        first = first or here
        if not np.array_equal(first[1], here[1]):
            raise ValueError(
                f"{first[0]} and {here[0]} were judged on different records ({len(first[1])} and "
                f"{len(here[1])}); compare variants with the same test records"
            )


def _counts(
    done: Mapping[tuple[str, int], RunRecord],
) -> Int[np.ndarray, "resamples sequences"]:
    """The resamples that all variants share; none at all where there is only one sequence."""
    if not done:
        return np.empty((0, 1), np.int64)
    size = len(next(iter(done.values())).arrays["names"])
    if size < 2:
        return np.empty((0, size), np.int64)
    return resample_counts(size, num_resamples=NUM_RESAMPLES)


def _row(
    variant: Variant,
    reference: str | None,
    records: Mapping[tuple[str, int], RunRecord],
    estimates: Mapping[tuple[str, int], dict[str, Estimate]],
    *,
    seeds: Sequence[int],
) -> dict[str, Any]:
    of_seed = {
        seed: records[variant.name, seed] for seed in seeds if (variant.name, seed) in records
    }
    done = [seed for seed, record in of_seed.items() if record.is_done]
    summaries = {seed: of_seed[seed].summary for seed in done}
    ours = {seed: estimates[variant.name, seed] for seed in done}
    theirs = {s: estimates[reference, s] for s in done if reference and (reference, s) in estimates}
    speeds = [v for s in summaries.values() for v in s["curve"]["images_per_second"] if v]
    return {
        "name": variant.name,
        "title": variant.title,
        "changes": variant.changes,
        "seeds": done,
        "failed": {s: r.summary["message"] for s, r in of_seed.items() if not r.is_done},
        "missing": [seed for seed in seeds if seed not in of_seed],
        "parameters": _first(summaries, "parameters"),
        "parameters_of_likelihood": _first(summaries, "parameters_of_likelihood"),
        "images_per_second": float(np.median(speeds)) if speeds else None,
        "metrics": _averages(ours),
        "difference": _differences(ours, theirs),
        "curves": {seed: s["curve"] for seed, s in summaries.items()},
        **{
            name: {seed: s[name] for seed, s in summaries.items()}
            for name in ("geometric_median", "best_mpjpe_mm", "best_epoch", "skipped_steps")
        },
    }


def _averages(ours: Mapping[int, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    first, *others = ours.values() or [{}]
    names = [name for name in first if all(name in other for other in others)]
    return {
        name: {
            **average([estimates[name] for estimates in ours.values()]).to_json(),
            "by_seed": {seed: estimates[name].value for seed, estimates in ours.items()},
        }
        for name in names
    }


def _differences(
    ours: Mapping[int, Mapping[str, Estimate]], theirs: Mapping[int, Mapping[str, Estimate]]
) -> dict[str, dict[str, Any]]:
    """Ours less theirs over the seeds of both; a centred error less the plain one of theirs."""
    found = {}
    for name in next(iter(ours.values()), {}):
        against = name.removesuffix("_centred")
        shared = [seed for seed in theirs if against in theirs[seed] and name in ours[seed]]
        if shared:
            a = average([ours[seed][name] for seed in shared])
            b = average([theirs[seed][against] for seed in shared])
            gap = Estimate(value=a.value - b.value, samples=a.samples - b.samples)
            found[name] = {**gap.to_json(), "seeds": shared}
    return found


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over seeds, resample by resample."""
    return Estimate(
        value=float(np.mean([estimate.value for estimate in estimates])),
        samples=np.mean([estimate.samples for estimate in estimates], axis=0),
    )


def _first(summaries: Mapping[int, Mapping[str, Any]], name: str) -> Any:
    return next((summary[name] for summary in summaries.values()), None)
