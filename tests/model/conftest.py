"""A plain RealNVP, one module per network and one pass per mask, as an oracle for the flow."""

import numpy as np
import pytest
import torch
from torch import nn


class LoopFlow(nn.Module):
    """Couplings with separate s and t networks of full width; weights of a ResidualFlow."""

    def __init__(self, flow):
        super().__init__()
        axes, hidden = flow.num_axes, flow.config.hidden_dim
        kept_last = [0.0] * (axes - 1) + [1.0]
        masks = [kept_last, [1.0 - keep for keep in kept_last]]
        self.masks = [torch.tensor(masks[k % 2]) for k in range(flow.config.num_layers)]
        self.networks = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(
                    nn.Linear(axes, hidden),
                    nn.LeakyReLU(),
                    nn.Linear(hidden, hidden),
                    nn.LeakyReLU(),
                    nn.Linear(hidden, axes),
                    nn.Tanh() if kind == 0 else nn.Identity(),
                )
                for kind in range(2)
            )
            for _ in self.masks
        )
        for layer, pair in enumerate(self.networks):
            for kind, network in enumerate(pair):
                for module, name in zip(network[::2], ("input", "hidden", "output"), strict=False):
                    module.weight.data = getattr(flow, f"{name}_weight").data[layer, kind].clone()
                    module.bias.data = getattr(flow, f"{name}_bias").data[layer, kind].clone()

    def log_prob(self, x):
        z, log_det = x, 0.0
        for mask, (scale, shift) in list(zip(self.masks, self.networks, strict=True))[::-1]:
            mask = mask.to(x.dtype)
            s, t = scale(mask * z) * (1 - mask), shift(mask * z) * (1 - mask)
            z = (1 - mask) * (z - t) * torch.exp(-s) + mask * z
            log_det = log_det - s.sum(-1)
        normal = torch.distributions.Normal(0.0, 1.0, validate_args=False)
        return normal.log_prob(z).sum(-1) + log_det


def sharpened(flow, *, seed, gain=0.35):
    """Draw the last layers at random, so that the flow is far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (flow.output_weight, flow.output_bias):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(gain * noise)
    return flow


def panel_rule(edges, order):
    """Gauss-Legendre nodes and weights on panels between edges (nodes never on an edge)."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    edges = np.asarray(edges, dtype=float)
    half = np.diff(edges) / 2
    points = (edges[:-1, None] + half[:, None] * (nodes + 1)).ravel()
    return torch.from_numpy(points), torch.from_numpy((half[:, None] * weights).ravel())


@pytest.fixture(scope="session")
def loop_flow():
    return LoopFlow


@pytest.fixture(scope="session")
def sharpen():
    return sharpened


@pytest.fixture(scope="session")
def panels():
    return panel_rule


@pytest.fixture(scope="session")
def symmetric_edges():
    """Edges in units of the scale, with the kink of a Laplace density on one of them."""
    right = [0.0, 0.4, 1.0, 2.0, 3.5, 6.0, 10.0, 20.0, 40.0]
    return [-edge for edge in right[:0:-1]] + right
