"""Square crops of a picture, as 3x3 affine maps named ``to_from``.

Pixel centres lie at integer coordinates, as in OpenCV and Human3.6M: a crop of W pixels spans
[-1/2, W - 1/2], so the centre of the box lands on (W - 1)/2 and the mirror is x' = W - 1 - x.

All products are written out element by element: reduced-precision matrix units (TF32, bf16
autocast) would cost up to a pixel.

Example:
    >>> import torch
    >>> box = square_box(torch.tensor([100.0, 50.0, 80.0, 160.0]), enlarge=1.25)
    >>> box.tolist()  # centre x, centre y, side
    [140.0, 130.0, 200.0]
    >>> crop_from_image_map = crop_from_image(box, crop_size_px=100)
    >>> transform_points(crop_from_image_map, torch.tensor([[140.0, 130.0]])).tolist()
    [[49.5, 49.5]]
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def square_box(
    box_xywh_px: Float[Tensor, "*batch 4"], *, enlarge: float | int = 1.25
) -> Float[Tensor, "*batch 3"]:
    """Grow a box to a square about its centre.

    Args:
        box_xywh_px: Left, top, width, height in the image, pixels.
        enlarge: Factor on the longer side; 1.25 is the custom of the RLE and PoseNet codes.

    Returns:
        Centre x, centre y and side of the square, pixels.

    Raises:
        ValueError: If a box is not finite or has no area, or ``enlarge`` is not positive.
    """
    if not enlarge > 0:
        raise ValueError(f"enlarge must be > 0, got {enlarge}")
    size_px = box_xywh_px[..., 2:]
    valid = torch.isfinite(box_xywh_px).all(-1) & (size_px > 0).all(-1)
    if not bool(valid.all()):
        worst = box_xywh_px[~valid].reshape(-1, 4)[0].tolist()
        raise ValueError(f"box_xywh_px must be finite with width and height > 0 px, got {worst}")
    centre_px = box_xywh_px[..., :2] + size_px / 2
    return torch.cat([centre_px, size_px.amax(-1, keepdim=True) * enlarge], dim=-1)


def box_from_joints(
    joints_image_px: Float[Tensor, "*batch joints 2"], *, enlarge: float | int
) -> Float[Tensor, "*batch 4"]:
    """The tight box around joints, grown about its centre.

    Args:
        joints_image_px: Joints in the image, pixels.
        enlarge: Factor on both sides; PoseNet's annotations use 1.2.

    Returns:
        Left, top, width, height, pixels.

    Raises:
        ValueError: If a joint is not finite or ``enlarge`` is not positive.
    """
    if not enlarge > 0:
        raise ValueError(f"enlarge must be > 0, got {enlarge}")
    if not bool(torch.isfinite(joints_image_px).all()):
        raise ValueError("joints_image_px must be finite, got NaN or infinity")
    low, high = joints_image_px.amin(-2), joints_image_px.amax(-2)
    size_px = (high - low) * enlarge
    return torch.cat([(low + high) / 2 - size_px / 2, size_px], dim=-1)


def crop_from_image(
    square_box_px: Float[Tensor, "*batch 3"],
    *,
    crop_size_px: int,
    rotation_rad: Float[Tensor, "*batch"] | None = None,
    scale: Float[Tensor, "*batch"] | None = None,
    mirror: Bool[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch 3 3"]:
    """The map from image pixels to the pixels of a square crop.

    Args:
        square_box_px: Centre x, centre y, side of the square in the image, pixels.
        crop_size_px: Side W of the crop, pixels.
        rotation_rad: Turn of the content about the box centre, radians; positive turns x towards
            y, which is clockwise on the screen.
        scale: Factor on the side of the box: above 1 a larger region is shown.
        mirror: Where true, the finished crop is mirrored: x' = W - 1 - x.

    Returns:
        Homogeneous affine maps, in the dtype of the box.

    Raises:
        ValueError: If ``crop_size_px`` is not positive.
    """
    if crop_size_px <= 0:
        raise ValueError(f"crop_size_px must be > 0, got {crop_size_px}")
    centre_x, centre_y, side = square_box_px.unbind(-1)
    zoom = crop_size_px / (side if scale is None else side * scale)
    angle = torch.zeros_like(side) if rotation_rad is None else rotation_rad
    sign = torch.ones_like(side) if mirror is None else 1 - 2 * mirror.to(side.dtype)
    cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
    middle = (crop_size_px - 1) / 2
    zero, one = torch.zeros_like(side), torch.ones_like(side)
    rows = [
        sign * cosine,
        -sign * sine,
        middle - sign * (cosine * centre_x - sine * centre_y),
        sine,
        cosine,
        middle - (sine * centre_x + cosine * centre_y),
        zero,
        zero,
        one,
    ]
    return torch.stack(rows, dim=-1).to(square_box_px.dtype).unflatten(-1, (3, 3))


def transform_points(
    to_from: Float[Tensor, "*#batch 3 3"], points: Float[Tensor, "*#batch n 2"]
) -> Float[Tensor, "... n 2"]:
    """Apply affine maps to points, pixels to pixels; leading axes broadcast."""
    linear = to_from[..., None, :2, :]  # [batch 1 2 3]
    return linear[..., 0] * points[..., 0:1] + linear[..., 1] * points[..., 1:2] + linear[..., 2]


def invert_map(to_from: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The map back, ``from_to``; in closed form, so that a device need not wait for a check."""
    a, b, shift_x = to_from[..., 0, :].unbind(-1)
    c, d, shift_y = to_from[..., 1, :].unbind(-1)
    determinant = a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    rows = [
        a,
        b,
        -(a * shift_x + b * shift_y),
        c,
        d,
        -(c * shift_x + d * shift_y),
        zero,
        zero,
        one,
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def compose(
    c_from_b: Float[Tensor, "*#batch 3 3"], b_from_a: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "... 3 3"]:
    """The map ``c_from_a``: first ``b_from_a``, then ``c_from_b``."""
    return (c_from_b[..., :, :, None] * b_from_a[..., None, :, :]).sum(-2)
