"""Through a flow, location and scale: f(μ), and to first order the spread of f(N(μ, σ²))."""

import torch
from jaxtyping import Float
from torch import Tensor

from pose3d.model.flow import Flow
from pose3d.model.standardise import is_triangular


def pushed_forward(
    flow: Flow,
    mean: Float[Tensor, "batch joints axes"],
    spread: Float[Tensor, "batch joints axes"] | Float[Tensor, "batch joints axes axes"],
    context: Float[Tensor, "rows context_dim"] | None = None,
) -> tuple[
    Float[Tensor, "batch joints axes"],
    Float[Tensor, "batch joints axes"] | Float[Tensor, "batch joints axes axes"],
]:
    """f(μ) with the standard deviations, or the Cholesky factor, of J diag(σ²) Jᵀ.

    J is the Jacobian of f at μ, by a backward pass for each axis. The results carry no gradient.
    The factor comes from a QR decomposition, in float64: no covariance is formed that could lose
    its positive definiteness to rounding.

    Args:
        flow: f, from base to data; over as many axes as μ has.
        mean: μ.
        spread: σ, or L.
        context: Of the flow, of every joint of every image.

    Returns:
        Location and, as σ or L as it came, its spread.
    """
    num_axes = flow.num_axes
    with torch.inference_mode(False), torch.enable_grad():
        rows = mean.detach().clone().reshape(-1, num_axes).requires_grad_()
        held = None if context is None else context.detach().clone()
        pushed = flow.from_base(rows, held)[0]
        columns = [
            torch.autograd.grad(pushed[:, axis].sum(), rows, retain_graph=axis < num_axes - 1)[0]
            for axis in range(num_axes)
        ]
    jacobian = torch.stack(columns, dim=-2).reshape(*mean.shape, num_axes).to(spread.dtype)
    location = pushed.detach().reshape(mean.shape)
    if not is_triangular(spread):
        return location, (jacobian * spread.detach()[..., None, :]).norm(dim=-1)
    factor = jacobian.double() @ spread.detach().double().tril()
    upper = torch.linalg.qr(factor.mT, mode="r").R
    diagonal = upper.diagonal(dim1=-2, dim2=-1)
    return location, (upper * diagonal.sign()[..., None]).mT.to(spread.dtype)


def with_planar_part(
    whole: tuple[Tensor, Tensor],
    planar_flow: Flow,
    mean: Float[Tensor, "batch joints 3"],
    spread: Float[Tensor, "batch joints 3"] | Float[Tensor, "batch joints 3 3"],
    context: Float[Tensor, "rows context_dim"] | None,
    *,
    joints: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Location and spread of which (u, v) of some joints come from a second flow.

    Args:
        whole: From `pushed_forward` through the flow over (u, v, d).
        planar_flow: Over (u, v).
        mean: As in `pushed_forward`.
        spread: As in `pushed_forward`.
        context: As in `pushed_forward`.
        joints: Whose.
    """
    if not joints:
        return whole
    chosen = list(joints)
    is_full = is_triangular(spread)
    plane = (..., slice(2), slice(2)) if is_full else (..., slice(2))
    if context is not None:
        context = context.reshape(*mean.shape[:2], context.shape[-1])[:, chosen].flatten(0, 1)
    planar = pushed_forward(planar_flow, mean[:, chosen, :2], spread[:, chosen][plane], context)
    location, changed = (values.clone() for values in whole)
    location[:, chosen, :2] = planar[0]
    own = changed[:, chosen]
    own[plane] = planar[1]
    if is_full:  # the planes of the two flows know nothing of each other's depth
        own[..., 2, 2] = torch.linalg.vector_norm(own[..., 2, :], dim=-1)
        own[..., 2, :2] = 0
    changed[:, chosen] = own
    return location, changed
