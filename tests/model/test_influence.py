"""One wrong label: its density is exact, its pull on a training step (there alone) bounded."""

import math

import pytest
import torch
from scipy import stats

from pose3d.model.flow import FlowConfig, ResidualFlow, StandardNormal
from pose3d.model.likelihood import Likelihood, LikelihoodConfig

BOUND = {"laplace": 10.0, "gaussian": 5.0}
DENSITY = {"laplace": stats.gennorm(1), "gaussian": stats.norm}
"""SciPy's Laplace takes the logarithm of a density that has underflowed."""
bases = pytest.mark.parametrize("base", BOUND)
FAR = [1e4, 1e6]
BOUNDED = [
    {"kind": "laplace"},
    {"kind": "gaussian"},
    {"base": "laplace"},
    {"base": "gaussian"},
    {"form": "released", "residual_bound": 10.0},
    {"kind": "flow_reparam"},
    {"kind": "flow"},
]


@pytest.fixture
def build(sharpen):
    """A likelihood in float64 on a small flow that is not the identity."""

    def make(settings):
        torch.manual_seed(0)
        flow = ResidualFlow(FlowConfig(num_layers=2, hidden_dim=8))
        config = LikelihoodConfig(**settings)
        flow = sharpen(flow, seed=1, gain=0.1) if config.has_flow else None
        return Likelihood(config, flow).double()

    return make


def joint_at(residual):
    """μ, a Cholesky factor near the identity, and a label whose residual on u is as given."""
    mean = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
    tril = torch.eye(3, dtype=torch.float64)[None, None].clone().requires_grad_()
    return mean, tril, torch.tensor([[[residual, 0.4, -0.3]]], dtype=torch.float64)


def gradients(likelihood, residual, *, has_full_covariance):
    mean, tril, target = joint_at(residual)
    spread = tril if has_full_covariance else tril.diagonal(dim1=-2, dim2=-1)
    nats = likelihood(mean, spread, target)
    flow = () if likelihood.flow is None else tuple(likelihood.flow.parameters())
    found = torch.autograd.grad(nats.sum(), (mean, tril, *flow))
    groups = {"mean": found[:1], "spread": found[1:2], "flow": found[2:]}
    return {name: torch.cat([g.flatten() for g in each]) for name, each in groups.items() if each}


@pytest.mark.parametrize("residual", FAR)
@pytest.mark.parametrize("has_full_covariance", [False, True], ids=["σ", "L"])
@pytest.mark.parametrize("settings", BOUNDED, ids=str)
def test_no_gradient_grows_with_a_wrong_label(settings, has_full_covariance, residual, build):
    """Of location, spread and flow, beside that of a label at the bound."""
    if settings.get("form") == "released" and has_full_covariance:
        pytest.skip("the released form has no full covariance")
    likelihood = build(settings)
    torch.manual_seed(1)
    near = gradients(likelihood, likelihood.bound, has_full_covariance=has_full_covariance)
    torch.manual_seed(1)
    far = gradients(likelihood, residual, has_full_covariance=has_full_covariance)
    assert likelihood.last_bounded.item()
    for name, at_bound in near.items():
        assert far[name].isfinite().all()
        assert far[name].norm() < 6 * at_bound.norm(), name  # 1,000 and 10⁵ times, or squares
    assert far["spread"].norm() > 1  # bounded, not dropped


@bases
@pytest.mark.parametrize("residual", FAR)
def test_the_value_stays_the_exact_density(base, residual):
    """In training mode; s of the standard normal flow has a closed form, but for the clamp."""
    likelihood = Likelihood(LikelihoodConfig(base=base), StandardNormal()).double()
    mean, tril, target = joint_at(residual)
    nats = likelihood.parts(mean, 0.5 * tril.diagonal(dim1=-2, dim2=-1), target)
    x = target[0, 0].numpy() / 0.5
    bound = BOUND[base]
    expected = {
        "base": -DENSITY[base].logpdf(x).sum(),
        "log_scale": 3 * math.log(0.5),
        "flow": -stats.norm.logpdf(x.clip(-bound, bound)).sum(),
    }
    log_s = {"laplace": -3 * (0.5 + stats.norm.logcdf(-1)), "gaussian": 1.5 * math.log(4 * math.pi)}
    for name, value in expected.items():
        assert nats[name].item() == pytest.approx(value, rel=1e-12), name
    assert nats["log_s"].item() == pytest.approx(-log_s[base], abs=2e-2)
    likelihood.eval()
    assert likelihood(mean, tril, target).isfinite().all()


