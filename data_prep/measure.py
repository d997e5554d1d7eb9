"""What is measured of a store once: geometry of its labels, bones, and what there is of whom."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from data_prep.bones import BoneTally, bone_lengths_mm
from data_prep.inventory import Holding, holding_of, is_like_human36m
from pose3d.data.store import Store, read_plan
from pose3d.geometry.crop import crop_from_image, invert_map, transform_points

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """What projecting the labels of some records gives; rows that could not be projected are NaN.

    Attributes:
        round_trip_mm: Largest error of projecting and lifting back, millimetres.
        corner_px: How far the map misses where box and margin put the crop's corners, pixels.
        sound: Whether the joints are finite and before the camera.
        weighted: Joints whose weight for u and v is not 0.
        has_depth: Joints whose weights are all above 0.
        in_crop: Joints that fall into the stored crop.
        in_square: Joints that fall into the nominal person square.
        bone_mm: Length of each bone, millimetres; NaN where the depth of an end is not known.
    """

    round_trip_mm: Float[np.ndarray, " n"]
    corner_px: Float[np.ndarray, " n"]
    sound: Bool[np.ndarray, " n"]
    weighted: Bool[np.ndarray, "n joints"]
    has_depth: Bool[np.ndarray, "n joints"]
    in_crop: Bool[np.ndarray, "n joints"]
    in_square: Bool[np.ndarray, "n joints"]
    bone_mm: Float[np.ndarray, "n bones"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """What checks and tables of a store are made of.

    Attributes:
        geometry: Of all records.
        bones: Bones and sides of each subject.
        holdings: What there is of which sequence and camera.
        is_human36m: Whether the store was made from Human3.6M, or from what looks like it.
    """

    geometry: Geometry
    bones: dict[int, BoneTally]
    holdings: list[Holding]
    is_human36m: bool


def measure(store: Store) -> Measurements:
    """Go through the labels of all records."""
    geometry, holdings = project_records(store), holdings_of(store)
    is_human36m = bool(read_plan(store.path).get("human36m")) and is_like_human36m(holdings)
    return Measurements(
        geometry=geometry,
        bones=bones_by_subject(store, geometry),
        holdings=holdings,
        is_human36m=is_human36m,
    )


def project_records(store: Store) -> Geometry:
    """Project the labels of all records into their crops."""
    parts = [
        _project(store, np.arange(start, min(start + ROWS_AT_ONCE, len(store))))
        for start in range(0, len(store), ROWS_AT_ONCE)
    ]
    return Geometry(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Geometry)}
    )


def _project(store: Store, rows: Int64[np.ndarray, " n"]) -> Geometry:
    """Project the labels of these rows."""
    records, size = store.records, store.header.crop_size_px
    joints = records.joints_camera_mm[rows].astype(np.float64)
    sound = np.isfinite(joints).all((1, 2)) & (np.nan_to_num(joints[..., 2]) > 0).all(1)
    crop_px = np.full((*joints.shape[:2], 2), np.nan)
    round_trip_mm = np.full(len(rows), np.nan)
    if sound.any():
        camera = store.cameras[torch.from_numpy(records.camera_index[rows[sound]])]
        depth_mm = torch.from_numpy(joints[sound, :, 2])
        image_px = camera.camera_to_image(torch.from_numpy(joints[sound]))
        again_mm = camera.image_to_camera(image_px, depth_mm).numpy()
        maps = torch.from_numpy(records.store_from_image[rows[sound]])
        crop_px[sound] = transform_points(maps, image_px).numpy()
        round_trip_mm[sound] = np.abs(again_mm - joints[sound]).max((1, 2))
    weight = records.weight[rows]
    has_depth = np.all(weight > 0, axis=-1)
    counted = has_depth & sound[:, None]
    half_square_px = size / store.header.margin / 2
    return Geometry(
        round_trip_mm=round_trip_mm,
        corner_px=_corner_errors(store, rows),
        sound=sound,
        weighted=np.all(weight[..., :2] > 0, axis=-1),
        has_depth=has_depth,
        in_crop=np.all((crop_px >= -0.5) & (crop_px < size - 0.5), axis=-1),
        in_square=np.all(np.abs(crop_px - (size - 1) / 2) <= half_square_px, axis=-1),
        bone_mm=bone_lengths_mm(joints, counted, store.skeleton),
    )


def _corner_errors(store: Store, rows: Int64[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """How far store_from_image misses the crop's corners, pixels; NaN for unusable boxes, maps."""
    records, size = store.records, store.header.crop_size_px
    boxes, maps = records.box_image_px[rows], records.store_from_image[rows]
    usable = np.isfinite(boxes).all(1) & (boxes[:, 2] > 0) & np.isfinite(maps).all((1, 2))
    errors = np.full(len(rows), np.nan)
    if usable.any():
        squares = torch.from_numpy(boxes[usable] * [1, 1, store.header.margin])
        image_from_crop = invert_map(crop_from_image(squares, crop_size_px=size))
        ends = (-0.5, size - 0.5)
        corners = torch.tensor([[x, y] for x in ends for y in ends], dtype=torch.float64)
        corners = corners.expand(len(squares), 4, 2)
        image_px = transform_points(image_from_crop, corners)
        mapped = transform_points(torch.from_numpy(maps[usable]), image_px)
        errors[usable] = (mapped - corners).abs().amax(dim=(1, 2)).numpy()
    return errors


def bones_by_subject(store: Store, geometry: Geometry) -> dict[int, BoneTally]:
    """Bones and sides of each subject, from joints whose depth is known."""
    records, tallies = store.records, {}
    for subject in np.unique(records.subject).tolist():
        rows = np.flatnonzero((records.subject == subject) & geometry.sound)
        tallies[subject] = BoneTally(skeleton=store.skeleton)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            joints = records.joints_camera_mm[part].astype(np.float64)
            tallies[subject].add(joints, geometry.has_depth[part])
    return tallies


def holdings_of(store: Store) -> list[Holding]:
    """What the store holds of which sequence and camera."""
    records = store.records
    action_names, action = np.unique(records.action, return_inverse=True)
    camera_names, camera = np.unique(records.camera_name, return_inverse=True)
    key = np.stack([records.subject, action.reshape(-1), records.subaction, camera.reshape(-1)], 1)
    groups, group = np.unique(key, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    frames = np.split(records.frame[order], np.cumsum(np.bincount(group.reshape(-1)))[:-1])
    return [
        holding_of(
            (int(subject), str(action_names[act]), int(subaction)), str(camera_names[cam]), frame
        )
        for (subject, act, subaction, cam), frame in zip(groups, frames, strict=True)
    ]
