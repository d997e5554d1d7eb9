"""Statistics of samples against closed forms of the normal distribution and sums over all pairs."""

import numpy as np
import pytest
from scipy import spatial, stats

from pose3d.evaluation.sampled import (
    LEVELS,
    SampleStatistics,
    energy_score,
    mean_difference,
)

DEVIATION = np.array([20.0, 5.0, 60.0])
LOCATION = np.array([100.0, -50.0, 300.0])


def normal_samples(number, *, records=1, joints=1, deviation=DEVIATION, seed=0):
    unit = np.random.default_rng(seed).standard_normal((number, records, joints, 3))
    return LOCATION + deviation * unit


def test_mean_difference_is_that_of_all_pairs():
    values = np.random.default_rng(0).standard_normal((40, 3))
    expected = [spatial.distance.pdist(column[:, None]).mean() for column in values.T]
    np.testing.assert_allclose(mean_difference(values), expected, rtol=1e-12)


def test_crps_of_a_normal():
    samples = normal_samples(20_000)
    for z in (0.0, 1.3, -2.5):
        target = LOCATION + z * DEVIATION
        found = SampleStatistics.of(samples, target[None, None], np.ones((1, 1), bool))
        exact = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
        np.testing.assert_allclose(found.crps_mm[0, 0], exact * DEVIATION, rtol=0.04)


def test_energy_score_of_a_normal():
    """E‖X‖ and E‖X − X′‖/√2 are the mean of a chi distribution with three degrees of freedom."""
    samples = np.random.default_rng(1).standard_normal((20_000, 1, 3))
    mean = stats.chi(3).mean()
    near = energy_score(samples, np.zeros((1, 3)))
    assert near == pytest.approx(mean - mean / np.sqrt(2), rel=0.02)
    far = energy_score(samples, np.array([[0.0, 0.0, 100.0]]))
    assert far == pytest.approx(100.01 - mean / np.sqrt(2), rel=1e-3)


def test_radii_centre_and_covariance_of_a_normal():
    samples = normal_samples(50_000, deviation=10.0)
    found = SampleStatistics.of(samples, LOCATION[None, None], np.ones((1, 1), bool))
    np.testing.assert_allclose(found.centre_mm[0, 0], LOCATION, atol=0.3)
    np.testing.assert_allclose(found.covariance_mm2[0, 0], 100 * np.eye(3), atol=3)
    inner = slice(1, -1)
    np.testing.assert_allclose(
        found.radii_mm[0, 0, inner], 10 * stats.chi(3).ppf(LEVELS[inner]), rtol=0.02
    )
    assert found.r50_mm[0, 0] == pytest.approx(10 * stats.chi(3).ppf(0.5), rel=0.01)
    assert found.r90_mm[0, 0] == pytest.approx(10 * stats.chi(3).ppf(0.9), rel=0.01)


def test_pit_is_the_rank_of_the_label():
    samples = np.arange(1.0, 20.0)[:, None, None, None].repeat(3, axis=3)
    target = np.array([[[0.0, 10.5, 30.0]]])
    found = SampleStatistics.of(samples, target, np.ones((1, 1), bool))
    np.testing.assert_allclose(found.pit[0, 0], [0.5 / 20, 10.5 / 20, 19.5 / 20])
    tied = SampleStatistics.of(samples, np.full((1, 1, 3), 10.0), np.ones((1, 1), bool))
    np.testing.assert_allclose(tied.pit[0, 0], 0.5)


def test_what_has_no_label_has_no_score_but_a_radius():
    samples = normal_samples(50, records=2, joints=3)
    labelled = np.array([[True, False, True], [False, True, True]])
    target = np.where(labelled[..., None], LOCATION, 1e9)
    found = SampleStatistics.of(samples, target, labelled)
    for name in ("distance_mm", "energy_score_mm", "pit", "crps_mm"):
        values = getattr(found, name).reshape(2, 3, -1)
        assert (np.isnan(values).all(-1) == ~labelled).all(), name
        assert np.isfinite(values[labelled]).all()
    assert np.isfinite(found.radii_mm).all()
    assert np.isfinite(found.covariance_mm2).all()


def test_parts_join_in_their_order():
    samples = normal_samples(30, records=5, joints=2)
    target, labelled = np.zeros((5, 2, 3)), np.ones((5, 2), bool)
    whole = SampleStatistics.of(samples, target, labelled)
    cuts = (slice(0, 2), slice(2, 5))
    joined = SampleStatistics.joined(
        [SampleStatistics.of(samples[:, c], target[c], labelled[c]) for c in cuts]
    )
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(joined, name), values, err_msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:10], "more than 10 samples of each joint, got 10"),
        (lambda s: np.where(s == s[0, 0, 0, 0], np.inf, s), "not finite"),
    ],
)
def test_refuses_what_says_nothing(change, message):
    samples = change(normal_samples(20))
    with pytest.raises(ValueError, match=message):
        SampleStatistics.of(samples, LOCATION[None, None], np.ones((1, 1), bool))


def test_the_centre_is_the_median_of_each_axis_and_the_covariance_has_no_bias():
    samples = np.random.default_rng(2).exponential(DEVIATION, (25, 1, 1, 3))
    found = SampleStatistics.of(samples, np.zeros((1, 1, 3)), np.ones((1, 1), bool))
    middle = [sorted(samples[:, 0, 0, axis])[12] for axis in range(3)]
    np.testing.assert_array_equal(found.centre_mm[0, 0], middle)
    np.testing.assert_allclose(found.covariance_mm2[0, 0], np.cov(samples[:, 0, 0].T), rtol=1e-12)
