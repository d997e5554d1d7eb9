"""A pinhole camera with Human3.6M's lens distortion: world <-> camera <-> image.

The camera frame is x right, y down, z forward, in millimetres; pixel centres lie at integers.

Human3.6M distorts a ray (x, y) at z = 1 as follows, with r² = x² + y²::

    xy' = xy · (1 + k1 r² + k2 r⁴ + k3 r⁶ + p1 y + p2 x) + (p2, p1) · r²

OpenCV has twice the cross term, 2 (p1 y + p2 x): with Human3.6M's parameters the two differ by up
to 0.7 px within 500 px of the principal point and 1.5 px in the corners, so ``cv2.projectPoints``
must not be used on this data set.

Rotations are written out as sums of columns: reduced-precision matrix units (TF32, bf16 autocast)
would cost millimetres.

Example:
    >>> camera = human36m_intrinsics("54138969")
    >>> joints_camera_mm = torch.tensor([[0.0, 0.0, 5000.0]], dtype=torch.float64)
    >>> camera.camera_to_image(joints_camera_mm)  # the principal point
    tensor([[512.5415, 515.4515]], dtype=torch.float64)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NUM_NEWTON_STEPS = 12
"""Steps to undo the distortion; Human3.6M's lenses need four to reach float64 at the corner."""
FURTHEST_RAY = 4.0
"""Bound on |x|/z and |y|/z where the search starts, 76 degrees off axis."""
LONGEST_STEP = 0.5
"""Bound on one Newton step in units of x/z, so that a point beyond the fold stays finite."""
SMALLEST_DETERMINANT = 1e-3
"""Bound on the Jacobian near the fold of a strong lens, where it vanishes; 1 without distortion."""

Array = Sequence[Any] | np.ndarray | Tensor


