"""Intervals by resampling whole sequences: frames and cameras of one take are not independent.

A take (subject, action, sub-action) is drawn with all its frames from all its cameras, so that the
interval says what other takes of the same kind would change. Everything hangs on one matrix of
counts, how often each resample holds each take: used for several models it pairs them.

The intervals are percentile intervals. They carry the choice of the takes, not that of the
training seeds, and with few takes (under about 20) they are somewhat too narrow.

Source:
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
"""

import numpy as np
from jaxtyping import Float, Int, Int64, Shaped

RESAMPLES_AT_ONCE = 100
"""Resamples whose ranks are held in memory together."""


def sequence_numbers(
    *labels: Shaped[np.ndarray, " records"],
) -> tuple[Int64[np.ndarray, " records"], Shaped[np.ndarray, " sequences"]]:
    """Number every distinct combination of labels.

    Args:
        *labels: What makes a sequence, e.g. subject, action and sub-action of each record.

    Returns:
        The number of each record's sequence, and the sequences' names, labels joined by "/".
    """
    texts = np.array(["/".join(map(str, row)) for row in zip(*labels, strict=True)])
    names, numbers = np.unique(texts, return_inverse=True)
    return numbers.astype(np.int64), names


def resample_counts(
    num_sequences: int, *, num_resamples: int, seed: int = 0
) -> Int64[np.ndarray, "resamples sequences"]:
    """How often each of the resamples holds each sequence; every row sums to `num_sequences`.

    Raises:
        ValueError: If there are fewer than two sequences, which say nothing of their spread.
    """
    if num_sequences < 2:
        raise ValueError(f"an interval needs at least 2 sequences, got {num_sequences}")
    chances = np.full(num_sequences, 1 / num_sequences)
    return np.random.default_rng(seed).multinomial(num_sequences, chances, size=num_resamples)


def resampled_ratio(
    total: Float[np.ndarray, " records"],
    number: Float[np.ndarray, " records"] | Int[np.ndarray, " records"],
    sequence: Int[np.ndarray, " records"],
    counts: Int[np.ndarray, "resamples sequences"],
) -> Float[np.ndarray, " resamples"]:
    """Σ total / Σ number over the records of each resample.

    Args:
        total: What is summed, e.g. nats of all joints of a record; NaN = left out.
        number: Over how many it is summed, e.g. joints; 1 gives the mean over records.
        sequence: Number of each record's sequence.
        counts: See resample_counts.

    Returns:
        One ratio per resample; NaN where a resample holds nothing.
    """
    known = ~np.isnan(total)
    size = counts.shape[1]
    weights = np.where(known, total, 0), np.where(known, number, 0)
    above, below = (np.bincount(sequence, weights=w, minlength=size) for w in weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (counts @ above) / (counts @ below)


def resampled_spearman(
    a: Float[np.ndarray, " records"],
    b: Float[np.ndarray, " records"],
    sequence: Int[np.ndarray, " records"],
    counts: Int[np.ndarray, "resamples sequences"],
) -> Float[np.ndarray, " resamples"]:
    """Spearman's rank correlation of each resample, ranked anew; NaN where one side is constant.

    A record that a resample holds k times counts as k equal ones, with their middle rank.
    """
    results = np.empty(len(counts))
    ties_a, ties_b = _tie_ranges(a), _tie_ranges(b)
    for start in range(0, len(counts), RESAMPLES_AT_ONCE):
        chosen = slice(start, start + RESAMPLES_AT_ONCE)
        weight = counts[chosen][:, sequence].astype(np.float64)  # [resamples records]
        ranks_a, ranks_b = (_middle_ranks(weight, *ties) for ties in (ties_a, ties_b))
        results[chosen] = _weighted_correlation(ranks_a, ranks_b, weight)
    return results


def interval(
    samples: Float[np.ndarray, " resamples"], *, level: float = 0.95
) -> tuple[float, float]:
    """The central percentile interval of a bootstrap distribution; NaN among it is left out."""
    known = samples[np.isfinite(samples)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _tie_ranges(
    values: Float[np.ndarray, " records"],
) -> tuple[Int64[np.ndarray, " records"], ...]:
    """Order of the values, and where each one's equals begin and end in it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    start, end = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return order, start, end


def _middle_ranks(
    weight: Float[np.ndarray, "resamples records"],
    order: Int64[np.ndarray, " records"],
    start: Int64[np.ndarray, " records"],
    end: Int64[np.ndarray, " records"],
) -> Float[np.ndarray, "resamples records"]:
    below = np.zeros((len(weight), weight.shape[1] + 1))
    np.cumsum(weight[:, order], axis=1, out=below[:, 1:])
    return (below[:, start] + below[:, end]) / 2


def _weighted_correlation(
    a: Float[np.ndarray, "resamples records"],
    b: Float[np.ndarray, "resamples records"],
    weight: Float[np.ndarray, "resamples records"],
) -> Float[np.ndarray, " resamples"]:
    total = weight.sum(1, keepdims=True)
    a = a - (weight * a).sum(1, keepdims=True) / total
    b = b - (weight * b).sum(1, keepdims=True) / total
    spread = (weight * a**2).sum(1) * (weight * b**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weight * a * b).sum(1) / np.sqrt(spread)