@pytest.mark.parametrize("residual", [0.7, *FAR])
@bases
def test_in_evaluation_mode_the_gradient_is_that_of_the_loss(base, residual):
    """Of the formula written out with distributions, by automatic differentiation."""
    likelihood = Likelihood(LikelihoodConfig(base=base), StandardNormal()).double().eval()
    mean, tril, target = joint_at(residual)
    scale = (0.5 * tril.diagonal(dim1=-2, dim2=-1)).detach().requires_grad_()
    actual = torch.autograd.grad(likelihood(mean, scale, target).sum(), (mean, scale))
    family = torch.distributions.Laplace if base == "laplace" else torch.distributions.Normal
    x = ((target - mean) / scale).clamp(-BOUND[base], BOUND[base])
    loss = -family(mean, scale).log_prob(target) - torch.distributions.Normal(0, 1).log_prob(x)
    expected = torch.autograd.grad(loss.sum(), (mean, scale))
    torch.testing.assert_close(actual, expected)
    likelihood.train()
    scaled = torch.autograd.grad(likelihood(mean, scale, target).sum(), (mean, scale))
    share = min(1, BOUND[base] / (2 * residual)) ** (1 if base == "laplace" else 2)
    torch.testing.assert_close(scaled, tuple(share * part for part in expected))


@pytest.mark.parametrize("settings", BOUNDED, ids=str)
def test_evaluation_mode_passes_a_gradient_check_beyond_the_bound(settings, build):
    """By finite differences, which know nothing of shares."""
    likelihood = build(settings | {"residual_bound": 1.0}).eval()
    mean, tril, target = joint_at(3.0)
    scale = tril.diagonal(dim1=-2, dim2=-1).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: likelihood(m, s, target), (mean, scale))
    likelihood.train()
    torch.manual_seed(0)
    trained = torch.autograd.grad(likelihood(mean, scale, target).sum(), scale)[0]
    whole = torch.autograd.grad(likelihood.eval()(mean, scale, target).sum(), scale)[0]
    assert trained.norm() < 0.9 * whole.norm()


def test_the_published_loss_has_no_bound_unless_one_is_set(build):
    """Its gradient in training mode, of a wrong label, against the formula of its base."""
    likelihood = build({"form": "released"})
    mean, tril, target = joint_at(1e4)
    scale = tril.diagonal(dim1=-2, dim2=-1).detach().requires_grad_()
    parts = likelihood.parts(mean, scale, target)
    for name, expected in (("base", -(target.abs() / math.sqrt(2))), ("log_scale", 2.0)):
        (gradient,) = torch.autograd.grad(parts[name].sum(), scale, retain_graph=True)
        torch.testing.assert_close(gradient, torch.zeros_like(scale) + expected)
    assert likelihood.last_bounded is None


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_an_infinite_bound_is_none(kind, build):
    """The gradient in training mode is that of SciPy's formula by finite differences."""
    likelihood = build({"kind": kind, "residual_bound": math.inf})
    mean, tril, target = joint_at(30.0)
    scale = tril.diagonal(dim1=-2, dim2=-1).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(likelihood(mean, scale, target).sum(), scale)
    law = {"laplace": stats.laplace, "gaussian": stats.norm}[kind]
    step, label = 1e-6, target[0, 0].numpy()
    high, low = (-law.logpdf(label, scale=1 + sign * step) for sign in (1, -1))
    assert gradient[0, 0].tolist() == pytest.approx(((high - low) / (2 * step)).tolist(), rel=1e-5)
    assert likelihood.last_bounded is None