def require_positive_depth(depth_mm: Tensor, *, name: str) -> None:
    """Refuse depths at or behind the camera.

    Raises:
        ValueError: If a depth is not finite and positive.
    """
    valid = torch.isfinite(depth_mm) & (depth_mm > 0)
    if not bool(valid.all()):
        raise ValueError(
            f"{name} must be finite and > 0 mm, got {depth_mm[~valid][0].item()} mm "
            f"in {int((~valid).sum())} of {valid.numel()} places"
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Camera:
    """One camera or a batch of cameras.

    The methods take joints whose leading axes equal the camera's, or broadcast against them, and
    answer in the wider of the two dtypes.

    Raises:
        ValueError: By ``from_parameters``, if a shape or value is wrong; when projecting or
            lifting, if a depth is not finite and positive; when indexing, if it is a single
            camera. The plain constructor checks nothing.

    Source:
        Human3.6M, Ionescu et al., PAMI 2014; its ``metadata.xml`` and release code for the
        distortion.
    """

    rotation: Float[Tensor, "*batch 3 3"]
    """Camera from world."""
    centre_world_mm: Float[Tensor, "*batch 3"]
    """Optical centre in the world, millimetres: X_camera = R (X_world - C)."""
    focal_px: Float[Tensor, "*batch 2"]
    """Focal lengths (fx, fy), pixels."""
    principal_point_px: Float[Tensor, "*batch 2"]
    """Principal point (cx, cy), pixels."""
    radial: Float[Tensor, "*batch 3"]
    """k1, k2, k3."""
    tangential: Float[Tensor, "*batch 2"]
    """p1, p2."""

    @classmethod
    def from_parameters(
        cls,
        rotation: Array | None = None,
        centre_world_mm: Array | None = None,
        *,
        focal_px: Array,
        principal_point_px: Array,
        radial: Array | None = None,
        tangential: Array | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> "Camera":
        """Build a camera from lists, arrays or tensors; what is left out is identity or zero.

        Args:
            rotation: Camera from world, (..., 3, 3).
            centre_world_mm: Optical centre in the world, millimetres, (..., 3).
            focal_px: fx, fy, pixels, (..., 2); its leading axes are the camera's.
            principal_point_px: cx, cy, pixels, (..., 2).
            radial: k1, k2, k3, (..., 3).
            tangential: p1, p2, (..., 2).
            dtype: Of the camera.

        Raises:
            ValueError: If a shape is wrong, a number is not finite, a focal length is not positive
                or ``rotation`` is not a rotation.
        """
        given = {
            "rotation": (rotation, (3, 3)),
            "centre_world_mm": (centre_world_mm, (3,)),
            "focal_px": (focal_px, (2,)),
            "principal_point_px": (principal_point_px, (2,)),
            "radial": (radial, (3,)),
            "tangential": (tangential, (2,)),
        }
        focal = torch.as_tensor(focal_px, dtype=dtype)
        batch_shape = focal.shape[:-1]
        tensors = {}
        for name, (value, shape) in given.items():
            default = torch.eye(3) if name == "rotation" else torch.zeros(shape)
            tensor = torch.as_tensor(default if value is None else value, dtype=dtype)
            if tuple(tensor.shape[-len(shape) :]) != shape or tensor.ndim < len(shape):
                raise ValueError(f"{name} must end in {shape}, got shape {tuple(tensor.shape)}")
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")
            try:
                tensors[name] = tensor.to(focal.device).expand(*batch_shape, *shape)
            except RuntimeError as error:
                raise ValueError(
                    f"{name} of shape {tuple(tensor.shape)} does not fit focal_px of shape "
                    f"{tuple(focal.shape)}"
                ) from error
        _check_intrinsics_and_rotation(tensors["focal_px"], tensors["rotation"])
        return cls(**tensors)

    @property
    def batch_shape(self) -> torch.Size:
        """Leading axes; empty for one camera."""
        return self.focal_px.shape[:-1]

    def __getitem__(self, index: Any) -> "Camera":
        """Index the leading axes of every field, as a tensor is indexed."""
        if not self.batch_shape:
            raise ValueError("a single camera cannot be indexed; only a batch of cameras can")
        return self._map(lambda value, _: value[index])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Camera":
        """The camera on another device or in another dtype."""
        return self._map(lambda value, _: value.to(device=device, dtype=dtype or value.dtype))

    def without_distortion(self) -> "Camera":
        """The same camera with a perfect lens."""
        distortion = ("radial", "tangential")
        return self._map(lambda value, name: value * 0 if name in distortion else value)

    def _map(self, function: Any) -> "Camera":
        return type(self)(**{f.name: function(getattr(self, f.name), f.name) for f in fields(self)})

    def world_to_camera(
        self, joints_world_mm: Float[Tensor, "*points 3"]
    ) -> Float[Tensor, "... 3"]:
        """Move joints (..., joints, 3) from the world into the camera frame, millimetres."""
        offset = joints_world_mm - self.centre_world_mm[..., None, :]
        return _rotate(self.rotation, offset)

    def camera_to_world(
        self, joints_camera_mm: Float[Tensor, "*points 3"]
    ) -> Float[Tensor, "... 3"]:
        """Move joints (..., joints, 3) from the camera frame into the world, millimetres."""
        turned = _rotate(self.rotation.transpose(-1, -2), joints_camera_mm)
        return turned + self.centre_world_mm[..., None, :]

    def camera_to_image(
        self, joints_camera_mm: Float[Tensor, "*points 3"]
    ) -> Float[Tensor, "... 2"]:
        """Project joints through the distorting lens.

        Args:
            joints_camera_mm: Joints (..., joints, 3) in the camera frame, millimetres, z > 0.

        Returns:
            Image points (..., joints, 2), pixels.

        Raises:
            ValueError: If a joint is not finitely in front of the camera.
        """
        require_positive_depth(joints_camera_mm[..., 2], name="depth of joints_camera_mm")
        return self.rays_to_image(joints_camera_mm[..., :2] / joints_camera_mm[..., 2:])

    def image_to_camera(
        self, image_px: Float[Tensor, "*points 2"], depth_mm: Float[Tensor, "*depths"]
    ) -> Float[Tensor, "... 3"]:
        """Lift image points of known depth into the camera frame.

        Args:
            image_px: Points (..., joints, 2) in the image, as the lens shows them, pixels.
            depth_mm: Camera z of each point (..., joints), millimetres, > 0.

        Returns:
            Joints (..., joints, 3) in the camera frame, millimetres. Where the lens maps no ray to
            the image point, far outside the picture, the answer is finite but means nothing.

        Raises:
            ValueError: If a depth is not finite and positive.
        """
        require_positive_depth(depth_mm, name="depth_mm")
        rays = self.image_to_rays(image_px)
        return torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1) * depth_mm[..., None]

    def rays_to_image(self, rays: Float[Tensor, "*points 2"]) -> Float[Tensor, "... 2"]:
        """Image points, pixels, of rays (..., joints, 2) given as x/z, y/z."""
        distorted, _ = self._distort(rays)
        return distorted * self.focal_px[..., None, :] + self.principal_point_px[..., None, :]

    def image_to_rays(self, image_px: Float[Tensor, "*points 2"]) -> Float[Tensor, "... 2"]:
        """Rays x/z, y/z of image points (..., joints, 2), pixels, with the distortion undone.

        A fixed number of bounded Newton steps; the last one carries the exact gradient.
        """
        principal_point, focal = self.principal_point_px[..., None, :], self.focal_px[..., None, :]
        distorted = (image_px - principal_point) / focal
        with torch.no_grad():
            best = distorted.clamp(-FURTHEST_RAY, FURTHEST_RAY)
            rays, least = best, torch.full_like(best[..., :1], math.inf)
            for _ in range(NUM_NEWTON_STEPS):
                step, error = self._newton_step(rays, distorted)
                best, least = torch.where(error < least, rays, best), torch.minimum(error, least)
                rays = rays - step
        return best - self._newton_step(best, distorted)[0]

    def image_from_ray_jacobian(self, rays: Float[Tensor, "*points 2"]) -> Float[Tensor, "... 2 2"]:
        """Derivative of ``rays_to_image``, pixels per unit of x/z, y/z."""
        return self._distort(rays)[1] * self.focal_px[..., None, :, None]

    def _distort(self, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Distorted rays and the 2x2 Jacobian of the distortion."""
        x, y = rays[..., 0], rays[..., 1]
        k1, k2, k3 = self.radial[..., None, :].unbind(-1)
        p1, p2 = self.tangential[..., None, :].unbind(-1)
        square = x * x + y * y
        gain = 1 + square * (k1 + square * (k2 + square * k3)) + p1 * y + p2 * x
        slope = 2 * (k1 + square * (2 * k2 + square * 3 * k3))  # d gain / dx = slope x + p2
        slope_x, slope_y = slope * x + p2, slope * y + p1
        distorted = torch.stack([x * gain + p2 * square, y * gain + p1 * square], dim=-1)
        row_x = torch.stack([gain + x * slope_x + 2 * p2 * x, x * slope_y + 2 * p2 * y], dim=-1)
        row_y = torch.stack([y * slope_x + 2 * p1 * x, gain + y * slope_y + 2 * p1 * y], dim=-1)
        return distorted, torch.stack([row_x, row_y], dim=-2)

    def _newton_step(self, rays: Tensor, distorted: Tensor) -> tuple[Tensor, Tensor]:
        """The step to take off ``rays`` and the present error, its larger component."""
        reached, jacobian = self._distort(rays)
        error = reached - distorted
        (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(-2))
        determinant = a * d - b * c
        bounded = determinant.abs().clamp(min=SMALLEST_DETERMINANT)
        determinant = torch.where(determinant < 0, -bounded, bounded)
        error_x, error_y = error.unbind(-1)
        step = torch.stack([d * error_x - b * error_y, a * error_y - c * error_x], dim=-1)
        step = step / determinant[..., None]
        length = step.abs().amax(-1, keepdim=True)
        step = step * (LONGEST_STEP / length.clamp(min=LONGEST_STEP))
        return step, error.abs().amax(-1, keepdim=True)


def _rotate(rotation: Tensor, joints: Tensor) -> Tensor:
    """Turn joints (..., joints, 3) by rotations (..., 3, 3) in full precision."""
    column_x, column_y, column_z = rotation[..., None, :, :].unbind(-1)
    return column_x * joints[..., 0:1] + column_y * joints[..., 1:2] + column_z * joints[..., 2:3]


def _check_intrinsics_and_rotation(focal_px: Tensor, rotation: Tensor) -> None:
    if not bool((focal_px > 0).all()):
        raise ValueError(f"focal_px must be > 0 px, got {focal_px.min().item()} px")
    rotation = rotation.double()
    error = (rotation @ rotation.transpose(-1, -2) - torch.eye(3).to(rotation)).abs()
    if bool((error > 1e-3).any()) or bool((torch.linalg.det(rotation) < 0).any()):
        raise ValueError(
            "rotation must be orthonormal with determinant +1 (camera from world), "
            f"got R Rᵀ off the identity by {error.max().item():.3g}, "
            f"smallest determinant {torch.linalg.det(rotation).min().item():.3g}"
        )


def rotation_from_angles(
    rx: float | int | Tensor, ry: float | int | Tensor, rz: float | int | Tensor
) -> Float[Tensor, "*batch 3 3"]:
    """Human3.6M's rotation, camera from world, from its three angles in radians.

    R = Rx(rx) Ry(ry) Rz(rz): intrinsic rotations about x, y, z. In float64.

    Source:
        The order in which Human3.6M's ``metadata.xml`` stores its extrinsics.
    """
    about_x, about_y, about_z = (
        _rotation_about(axis, torch.as_tensor(angle, dtype=torch.float64))
        for axis, angle in enumerate((rx, ry, rz))
    )
    return about_x @ about_y @ about_z


def _rotation_about(axis: int, angle_rad: Tensor) -> Tensor:
    rotation = torch.eye(3, dtype=angle_rad.dtype, device=angle_rad.device)
    rotation = rotation.repeat(*angle_rad.shape, 1, 1)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation[..., i, i] = rotation[..., j, j] = torch.cos(angle_rad)
    rotation[..., j, i] = torch.sin(angle_rad)
    rotation[..., i, j] = -torch.sin(angle_rad)
    return rotation


HUMAN36M_CAMERA_NAMES = ("54138969", "55011271", "58860488", "60457274")
"""Human3.6M's four cameras, in the order of its camera numbers 1 to 4."""

# focal length (x, y), principal point (x, y), radial k1, k2, k3, tangential p1, p2
_HUMAN36M_INTRINSICS = {
    "54138969": (
        (1145.04940459, 1143.78109572),
        (512.54150496, 515.45148698),
        (-0.20709891, 0.24777518, -0.00307515),
        (-0.00142447, -0.0009757),
    ),
    "55011271": (
        (1149.67569987, 1147.59161667),
        (508.84862165, 508.06491709),
        (-0.19421363, 0.24040854, 0.00681998),
        (-0.00274089, -0.00161903),
    ),
    "58860488": (
        (1149.14071676, 1148.79896857),
        (519.81583718, 501.40265888),
        (-0.20833819, 0.25548801, -0.0024605),
        (-0.00076, 0.00148439),
    ),
    "60457274": (
        (1145.51133842, 1144.77392808),
        (514.96819732, 501.88201854),
        (-0.19838409, 0.21832368, -0.00894781),
        (-0.00181336, -0.00058721),
    ),
}


def human36m_intrinsics(name: str) -> Camera:
    """One of Human3.6M's four cameras, standing at the world's origin; float64.

    Args:
        name: One of ``HUMAN36M_CAMERA_NAMES``.

    Raises:
        ValueError: If there is no such camera.

    Source:
        ``metadata.xml`` of Human3.6M's release code, Ionescu et al., PAMI 2014.
    """
    if name not in _HUMAN36M_INTRINSICS:
        known = ", ".join(HUMAN36M_CAMERA_NAMES)
        raise ValueError(f"unknown Human3.6M camera {name!r}; known: {known}")
    focal_px, principal_point_px, radial, tangential = _HUMAN36M_INTRINSICS[name]
    return Camera.from_parameters(
        focal_px=focal_px,
        principal_point_px=principal_point_px,
        radial=radial,
        tangential=tangential,
    )
