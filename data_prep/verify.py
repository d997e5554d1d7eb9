"""Look through a store for records that cannot be right."""

import numpy as np
import torch
from jaxtyping import Int64

from pose3d.data.store import Store
from pose3d.geometry.crop import transform_points

MAX_BONE_MM = 800.0
"""No bone of the joint sets is longer; a tall man's thigh, the longest, has about 550 mm."""


def check_records(store: Store, *, decode: bool = True) -> list[str]:
    """Look for records that cannot be right.

    Checked: finite joints, maps and boxes; positive depths; at least half of the weighted joints
    in the stored crop; projection and back-projection agreeing to 0.01 mm; the crop showing
    `margin` times the box; no bone longer than `MAX_BONE_MM`; each JPEG decoding.

    Args:
        store: An open store.
        decode: Also decode every image.

    Returns:
        One line per problem, each naming its record; empty if all is well.
    """
    problems: list[str] = []
    for start in range(0, len(store), 4096):
        rows = np.arange(start, min(start + 4096, len(store)))
        problems += _check_rows(store, rows)
    if decode:
        for index in range(len(store)):
            try:
                store.image(index)
            except ValueError as error:
                problems.append(str(error))
    return problems


def _check_rows(store: Store, rows: Int64[np.ndarray, " n"]) -> list[str]:
    """The checks of `check_records` that need labels only."""
    records = store.records
    joints = records.joints_camera_mm[rows].astype(np.float64)
    finite = np.isfinite(joints).all((1, 2)) & np.isfinite(records.weight[rows]).all((1, 2))
    finite &= np.isfinite(records.box_image_px[rows]).all(1)
    finite &= np.isfinite(records.store_from_image[rows]).all((1, 2))
    positive = (np.nan_to_num(joints[..., 2]) > 0).all(1)
    problems = [f"{store.record_name(i)}: a label is not finite" for i in rows[~finite]]
    problems += [f"{store.record_name(i)}: a depth is not positive" for i in rows[~positive]]
    rows, joints = rows[finite & positive], joints[finite & positive]
    if not len(rows):
        return problems
    weighted = np.all(records.weight[rows][..., :2] > 0, axis=-1)
    camera = store.cameras[torch.from_numpy(records.camera_index[rows])]
    image_px = camera.camera_to_image(torch.from_numpy(joints))
    again = camera.image_to_camera(image_px, torch.from_numpy(joints[..., 2])).numpy()
    error_mm = np.abs(again - joints).max((1, 2))
    maps = records.store_from_image[rows]
    crop_px = transform_points(torch.from_numpy(maps), image_px).numpy()
    size = store.header.crop_size_px
    inside = ((crop_px >= -0.5) & (crop_px < size - 0.5)).all(-1)
    share = (inside & weighted).sum(1) / np.maximum(weighted.sum(1), 1)
    shown_px = size / np.sqrt(np.abs(np.linalg.det(maps[:, :2, :2])))
    expected_px = records.box_image_px[rows, 2] * store.header.margin
    bones = np.array(store.skeleton.bones)
    length_mm = np.linalg.norm(joints[:, bones[:, 0]] - joints[:, bones[:, 1]], axis=-1)
    length_mm *= np.all(weighted[:, bones], axis=-1)
    for i, row in enumerate(rows):
        name = store.record_name(row)
        if error_mm[i] > 0.01:
            problems.append(f"{name}: projecting and back misses by {error_mm[i]:.3g} mm")
        if share[i] < 0.5:
            problems.append(f"{name}: only {share[i]:.0%} of the joints fall into the crop")
        if abs(shown_px[i] / expected_px[i] - 1) > 0.01:
            problems.append(
                f"{name}: the crop shows {shown_px[i]:.0f} px, expected {expected_px[i]:.0f} px"
            )
        for bone in np.flatnonzero(length_mm[i] > MAX_BONE_MM):
            ends = " to ".join(store.skeleton.joint_names[j] for j in bones[bone])
            problems.append(f"{name}: {ends} is {length_mm[i, bone]:.0f} mm long")
    return problems
