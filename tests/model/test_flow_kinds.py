"""Every flow that can be named is a density: inverse, log determinant, integral, samples."""

import math
import sys

import pytest
import torch

from pose3d.model.flow import FlowConfig, build_flow
from pose3d.model.flow_base import KINDS

CONDITIONS = ("none", "feature")
NUM_SAMPLES = 2000
TOLERANCE = 2e-4
"""Of the continuous flow, which is integrated; the others are exact."""


def build(kind, condition="none", *, num_axes=3):
    """A small flow in float64 whose map is far from the identity."""
    if kind != "realnvp":
        pytest.importorskip("zuko")
    gain = 0.3 if kind == "zuko_cnf" else 0.4  # more makes its velocity stiff and slow
    config = FlowConfig(kind=kind, num_layers=2, hidden_dim=6, condition=condition, context_dim=2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        flow = build_flow(config, num_axes=num_axes).double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.copy_(gain * torch.randn_like(parameter))
    return flow


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def context_of(flow, *batch):
    return draw(*batch, flow.context_dim, seed=7) if flow.context_dim else None


@pytest.fixture(params=[(k, c) for k in KINDS for c in CONDITIONS], ids="-".join)
def flow(request):
    return build(*request.param)


def test_log_det_is_that_of_the_jacobian_both_ways(flow):
    tolerance = TOLERANCE if flow.config.kind == "zuko_cnf" else 1e-8
    for number, point in enumerate(1.5 * draw(2, 3)):
        context = context_of(flow)
        for apply in (flow.to_base, flow.from_base) if number == 0 else (flow.to_base,):
            jacobian = torch.autograd.functional.jacobian(lambda x: apply(x, context)[0], point)  # noqa: B023
            expected = torch.linalg.slogdet(jacobian).logabsdet
            actual = apply(point, context)[1]
            torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_from_base_undoes_to_base_also_far_out(flow):
    far = torch.tensor([[10.0, -10.0, 10.0], [-10.0, 10.0, 0.0]], dtype=torch.double)
    x = torch.cat([draw(6, 3), far])
    context = context_of(flow, len(x))
    z, log_abs_det = flow.to_base(x, context)
    back, back_log_abs_det = flow.from_base(z, context)
    assert (z - x).abs().amax() > 0.05
    torch.testing.assert_close(back, x, atol=1e-3, rtol=TOLERANCE)
    torch.testing.assert_close(back_log_abs_det, -log_abs_det, atol=1e-3, rtol=TOLERANCE)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_density_over_the_plane_integrates_to_one(kind, condition):
    """Trapezoid rule around the samples."""
    flow = build(kind, condition, num_axes=2)
    context = context_of(flow)
    samples = flow.sample((500,), context=context, generator=torch.Generator().manual_seed(3))
    low, high = samples.amin(0), samples.amax(0)
    margin = 0.8 * (high - low)
    number = 70 if kind == "zuko_cnf" else 300  # smooth and dear; a spline has kinks
    axes = [
        torch.linspace(a, b, number, dtype=torch.double)
        for a, b in zip(low - margin, high + margin, strict=True)
    ]
    points = torch.cartesian_prod(*axes)
    cell = math.prod((axis[1] - axis[0]).item() for axis in axes)
    with torch.no_grad():
        mass = flow.log_prob(points, context).exp().sum().item() * cell
    assert mass == pytest.approx(1, abs=3e-3)


def test_log_prob_is_the_change_of_variables(flow):
    x = draw(5, 3)
    context = context_of(flow, 5)
    z, log_abs_det = flow.to_base(x, context)
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=torch.double), torch.eye(3, dtype=torch.double)
    )
    expected = normal.log_prob(z) + log_abs_det
    torch.testing.assert_close(flow.log_prob(x, context), expected)


def test_samples_are_reproducible_and_have_the_moments_of_the_density(flow):
    """Importance weights turn moments of wide normal points into those of the density."""
    context = context_of(flow)
    first, again = (
        flow.sample((NUM_SAMPLES,), context=context, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(first, again)
    centre, width = first.mean(0), 1.6 * first.std(0)
    proposal = torch.distributions.Normal(centre, width)
    points = centre + width * draw(2 * NUM_SAMPLES, 3, seed=6)
    with torch.no_grad():
        log_weight = flow.log_prob(points, context) - proposal.log_prob(points).sum(-1)
    weight = log_weight.softmax(0)[:, None]
    mean = (weight * points).sum(0)
    std = (weight * (points - mean).square()).sum(0).sqrt()
    assert ((first.mean(0) - mean).abs() / std).amax() < 0.15
    assert (first.std(0) / std - 1).abs().amax() < 0.15


def test_float64_is_kept_and_no_float32_rounding_enters(flow):
    x = draw(4, 3)
    context = context_of(flow, 4)
    exact = flow.log_prob(x, context)
    single = flow.float()
    promoted = single.log_prob(x, context)
    rounded = single.log_prob(x.float(), None if context is None else context.float())
    assert (single.log_prob(x + 1e-10, context) != promoted).any()
    assert (exact.dtype, promoted.dtype, rounded.dtype) == (
        *(torch.float64, torch.float64),
        torch.float32,
    )
    torch.testing.assert_close(promoted, exact, atol=1e-4, rtol=1e-4)
    difference = (rounded.double() - promoted).abs().amax()
    assert 0 < difference < 1e-3


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_flow_is_close_to_the_identity(kind, condition):
    if kind != "realnvp":
        pytest.importorskip("zuko")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = build_flow(FlowConfig(kind=kind, condition=condition, context_dim=2))
    x = 2 * draw(50, 3).float()
    context = None if condition == "none" else draw(50, 2).float()
    z, log_abs_det = flow.to_base(x, context)
    assert (z - x).abs().amax() < 0.5
    assert log_abs_det.abs().amax() < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_context_changes_the_density_and_learns(kind):
    flow = build(kind, "joint")
    x = draw(3, 3)
    context = torch.tensor([0.5, -0.5], dtype=torch.double, requires_grad=True)
    value = flow.log_prob(x, context)
    assert (value - flow.log_prob(x, -context)).abs().amax() > 1e-3
    (gradient,) = torch.autograd.grad(value.sum(), context)
    step = 1e-3 * torch.tensor([1.0, 0.0], dtype=torch.double)
    with torch.no_grad():
        ahead, behind = (flow.log_prob(x, context + d).sum() for d in (step, -step))
    torch.testing.assert_close(gradient[0], (ahead - behind) / 2e-3, atol=2e-2, rtol=2e-2)


def test_a_missing_zuko_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ValueError, match=r"zuko_nsf needs the package zuko.*pose3d\[flows\]"):
        build_flow(FlowConfig(kind="zuko_nsf"))
