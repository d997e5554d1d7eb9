"""Designs (a) and (b), full covariances and conditioned flows are densities, whatever the scale."""

import math

import pytest
import torch
from scipy import stats

from pose3d.evaluation.density import ResidualDensity
from pose3d.model.flow import FlowConfig, ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig

SMALL = {"num_layers": 2, "hidden_dim": 12}
TRIL = torch.tensor([[0.5, 0.0, 0.0], [0.3, 0.4, 0.0], [-0.2, 0.5, 0.6]])
MEAN = torch.tensor([0.1, -0.2, 0.05])
JOINT_DENSITIES = [{"kind": "flow"}, {"kind": "flow_reparam"}, {"kind": "rle"}]


@pytest.fixture
def build(sharpen):
    """A likelihood in evaluation mode on a small flow far from the identity."""

    def make(settings, *, condition="none", gain=0.4, **more):
        torch.manual_seed(0)
        config = FlowConfig(condition=condition, context_dim=2, **SMALL)
        likelihood = Likelihood(
            LikelihoodConfig(**settings), sharpen(ResidualFlow(config), seed=1, gain=gain), **more
        )
        if likelihood.planar_flow is not None:
            sharpen(likelihood.planar_flow, seed=2, gain=gain)
        return likelihood.eval()

    return make


def grid(panels, edges, *, scale, axes=3):
    """Gauss-Legendre points about MEAN on the first axes, NaN on the others, and their volumes."""
    rules = [
        panels([m + s * edge for edge in edges], 3)
        for m, s in zip(MEAN[:axes].tolist(), scale, strict=True)
    ]
    points = torch.cartesian_prod(*(nodes for nodes, _ in rules)).float()
    volume = rules[0][1]
    for _, weights in rules[1:]:
        volume = (volume[:, None] * weights).flatten()
    missing = torch.full((len(points), 3 - axes), math.nan)
    return torch.cat([points, missing], dim=-1)[:, None], volume


