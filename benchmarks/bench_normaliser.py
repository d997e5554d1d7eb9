"""Error of log s and of its gradient against quadrature, by residual density and number of points.

A flow is fitted with the exact form (Q Laplace) to residuals of σ = 1; then log s is estimated with
many random shifts, beside a Gauss-Legendre rule over (u, v, d) in float64. Rms over the shifts in
nats; of the gradient, over the flow's weights, the rms length of one estimate's error, and the
length of the error of the mean of all, both as shares of the gradient's length. JSON to stdout or a
file.

    python benchmarks/bench_normaliser.py --out normaliser.json
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from provenance import provenance, write_result
from torch import Tensor

from pose3d.model.flow import ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig

BOUND = 10.0


def skewed_student(normal: Tensor) -> Tensor:
    """Student's t with two degrees of freedom, three times as wide above 0 as below."""
    x = normal[:, :3] / normal[:, 3:5].square().mean(-1, keepdim=True).sqrt()
    return torch.where(x > 0, 1.5 * x, 0.5 * x)


RESIDUALS: dict[str, Callable[[Tensor], Tensor]] = {
    "Student's t of 2 d.o.f., skewed": skewed_student,
    "normal, deviation 0.1": lambda normal: 0.1 * normal[:, :3],
    "normal, deviation 6": lambda normal: 6 * normal[:, :3],
    "normal at (2, -2, 3), deviation 0.3": lambda normal: (
        normal.new_tensor([2.0, -2.0, 3.0]) + 0.3 * normal[:, :3]
    ),
    "normal, deviations 4, 0.3, 0.1": lambda normal: (
        normal.new_tensor([4.0, 0.3, 0.1]) * normal[:, :3]
    ),
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="of Adam, 512 residuals each")
    parser.add_argument("--points", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--shifts", type=int, default=16)
    parser.add_argument("--torch-threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.torch_threads)
    rows = {name: measure(draw, options) for name, draw in RESIDUALS.items()}
    about = provenance(
        benchmark="normaliser", torch=torch.__version__, torch_threads=options.torch_threads
    )
    write_result(about | {"steps": options.steps, "residuals": rows}, options.out)


def measure(draw: Callable[[Tensor], Tensor], options: argparse.Namespace) -> dict[str, object]:
    """Fit one residual density and compare every number of points with quadrature."""
    fitted = fit(draw, options.steps)
    assert fitted.flow is not None
    parameters = list(fitted.flow.parameters())
    edges = edges_about(fitted)
    log_s, gradient = quadrature(fitted, edges)
    finer, _ = quadrature(fitted, edges, num_nodes=4, has_gradient=False)
    row: dict[str, object] = {
        "log_s": round(finer, 4),
        "quadrature_error_nats": round(abs(finer - log_s), 5),
    }
    for points in options.points:
        likelihood = Likelihood(LikelihoodConfig(num_normaliser_samples=points), fitted.flow)
        likelihood.residual_location.copy_(fitted.residual_location)
        likelihood.residual_spread.copy_(fitted.residual_spread)
        torch.manual_seed(0)
        errors, gradients, milliseconds = [], [], []
        for _ in range(options.shifts):
            start = time.perf_counter()
            estimate = likelihood.log_normaliser()
            parts = torch.autograd.grad(estimate, parameters)
            milliseconds.append(1e3 * (time.perf_counter() - start))
            errors.append(estimate.item() - finer)
            gradients.append(torch.cat([part.flatten() for part in parts]) - gradient)
        stacked, length = torch.stack(gradients), gradient.norm()
        row[str(points)] = {
            "rms_error_nats": round(float(np.sqrt(np.mean(np.square(errors)))), 4),
            "mean_error_nats": round(float(np.mean(errors)), 4),
            "gradient_rms_share": round(
                (stacked.square().sum(-1).mean().sqrt() / length).item(), 4
            ),
            "gradient_mean_share": round((stacked.mean(0).norm() / length).item(), 4),
            "milliseconds": round(sorted(milliseconds)[len(milliseconds) // 2], 2),
        }
    return row


def fit(draw: Callable[[Tensor], Tensor], num_steps: int) -> Likelihood:
    """The exact form fitted to residuals of σ = 1."""
    torch.manual_seed(0)
    likelihood = Likelihood(LikelihoodConfig(), ResidualFlow())
    optimiser = torch.optim.Adam(likelihood.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        target = draw(torch.randn(512, 6, generator=generator))[:, None]
        loss = likelihood(torch.zeros_like(target), torch.ones_like(target), target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return likelihood


def edges_about(likelihood: Likelihood) -> list[np.ndarray]:
    """Cell edges on each axis: dense about 0, where Q has its kink, and about the residuals."""
    steps = np.array([0.0, 0.3, 0.8, 1.6, 3.0, 6.0, 12.0])
    pair = np.concatenate([-steps[:0:-1], steps])
    location, spread = likelihood.residual_location.numpy(), likelihood.residual_spread.numpy()
    rows = []
    for centre, width in zip(location, spread, strict=True):
        edges = np.concatenate([pair, centre + min(width, 1.0) * pair, [-BOUND, BOUND]])
        rows.append(np.unique(edges[np.abs(edges) <= BOUND]))
    return rows


def quadrature(
    likelihood: Likelihood,
    edges: list[np.ndarray],
    *,
    num_nodes: int = 3,
    has_gradient: bool = True,
) -> tuple[float, Tensor]:
    """log s and its gradient by the flow's weights: Gauss-Legendre nodes in every cell.

    Beyond the bound, where G(c(x)) is constant, Q has the mass that it has at its edge.
    """
    flow = likelihood.flow
    assert flow is not None
    unit, unit_weights = np.polynomial.legendre.leggauss(num_nodes)
    nodes, weights = [], []
    for axis in edges:
        half = np.diff(axis)[:, None] / 2
        nodes.append(np.append((axis[:-1, None] + half * (unit + 1)).ravel(), [-BOUND, BOUND]))
        weights.append(np.append((half * unit_weights).ravel(), [1.0, 1.0]))
    points = torch.cartesian_prod(*(torch.tensor(axis) for axis in nodes))
    volume = torch.einsum("i,j,k->ijk", *(torch.tensor(axis) for axis in weights)).flatten()
    log_rest = volume.log() - points.abs().sum(-1) - 3 * np.log(2)
    chunks = list(zip(points.float().split(20_000), log_rest.split(20_000), strict=True))
    with torch.no_grad():
        logs = torch.stack([(flow.log_prob(x).double() + r).logsumexp(0) for x, r in chunks])
    log_mass = logs.logsumexp(0)
    if not has_gradient:
        return -log_mass.item(), torch.empty(0)
    total: list[Tensor] | None = None
    for x, rest in chunks:
        share = (flow.log_prob(x).double() + rest - log_mass).exp().sum()
        parts = torch.autograd.grad(share, list(flow.parameters()))
        total = list(parts) if total is None else [a + b for a, b in zip(total, parts, strict=True)]
    assert total is not None
    return -log_mass.item(), -torch.cat([part.flatten() for part in total])


if __name__ == "__main__":
    main()
