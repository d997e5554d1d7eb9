"""What a network answers: the regressor's distribution after the likelihood's estimate."""

import pytest
import torch

from pose3d.engine.network import Network


@pytest.mark.parametrize("scale_head", ["diagonal", "cholesky"])
def test_a_prediction_goes_through_the_estimate_of_the_likelihood(small, scale_head, monkeypatch):
    torch.manual_seed(0)
    network = Network(small(f"model.scale_head={scale_head}")).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    pose = network.regressor(images)

    def estimate(mean, scale, *, feature):
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
