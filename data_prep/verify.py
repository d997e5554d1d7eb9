"""Look for what cannot be right in a store: records, bones, sides, cameras, counts."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from rich.console import Console

from data_prep.bones import bone_names, subject_problems
from data_prep.conventions import meant_convention
from data_prep.human36m import PROTOCOLS
from data_prep.inventory import Comparison, against_release
from data_prep.measure import Geometry, Measurements, measure
from data_prep.people import MAX_BONE_MM
from data_prep.progress import progress_bar
from pose3d.data.store import Store, read_plan

ROUND_TRIP_LIMIT_MM = 0.01
CORNER_LIMIT_PX = 0.1
MIN_BONE_MM = 20.0
MAX_DEVIATION = 0.6
MIN_DEVIATION_MM = 100.0
MAX_PEOPLE_OF_CAMERA = 2000
IMAGES_AT_ONCE = 64


def check_records(
    store: Store,
    *,
    decode: bool = True,
    measured: Measurements | None = None,
    num_jobs: int = 1,
    console: Console | None = None,
) -> list[str]:
    """Look for records that cannot be right.

    Checked: finite joints, maps, boxes and weights; positive depths; a joint of weight above 0; at
    least half of such joints in the stored crop; projection and back-projection agreeing to
    0.01 mm; the crop showing `margin` times the box, its corners right to 0.1 px; bones of known
    depth of 20 to 800 mm, none off its subject's median by more than 60 % and 100 mm, left and
    right medians of a subject within 25 % (where five records have both), knees that bend forwards
    and hips that run as shoulders do (left and right not swapped), people in their cameras' images;
    unique names; each JPEG decoding.

    Args:
        store: An open store.
        decode: Also decode every image.
        measured: What `measure` gives, if it is there already.
        num_jobs: Threads that decode.
        console: Where a progress bar of the decoding goes; nowhere if None.

    Returns:
        One line per problem, each naming its record, subject or camera; empty if all is well.
    """
    measured = measured or measure(store)
    problems = _repeated(store)
    problems += _label_problems(store, measured.geometry)
    problems += _bone_problems(store, measured)
    problems += _camera_problems(store, measured.geometry)
    if decode:
        problems += _image_problems(store, num_jobs=num_jobs, console=console)
    return problems


def _repeated(store: Store) -> list[str]:
    """Records of one name."""
    records = store.records
    columns = [records.subject, records.subaction, records.frame]
    for texts in (records.action, records.camera_name):
        columns.append(np.unique(texts, return_inverse=True)[1].reshape(-1))
    _, first, counts = np.unique(
        np.stack(columns, 1), axis=0, return_index=True, return_counts=True
    )
    again = sorted(zip(first[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True))
    return [f"{store.record_name(row)}: occurs {count} times" for row, count in again]


def _label_problems(store: Store, geometry: Geometry) -> list[str]:
    """The problems of `check_records` that single labels show; the first of each record."""
    records, header = store.records, store.header
    joints, maps, boxes = records.joints_camera_mm, records.store_from_image, records.box_image_px
    finite = np.isfinite(joints).all((1, 2)) & np.isfinite(records.weight).all((1, 2))
    finite &= np.isfinite(boxes).all(1) & np.isfinite(maps).all((1, 2))
    depth_mm = joints[..., 2].min(1)
    num_weighted = geometry.weighted.sum(1)
    share = (geometry.in_crop & geometry.weighted).sum(1) / np.maximum(num_weighted, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shown_px = header.crop_size_px / np.sqrt(np.abs(np.linalg.det(maps[:, :2, :2])))
        expected_px = boxes[:, 2] * header.margin
        is_zoomed = np.abs(shown_px / expected_px - 1) > 0.01
    tests = {
        "a label is not finite": ~finite,
        "depth {depth:.0f} mm is not positive": ~(depth_mm > 0),
        "projecting and lifting back misses by {trip:.3g} mm": geometry.round_trip_mm
        > ROUND_TRIP_LIMIT_MM,
        "box of side {side:.0f} px has no area": ~(boxes[:, 2] > 0),
        "no joint has a weight above 0": num_weighted == 0,
        "only {share:.0%} of the joints fall into the crop": share < 0.5,
        "crop shows {shown:.0f} px, expected {expected:.0f} px": is_zoomed,
        "a corner of the crop is off by {corner:.2f} px of where box and margin put it": ~(
            geometry.corner_px <= CORNER_LIMIT_PX
        ),
    }
    messages = list(tests)
    failed = np.stack(list(tests.values()), axis=1)
    return [
        f"{store.record_name(row)}: "
        + messages[failed[row].argmax()].format(
            depth=depth_mm[row],
            trip=geometry.round_trip_mm[row],
            side=boxes[row, 2],
            share=share[row],
            shown=shown_px[row],
            expected=expected_px[row],
            corner=geometry.corner_px[row],
        )
        for row in np.flatnonzero(failed.any(1))
    ]


def _bone_problems(store: Store, measured: Measurements) -> list[str]:
    """Bones that are too short, too long, unlike the subject's others, or unlike the other side."""
    records, length_mm, tallies = store.records, measured.geometry.bone_mm, measured.bones
    long, short = length_mm > MAX_BONE_MM, length_mm < MIN_BONE_MM
    median_mm = np.stack([tally.lengths.quantile(0.5) for tally in tallies.values()])
    usual_mm = median_mm[np.searchsorted(list(tallies), records.subject)]
    off_mm = np.abs(length_mm - usual_mm)
    odd = (off_mm > MAX_DEVIATION * usual_mm) & (off_mm > MIN_DEVIATION_MM) & ~long & ~short
    names, problems = bone_names(store.skeleton), []
    for row in np.flatnonzero((long | short | odd).any(1)):
        name, length = store.record_name(row), length_mm[row]
        for bone in np.flatnonzero(long[row]):
            problems.append(f"{name}: {names[bone]} is {length[bone]:.0f} mm long")
        if short[row].any():
            bone, *others = np.flatnonzero(short[row])
            more = f" (and {len(others)} bones more)" if others else ""
            problems.append(
                f"{name}: {names[bone]} is only {length[bone]:.3g} mm long{more}; joints must be "
                "in millimetres"
            )
        for bone in np.flatnonzero(odd[row]):
            problems.append(
                f"{name}: {names[bone]} is {length[bone]:.0f} mm long, the subject's median is "
                f"{usual_mm[row, bone]:.0f} mm"
            )
    return problems + subject_problems(tallies, is_constant=measured.is_human36m)


