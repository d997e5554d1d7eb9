"""Person boxes by their definitions, and the nominal squares made of them."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from data_prep.takes import Take
from pose3d.geometry.crop import box_from_joints, square_box
from pose3d.geometry.skeleton import Skeleton

BOXES = ("annotation", "joints", "posenet", "metric", "mask")
JOINT_BOX_ENLARGE = 1.2
POSENET_ENLARGE = 1.25
MASK_ENLARGE = 1.5
METRIC_BOX_MM = 2000.0


def box_definition(kind: str, *, enlarge: float) -> str:
    """The definition of the nominal person square, in words.

    "annotation": the layout's own box; "joints": tight box of the joints × 1.2; "posenet": that box
    clipped to the image, × 1.25; "metric": 2000 mm at the root's depth; "mask": box of the person's
    mask, its square × 1.5.

    Raises:
        ValueError: If the kind is not one of `BOXES`.
    """
    joints = f"tight box of the projected joints × {JOINT_BOX_ENLARGE:g}"
    others = f"(of records with implausible joints: {joints} of the others)"
    known = {
        "annotation": f"annotated box {others}",
        "joints": joints,
        "posenet": f"{joints}, clipped to the image, × {POSENET_ENLARGE:g}",
        "metric": f"{METRIC_BOX_MM:.0f} mm at the root's depth around the projected root",
        "mask": f"box of the person's mask, squared × {MASK_ENLARGE:g} {others}",
    }
    if kind not in known:
        raise ValueError(f"box must be one of {', '.join(BOXES)}, got {kind!r}")
    return f"{known[kind]}; square of its longer side × {enlarge:g}, same centre, not clipped"


def person_squares(
    take: Take,
    image_px: Float[np.ndarray, "n joints 2"],
    usable: Bool[np.ndarray, "n joints"],
    sound: Bool[np.ndarray, " n"],
    skeleton: Skeleton,
    *,
    box: str,
    enlarge: float,
    plausible: Bool[np.ndarray, "n joints"],
) -> tuple[Float[np.ndarray, "n 3"], dict[int, str]]:
    """The nominal person square of every sound frame, and why a frame has none.

    Args:
        take: The take.
        image_px: Its joints in the full image, pixels.
        usable: Joints that are labelled and plausible.
        sound: Frames that can be projected.
        skeleton: The take's joint set.
        box: One of `BOXES`; a frame with an implausible joint gets the box of its other joints.
        enlarge: Factor on the side of the square.
        plausible: Joints that no bone speaks against.

    Returns:
        Centre x, centre y, side, pixels, NaN where there is none; and reasons by position.
    """
    squares = np.full((len(take), 3), np.nan)
    faults = {}
    as_asked = plausible.all(1) | (box == "metric")
    for kind, chosen in ((box, sound & as_asked), ("joints", sound & ~as_asked)):
        rows = np.flatnonzero(chosen)
        if not len(rows):
            continue
        xywh = _boxes(take, rows, image_px[rows], usable[rows], skeleton, kind=kind)
        has_area = np.isfinite(xywh).all(1) & (xywh[:, 2:] > 0).all(1)
        good = rows[has_area]
        squares[good] = square_box(torch.from_numpy(xywh[has_area]), enlarge=enlarge).numpy()
        for row, found in zip(rows[~has_area].tolist(), xywh[~has_area], strict=True):
            if np.isfinite(found).all():
                faults[row] = f"its {kind} box {found.round(1).tolist()} px has no area"
            elif kind in ("annotation", "mask"):
                faults[row] = f"has no {kind} box; choose --box joints, posenet or metric"
            elif kind == "metric":
                faults[row] = "the root's depth is not labelled; choose --box joints or posenet"
            else:
                faults[row] = "no joint is left to make a box of"
    return squares, faults


def _boxes(
    take: Take,
    rows: Int[np.ndarray, " k"],
    image_px: Float[np.ndarray, "k joints 2"],
    usable: Bool[np.ndarray, "k joints"],
    skeleton: Skeleton,
    *,
    kind: str,
) -> Float[np.ndarray, "k 4"]:
    """Person boxes by their definition: left, top, width, height, pixels; NaN where there is none.

    Args:
        take: The take.
        rows: Its frames in question, whose projection and usable joints follow.
        image_px: Pixels.
        usable: Joints that count.
        skeleton: Their joint set.
        kind: One of `BOXES`.
    """
    if kind == "metric":
        depth_mm = take.joints_camera_mm[rows, skeleton.root, 2]
        focal_px = take.camera.focal_px.numpy()
        focal_px = focal_px[rows] if focal_px.ndim == 2 else focal_px
        size = METRIC_BOX_MM * focal_px / depth_mm[:, None]
        if take.weight is not None:
            size = np.where(take.weight[rows, skeleton.root, 2:] > 0, size, np.nan)
        return np.concatenate([image_px[:, skeleton.root] - size / 2, size], axis=1)
    if kind in ("annotation", "mask"):
        if take.box_xywh_px is None:
            return np.full((len(rows), 4), np.nan)
        xywh = take.box_xywh_px[rows].astype(np.float64)
        if kind == "annotation":
            return xywh
        growth = (MASK_ENLARGE - 1) / 2 * xywh[:, 2:].max(1, keepdims=True)  # of its square
        return np.concatenate([xywh[:, :2] - growth, xywh[:, 2:] + 2 * growth], axis=1)
    xywh = np.full((len(rows), 4), np.nan)
    some = usable.any(1)
    first = image_px[np.arange(len(rows)), usable.argmax(1)][:, None]
    counted = torch.from_numpy(np.where(usable[..., None], image_px, first)[some])
    xywh[some] = box_from_joints(counted, enlarge=JOINT_BOX_ENLARGE).numpy()
    if kind == "posenet":
        low = np.maximum(xywh[:, :2], 0)
        high = np.minimum(xywh[:, :2] + xywh[:, 2:], take.image_size_px[rows] - 1)
        centre, size = low + (high - low) / 2, POSENET_ENLARGE * (high - low)
        return np.concatenate([centre - size / 2, size], axis=1)
    return xywh
