"""Draw docs/figures/likelihood.png: what the two forms of RLE make of the same residuals.

Location, scale and flow are fitted by each form to skewed, heavy-tailed, dependent residuals. Left:
the marginal of u. Right: the integral of exp(−loss) over the label as σ changes.

    python docs/likelihood_figure.py
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pose3d.model.flow import ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig

NUM_STEPS = 500
BATCH_SIZE = 512
COLOURS = {"data": "#9aa0a6", "paper": "#0072b2", "released": "#d55e00", "laplace": "#009e73"}
FORMS = {
    "paper": {"kind": "rle", "form": "paper"},
    "released": {"kind": "rle", "form": "released"},
    "laplace": {"kind": "laplace"},
}


def residuals(num: int, *, seed: int) -> Tensor:
    """Student's t with three degrees of freedom, stretched to one side, dependent; [num 3]."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(num, 6, generator=generator)
    x = normal[:, :3] / normal[:, 3:].square().mean(-1, keepdim=True).sqrt().clamp_min(0.05)
    return torch.where(x > 0, 1.5 * x, 0.5 * x)


def fit(settings: dict[str, str]) -> tuple[Likelihood, Tensor, Tensor]:
    """Likelihood, location and scale after training on residuals."""
    torch.manual_seed(0)
    likelihood = Likelihood(LikelihoodConfig(**settings), ResidualFlow())
    mean, raw = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([*likelihood.parameters(), mean, raw], 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, NUM_STEPS)
    for step in range(NUM_STEPS):
        target = residuals(BATCH_SIZE, seed=step)[:, None]
        loss = likelihood(mean.expand_as(target), raw.exp().expand_as(target), target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return likelihood.eval(), mean.detach(), raw.detach().exp()


@torch.no_grad()
def exp_minus_loss(likelihood: Likelihood, mean: Tensor, scale: Tensor, grid: Tensor) -> Tensor:
    """exp(−loss) at labels on a tensor grid; [n n n]."""
    points = torch.cartesian_prod(grid, grid, grid)
    parts = [
        likelihood(mean.expand_as(p), scale.expand_as(p), p) for p in points[:, None].split(2**16)
    ]
    return (-torch.cat(parts)[:, 0].double()).exp().reshape(len(grid), len(grid), len(grid))


def main() -> None:
    """Fit, integrate, draw."""
    line = torch.linspace(-1, 1, 81)
    grid = 14 * line.sign() * line.abs() ** 2
    widths = torch.from_numpy(np.gradient(grid.numpy())).double()
    figure = Figure(figsize=(9.6, 3.7), layout="constrained", dpi=140)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    sample = residuals(400_000, seed=10**6)[:, 0].numpy()
    bins = np.linspace(-4, 7, 111)
    counts, _ = np.histogram(sample, bins=bins)
    left.stairs(
        counts / len(sample) / np.diff(bins), bins, fill=True, color=COLOURS["data"], alpha=0.5,
        label="residuals",
    )  # fmt: skip
    labels = {
        "paper": "RLE, paper form: a density",
        "released": "RLE, released form, divided by its mass",
        "laplace": "Laplace with σ",
    }
    factors = 2.0 ** np.arange(-2, 2.5, 0.5)
    for name, settings in FORMS.items():
        likelihood, mean, scale = fit(settings)
        values = exp_minus_loss(likelihood, mean, scale, grid)
        marginal = torch.einsum("uvd,v,d->u", values, widths, widths)
        mass = float(marginal @ widths)
        left.plot(grid, marginal / mass, color=COLOURS[name], label=labels[name])
        if name == "laplace":
            continue
        masses = []
        for factor in factors:
            values = exp_minus_loss(likelihood, mean, factor * scale, factor * grid)
            masses.append(float(torch.einsum("uvd,u,v,d->", values, *[factor * widths] * 3)))
        right.loglog(factors, masses, "o-", color=COLOURS[name], markersize=4)
        right.annotate(
            "paper" if name == "paper" else "released",
            (factors[1], masses[1]), color=COLOURS[name], xytext=(6, 7), textcoords="offset points",
        )  # fmt: skip
        print(name, "mean", mean.tolist(), "scale", scale.tolist(), "masses", masses)
    left.set(xlim=(-4, 7), xlabel="u of the residual", ylabel="density")
    left.legend(frameon=False, fontsize=8)
    right.set(xlabel="σ / fitted σ", ylabel="∫ exp(−loss) d(u, v, d)")
    right.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    right.minorticks_off()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    target = Path(__file__).parent / "figures" / "likelihood.png"
    target.parent.mkdir(exist_ok=True)
    FigureCanvasAgg(figure).print_png(target)


if __name__ == "__main__":
    main()
