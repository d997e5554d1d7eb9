"""From a label's deviation and a predicted scale to the standardised residual, and its influence.

x̄ = (y − μ)/σ axis by axis, or x̄ = L⁻¹(y − μ) with L the Cholesky factor of a full covariance. L is
lower triangular over (u, v, d), so that x̄_u and x̄_v do not depend on depth: a label without depth
needs the upper left 2 × 2 block alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Spread = Float[Tensor, "batch joints 3"] | Float[Tensor, "batch joints 3 3"]
"""σ of each axis, or the lower triangular L."""


def is_triangular(spread: Tensor) -> bool:
    """Whether a spread is L rather than σ."""
    return spread.ndim == 4


def masked_spread(spread: Tensor, labelled: Tensor | None) -> Tensor:
    """The spread, of which the axes without label are those of a unit scale, without gradient."""
    if labelled is None:
        return spread
    if not is_triangular(spread):
        return torch.where(labelled, spread, 1)
    unit = torch.eye(3, device=spread.device, dtype=spread.dtype)
    return torch.where(labelled[..., None], spread, unit)


def standardised(
    error: Float[Tensor, "batch joints 3"], spread: Spread
) -> tuple[Float[Tensor, "batch joints 3"], Float[Tensor, "batch joints"]]:
    """Standardised residual, and the log determinant of the scale, nats.

    Args:
        error: Label less prediction; 0 on axes without label.
        spread: σ, or L, of which only the lower triangle is read.
    """
    if not is_triangular(spread):
        return error / spread, spread.log().sum(-1)
    x: list[Tensor] = []
    for axis in range(3):  # forward substitution
        rest = error[..., axis]
        for before in range(axis):
            rest = rest - spread[..., axis, before] * x[before]
        x.append(rest / spread[..., axis, axis])
    return torch.stack(x, dim=-1), spread.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def scaled(
    x: Float[Tensor, "*samples batch joints 3"], spread: Spread
) -> Float[Tensor, "*samples batch joints 3"]:
    """σ·x or L·x: the deviation of a label whose standardised residual is x."""
    if not is_triangular(spread):
        return spread * x
    return (spread.tril() @ x[..., None])[..., 0]


def influence(
    x: Float[Tensor, "batch joints 3"], bound: float, *, power: int
) -> Float[Tensor, "batch joints"]:
    """How much of a joint's gradient counts: 1 within the bound, (bound / max|x|)^power beyond it.

    The gradient of log σ grows as |x| where Q is Laplace, as x² where it is normal, and that of a
    flow's weights as the square of what enters it: with the power 1, or 2, each stays bounded.
    """
    largest = x.detach().abs().amax(-1).clamp_min(bound)
    return (bound / largest) ** power


def with_influence(values: Tensor, share: Float[Tensor, "batch joints"] | None) -> Tensor:
    """The same numbers, [batch joints ...], of whose gradient a share counts; None is all of it."""
    if share is None:
        return values
    share = share.reshape(share.shape + (1,) * (values.ndim - share.ndim))
    return torch.lerp(values.detach(), values, share)
