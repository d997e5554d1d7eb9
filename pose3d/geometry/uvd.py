"""The (u, v, d) codec: the one place where millimetres and pixels become network units.

    u = x_crop / W - 1/2,   v = y_crop / W - 1/2,   d = (Z - Z_root) / range

with W the side of the square crop in pixels and a range of 2000 mm. What is labelled fills
[-1/2, 1/2] on each axis.

Everything is computed in float64 and returned in the caller's dtype: at 5 m, float32 pixels of the
full image alone would cost a few hundredths of a millimetre on the way back.

Example:
    >>> import torch
    >>> from pose3d.geometry.camera import human36m_intrinsics
    >>> from pose3d.geometry.crop import crop_from_image
    >>> camera = human36m_intrinsics("55011271")
    >>> pose_mm = torch.tensor([[0.0, 0.0, 5000.0], [100.0, -200.0, 5500.0]])
    >>> crop = crop_from_image(torch.tensor([510.0, 500.0, 400.0]), crop_size_px=256)
    >>> uvd = encode_uvd(pose_mm, camera, crop, crop_size_px=256)
    >>> uvd[:, 2].tolist()
    [0.0, 0.25]
    >>> back_mm = decode_uvd(
    ...     uvd, camera, crop, crop_size_px=256, root_depth_mm=torch.tensor(5000.0)
    ... )
    >>> torch.allclose(back_mm, pose_mm, atol=1e-2)
    True
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pose3d.geometry.camera import Camera, require_positive_depth
from pose3d.geometry.crop import invert_map, transform_points
from pose3d.geometry.skeleton import Skeleton

DEPTH_RANGE_MM = 2000.0
"""Depth that d = -1/2 … 1/2 spans, as in the RLE and PoseNet codes."""


def encode_uvd(
    joints_camera_mm: Float[Tensor, "*batch joints 3"],
    camera: Camera,
    crop_from_image: Float[Tensor, "*batch 3 3"],
    *,
    crop_size_px: int,
    root: int = 0,
    depth_range_mm: float | int = DEPTH_RANGE_MM,
) -> Float[Tensor, "*batch joints 3"]:
    """Turn joints in the camera frame into network units.

    Args:
        joints_camera_mm: Joints, camera frame, millimetres, z > 0.
        camera: One camera, or one per pose; only its lens matters.
        crop_from_image: Map from image pixels to crop pixels.
        crop_size_px: Side W of the crop, pixels.
        root: The joint that depth is relative to.
        depth_range_mm: Depth of one unit of d, millimetres.

    Returns:
        u, v, d without dimension, in the dtype of the joints. On an accelerator, where a check
        would stall the queue, a joint that is not in front of the camera comes out as NaN.

    Raises:
        ValueError: If a joint is not finitely in front of the camera (on the CPU), or the crop
            size or depth range is not positive.

    Source:
        Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021, with
        the depth range of Moon et al. (PoseNet), ICCV 2019. Their codes project without the lens's
        distortion; here it is applied, so that labels lie on the image.
    """
    _check_units(crop_size_px, depth_range_mm)
    joints = joints_camera_mm.double()
    depth = joints[..., 2:]
    if depth.device.type == "cpu":
        require_positive_depth(depth, name="depth of joints_camera_mm")
    else:
        depth = torch.where(depth > 0, depth, torch.nan)
    image_px = camera.to(dtype=torch.float64).rays_to_image(joints[..., :2] / depth)
    crop_px = transform_points(crop_from_image.double(), image_px)
    relative_depth = (depth - depth[..., root : root + 1, :]) / depth_range_mm
    uvd = torch.cat([crop_px / crop_size_px - 0.5, relative_depth], dim=-1)
    return uvd.to(joints_camera_mm.dtype)


def decode_uvd(
    uvd: Float[Tensor, "*batch joints 3"],
    camera: Camera,
    crop_from_image: Float[Tensor, "*batch 3 3"],
    *,
    crop_size_px: int,
    root_depth_mm: Float[Tensor, "*batch"],
    depth_range_mm: float | int = DEPTH_RANGE_MM,
) -> Float[Tensor, "*batch joints 3"]:
    """Turn network units back into joints in the camera frame.

    Args:
        uvd: u, v, d without dimension.
        camera: One camera, or one per pose; only its lens matters.
        crop_from_image: Map from image pixels to crop pixels.
        crop_size_px: Side W of the crop, pixels.
        root_depth_mm: Camera z of the root, millimetres. Say whose it is, measured or estimated,
            wherever the result is reported.
        depth_range_mm: Depth of one unit of d, millimetres.

    Returns:
        Joints, camera frame, millimetres, in the dtype of ``uvd``. Finite for finite input: a
        prediction behind the camera or outside the picture is answered, not refused.

    Raises:
        ValueError: If a root depth is not finite and positive (on the CPU), or the crop size or
            depth range is not positive.

    Source:
        As in ``encode_uvd``, which it inverts.
    """
    rays, depth = _rays_and_depth(
        uvd, camera, crop_from_image, crop_size_px, root_depth_mm, depth_range_mm
    )
    return torch.cat([rays * depth, depth], dim=-1).to(uvd.dtype)


def decode_scale(
    mean_uvd: Float[Tensor, "*batch joints 3"],
    scale_uvd: Float[Tensor, "*batch joints 3"] | Float[Tensor, "*batch joints 3 3"],
    camera: Camera,
    crop_from_image: Float[Tensor, "*batch 3 3"],
    *,
    crop_size_px: int,
    root_depth_mm: Float[Tensor, "*batch"],
    depth_range_mm: float | int = DEPTH_RANGE_MM,
) -> Float[Tensor, "*batch joints 3"]:
    """Carry the scale of a prediction into millimetres along the camera's axes.

    To first order: the square root of the diagonal of J Σ Jᵀ, with J the derivative of
    ``decode_uvd`` at the mean and Σ either diag(σ²) or L Lᵀ. Scales stay what they were, standard
    deviations or Laplace scales, where one axis dominates; what covariance there is between the
    camera's axes is dropped.

    Args:
        mean_uvd: Where to linearise: the predicted u, v, d.
        scale_uvd: Predicted scale σ of each axis, without dimension, or the triangular factor L of
            their covariance: one dimension more than ``mean_uvd``.
        camera: As in ``decode_uvd``.
        crop_from_image: As in ``decode_uvd``.
        crop_size_px: As in ``decode_uvd``.
        root_depth_mm: As in ``decode_uvd``.
        depth_range_mm: As in ``decode_uvd``.

    Returns:
        Scale of x, y, z in the camera frame, millimetres: of the absolute joints, not of their
        differences from the root.

    Raises:
        ValueError: As in ``decode_uvd``.
    """
    factor = _factor_mm(
        *(mean_uvd, scale_uvd, camera, crop_from_image, crop_size_px, root_depth_mm, depth_range_mm)
    )
    return torch.linalg.vector_norm(factor, dim=-1).to(scale_uvd.dtype)


def decode_covariance(
    mean_uvd: Float[Tensor, "*batch joints 3"],
    scale_uvd: Float[Tensor, "*batch joints 3"] | Float[Tensor, "*batch joints 3 3"],
    camera: Camera,
    crop_from_image: Float[Tensor, "*batch 3 3"],
    *,
    crop_size_px: int,
    root_depth_mm: Float[Tensor, "*batch"],
    depth_range_mm: float | int = DEPTH_RANGE_MM,
) -> Float[Tensor, "*batch joints 3 3"]:
    """Carry the covariance of a prediction into millimetres: J Σ Jᵀ, whole.

    Args:
        mean_uvd: As in ``decode_scale``.
        scale_uvd: Standard deviation of each axis, without dimension, or the triangular factor L of
            their covariance.
        camera: As in ``decode_uvd``.
        crop_from_image: As in ``decode_uvd``.
        crop_size_px: As in ``decode_uvd``.
        root_depth_mm: As in ``decode_uvd``.
        depth_range_mm: As in ``decode_uvd``.

    Returns:
        Covariance of x, y, z in the camera frame, mm²: of the absolute joints, to first order.

    Raises:
        ValueError: As in ``decode_uvd``.
    """
    factor = _factor_mm(
        *(mean_uvd, scale_uvd, camera, crop_from_image, crop_size_px, root_depth_mm, depth_range_mm)
    )
    return (factor @ factor.mT).to(scale_uvd.dtype)


def decode_samples(
    mean_uvd: Float[Tensor, "*batch joints 3"],
    deviations_uvd: Float[Tensor, "samples *batch joints 3"],
    camera: Camera,
    crop_from_image: Float[Tensor, "*batch 3 3"],
    *,
    crop_size_px: int,
    root_depth_mm: Float[Tensor, "*batch"],
    depth_range_mm: float | int = DEPTH_RANGE_MM,
) -> Float[Tensor, "samples *batch joints 3"]:
    """Decode samples about a mean: as ``decode_uvd`` would each of them, at a fraction of the cost.

    Depth multiplies the ray, so that a sample farther away also lies farther aside; that product is
    exact. Only the ray's way through the lens is followed to first order in (u, v), which leaves
    out how the lens's distortion bends within the spread of one joint.

    Args:
        mean_uvd: Where to linearise the rays.
        deviations_uvd: Of every sample from the mean.
        camera: As in ``decode_uvd``.
        crop_from_image: As in ``decode_uvd``.
        crop_size_px: As in ``decode_uvd``.
        root_depth_mm: As in ``decode_uvd``.
        depth_range_mm: As in ``decode_uvd``.

    Returns:
        Joints, camera frame, millimetres, in the dtype of the deviations.

    Raises:
        ValueError: As in ``decode_uvd``.
    """
    rays, depth = _rays_and_depth(
        mean_uvd, camera, crop_from_image, crop_size_px, root_depth_mm, depth_range_mm
    )
    ray_from_unit = _ray_from_unit(rays, camera, crop_from_image, crop_size_px)
    dtype = deviations_uvd.dtype
    rays, depth, ray_from_unit = (each.to(dtype) for each in (rays, depth, ray_from_unit))
    moved = depth + depth_range_mm * deviations_uvd[..., 2:]
    aside = (ray_from_unit * deviations_uvd[..., None, :2]).sum(-1)
    return torch.cat([(rays + aside) * moved, moved], dim=-1)


def uvd_in_range(uvd: Float[Tensor, "*batch joints 3"]) -> Bool[Tensor, "*batch joints"]:
    """Whether all of u, v, d lie within ±1/2: joints outside are not supervised on any axis."""
    return (uvd.abs() <= 0.5).all(-1)


def mirror_uvd(
    uvd: Float[Tensor, "*batch joints 3"], skeleton: Skeleton, *, crop_size_px: int
) -> Float[Tensor, "*batch joints 3"]:
    """The pose as the mirrored crop shows it: left and right change places, u' = -u - 1/W.

    The 1/W is there because x' = W - 1 - x mirrors pixel centres; twice mirrored is unchanged.
    """
    swapped = mirror_scale(uvd, skeleton)
    return torch.cat([-swapped[..., :1] - 1 / crop_size_px, swapped[..., 1:]], dim=-1)


def mirror_scale(
    scale: Float[Tensor, "*batch joints values"], skeleton: Skeleton
) -> Float[Tensor, "*batch joints values"]:
    """Scales or weights of the mirrored pose: left and right change places, no sign changes.

    Raises:
        ValueError: If the number of joints is not the skeleton's.
    """
    if scale.shape[-2] != skeleton.num_joints:
        raise ValueError(
            f"expected the {skeleton.num_joints} joints of {skeleton.name}, "
            f"got shape {tuple(scale.shape)}"
        )
    return scale[..., skeleton.mirror_permutation, :]


def mirror_scale_tril(
    scale_tril: Float[Tensor, "*batch joints 3 3"], skeleton: Skeleton
) -> Float[Tensor, "*batch joints 3 3"]:
    """Triangular factors of the mirrored pose's covariances: left and right change places.

    With D = diag(−1, 1, 1), D·L·D is the factor of D·L·Lᵀ·D: triangular, its diagonal unchanged.

    Raises:
        ValueError: If the number of joints is not the skeleton's.
    """
    signs = scale_tril.new_tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    swapped = mirror_scale(scale_tril.flatten(-2), skeleton).unflatten(-1, (3, 3))
    return swapped * signs


def _check_units(crop_size_px: int, depth_range_mm: float | int) -> None:
    if crop_size_px <= 0:
        raise ValueError(f"crop_size_px must be > 0, got {crop_size_px}")
    if not depth_range_mm > 0:
        raise ValueError(f"depth_range_mm must be > 0 mm, got {depth_range_mm}")


def _rays_and_depth(
    uvd: Tensor,
    camera: Camera,
    crop_from_image: Tensor,
    crop_size_px: int,
    root_depth_mm: Tensor,
    depth_range_mm: float | int,
) -> tuple[Tensor, Tensor]:
    """Rays [batch joints 2] and depths [batch joints 1] in millimetres, float64."""
    _check_units(crop_size_px, depth_range_mm)
    if root_depth_mm.device.type == "cpu":
        require_positive_depth(root_depth_mm, name="root_depth_mm")
    wide = uvd.double()
    crop_px = (wide[..., :2] + 0.5) * crop_size_px
    image_px = transform_points(invert_map(crop_from_image.double()), crop_px)
    rays = camera.to(dtype=torch.float64).image_to_rays(image_px)
    depth = wide[..., 2:] * depth_range_mm + root_depth_mm.double()[..., None, None]
    return rays, depth


def _factor_mm(
    mean_uvd: Tensor,
    scale_uvd: Tensor,
    camera: Camera,
    crop_from_image: Tensor,
    crop_size_px: int,
    root_depth_mm: Tensor,
    depth_range_mm: float | int,
) -> Tensor:
    """J·L [batch joints 3 3]: derivative of the decoding times the factor of the scale, float64."""
    rays, depth = _rays_and_depth(
        mean_uvd, camera, crop_from_image, crop_size_px, root_depth_mm, depth_range_mm
    )
    plane_from_unit = (
        _ray_from_unit(rays, camera, crop_from_image, crop_size_px) * depth[..., None]
    )  # [b j 2 2]
    is_diagonal = scale_uvd.ndim == mean_uvd.ndim
    factor = torch.diag_embed(scale_uvd.double()) if is_diagonal else scale_uvd.double()
    planar = plane_from_unit @ factor[..., :2, :] + (
        rays[..., :, None] * depth_range_mm * factor[..., 2:, :]
    )
    return torch.cat([planar, depth_range_mm * factor[..., 2:, :]], dim=-2)


def _ray_from_unit(
    rays: Tensor, camera: Camera, crop_from_image: Tensor, crop_size_px: int
) -> Tensor:
    """Derivative of the ray by (u, v), [batch joints 2 2]."""
    image_from_ray = camera.to(dtype=torch.float64).image_from_ray_jacobian(rays)
    crop_from_image_linear = crop_from_image.double()[..., None, :2, :2]
    unit_from_ray = (crop_from_image_linear[..., :, :, None] * image_from_ray[..., None, :, :]).sum(
        -2
    ) / crop_size_px
    return _inverse_2x2(unit_from_ray)


def _inverse_2x2(matrix: Tensor) -> Tensor:
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    rows = [torch.stack([d, -b], dim=-1), torch.stack([-c, a], dim=-1)]
    return torch.stack(rows, dim=-2) / (a * d - b * c)[..., None, None]
