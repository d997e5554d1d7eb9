"""Joints without depth label among others: which rows they are, and how their values join the rest.

Rows are joints, flattened over images: [batch · joints].
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def planar_rows(
    no_depth: Bool[Tensor, "batch joints"] | None, planar_joints: tuple[int, ...] | None
) -> Int64[Tensor, " planar"] | None:
    """Rows of the joints that may lack a depth label; None where none does.

    Args:
        no_depth: Joints labelled in u and v alone; None where every joint has all labels.
        planar_joints: Joints that may be among them, which makes the shape independent of the data;
            None looks for them, for which the host waits, or takes all where a compiler looks on.
    """
    if no_depth is None or planar_joints == ():
        return None
    num_joints = no_depth.shape[1]
    if planar_joints is None:
        if torch.compiler.is_compiling():  # any joint: no shape may depend on the data
            return torch.arange(no_depth.numel(), device=no_depth.device)
        return no_depth.flatten().nonzero().squeeze(-1)
    first = torch.arange(0, no_depth.numel(), num_joints, device=no_depth.device)
    # Numbers of Python, not a tensor made from them: no copy to the device, nothing waits.
    return torch.stack([first + joint for joint in planar_joints], dim=-1).flatten()


def with_planar(
    values: Float[Tensor, "rows ..."],
    planar: Float[Tensor, "planar ..."],
    no_depth: Bool[Tensor, "batch joints"],
    rows: Int64[Tensor, " planar"],
    *,
    is_promised: bool,
) -> Float[Tensor, "rows ..."]:
    """Put the values of joints without depth into the place of the others'.

    Args:
        values: Of all rows.
        planar: Of the rows that may lack depth; counts where they do.
        no_depth: As in `planar_rows`.
        rows: From `planar_rows`.
        is_promised: Whether only these rows may lack depth; others that do become NaN.
    """
    flat = no_depth.flatten()
    shape = (-1,) + (1,) * (values.ndim - 1)
    planar = torch.where(flat[rows].reshape(shape), planar, values[rows])
    merged = values.index_copy(0, rows, planar)
    if is_promised:
        unpromised = flat.index_fill(0, rows, False)
        merged = torch.where(unpromised.reshape(shape), math.nan, merged)
    return merged
