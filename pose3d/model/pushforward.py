"""Through a flow, location and scale: f(μ), and to first order the spread of f(N(μ, σ²))."""

import torch
from jaxtyping import Float
from torch import Tensor

from pose3d.model.flow import Flow
from pose3d.model.standardise import Spread, is_triangular


def pushed_forward(
    flow: Flow,
    mean: Float[Tensor, "batch joints 3"],
    spread: Spread,
    context: Float[Tensor, "rows context_dim"] | None = None,
) -> tuple[Float[Tensor, "batch joints 3"], Spread]:
    """f(μ) with the standard deviations, or the Cholesky factor, of J diag(σ²) Jᵀ.

    J is the Jacobian of f at μ, by three backward passes. The results carry no gradient.

    Args:
        flow: f, from base to data.
        mean: μ.
        spread: σ, or L.
        context: Of the flow, of every joint of every image.

    Returns:
        Location and, as σ or L as it came, its spread.
    """
    with torch.inference_mode(False), torch.enable_grad():
        rows = mean.detach().clone().reshape(-1, 3).requires_grad_()
        held = None if context is None else context.detach().clone()
        pushed = flow.from_base(rows, held)[0]
        columns = [
            torch.autograd.grad(pushed[:, axis].sum(), rows, retain_graph=axis < 2)[0]
            for axis in range(3)
        ]
    jacobian = torch.stack(columns, dim=-2).reshape(*mean.shape, 3).to(spread.dtype)
    location = pushed.detach().reshape(mean.shape)
    if not is_triangular(spread):
        return location, (jacobian * spread.detach()[..., None, :]).norm(dim=-1)
    factor = jacobian @ spread.detach().tril()
    return location, torch.linalg.cholesky(factor @ factor.mT)
