"""Whether predicted probabilities come true: coverage of radii, quantiles, PIT, conformal sets.

All functions take what `SampleStatistics` holds, or part of it; NaN marks what has no label and is
left out. Frames of one take are not independent: intervals come from `bootstrap`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.integrate import trapezoid

from pose3d.evaluation.sampled import LEVELS

PROBABILITIES = np.arange(1, 100) / 100
"""At which quantile calibration is looked at: 0.01 … 0.99."""
PIT_BINS = 20


def radius_frequencies(
    distance_mm: Float[np.ndarray, "records joints"],
    radii_mm: Float[np.ndarray, "records joints levels"],
) -> Float[np.ndarray, "joints levels"]:
    """Share of the labels of each joint that lie within each predicted radius; NaN without labels.

    The radii of the levels 0 and 1, of the nearest and the farthest sample, stand for 0 and ∞: a
    continuous distribution has nothing within the one and everything within the other.
    """
    known = ~np.isnan(distance_mm)
    within = (distance_mm[..., None] <= radii_mm) & known[..., None]
    number = known.sum(0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = within.sum(0) / number
    share[:, 0] = np.where(number[:, 0] > 0, 0.0, np.nan)
    share[:, -1] = np.where(number[:, 0] > 0, 1.0, np.nan)
    return share


def radius_ece(frequencies: Float[np.ndarray, "joints levels"]) -> float:
    """Expected calibration error of the radii: mean over q of |median over joints − q|.

    About 0.5 where predicted radii are far too small or far too large for every label.

    Source:
        Pierzchlewicz et al., Multi-hypothesis 3D human pose estimation metrics favor miscalibrated
        distributions (2022), cGNF.
    """
    return float(np.abs(np.nanmedian(frequencies, axis=0) - LEVELS).mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantileCalibration:
    """How often labels lie below predicted quantiles.

    Attributes:
        observed: Share of labels below the quantile of each of `PROBABILITIES`.
        mace: Mean absolute calibration error, mean of |observed − p|.
        rmsce: Root of the mean of (observed − p)².
        miscalibration_area: ∫ |observed(p) − p| dp over 0 … 1.
    """

    observed: Float[np.ndarray, " probabilities"]
    mace: float
    rmsce: float
    miscalibration_area: float

    @classmethod
    def of(cls, pit: Float[np.ndarray, "..."]) -> "QuantileCalibration":
        """From probability integral transforms, of which NaN is left out.

        Raises:
            ValueError: If nothing is left.
        """
        known = known_values(pit, name="pit")
        observed = np.searchsorted(np.sort(known), PROBABILITIES, side="right") / len(known)
        gap = observed - PROBABILITIES
        ends = np.concatenate([[0.0], PROBABILITIES, [1.0]])
        return cls(
            observed=observed,
            mace=float(np.abs(gap).mean()),
            rmsce=float(np.sqrt(np.square(gap).mean())),
            miscalibration_area=float(trapezoid(np.abs(np.concatenate([[0.0], gap, [0.0]])), ends)),
        )


def pit_summary(pit: Float[np.ndarray, "..."]) -> dict[str, Any]:
    """Histogram of probability integral transforms, and their distance from uniform.

    Returns:
        density: of each of `PIT_BINS` equal bins, 1 where uniform; kolmogorov_smirnov: the largest
        difference of the distribution functions; number: of the transforms.

    Raises:
        ValueError: If all are NaN.
    """
    known = known_values(pit, name="pit")
    counts, _ = np.histogram(known, bins=PIT_BINS, range=(0, 1))
    return {
        "density": counts * PIT_BINS / len(known),
        "kolmogorov_smirnov": float(stats.kstest(known, "uniform").statistic),
        "number": len(known),
    }


def coverage(
    level: Float[np.ndarray, "..."], probabilities: Float[np.ndarray, " probabilities"]
) -> Float[np.ndarray, " probabilities"]:
    """Share of the labels inside the highest-density region of each probability.

    Args:
        level: Of each label, the probability of the region that it lies on the edge of; see
            `ResidualDensity.highest_density_level`.
        probabilities: Of the regions.

    Raises:
        ValueError: If all levels are NaN.
    """
    known = known_values(level, name="level")
    return np.searchsorted(np.sort(known), probabilities, side="right") / len(known)


def conformal_quantile(scores: Float[np.ndarray, "..."], *, miss: float) -> float:
    """The score that a further, exchangeable label exceeds with probability `miss` at most.

    The ⌈(n + 1)(1 − miss)⌉-th smallest of n scores; infinite where n is too small for that.

    Args:
        scores: Of the calibration labels, larger = stranger, such as ‖e‖/r90; NaN is left out.
        miss: Between 0 and 1.

    Raises:
        ValueError: If all scores are NaN, or `miss` does not lie in (0, 1).

    Source:
        Split conformal prediction: Papadopoulos et al. (2002); Lei et al. (2018).
    """
    if not 0 < miss < 1:
        raise ValueError(f"miss must lie in (0, 1), got {miss}")
    known = np.sort(known_values(scores, name="scores"))
    # Rounding must not make 9 of 10 · 0.9 = 9.000000000000002.
    rank = int(np.ceil(np.round((len(known) + 1) * (1 - miss), 9)))
    return float(known[rank - 1]) if rank <= len(known) else float("inf")


def known_values(values: Float[np.ndarray, "..."], *, name: str) -> Float[np.ndarray, " n"]:
    """Those that are not NaN, flat.

    Raises:
        ValueError: If there are none.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        raise ValueError(f"{name}: nothing is labelled")
    return known
