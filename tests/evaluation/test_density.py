"""The tabulated residual density agrees with SciPy's closed forms and with draws from it."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from pose3d.evaluation.density import ResidualDensity
from pose3d.model.flow import ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig

PROBABILITIES = np.array([0.005, 0.05, 0.3, 0.5, 0.9, 0.99])
COVARIANCE = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.1], [0.0, -0.1, 0.05]])
CENTRE = np.array([1.0, -2.0, 0.3])


def normal_log_density(x):
    return stats.multivariate_normal(CENTRE, COVARIANCE).logpdf(x)


def lopsided_log_density(x):
    """Two parts out of three far to one side: mean, median and mode all differ."""
    near = stats.multivariate_normal(np.zeros(3), 0.3 * np.eye(3)).logpdf(x)
    far = stats.multivariate_normal([3.0, 1.0, 0.0], COVARIANCE).logpdf(x)
    return np.logaddexp(np.log(2 / 3) + near, np.log(1 / 3) + far)


def bent_flow(seed):
    """A flow far from its start, as after training."""
    torch.manual_seed(seed)
    flow = ResidualFlow()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.12 * torch.randn_like(parameter))
    return flow


@pytest.fixture(scope="module")
def bent_likelihood():
    return Likelihood(LikelihoodConfig(kind="rle"), bent_flow(4)).eval()


@pytest.fixture(scope="module")
def bent_density(bent_likelihood):
    return ResidualDensity.from_likelihood(bent_likelihood, num_cells=20)


@pytest.mark.parametrize(("kind", "closed"), [("laplace", stats.laplace), ("gaussian", stats.norm)])
def test_plain_likelihoods_match_scipy(kind, closed):
    likelihood = Likelihood(LikelihoodConfig(kind=kind))
    table = ResidualDensity.from_likelihood(likelihood, num_cells=24)
    assert table.available
    assert table.normaliser == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(table.mean, 0, atol=1e-6)
    np.testing.assert_allclose(table.covariance, closed.var() * np.eye(3), atol=5e-3)
    np.testing.assert_allclose(table.geometric_median, 0, atol=1e-4)
    for axis in range(3):
        expected = closed.pdf(table.nodes[axis])
        np.testing.assert_allclose(table.marginals[axis], expected, atol=1e-3)
        np.testing.assert_allclose(
            table.quantile(axis, PROBABILITIES), closed.ppf(PROBABILITIES), atol=2e-3
        )


def test_a_correlated_normal_matches_its_moments_and_marginals():
    table = ResidualDensity.from_log_density(normal_log_density, num_cells=24)
    assert table.normaliser == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(table.mean, CENTRE, atol=1e-3)
    np.testing.assert_allclose(table.covariance, COVARIANCE, atol=3e-3)
    for number, (first, second) in enumerate([(0, 1), (0, 2), (1, 2)]):
        chosen = [first, second]
        closed = stats.multivariate_normal(CENTRE[chosen], COVARIANCE[np.ix_(chosen, chosen)])
        points = np.stack(
            np.meshgrid(table.nodes[first], table.nodes[second], indexing="ij"), axis=-1
        )
        expected = closed.pdf(points)
        np.testing.assert_allclose(
            table.pair_marginals[number], expected, atol=2e-3 * expected.max()
        )


def test_the_normaliser_tells_a_density_that_is_not_normalised():
    table = ResidualDensity.from_log_density(lambda x: normal_log_density(x) + np.log(0.6))
    assert table.normaliser == pytest.approx(0.6, abs=1e-3)
    np.testing.assert_allclose(table.cumulative[:, -1], 1)
    np.testing.assert_allclose(table.covariance, COVARIANCE, atol=3e-3)


def test_the_geometric_median_has_the_least_mean_distance():
    table = ResidualDensity.from_log_density(lopsided_log_density, num_cells=24)
    rng = np.random.default_rng(0)
    near = rng.normal(0, np.sqrt(0.3), (40000, 3))
    far = rng.multivariate_normal([3.0, 1.0, 0.0], COVARIANCE, 20000)
    draws = np.concatenate([near, far])
    best = optimize.minimize(lambda c: np.linalg.norm(draws - c, axis=-1).mean(), draws.mean(0))
    np.testing.assert_allclose(table.geometric_median, best.x, atol=0.02)
    assert np.linalg.norm(table.geometric_median - table.mean) > 0.3


def test_a_narrow_peak_on_a_wide_foot_is_found():
    def log_density(x):
        peak = stats.norm.logpdf(x, 0, 0.1).sum(-1)
        return np.logaddexp(np.log(0.5) + peak, np.log(0.5) + stats.laplace.logpdf(x).sum(-1))

    table = ResidualDensity.from_log_density(log_density)
    assert table.normaliser == pytest.approx(1, abs=1e-3)
    assert table.covariance[0, 0] == pytest.approx(0.5 * 0.1**2 + 0.5 * 2, abs=0.01)


def test_the_density_of_a_flow_integrates_to_one(bent_density):
    assert bent_density.normaliser == pytest.approx(1, abs=1e-3)


def test_the_density_of_a_flow_has_the_quantiles_of_its_draws(bent_likelihood, bent_density):
    generator = torch.Generator().manual_seed(0)
    draws = bent_likelihood.sample_residual(20000, generator=generator).numpy()
    for axis in range(3):
        for probability in (0.1, 0.5, 0.9):
            (quantile,) = bent_density.quantile(axis, np.array([probability]))
            share = (draws[:, axis] < quantile).mean()
            assert share == pytest.approx(probability, abs=0.015)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LikelihoodConfig(kind="l1"), "predicts no scale"),
        (LikelihoodConfig(kind="l2"), "predicts no scale"),
        (LikelihoodConfig(kind="rle", form="released"), "is no likelihood"),
    ],
)
def test_a_loss_without_a_density_says_so(tmp_path, config, reason):
    table = ResidualDensity.from_likelihood(Likelihood(config, ResidualFlow()))
    assert not table.available
    assert reason in table.reason
    loaded = ResidualDensity.load(table.save(tmp_path / "density.npz"))
    assert not loaded.available
    assert loaded.reason == table.reason
    with pytest.raises(ValueError, match="no residual density"):
        loaded.quantile(0, PROBABILITIES)


def test_a_file_gives_back_the_table(tmp_path, bent_density):
    loaded = ResidualDensity.load(bent_density.save(tmp_path / "density.npz"))
    for name, value in vars(bent_density).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    np.savez(tmp_path / "density.npz", nodes=np.zeros(3))
    with pytest.raises(ValueError, match="not a residual density"):
        ResidualDensity.load(tmp_path / "density.npz")


def test_probabilities_outside_zero_and_one_are_refused(bent_density):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bent_density.quantile(0, np.array([0.5, 1.5]))


def test_standardised_residual_of_a_normal_has_its_correlations():
    table = ResidualDensity.from_log_density(normal_log_density, num_cells=24)
    deviation = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(table.deviation, deviation, rtol=2e-3)
    expected = stats.multivariate_normal(
        CENTRE / deviation, COVARIANCE / np.outer(deviation, deviation)
    )
    standard = table.standardised()
    np.testing.assert_allclose(standard.covariance, expected.cov, atol=5e-3)
    np.testing.assert_allclose(standard.geometric_median, CENTRE / deviation, rtol=2e-2)
    points = np.stack(np.meshgrid(*standard.nodes, indexing="ij"), axis=-1)
    np.testing.assert_allclose(standard.density, expected.pdf(points), atol=2e-3)


def test_standardised_laplace_has_unit_variance_per_axis():
    likelihood = Likelihood(LikelihoodConfig(kind="laplace"))
    table = ResidualDensity.from_likelihood(likelihood, num_cells=24).standardised()
    np.testing.assert_allclose(table.deviation, 1, rtol=1e-6)
    expected = stats.laplace(scale=1 / np.sqrt(2)).pdf(table.nodes[1])
    np.testing.assert_allclose(table.marginals[1], expected, atol=3e-3)


def test_without_a_density_nothing_is_rescaled():
    table = ResidualDensity.unavailable("no density")
    np.testing.assert_array_equal(table.deviation, 1)
    assert table.standardised() is table


@pytest.fixture(scope="module")
def normal_table():
    return ResidualDensity.from_log_density(normal_log_density, num_cells=24)


@pytest.mark.parametrize(("kind", "closed"), [("laplace", stats.laplace), ("gaussian", stats.norm)])
def test_distribution_functions_match_scipy(kind, closed):
    likelihood = Likelihood(LikelihoodConfig(kind=kind))
    table = ResidualDensity.from_likelihood(likelihood, num_cells=24)
    values = np.array([-40.0, -3.0, -0.4, 0.0, 0.01, 1.5, 40.0])
    for axis in range(3):
        found = table.probability_below(axis, np.append(values, np.nan))
        np.testing.assert_allclose(found[:-1], closed.cdf(values), atol=1e-3)
        assert np.isnan(found[-1])
        again = table.probability_below(axis, table.quantile(axis, PROBABILITIES))
        np.testing.assert_allclose(again, PROBABILITIES, atol=1e-9)


def test_highest_density_levels_of_a_normal_are_those_of_chi_square(normal_table):
    """Of a normal, the region inside a point's ellipsoid holds χ²₃ of its squared distance."""
    x = stats.multivariate_normal(CENTRE, COVARIANCE).rvs(20_000, random_state=0)
    centred = x - CENTRE
    squared = np.einsum("na,ab,nb->n", centred, np.linalg.inv(COVARIANCE), centred)
    level = normal_table.highest_density_level(x)
    np.testing.assert_allclose(level, stats.chi2(3).cdf(squared), atol=0.03)
    assert np.abs(level - stats.chi2(3).cdf(squared)).mean() < 0.005
    ends = normal_table.highest_density_level(np.array([CENTRE, [99.0, 0, 0], [np.nan, 0, 0]]))
    assert ends[0] < 0.01
    assert ends[1] == pytest.approx(1)
    assert np.isnan(ends[2])


