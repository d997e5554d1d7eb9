"""The MPJPE family: errors of poses in millimetres, one value per pose.

Poses are tensors or arrays of shape (n, joints, 3) in millimetres, predicted before target; the
answer is of the same kind, in float64, in which everything is computed. Nothing is averaged over
poses and nothing is centred on a root unless a function says so: pass ``root_relative`` poses
where a protocol asks for them.

Example:
    >>> import numpy as np
    >>> target = np.array([[[0.0, 0, 0], [100, 0, 0], [0, 200, 0], [0, 0, 300]]])
    >>> predicted = target * 1.1 + 7  # larger and moved
    >>> mpjpe(root_relative(predicted), root_relative(target)).round(6)
    array([15.])
    >>> bool(pa_mpjpe(predicted, target)[0] < 1e-9)
    True
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Real
from torch import Tensor

Array = Real[Tensor, "..."] | Real[np.ndarray, "..."]

AUC_THRESHOLDS_MM = tuple(range(0, 151, 5))
"""Thresholds of the area under the 3D-PCK curve, as in MPI-INF-3DHP."""


def joint_errors(predicted_mm: Array, target_mm: Array) -> Array:
    """Euclidean error of every joint.

    Args:
        predicted_mm: Predicted poses (n, joints, 3), millimetres.
        target_mm: True poses, the same shape and kind.

    Returns:
        Errors (n, joints), millimetres.

    Raises:
        ValueError: If the poses differ in shape or kind, are not (n, joints, 3), or hold NaN.
    """
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    return restore(_distances(predicted, target))


def axis_errors(predicted_mm: Array, target_mm: Array) -> Array:
    """Absolute error of every joint along each camera axis, (n, joints, 3), millimetres.

    Raises:
        ValueError: As in ``joint_errors``.
    """
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    return restore((predicted - target).abs())


def mpjpe(predicted_mm: Array, target_mm: Array) -> Array:
    """Mean per-joint position error of each pose; nothing is aligned.

    Args:
        predicted_mm: Predicted poses (n, joints, 3), millimetres; relative to their own roots
            where the protocol says so, see ``root_relative``.
        target_mm: True poses, the same shape and kind.

    Returns:
        One error per pose (n,), millimetres, of the poses' kind in float64.

    Raises:
        ValueError: As in ``joint_errors``.

    Source:
        Human3.6M, Ionescu et al., PAMI 2014, which averages over the poses as well.
    """
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    return restore(_distances(predicted, target).mean(-1))


def pa_mpjpe(predicted_mm: Array, target_mm: Array, *, allow_scale: bool = True) -> Array:
    """MPJPE of each pose after Procrustes alignment to its target.

    Args:
        predicted_mm: Predicted poses (n, joints, 3), millimetres.
        target_mm: True poses, the same shape and kind.
        allow_scale: Align scale, rotation and translation (the usual PA-MPJPE); or rotation and
            translation alone, as PoseNet's and RLE's protocol 1 does.

    Returns:
        One error per pose (n,), millimetres, of the poses' kind in float64.

    Raises:
        ValueError: As in ``joint_errors``.

    Source:
        Martinez et al., ICCV 2017, protocol 2; without scale, Moon et al. (PoseNet), ICCV 2019,
        protocol 1. The alignment is Umeyama's, IEEE PAMI 13(4), 1991.
    """
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    aligned = _align(predicted, target, allow_scale=allow_scale)
    return restore(_distances(aligned, target).mean(-1))


def n_mpjpe(predicted_mm: Array, target_mm: Array) -> Array:
    """MPJPE of each pose after its best scale about the origin.

    The scale minimises the sum of squares. Pass poses relative to the root: the origin is kept.

    Args:
        predicted_mm: Predicted poses (n, joints, 3), millimetres.
        target_mm: True poses, the same shape and kind.

    Returns:
        One error per pose (n,), millimetres, of the poses' kind in float64.

    Raises:
        ValueError: As in ``joint_errors``.

    Source:
        Rhodin et al., CVPR 2018; the protocol 3 of VideoPose3D, Pavllo et al., CVPR 2019.
    """
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    overlap = (predicted * target).sum((-2, -1), keepdim=True)
    scale = _ratio_or_zero(overlap, predicted.square().sum((-2, -1), keepdim=True))
    return restore(_distances(predicted * scale, target).mean(-1))


def pck(predicted_mm: Array, target_mm: Array, *, threshold_mm: float | int = 150) -> Array:
    """Share of each pose's joints closer to the truth than a threshold, (n,), from 0 to 1.

    Raises:
        ValueError: As in ``joint_errors``, or if the threshold is negative.

    Source:
        3D-PCK of MPI-INF-3DHP, Mehta et al., 3DV 2017, which compares strictly: at a threshold of
        0 mm no joint counts. There, poses are relative to the root.
    """
    if not threshold_mm >= 0:
        raise ValueError(f"threshold_mm must be >= 0 mm, got {threshold_mm}")
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    return restore((_distances(predicted, target) < threshold_mm).double().mean(-1))


def pck_auc(predicted_mm: Array, target_mm: Array) -> Array:
    """Mean of ``pck`` over the thresholds 0, 5, … 150 mm, (n,), from 0 to 30/31.

    A perfect pose gets 30/31 rather than 1, since no error is below the threshold of 0 mm.

    Raises:
        ValueError: As in ``joint_errors``.

    Source:
        As in ``pck``.
    """
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    thresholds = torch.tensor(AUC_THRESHOLDS_MM).to(predicted)
    below = _distances(predicted, target)[..., None] < thresholds
    return restore(below.double().mean((-2, -1)))


def root_relative(joints_mm: Array, root: int = 0) -> Array:
    """Poses (..., joints, 3) with the root moved to the origin, in their own dtype.

    Raises:
        ValueError: If the shape is another, or there is no such joint.
    """
    if joints_mm.ndim < 2 or joints_mm.shape[-1] != 3:
        raise ValueError(f"joints_mm must be (..., joints, 3), got shape {tuple(joints_mm.shape)}")
    if not 0 <= root < joints_mm.shape[-2]:
        raise ValueError(f"root must be in 0..{joints_mm.shape[-2] - 1}, got {root}")
    return joints_mm - joints_mm[..., root : root + 1, :]


def similarity_align(predicted_mm: Array, target_mm: Array, *, allow_scale: bool = True) -> Array:
    """Move predicted poses onto their targets by rotation, translation and, if allowed, scale.

    The sum of squares is least over proper motions: a mirrored pose is not mirrored back. Where
    the best rotation is not unique (all joints equal, or on a line) one of the best is taken.

    Args:
        predicted_mm: Predicted poses (n, joints, 3), millimetres.
        target_mm: True poses, the same shape and kind.
        allow_scale: Whether the size may change.

    Returns:
        Aligned poses (n, joints, 3), millimetres.

    Raises:
        ValueError: As in ``joint_errors``.

    Source:
        Umeyama, IEEE PAMI 13(4), 1991.
    """
    predicted, target, restore = _open_pair(predicted_mm, target_mm)
    return restore(_align(predicted, target, allow_scale=allow_scale))


def _align(predicted: Tensor, target: Tensor, *, allow_scale: bool) -> Tensor:
    target_mean = target.mean(-2, keepdim=True)
    predicted = predicted - predicted.mean(-2, keepdim=True)
    covariance = predicted.transpose(-1, -2) @ (target - target_mean)  # [n predicted target]
    left, strength, right = torch.linalg.svd(covariance)
    # A reflection would fit better where this is -1; the weakest axis is turned back instead.
    handedness = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    guard = torch.ones_like(strength)
    guard[..., -1] = handedness
    aligned = predicted @ ((left * guard[..., None, :]) @ right)  # row vectors
    if allow_scale:
        overlap = (strength * guard).sum(-1)[..., None, None]
        aligned = aligned * _ratio_or_zero(overlap, predicted.square().sum((-2, -1), keepdim=True))
    return aligned + target_mean


def _ratio_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; 0 where a pose has no extent and any scale is as good as another."""
    has_extent = denominator > 0
    return torch.where(has_extent, numerator / torch.where(has_extent, denominator, 1.0), 0.0)


