"""Calibration of distributions whose frequencies have a closed form."""

import numpy as np
import pytest
from scipy import integrate, stats

from pose3d.evaluation.calibration import (
    PIT_BINS,
    PROBABILITIES,
    QuantileCalibration,
    conformal_quantile,
    coverage,
    pit_summary,
    radius_ece,
    radius_frequencies,
)
from pose3d.evaluation.sampled import LEVELS, SampleStatistics

NUM_RECORDS, NUM_JOINTS, NUM_SAMPLES = 1500, 3, 200


def statistics(*, width, seed=0):
    """Standard normal labels, samples of a normal `width` times as wide."""
    rng = np.random.default_rng(seed)
    samples = width * rng.standard_normal((NUM_SAMPLES, NUM_RECORDS, NUM_JOINTS, 3))
    labels = rng.standard_normal((NUM_RECORDS, NUM_JOINTS, 3))
    return SampleStatistics.of(samples, labels, np.ones((NUM_RECORDS, NUM_JOINTS), bool))


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_radii_hold_the_share_that_a_chi_distribution_gives(width):
    """A q-radius of the prediction is width · χ₃⁻¹(q), and holds χ₃ of it."""
    found = statistics(width=width)
    frequencies = radius_frequencies(found.distance_mm, found.radii_mm)
    expected = stats.chi(3).cdf(width * stats.chi(3).ppf(LEVELS))
    np.testing.assert_allclose(frequencies, np.tile(expected, (NUM_JOINTS, 1)), atol=0.045)
    gap = np.abs(expected - LEVELS).mean()
    assert radius_ece(frequencies) == pytest.approx(gap, abs=0.015)
    middle = frequencies[:, 10]
    assert {0.5: (middle < 0.4).all(), 1.0: True, 2.0: (middle > 0.6).all()}[width]


def test_radius_ece_takes_the_median_over_joints():
    """One joint that is wholly wrong among three changes nothing; a half of them does."""
    right = np.tile(LEVELS, (3, 1))
    right[0] = 1.0
    assert radius_ece(right) == 0
    assert radius_ece(np.stack([LEVELS, np.ones(21)])) == pytest.approx((1 - LEVELS).mean() / 2)
    assert radius_ece(np.stack([LEVELS, np.full(21, np.nan)])) == 0


def test_labels_that_are_missing_do_not_count():
    distance = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    radii = np.tile(np.linspace(0, 4, 21), (3, 2, 1))
    found = radius_frequencies(distance, radii)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[0], (np.linspace(0, 4, 21)[:, None] >= [1, 3]).mean(1))


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_quantiles_of_a_prediction_of_another_width(width):
    """Of standard normal labels, Φ(width · Φ⁻¹(p)) lie below the p-quantile."""
    label = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    found = QuantileCalibration.of(stats.norm.cdf(label / width))

    def gap(p):
        return stats.norm.cdf(width * stats.norm.ppf(p)) - p

    np.testing.assert_allclose(found.observed - PROBABILITIES, gap(PROBABILITIES), atol=2e-4)
    assert found.mace == pytest.approx(np.abs(gap(PROBABILITIES)).mean(), abs=2e-4)
    assert found.rmsce == pytest.approx(np.sqrt((gap(PROBABILITIES) ** 2).mean()), abs=2e-4)
    area = integrate.quad(lambda p: abs(gap(p)), 0, 1, points=[0.5])[0]
    assert found.miscalibration_area == pytest.approx(area, abs=1e-3)


def test_a_histogram_of_uniform_values_is_flat():
    uniform = (np.arange(2000) + 0.5) / 2000
    found = pit_summary(np.concatenate([uniform, [np.nan]]))
    np.testing.assert_allclose(found["density"], 1)
    assert len(found["density"]) == PIT_BINS
    assert found["number"] == 2000
    assert found["kolmogorov_smirnov"] == pytest.approx(0.5 / 2000)
    squared = pit_summary(uniform**2)  # F(x) = √x, farthest from x at 1/4
    assert squared["kolmogorov_smirnov"] == pytest.approx(0.25, abs=1e-3)
    assert squared["density"][0] == pytest.approx(PIT_BINS * np.sqrt(1 / PIT_BINS), rel=0.02)


def test_samples_of_the_right_distribution_have_uniform_transforms():
    transforms = statistics(width=1.0, seed=3).pit
    assert pit_summary(transforms)["kolmogorov_smirnov"] < 0.02
    assert pit_summary(statistics(width=0.5, seed=3).pit)["kolmogorov_smirnov"] > 0.1


def test_coverage_counts_the_levels_below():
    level = np.array([[0.1, 0.5, np.nan], [0.9, 0.95, np.nan]])
    np.testing.assert_allclose(coverage(level, np.array([0.5, 0.9, 0.94])), [0.5, 0.75, 0.75])


@pytest.mark.parametrize(("number", "miss", "rank"), [(9, 0.1, 9), (19, 0.1, 18), (99, 0.05, 95)])
def test_the_conformal_quantile_is_an_order_statistic(number, miss, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, number + 1))
    assert conformal_quantile(np.append(scores, np.nan), miss=miss) == rank


def test_too_few_scores_promise_nothing():
    assert conformal_quantile(np.arange(8.0), miss=0.1) == np.inf


def test_conformal_sets_cover_what_they_promise():
    """Exactly rank/(n + 1) on average over calibration sets, whatever the distribution."""
    rng = np.random.default_rng(0)
    draws = rng.standard_cauchy((4000, 20)) ** 2
    covered = [d[-1] <= conformal_quantile(d[:-1], miss=0.2) for d in draws]
    assert np.mean(covered) == pytest.approx(16 / 20, abs=0.02)


@pytest.mark.parametrize("miss", [0.0, 1.0, -0.1])
def test_refuses_a_miss_rate_that_is_none(miss):
    with pytest.raises(ValueError, match="miss must lie in"):
        conformal_quantile(np.arange(8.0), miss=miss)


@pytest.mark.parametrize(
    "of", [QuantileCalibration.of, pit_summary, lambda x: coverage(x, PROBABILITIES)]
)
def test_refuses_what_has_no_label(of):
    with pytest.raises(ValueError, match="nothing is labelled"):
        of(np.full(3, np.nan))
