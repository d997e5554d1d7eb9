"""Whether uncertainty tells good predictions from bad: sparsification, risk, correlation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from pose3d.evaluation.tables import spearman

NUM_STEPS = 50
"""Steps of a sparsification curve: 0, 2, … 98 % are dropped."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sparsification:
    """Mean error of what is left once the most uncertain share has been dropped.

    Attributes:
        dropped: Shares, 0 … 0.98.
        curve: Mean error of the rest, in the unit of the error.
        oracle: The same where the largest errors go first: no order does better.
        random: The mean error of all, which an order that knows nothing keeps.
        ause: Area between curve and oracle over dropped shares 0 … 1; 0 is perfect.
        aurg: Area between random and curve; positive where the order is of use.
    """

    dropped: Float[np.ndarray, " steps"]
    curve: Float[np.ndarray, " steps"]
    oracle: Float[np.ndarray, " steps"]
    random: float
    ause: float
    aurg: float

    @classmethod
    def of(
        cls, uncertainty: Float[np.ndarray, "..."], error: Float[np.ndarray, "..."]
    ) -> "Sparsification":
        """From the uncertainty and the error of each prediction; pairs with a NaN are left out.

        Equal uncertainties drop together: each has the mean error of all that share it.

        Raises:
            ValueError: If the shapes differ or no pair is left.
        """
        uncertainty, error = known_pairs(uncertainty, error)
        curve, oracle = _kept_means(uncertainty, error), _kept_means(error, error)
        random = float(error.mean())
        return cls(
            dropped=np.arange(NUM_STEPS) / NUM_STEPS,
            curve=curve,
            oracle=oracle,
            random=random,
            ause=float((curve - oracle).mean()),
            aurg=float((random - curve).mean()),
        )


def area_under_risk_coverage(
    uncertainty: Float[np.ndarray, "..."], error: Float[np.ndarray, "..."]
) -> float:
    """Mean error of the most certain share c, averaged over c = 1/n … 1.

    Equal uncertainties count as in `Sparsification`.

    Raises:
        ValueError: If the shapes differ or no pair without NaN is left.

    Source:
        Geifman et al., Bias-reduced uncertainty estimation for deep neural classifiers, ICLR 2019.
    """
    uncertainty, error = known_pairs(uncertainty, error)
    total = _tied_means(uncertainty, error).cumsum()
    return float((total / np.arange(1, len(total) + 1)).mean())


def correlations(
    uncertainty: Float[np.ndarray, "..."], error: Float[np.ndarray, "..."]
) -> dict[str, float | None]:
    """Spearman's and Pearson's correlation; None where one side is constant or one pair is left."""
    uncertainty, error = known_pairs(uncertainty, error)
    rank = spearman(uncertainty, error)
    if rank is None:
        return {"spearman": None, "pearson": None}
    return {"spearman": rank, "pearson": float(stats.pearsonr(uncertainty, error).statistic)}


def known_pairs(
    uncertainty: Float[np.ndarray, "..."], error: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Pairs without NaN, flat, float64.

    Raises:
        ValueError: If the shapes differ or no pair is left.
    """
    if uncertainty.shape != error.shape:
        raise ValueError(
            f"uncertainty has shape {uncertainty.shape}, the error {error.shape}; expected the same"
        )
    known = ~(np.isnan(uncertainty) | np.isnan(error))
    if not known.any():
        raise ValueError("no prediction has both an uncertainty and an error")
    return uncertainty[known].astype(np.float64), error[known].astype(np.float64)


def _tied_means(
    uncertainty: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Errors from the most to the least certain, each replaced by the mean of its ties."""
    _, place, number = np.unique(uncertainty, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=error) / number
    return np.repeat(mean, number)


def _kept_means(
    order: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " steps"]:
    """Mean error of the lowest part in an order, for each step; at least one is kept."""
    total = _tied_means(order, error).cumsum()
    kept = np.maximum(1, np.ceil(len(total) * (1 - np.arange(NUM_STEPS) / NUM_STEPS) - 1e-9))
    kept = kept.astype(np.int64)
    return total[kept - 1] / kept
