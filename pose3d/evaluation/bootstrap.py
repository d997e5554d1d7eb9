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
from jaxtyping import Float, Float32, Int, Int64, Shaped

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
    ranks_a, ranks_b = (_ranks_in_sequences(v, sequence, counts.shape[1]) for v in (a, b))
    for start in range(0, len(counts), RESAMPLES_AT_ONCE):
        chosen = counts[start : start + RESAMPLES_AT_ONCE].T.astype(np.float32)
        weight = chosen[sequence].astype(np.float64)  # [records resamples]
        middle = weight.sum(0) / 2  # the mean of the middle ranks
        # Half numbers: exact in float32 up to 2^23 records.
        centred_a, centred_b = (ranks @ chosen - middle for ranks in (ranks_a, ranks_b))
        product, square_a, square_b = (
            np.einsum("nr,nr,nr->r", weight, x, y)
            for x, y in (
                (centred_a, centred_b),
                (centred_a, centred_a),
                (centred_b, centred_b),
            )
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            results[start : start + RESAMPLES_AT_ONCE] = product / np.sqrt(square_a * square_b)
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


def _ranks_in_sequences(
    values: Float[np.ndarray, " records"], sequence: Int[np.ndarray, " records"], num_sequences: int
) -> Float32[np.ndarray, "records sequences"]:
    """How many values of each sequence lie below each value, equal ones counted as a half.

    A record's middle rank in a resample is the sum over sequences of these, times how often the
    resample holds each.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    below = np.zeros((len(values) + 1, num_sequences))
    below[np.arange(1, len(values) + 1), sequence[order]] = 1
    below = below.cumsum(0)
    start, end = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return ((below[start] + below[end]) / 2).astype(np.float32)