def mass(likelihood, spread, target, volume, **more):
    weight = target.isfinite().float()
    spread = spread.expand(len(target), 1, *spread.shape)
    with torch.no_grad():
        nats = likelihood(MEAN.expand_as(target), spread, target, weight, **more)
    return (volume * (-nats[:, 0].double()).exp()).sum().item()


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("spread", [torch.tensor([0.3, 0.15, 0.6]), TRIL], ids=["σ", "L"])
@pytest.mark.parametrize("settings", JOINT_DENSITIES, ids=str)
def test_total_mass_is_one(settings, spread, axes, build, panels, symmetric_edges):
    edges = [edge for edge in symmetric_edges if abs(edge) <= 20]
    reach = spread if spread.ndim == 1 else torch.full((3,), 0.5)
    if settings["kind"] == "flow":  # the flow's own lengths, not those of σ
        reach, edges = torch.full((3,), 0.5), [edge for edge in edges if abs(edge) <= 10]
    target, volume = grid(panels, edges, scale=reach[:axes].tolist(), axes=axes)
    assert mass(build(settings), spread, target, volume) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_full_covariance_matches_scipy(kind):
    """The normal against its own density; a Laplace of independent sources by SciPy's, one each."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(5, 1, 3, generator=generator, dtype=torch.float64)
    mean, tril = MEAN.double(), TRIL.double()
    likelihood = Likelihood(LikelihoodConfig(kind=kind))
    arguments = (mean.expand_as(target), tril.expand(5, 1, 3, 3), target)
    weight = torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64).expand_as(target)
    for axes, actual in ((3, likelihood(*arguments)), (2, likelihood(*arguments, weight) / 2)):
        error, factor = (target[:, 0] - mean)[:, :axes], tril[:axes, :axes]
        if kind == "gaussian":
            density = stats.multivariate_normal(cov=(factor @ factor.T).numpy())
            expected = torch.from_numpy(density.logpdf(error.numpy()))
        else:
            x = torch.linalg.solve(factor, error.T).T
            expected = torch.from_numpy(stats.laplace.logpdf(x.numpy())).sum(-1)
            expected = expected - torch.linalg.det(factor).log()
        torch.testing.assert_close(actual[:, 0], -expected)


@pytest.mark.parametrize("settings", [*JOINT_DENSITIES, {"kind": "gaussian"}], ids=str)
def test_a_diagonal_factor_is_a_scale_for_each_axis(settings, build):
    likelihood = build(settings)
    generator = torch.Generator().manual_seed(0)
    target, scale = torch.randn(2, 2, 5, 3, generator=generator)
    scale = 0.1 + scale.abs()
    weight = torch.ones(2, 5, 3)
    weight[0, 0, 2], weight[1, 1] = 0, 0
    mean = MEAN.expand_as(target)
    torch.testing.assert_close(
        likelihood(mean, scale.diag_embed(), target, weight),
        likelihood(mean, scale, target, weight),
    )


def test_the_released_form_refuses_a_full_covariance(build):
    target = torch.zeros(1, 1, 3)
    with pytest.raises(ValueError, match="use likelihood"):
        build({"form": "released"})(target, TRIL.expand(1, 1, 3, 3), target)


def test_design_a_is_the_change_of_variables(build):
    """Labels made by the flow; their density by SciPy and by automatic differentiation."""
    likelihood = build({"kind": "flow"}).double()
    scale = torch.tensor([0.3, 0.1, 0.7], dtype=torch.float64)
    z = MEAN + scale * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for row in z.double():
        label = likelihood.flow.from_base(row)[0].detach()
        jacobian = torch.autograd.functional.jacobian(
            lambda r: likelihood.flow.from_base(r)[0], row
        )
        expected = stats.norm.logpdf(row, MEAN, scale).sum() - jacobian.det().abs().log().item()
        actual = likelihood(*(v.double().expand(1, 1, 3) for v in (MEAN, scale, label)))
        assert actual.item() == pytest.approx(-expected, rel=1e-6)


def test_design_b_is_the_flow_of_the_residual(build):
    likelihood = build({"kind": "flow_reparam"})
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([0.3, 0.1, 0.7])
    actual = likelihood(
        MEAN.expand(7, 1, 3), scale.expand(7, 1, 3), (MEAN + scale * x).unsqueeze(1)
    )
    expected = scale.log().sum() - likelihood.flow.log_prob(x)
    torch.testing.assert_close(actual[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_the_estimate_of_design_a_has_the_moments_of_its_labels(build):
    """Of draws through the flow, at a scale where it is straight."""
    likelihood = build({"kind": "flow"})
    tril = 0.01 * TRIL
    with torch.inference_mode():
        mean, factor = likelihood.estimate(MEAN.expand(1, 2, 3), tril.expand(1, 2, 3, 3))
        same, scale = likelihood.estimate(MEAN.expand(1, 2, 3), tril.diag().expand(1, 2, 3))
    noise = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full = likelihood.flow.from_base(MEAN + noise @ tril.T)[0]
        plain = likelihood.flow.from_base(MEAN + noise * tril.diag())[0]
    assert torch.equal(mean, same)
    torch.testing.assert_close(mean[0, 1], full.mean(0), atol=5e-4, rtol=0)
    covariance = factor[0, 1] @ factor[0, 1].T
    torch.testing.assert_close(covariance, full.T.cov(), atol=0.05 * covariance.max(), rtol=0)
    torch.testing.assert_close(scale[0, 1], plain.std(0), atol=0, rtol=0.05)


@pytest.mark.parametrize("kind", ["flow", "flow_reparam"])
def test_a_wrong_label_has_a_bounded_influence_and_its_exact_density(kind, build):
    """Against the same with a bound that nothing reaches."""
    target = torch.tensor([[[30.0, 0.2, -0.1], [0.3, 0.2, -0.1]]])
    values, gradients = [], []
    for bound in (10.0, 1e9):
        likelihood = build({"kind": kind, "residual_bound": bound}).train()
        mean = torch.zeros(1, 2, 3, requires_grad=True)
        nats = likelihood(mean, torch.ones(1, 2, 3), target)
        nats.sum().backward()
        values.append(nats.detach())
        gradients.append(mean.grad[0])
        if bound == 10:
            assert likelihood.last_bounded.tolist() == [[True, False]]
            assert likelihood.num_bounded.item() == 1
    torch.testing.assert_close(*values, rtol=0, atol=0)
    torch.testing.assert_close(gradients[0][1], gradients[1][1])
    share = (gradients[0][0] / gradients[1][0]).mean()
    largest = 30.0
    if kind == "flow":
        largest = likelihood.flow.to_base(target)[0][0, 0].abs().max().item()
    assert share.item() == pytest.approx((10 / largest) ** 2, rel=1e-4)


@pytest.mark.parametrize("residual", [1e3, 1e6])
@pytest.mark.parametrize("settings", [*JOINT_DENSITIES, {"base": "gaussian"}], ids=str)
def test_nothing_overflows(settings, residual, build):
    likelihood = build(settings).train()
    mean = torch.zeros(2, 3, 3, requires_grad=True)
    spread = TRIL.expand(2, 3, 3, 3).clone().requires_grad_()
    weight = torch.ones(2, 3, 3)
    weight[:, 0, 2] = 0
    nats = likelihood(mean, spread, torch.full((2, 3, 3), residual), weight)
    nats.sum().backward()
    for value in (nats, mean.grad, spread.grad, *(p.grad for p in likelihood.parameters())):
        assert value is None or value.isfinite().all()
    assert likelihood.last_bounded.all()


@pytest.mark.parametrize("settings", JOINT_DENSITIES, ids=str)
def test_planar_and_whole_batches_train_alike(settings, build):
    """All labels without depth, or all with; what is not labelled has no gradient."""
    likelihood = build(settings).train()
    target = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))
    for weight in (torch.tensor([1.0, 1.0, 0.0]), torch.ones(3)):
        mean = torch.zeros(4, 3, 3, requires_grad=True)
        scale = torch.ones(4, 3, 3, requires_grad=True)
        nats = likelihood(mean, scale, target, weight.expand_as(target))
        nats.sum().backward()
        assert nats.isfinite().all()
        for value in (mean.grad, scale.grad):
            assert ((value != 0) == (weight > 0)).all()


@pytest.mark.parametrize(
    ("settings", "condition"),
    [
        ({"kind": "flow"}, "joint"),
        ({"kind": "flow"}, "feature"),
        ({"kind": "flow_reparam"}, "feature"),
        ({"kind": "rle"}, "joint"),
    ],
    ids=str,
)
def test_conditioned_densities_have_mass_one(settings, condition, build, panels, symmetric_edges):
    likelihood = build(settings, condition=condition, num_joints=1, feature_dim=4)
    edges = [edge for edge in symmetric_edges if abs(edge) <= 10]
    feature = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    for axes in (2, 3):
        target, volume = grid(panels, edges, scale=(0.5,) * axes, axes=axes)
        more = {"feature": feature.expand(len(target), 4)} if condition == "feature" else {}
        total = mass(likelihood, torch.full((3,), 0.5), target, volume, **more)
        assert total == pytest.approx(1, abs=2e-2)


@pytest.mark.parametrize("condition", ["joint", "feature"])
def test_every_context_has_its_own_normaliser(condition, build, panels, symmetric_edges):
    """In training mode as well, with the few points that each context has there."""
    likelihood = build({"kind": "rle"}, condition=condition, num_joints=3, feature_dim=4)
    feature = 4 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        contexts = likelihood.contexts(feature)
        if condition == "joint":  # far from each other
            contexts.mul_(2)
            feature = None
        edges = [edge for edge in symmetric_edges if abs(edge) <= 10]
        nodes, weights = panels(edges, 3)
        points = torch.cartesian_prod(nodes, nodes, nodes).float()
        volume = torch.einsum("i,j,k->ijk", weights, weights, weights).flatten()
        log_base = torch.distributions.Laplace(0.0, 1.0).log_prob(points).sum(-1)
        logs = [log_base + likelihood.flow.log_prob(points, context) for context in contexts]
        expected = -torch.stack([(volume * log.double().exp()).sum().log() for log in logs]).float()
        assert expected.max() - expected.min() > 0.1
        evaluated = likelihood.log_normaliser(feature=feature)
        torch.testing.assert_close(evaluated, expected, atol=2e-2, rtol=0)
        likelihood.train()
        errors = [likelihood.log_normaliser(feature=feature) - expected for _ in range(20)]
        assert torch.stack(errors).square().mean().sqrt() < 0.1
        assert torch.stack(errors).mean().abs() < 0.03
        likelihood.eval()
        target = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(1))
        plain = (torch.zeros(3, 3, 3), torch.ones(3, 3, 3), target)
        parts = likelihood.parts(*plain, feature=feature)["log_s"]
        normaliser = -evaluated.expand(3, 3) if condition == "joint" else -evaluated[:, None]
        torch.testing.assert_close(parts, normaliser.expand(3, 3))


@pytest.mark.parametrize("settings", JOINT_DENSITIES[1:], ids=str)
def test_residuals_of_a_joint_and_of_all_joints(settings, build):
    """Their densities, and draws against them: the share of a half space."""
    likelihood = build(settings, condition="joint", num_joints=2)
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        single = torch.stack([likelihood.residual_log_prob(x, joint=j) for j in range(2)])
        both = x[:, None].expand(-1, 2, -1)
        nats = likelihood(torch.zeros_like(both), torch.ones_like(both), both)
        mixture = likelihood.residual_log_prob(x)
    torch.testing.assert_close(single, -nats.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixture, single.exp().mean(0).log())
    x = 2 * torch.randn(60_000, 3, generator=torch.Generator().manual_seed(1))
    proposal = torch.distributions.Normal(0.0, 2.0).log_prob(x).sum(-1)
    for joint in (1, None):
        generator = torch.Generator().manual_seed(2)
        draws = likelihood.sample_residual(8000, joint=joint, generator=generator)
        with torch.no_grad():
            share = (likelihood.residual_log_prob(x, joint=joint) - proposal).exp()
        for axis in range(3):
            expected = (share * (x[:, axis] > 0.3)).sum() / share.sum()
            assert (draws[:, axis] > 0.3).float().mean().item() == pytest.approx(
                expected.item(), abs=0.03
            )


def test_what_a_flow_depends_on_must_be_given(build):
    with pytest.raises(ValueError, match="num_joints"):
        build({"kind": "rle"}, condition="joint")
    with pytest.raises(ValueError, match="feature_dim"):
        build({"kind": "rle"}, condition="feature")
    zero, one = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    with pytest.raises(ValueError, match="feature="):
        build({"kind": "rle"}, condition="feature", feature_dim=4)(zero, one, zero)
    with pytest.raises(ValueError, match="num_joints=2"):
        build({"kind": "rle"}, condition="joint", num_joints=5)(zero, one, zero)


def test_the_centre_is_the_geometric_median_of_the_density(build):
    """Against the tabulated density's, found on a quadrature grid by NumPy."""
    for settings in JOINT_DENSITIES[1:]:
        likelihood = build(settings)
        table = ResidualDensity.from_likelihood(likelihood, num_cells=12, num_refinements=2)
        centre = likelihood.residual_centre()
        assert centre.norm() > 0.1
        torch.testing.assert_close(
            centre, torch.from_numpy(table.geometric_median).float(), atol=2e-2, rtol=0
        )
        mean, spread = torch.zeros(2, 3, 3), TRIL.expand(2, 3, 3, 3)
        moved, _ = likelihood.estimate(mean, spread, centred=True)
        torch.testing.assert_close(moved[1, 2], TRIL @ centre)
        assert torch.equal(likelihood.estimate(mean, spread)[0], mean)


def test_losses_without_one_residual_density_say_why(build):
    table = ResidualDensity.from_likelihood(build({"kind": "flow"}))
    assert not table.available
    assert "every prediction" in table.reason
    conditioned = build({"kind": "rle"}, condition="feature", feature_dim=4)
    assert "depends on the image" in ResidualDensity.from_likelihood(conditioned).reason


@pytest.mark.parametrize("condition", ["joint", "feature"])
@pytest.mark.parametrize("settings", [*JOINT_DENSITIES, {"form": "released"}])
def test_an_empty_batch_has_no_nats_of_a_conditioned_flow(build, settings, condition):
    likelihood = build(
        {**settings, "num_context_samples": 16}, condition=condition, num_joints=4, feature_dim=5
    )
    empty, feature = torch.zeros(0, 4, 3), torch.zeros(0, 5)
    for training in (True, False):
        likelihood.train(training)
        nats = likelihood(empty, empty, empty, empty, feature=feature)
        assert nats.shape == (0, 4)
    location, spread = likelihood.estimate(empty, empty, feature=feature, planar_joints=(0,))
    assert location.shape == spread.shape == (0, 4, 3)