def _camera_problems(store: Store, geometry: Geometry) -> list[str]:
    """Cameras that most of their people are not in view of, and what was probably meant."""
    records, problems = store.records, []
    for name in np.unique(records.camera_name):
        rows = np.flatnonzero((records.camera_name == name) & geometry.weighted.any(1))
        rows = rows[:: max(len(rows) // MAX_PEOPLE_OF_CAMERA, 1)]
        joints = records.joints_camera_mm[rows].astype(np.float64)
        is_finite = np.isfinite(joints).all((1, 2))
        rows, joints = rows[is_finite], joints[is_finite]
        found = meant_convention(
            joints,
            store.cameras[torch.from_numpy(records.camera_index[rows])],
            records.image_size_px[rows].astype(np.int64),
            geometry.weighted[rows],
        )
        problems += [f"camera {name}: {found}"] if found else []
    return problems


def _image_problems(store: Store, *, num_jobs: int, console: Console | None) -> list[str]:
    """Crops that do not decode."""

    def decode(start: int) -> list[str]:
        problems = []
        for index in range(start, min(start + IMAGES_AT_ONCE, len(store))):
            try:
                store.image(index)
            except ValueError as error:
                problems.append(str(error))
        return problems

    starts = range(0, len(store), IMAGES_AT_ONCE)
    with progress_bar(console) as bar, ThreadPoolExecutor(num_jobs) as pool:
        shown = bar.add_task("decoding crops", total=len(store))
        problems = []
        for found in pool.map(decode, starts):  # OpenCV lets other threads run while it decodes
            problems += found
            bar.advance(shown, IMAGES_AT_ONCE)
    return problems


def compare_with_release(store: Store, *, measured: Measurements | None = None) -> Comparison:
    """Hold the store against all of Human3.6M: sequences, cameras, lengths, counts, known faults.

    Args:
        store: An open store.
        measured: What `measure` gives, if it is there already.

    Returns:
        Nothing for another set. What is unlike the rest is only noted where the store's manifest
        says that records were left out.
    """
    measured = measured or measure(store)
    if not measured.is_human36m:
        return Comparison()
    plan = read_plan(store.path)
    return against_release(
        measured.holdings,
        PROTOCOLS.get(plan.get("protocol", ""), PROTOCOLS["full"]),
        Counter(store.records.split.tolist()),
        is_shifted_kept=bool(plan.get("shifted")),
        is_corrected=plan.get("shifted") == "correct",
        num_skipped=len(store.skipped),
        is_whole=not store.skipped,
    )
