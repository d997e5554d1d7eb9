"""log s stays what quadrature says while a flow is fitted: to narrow, heavy and wide residuals."""

import pytest
import torch

from pose3d.model.flow import FlowConfig, ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig

BOUND = 10.0
START = 4.022
"""log s of the standard normal that a flow begins as: −3·(1/2 + log Φ(−1))."""


def residuals(name, generator):
    normal = torch.randn(256, 1, 6, generator=generator)
    if name == "narrow":
        return 0.1 * normal[..., :3]
    if name == "wide":
        return 5 * normal[..., :3]
    return normal[..., :3] / normal[..., 3:5].square().mean(-1, keepdim=True).sqrt()


def quadrature_log_s(flow, panels):
    """Cells dense about 0; beyond the bound, where G is constant, Q has its mass of the edge."""
    right = [0.0, 0.1, 0.2, 0.35, 0.7, 1.5, 3.0, 6.0, BOUND]
    nodes, weights = panels([-edge for edge in right[:0:-1]] + right, 3)
    nodes = torch.cat([nodes, nodes.new_tensor([-BOUND, BOUND])])
    weights = torch.cat([weights, weights.new_ones(2)])
    points = torch.cartesian_prod(nodes, nodes, nodes).float()
    volume = torch.einsum("i,j,k->ijk", weights, weights, weights).flatten()
    log_base = torch.distributions.Laplace(0.0, 1.0).log_prob(points).sum(-1)
    with torch.no_grad():
        return -(volume.log() + flow.log_prob(points).double() + log_base).logsumexp(0).item()


@pytest.mark.parametrize("name", ["narrow", "heavy", "wide"])
def test_log_s_stays_honest_as_the_flow_sharpens(name, panels):
    """To 0.05 nats with the points of training; wide: also before the flow outweighs Q."""
    torch.manual_seed(0)
    flow = ResidualFlow(FlowConfig(num_layers=4, hidden_dim=16))
    likelihood = Likelihood(LikelihoodConfig(), flow)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    errors, seen = [], []
    for step in range(1, 121):
        target = residuals(name, generator)
        loss = likelihood(torch.zeros_like(target), torch.ones_like(target), target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 40 == 0:
            seen.append(quadrature_log_s(flow, panels))
            with torch.no_grad():
                errors += [likelihood.log_normaliser().item() - seen[-1] for _ in range(8)]
    assert abs(seen[-1] - START) > 0.3  # the flow moves
    assert torch.tensor(errors).square().mean().sqrt() < 0.05
    assert abs(torch.tensor(errors).mean().item()) < 0.02
