"""The flow is a density: inverse, log determinant, integral, samples, and the loop it replaces."""

import pytest
import torch
from scipy import stats
from torch.func import functional_call

from pose3d.model.flow import Flow, FlowConfig, ResidualFlow, StandardNormal


@pytest.fixture
def flow(sharpen):
    torch.manual_seed(0)
    return sharpen(ResidualFlow().double(), seed=1)


def test_number_of_parameters_is_the_released_one():
    for num_axes, expected in ((3, 55_332), (2, 53_784)):
        flow = ResidualFlow(num_axes=num_axes)
        assert sum(parameter.numel() for parameter in flow.parameters()) == expected


@pytest.mark.parametrize("num_axes", [2, 3])
def test_log_prob_and_gradients_match_the_plain_loop(loop_flow, sharpen, num_axes):
    torch.manual_seed(0)
    flow = sharpen(ResidualFlow(num_axes=num_axes).double(), seed=2)
    loop = loop_flow(flow).double()
    x = torch.randn(50, num_axes, dtype=torch.double, requires_grad=True)
    actual, expected = flow.log_prob(x), loop.log_prob(x)
    torch.testing.assert_close(actual, expected)
    (gradient,) = torch.autograd.grad(actual.sum(), x, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, expected_gradient)
    (hidden,) = torch.autograd.grad(actual.sum(), flow.hidden_weight)
    for layer, pair in enumerate(loop.networks):
        for kind, network in enumerate(pair):
            (expected_hidden,) = torch.autograd.grad(
                expected.sum(), network[2].weight, retain_graph=True
            )
            torch.testing.assert_close(hidden[layer, kind], expected_hidden)


@pytest.mark.parametrize("direction", ["to_base", "from_base"])
def test_log_det_matches_autograd(flow, direction):
    apply = getattr(flow, direction)
    for x in torch.randn(5, 3, dtype=torch.double, generator=torch.Generator().manual_seed(3)):
        jacobian = torch.autograd.functional.jacobian(lambda point: apply(point)[0], x)
        torch.testing.assert_close(apply(x)[1], torch.linalg.slogdet(jacobian).logabsdet)


def test_the_two_directions_are_inverse(flow):
    x = 5 * torch.randn(4, 7, 3, dtype=torch.double, generator=torch.Generator().manual_seed(4))
    z, log_det = flow.to_base(x)
    back, log_det_back = flow.from_base(z)
    assert not torch.allclose(z, x, atol=0.1)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)


def test_total_mass_is_one(flow):
    """Trapezoid rule on a box around the samples."""
    steps = torch.linspace(-1, 1, 57, dtype=torch.double)
    box = sample_box(flow)
    with torch.no_grad():
        points = torch.cartesian_prod(*(centre + half * steps for centre, half in box))
        cell = torch.stack([half * (steps[1] - steps[0]) for _, half in box]).prod()
        mass = sum(flow.log_prob(part).exp().sum() for part in points.split(20_000)) * cell
    torch.testing.assert_close(mass.item(), 1.0, atol=2e-3, rtol=0)


def sample_box(flow):
    """Centre and half width, per axis, of a box that holds nearly all samples."""
    samples = flow.sample((20_000,), generator=torch.Generator().manual_seed(5))
    low, high = samples.amin(0), samples.amax(0)
    return [((a + b) / 2, 0.7 * (b - a)) for a, b in zip(low, high, strict=True)]


def test_samples_follow_the_density(flow):
    """Mapped to the base, samples are standard normal (Kolmogorov-Smirnov per axis)."""
    samples = flow.sample((20_000,), generator=torch.Generator().manual_seed(6))
    again = flow.sample((20_000,), generator=torch.Generator().manual_seed(6))
    assert torch.equal(samples, again)
    z = flow.to_base(samples)[0].detach().numpy()
    assert all(stats.kstest(z[:, axis], "norm").pvalue > 1e-3 for axis in range(3))


def test_it_starts_close_to_the_identity():
    torch.manual_seed(0)
    flow = ResidualFlow()
    x = 2 * torch.randn(1000, 3)
    z, log_det = flow.to_base(x)
    assert (z - x).abs().max() < 0.2
    assert log_det.abs().max() < 0.1


def test_all_networks_learn_from_the_start():
    torch.manual_seed(0)
    flow = ResidualFlow()
    flow.log_prob(torch.randn(100, 3)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in flow.parameters())


def test_u_and_v_are_never_conditioned_on_each_other_in_one_coupling():
    """Even layers keep d and change (u, v), odd layers the reverse: the released masks."""
    torch.manual_seed(0)
    flow = ResidualFlow(FlowConfig(num_layers=2)).double()
    with torch.no_grad():
        flow.output_weight.mul_(100)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: flow.from_base(z)[0], torch.randn(3, dtype=torch.double)
    )
    assert jacobian[0, 1] == 0 and jacobian[1, 0] == 0  # noqa: PT018
    assert jacobian[0, 2] != 0
    assert (jacobian[2] != 0).all()


def test_float32_under_autocast(flow):
    flow = flow.float()
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = flow.log_prob(x)
        from_half = flow.log_prob(x.bfloat16())
    assert actual.dtype == from_half.dtype == torch.float32
    assert torch.equal(actual, flow.log_prob(x))


def test_float64_residuals_are_not_rounded(flow):
    x = torch.randn(20, 3, dtype=torch.double, generator=torch.Generator().manual_seed(8))
    single = ResidualFlow()
    single.load_state_dict(flow.state_dict())
    rounded = {name: value.double() for name, value in single.state_dict().items()}
    expected = functional_call(_LogProb(flow), {f"flow.{k}": v for k, v in rounded.items()}, (x,))
    assert single.log_prob(x).dtype == torch.double
    torch.testing.assert_close(single.log_prob(x), expected)


class _LogProb(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow.log_prob(x)


@pytest.mark.parametrize("shape", [(0,), (), (2, 0), (2, 3, 4)])
def test_any_batch_shape_also_an_empty_one(flow, shape):
    x = torch.zeros(*shape, 3, dtype=torch.double)
    assert flow.log_prob(x).shape == shape
    assert flow.sample(shape).shape == (*shape, 3)


def test_standard_normal_matches_scipy():
    normal = StandardNormal(FlowConfig())
    x = torch.randn(10, 3, dtype=torch.double, generator=torch.Generator().manual_seed(9))
    expected = stats.multivariate_normal(cov=torch.eye(3)).logpdf(x)
    torch.testing.assert_close(normal.log_prob(x), torch.from_numpy(expected))
    z, log_det = normal.to_base(x)
    assert torch.equal(normal.from_base(z)[0], x)
    assert (log_det == 0).all()
    assert normal.sample((5,), generator=torch.Generator().manual_seed(0)).shape == (5, 3)


def test_impossible_settings_and_inputs_are_refused():
    with pytest.raises(ValueError, match="num_layers"):
        FlowConfig(num_layers=1)
    with pytest.raises(ValueError, match="hidden_dim"):
        FlowConfig(hidden_dim=0)
    with pytest.raises(ValueError, match="num_axes"):
        ResidualFlow(num_axes=1)
    with pytest.raises(ValueError, match="3 axes"):
        ResidualFlow().log_prob(torch.zeros(4, 2))


def test_a_flow_that_does_not_map_both_ways_cannot_be_made():
    class OneWay(Flow):
        def to_base(self, x, context=None):
            return x, x[..., 0]

    with pytest.raises(TypeError, match="from_base"):
        OneWay()