def test_levels_of_a_flows_own_draws_are_uniform(bent_likelihood, bent_density):
    x = bent_likelihood.sample_residual(4000, generator=torch.Generator().manual_seed(0))
    level = bent_density.highest_density_level(x.double().numpy())
    assert stats.kstest(level, "uniform").statistic < 0.03


def test_log_density_is_that_of_the_flow(bent_likelihood, bent_density):
    x = bent_likelihood.sample_residual(2000, generator=torch.Generator().manual_seed(1))
    expected = bent_likelihood.residual_log_prob(x).detach().numpy()
    found = bent_density.log_density(x.double().numpy())
    assert np.abs(found - expected).mean() < 0.05


def test_samples_have_the_moments_and_the_marginals_of_the_table(normal_table):
    x = normal_table.sample(200_000, seed=3)
    np.testing.assert_allclose(x.mean(0), CENTRE, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), COVARIANCE, atol=0.03)
    for axis in range(3):
        closed = stats.norm(CENTRE[axis], np.sqrt(COVARIANCE[axis, axis]))
        assert stats.kstest(x[:, axis], closed.cdf).statistic < 0.005


def test_samples_of_a_flow_are_those_of_its_likelihood(bent_likelihood, bent_density):
    own = bent_likelihood.sample_residual(20_000, generator=torch.Generator().manual_seed(2))
    x = bent_density.sample(20_000, seed=4)
    for axis in range(3):
        assert stats.ks_2samp(x[:, axis], own[:, axis].numpy()).statistic < 0.02
    assert (x == bent_density.sample(20_000, seed=4)).all()
    assert (x != bent_density.sample(20_000, seed=5)).any()


def test_a_table_that_was_asked_is_saved_like_any_other(tmp_path, normal_table):
    normal_table.sample(5)
    normal_table.highest_density_level(np.zeros((1, 3)))
    loaded = ResidualDensity.load(normal_table.save(tmp_path / "density.npz"))
    np.testing.assert_array_equal(loaded.density, normal_table.density)


@pytest.mark.parametrize(
    "ask",
    [
        lambda table: table.sample(3),
        lambda table: table.highest_density_level(np.zeros((1, 3))),
        lambda table: table.log_density(np.zeros((1, 3))),
        lambda table: table.probability_below(0, np.zeros(1)),
    ],
)
def test_without_a_density_nothing_is_drawn_or_looked_up(ask):
    with pytest.raises(ValueError, match="there is no residual density: for this test"):
        ask(ResidualDensity.unavailable("for this test"))
