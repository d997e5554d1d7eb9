"""Sparsification and risk–coverage against loops over sorted lists."""

import numpy as np
import pytest
from scipy import stats

from pose3d.evaluation.ranking import (
    Sparsification,
    area_under_risk_coverage,
    correlations,
)


@pytest.fixture
def pairs():
    """100 uncertainties that know something of their errors."""
    rng = np.random.default_rng(0)
    uncertainty = rng.gamma(2, 20, 100)
    return uncertainty, uncertainty * np.abs(rng.standard_normal(100))


def kept_mean(order, error, dropped):
    rows = sorted(range(len(error)), key=lambda row: order[row])
    kept = rows[: round(len(rows) * (1 - dropped))]
    return sum(error[row] for row in kept) / len(kept)


def test_curves_are_means_of_what_is_kept(pairs):
    uncertainty, error = pairs
    found = Sparsification.of(uncertainty, error)
    for step, dropped in enumerate(found.dropped):
        assert found.curve[step] == pytest.approx(kept_mean(uncertainty, error, dropped))
        assert found.oracle[step] == pytest.approx(kept_mean(error, error, dropped))
    assert len(found.curve) == 50
    assert found.random == pytest.approx(error.mean())
    assert found.ause == pytest.approx(np.mean(found.curve - found.oracle))
    assert found.aurg == pytest.approx(np.mean(error.mean() - found.curve))
    assert found.aurg > 0


def test_the_error_itself_is_the_oracle_and_its_negative_the_worst(pairs):
    _, error = pairs
    assert Sparsification.of(error, error).ause == 0
    assert Sparsification.of(-error, error).aurg < 0


def test_an_uncertainty_that_is_the_same_everywhere_is_random(pairs):
    """However the records are sorted."""
    _, error = pairs
    for records in (error, np.sort(error), np.sort(error)[::-1]):
        found = Sparsification.of(np.ones_like(records), records)
        assert found.aurg == pytest.approx(0, abs=1e-9)
        assert area_under_risk_coverage(np.ones_like(records), records) == pytest.approx(
            error.mean()
        )


def test_permuted_uncertainty_is_near_random(pairs):
    uncertainty, error = pairs
    rng = np.random.default_rng(1)
    gains = [Sparsification.of(rng.permutation(uncertainty), error).aurg for _ in range(200)]
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(200)


def test_risk_coverage_of_errors_in_order():
    """Errors 1 … n in the order of their certainty: the first k have the mean (k + 1)/2."""
    error = np.arange(1.0, 11)
    assert area_under_risk_coverage(error, error) == pytest.approx(3.25)
    shuffled = np.random.default_rng(0).permutation(10)
    assert area_under_risk_coverage(error[shuffled], error[shuffled]) == pytest.approx(3.25)


def test_correlations_are_those_of_scipy(pairs):
    uncertainty, error = pairs
    with_gap = np.append(uncertainty, np.nan), np.append(error, 3.0)
    found = correlations(*with_gap)
    assert found["spearman"] == pytest.approx(stats.spearmanr(uncertainty, error).statistic)
    assert found["pearson"] == pytest.approx(stats.pearsonr(uncertainty, error).statistic)
    assert correlations(np.ones(5), np.arange(5.0)) == {"spearman": None, "pearson": None}


def test_refuses_what_cannot_be_ranked():
    with pytest.raises(ValueError, match="expected the same"):
        Sparsification.of(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="both an uncertainty and an error"):
        Sparsification.of(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))
