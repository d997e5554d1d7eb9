"""Intervals by sequence against SciPy's bootstrap, closed forms, and resamples written out."""

import numpy as np
import pytest
from scipy import stats

from pose3d.evaluation.bootstrap import (
    interval,
    resample_counts,
    resampled_ratio,
    resampled_spearman,
    sequence_numbers,
)


def mean_interval(values, sequence, *, num_resamples=4000):
    counts = resample_counts(int(sequence.max()) + 1, num_resamples=num_resamples)
    return interval(resampled_ratio(values, np.ones(len(values)), sequence, counts))


def written_out(counts, sequence):
    """Rows of the records of one resample, a sequence drawn twice appearing twice."""
    return np.concatenate(
        [np.flatnonzero(sequence == s) for s, n in enumerate(counts) for _ in range(n)]
    )


def test_interval_of_a_mean_is_scipys_over_sequence_means():
    rng = np.random.default_rng(0)
    means = rng.gamma(2, 30, 25)
    spread = rng.normal(0, 5, (25, 8))
    values = means[:, None] + spread - spread.mean(1, keepdims=True)
    low, high = mean_interval(values.ravel(), np.repeat(np.arange(25), 8), num_resamples=20000)
    oracle = stats.bootstrap(
        (means,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    tolerance = 0.03 * (oracle.high - oracle.low)
    assert (low, high) == (
        pytest.approx(oracle.low, abs=tolerance),
        pytest.approx(oracle.high, abs=tolerance),
    )


def test_interval_of_independent_normal_values_is_the_closed_form():
    values = np.random.default_rng(2).normal(100, 10, 500)
    low, high = mean_interval(values, np.arange(500))
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(500)
    assert low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_interval_of_clustered_values_covers_what_the_naive_one_misses():
    rng = np.random.default_rng(3)
    num_sequences, num_frames, between, within = 40, 30, 10.0, 3.0
    deviation = np.sqrt(between**2 / num_sequences + within**2 / num_sequences / num_frames)
    sequence = np.repeat(np.arange(num_sequences), num_frames)
    clustered = naive = 0
    for _ in range(200):
        values = rng.normal(0, between, num_sequences)[sequence]
        values = values + rng.normal(0, within, len(values))
        low, high = mean_interval(values, sequence, num_resamples=200)
        clustered += low < 0 < high
        half = 1.96 * values.std() / np.sqrt(len(values))
        naive += abs(values.mean()) < half
    assert clustered >= 180
    assert naive < 90
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.4)


def test_a_level_is_the_share_within():
    samples = np.random.default_rng(4).normal(size=20000)
    low, high = interval(samples, level=0.8)
    assert [low, high] == pytest.approx(stats.norm.ppf([0.1, 0.9]), abs=0.04)
    assert np.isnan(interval(np.full(5, np.nan))).all()


def test_ratio_of_a_resample_is_that_of_its_records():
    rng = np.random.default_rng(5)
    sequence = rng.permutation(np.repeat(np.arange(6), [1, 2, 5, 3, 4, 7]))
    total, number = rng.normal(size=22), rng.integers(1, 18, 22)
    total[[3, 11]] = np.nan
    counts = resample_counts(6, num_resamples=20, seed=1)
    found = resampled_ratio(total, number, sequence, counts)
    for row, value in zip(counts, found, strict=True):
        rows = written_out(row, sequence)
        rows = rows[np.isfinite(total[rows])]
        assert value == pytest.approx(total[rows].sum() / number[rows].sum())


def test_rank_correlation_of_a_resample_is_scipys_of_its_records():
    rng = np.random.default_rng(6)
    sequence = rng.permutation(np.repeat(np.arange(5), [9, 2, 12, 20, 7]))
    a = rng.normal(size=50).round(1)  # with ties
    b = (a + rng.normal(size=50)).round(1)
    counts = resample_counts(5, num_resamples=230, seed=2)
    found = resampled_spearman(a, b, sequence, counts)
    oracle = [
        stats.spearmanr(a[rows], b[rows]).statistic
        for rows in (written_out(row, sequence) for row in counts)
    ]
    assert found == pytest.approx(np.array(oracle), abs=1e-12)


def test_rank_correlation_of_constants_is_undefined():
    counts = resample_counts(3, num_resamples=4)
    found = resampled_spearman(np.ones(6), np.arange(6.0), np.arange(6) // 2, counts)
    assert np.isnan(found).all()


def test_resamples_draw_as_many_sequences_as_there_are_and_hang_on_the_seed():
    counts = resample_counts(7, num_resamples=3000, seed=3)
    assert (counts.sum(1) == 7).all()
    assert counts.mean(0) == pytest.approx(np.ones(7), abs=0.1)
    assert counts.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.12)
    assert np.array_equal(counts, resample_counts(7, num_resamples=3000, seed=3))
    assert not np.array_equal(counts, resample_counts(7, num_resamples=3000, seed=4))


def test_one_sequence_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 sequences"):
        resample_counts(1, num_resamples=10)


def test_cameras_and_frames_of_a_take_are_one_sequence():
    subject = np.array([9, 9, 11, 9, 9])
    action = np.array(["Eating", "Walking", "Eating", "Eating", "Eating"])
    numbers, names = sequence_numbers(subject, action, np.array([1, 1, 1, 1, 2]))
    assert names[numbers].tolist() == [
        *("9/Eating/1", "9/Walking/1", "11/Eating/1"),
        *("9/Eating/1", "9/Eating/2"),
    ]
    assert len(names) == 4
