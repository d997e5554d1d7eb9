"""What a network answers: the regressor's distribution after the likelihood's estimate."""

import math

import pytest
import torch

from pose3d.engine.network import Network


@pytest.mark.parametrize("scale_head", ["diagonal", "cholesky"])
def test_a_prediction_goes_through_the_estimate_of_the_likelihood(small, scale_head, monkeypatch):
    torch.manual_seed(0)
    network = Network(small(f"model.scale_head={scale_head}")).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    pose = network.regressor(images)

    def estimate(mean, scale, *, feature, planar_joints):
        assert planar_joints == (0,)
        return mean + feature.sum(), 2 * scale

    monkeypatch.setattr(network.likelihood, "estimate", estimate)
    predicted = network.predict(images)
    torch.testing.assert_close(predicted.mean, pose.mean + pose.feature.sum())
    torch.testing.assert_close(predicted.scale, 2 * pose.scale)
    assert (predicted.scale_tril is None) == (scale_head == "diagonal")
    if scale_head == "cholesky":
        torch.testing.assert_close(predicted.scale_tril, 2 * pose.scale_tril)
    assert torch.equal(predicted.feature, pose.feature)


@pytest.mark.parametrize("condition", ["joint", "feature"])
def test_likelihood_knows_the_joints_and_features_of_the_regressor(small, condition):
    network = Network(small("data.skeleton=human36m_17", f"flow.condition={condition}"))
    pose = network.predict(torch.zeros(2, 3, 32, 32))
    target = torch.zeros_like(pose.mean)
    nats = network.likelihood(pose.mean, pose.spread, target, feature=pose.feature)
    assert nats.shape == (2, 17)
    assert nats.isfinite().all()


@pytest.mark.parametrize("scale_head", ["diagonal", "cholesky"])
@pytest.mark.parametrize("condition", ["none", "joint", "feature"])
def test_a_label_at_the_estimate_has_the_base_variable_of_the_location(
    small, scale_head, condition
):
    """Design (a), also for the root, whose label has no depth: f⁻¹(f(μ)) = μ costs no energy."""
    torch.manual_seed(0)
    network = Network(
        small(
            *("likelihood.kind=flow", f"flow.condition={condition}"),
            f"model.scale_head={scale_head}",
        )
    ).eval()
    with torch.no_grad():
        for flow in (network.likelihood.flow, network.likelihood.planar_flow):
            torch.nn.init.normal_(flow.output_weight, std=0.3)
            torch.nn.init.normal_(flow.output_bias, std=0.1)
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        pose, predicted = network.regressor(images), network.predict(images)
        weight = torch.ones_like(pose.mean)
        weight[:, 0, 2] = 0
        parts = network.likelihood.parts(
            pose.mean, pose.spread, predicted.mean, weight, feature=pose.feature
        )
    num_axes = torch.tensor([2.0] + [3.0] * (weight.shape[1] - 1)).expand(2, -1)
    torch.testing.assert_close(
        parts["base"], num_axes * 0.5 * math.log(2 * math.pi), atol=1e-3, rtol=0
    )
    assert (predicted.mean - pose.mean).abs().mean() > 0.05


@pytest.mark.parametrize("scale_head", ["diagonal", "cholesky"])
def test_sigma_of_the_root_goes_through_the_flow_over_u_and_v(small, scale_head):
    """Against draws of f(N(μ, Σ)) with a small Σ."""
    torch.manual_seed(0)
    network = Network(small("likelihood.kind=flow", f"model.scale_head={scale_head}")).eval()
    torch.nn.init.normal_(network.regressor.scale_head.weight, std=0.1)
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for flow in (network.likelihood.flow, network.likelihood.planar_flow):
            torch.nn.init.normal_(flow.output_weight, std=0.3)
        pose = network.regressor(images)
        small_spread = 1e-2 * pose.spread
        estimate = network.likelihood.estimate(pose.mean, small_spread, planar_joints=(0,))
        normal = torch.randn(20_000, 3)
        drawn = (
            normal * small_spread[0, 0]
            if scale_head == "diagonal"
            else (normal @ small_spread[0, 0].mT)
        )
        labels = network.likelihood.planar_flow.from_base((pose.mean[0, 0] + drawn)[:, :2])[0]
    spread = estimate[1][0, 0]
    found = spread[:2].square().diag() if scale_head == "diagonal" else (spread @ spread.mT)[:2, :2]
    expected = labels.double().T.cov().float()
    if scale_head == "diagonal":
        found, expected = found.diagonal(), expected.diagonal()
    size = expected.diagonal().max() if scale_head == "cholesky" else expected.max()
    torch.testing.assert_close(found / size, expected / size, atol=0.05, rtol=0)
