"""Labels drawn from a likelihood follow its density: closed forms, and the density itself."""

import pytest
import torch
from scipy import stats

from pose3d.model.flow import FlowConfig, build_flow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig

MEAN = torch.tensor([[[0.1, -0.2, 0.3], [0.0, 0.4, -0.1]]])
SCALE = torch.tensor([[[0.05, 0.1, 0.2], [0.3, 0.1, 0.05]]])
KINDS = {
    "flow": {"kind": "flow"},
    "flow_reparam": {"kind": "flow_reparam"},
    "paper": {"kind": "rle"},
    "paper_gaussian": {"kind": "rle", "base": "gaussian"},
}


def made(settings, sharpen, condition="none"):
    torch.manual_seed(0)
    flow = build_flow(FlowConfig(condition=condition, hidden_dim=8, context_dim=4))
    return Likelihood(
        LikelihoodConfig(**settings), sharpen(flow, seed=1, gain=0.3), num_joints=2, feature_dim=5
    ).eval()


@pytest.mark.parametrize(
    ("kind", "density"), [("laplace", stats.laplace), ("gaussian", stats.norm)]
)
def test_plain_densities_are_drawn_as_scipy_has_them(kind, density):
    likelihood = Likelihood(LikelihoodConfig(kind=kind))
    drawn = likelihood.sample(MEAN, SCALE, 4000, generator=torch.Generator().manual_seed(0))
    for joint in range(2):
        for axis in range(3):
            values = drawn[:, 0, joint, axis].numpy()
            law = density(float(MEAN[0, joint, axis]), float(SCALE[0, joint, axis]))
            assert stats.kstest(values, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("condition", ["none", "joint", "feature"])
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_importance_weights_of_drawn_labels_average_to_one(settings, condition, sharpen):
    """E_{y~p}[q(y)/p(y)] = 1 for any narrower density q, here a normal one about the drawn mean."""
    likelihood = made(settings, sharpen, condition)
    feature = torch.randn(1, 5, generator=torch.Generator().manual_seed(3))
    options = {"feature": feature} if condition == "feature" else {}
    number = 6000
    drawn = likelihood.sample(
        MEAN, SCALE, number, generator=torch.Generator().manual_seed(0), **options
    )
    assert drawn.shape == (number, 1, 2, 3)
    flat = drawn[:, 0]
    many = {name: value.expand(number, -1) for name, value in options.items()}
    log_density = likelihood.log_prob(
        MEAN.expand(number, 2, 3), SCALE.expand(number, 2, 3), flat, **many
    ).detach()
    for joint in range(2):
        points = flat[:, joint].double()
        # Two thirds of the robust spread: narrower than p, so that no weight is large.
        spread = (points - points.median(0).values).abs().median(0).values / 0.6745 / 1.5
        log_q = stats.norm.logpdf(points, points.median(0).values, spread).sum(-1)
        ratio = (torch.from_numpy(log_q) - log_density[:, joint].double()).exp()
        error = float(ratio.std()) / number**0.5
        assert abs(float(ratio.mean()) - 1) < max(5 * error, 0.02)


def test_a_full_covariance_is_that_of_the_samples(sharpen):
    likelihood = Likelihood(LikelihoodConfig(kind="gaussian"))
    factor = torch.tensor([[0.2, 0, 0], [0.1, 0.1, 0], [-0.1, 0.05, 0.3]]).expand(1, 2, 3, 3)
    drawn = likelihood.sample(MEAN, factor, 50_000, generator=torch.Generator().manual_seed(0))
    covariance = torch.cov(drawn[:, 0, 0].T)
    torch.testing.assert_close(covariance, factor[0, 0] @ factor[0, 0].T, atol=2e-3, rtol=0.03)


def test_draws_repeat_themselves(sharpen):
    likelihood = made(KINDS["paper"], sharpen)
    first, second = (
        likelihood.sample(MEAN, SCALE, 3, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "settings", [{"kind": "l1"}, {"kind": "l2"}, {"form": "released"}], ids=str
)
def test_what_is_no_likelihood_has_no_density_and_no_samples(settings, sharpen):
    likelihood = made(settings, sharpen)
    with pytest.raises(ValueError, match="no normalised density of the label"):
        likelihood.log_prob(MEAN, SCALE, MEAN)
    with pytest.raises(ValueError, match="no normalised density of the label"):
        likelihood.sample(MEAN, SCALE, 2)