def _distances(predicted: Tensor, target: Tensor) -> Tensor:
    return torch.linalg.vector_norm(predicted - target, dim=-1)


def _open_pair(
    predicted_mm: Array, target_mm: Array
) -> tuple[Tensor, Tensor, Callable[[Tensor], Array]]:
    """Both as float64 tensors, checked, and the way back to the caller's kind."""
    is_array = isinstance(predicted_mm, np.ndarray)
    if is_array != isinstance(target_mm, np.ndarray):
        raise ValueError(
            "predicted_mm and target_mm must both be tensors or both arrays, "
            f"got {type(predicted_mm).__name__} and {type(target_mm).__name__}"
        )
    if predicted_mm.shape != target_mm.shape:
        raise ValueError(
            "predicted_mm and target_mm must have the same shape, "
            f"got {tuple(predicted_mm.shape)} and {tuple(target_mm.shape)}"
        )
    predicted = _checked(predicted_mm, name="predicted_mm")
    target = _checked(target_mm, name="target_mm")
    return predicted, target, Tensor.numpy if is_array else lambda result: result


def _checked(poses_mm: Array, *, name: str) -> Tensor:
    if poses_mm.ndim != 3 or poses_mm.shape[-1] != 3 or poses_mm.shape[-2] == 0:
        raise ValueError(f"{name} must be (n, joints, 3), got shape {tuple(poses_mm.shape)}")
    if isinstance(poses_mm, np.ndarray):
        poses = torch.from_numpy(np.array(poses_mm, dtype=np.float64))
    else:
        poses = poses_mm.double()
    finite = torch.isfinite(poses).flatten(1).all(-1)
    if not bool(finite.all()):
        first = int(torch.nonzero(~finite)[0])
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {int((~finite).sum())} of "
            f"{len(finite)} poses, the first at index {first}"
        )
    return poses
