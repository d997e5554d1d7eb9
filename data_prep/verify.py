"""Look through a store: problems, numbers, and a sheet of labels drawn on their images."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from rich.console import Console
from rich.table import Table

from data_prep.crops import cut_crop
from data_prep.people import MAX_BONE_MM
from pose3d.data.store import Store
from pose3d.geometry.crop import crop_from_image, invert_map, transform_points

ROUND_TRIP_LIMIT_MM = 0.01
CORNER_LIMIT_PX = 0.1
MIN_BONE_MM = 20.0
MAX_DEVIATION = 0.6
MIN_DEVIATION_MM = 100.0
MAX_SIDE_RATIO = 1.25
MIN_RECORDS_FOR_SIDES = 5  # the median of fewer follows the noise of triangulated labels
SHEET_MARGIN = 1.25  # what a cell shows over the person square's side
RIGHT_BGR, LEFT_BGR, CENTRE_BGR = (50, 110, 255), (255, 170, 30), (240, 240, 240)
WITHHELD_BGR, BOX_BGR, PAPER_BGR = (0, 0, 220), (110, 200, 110), (32, 32, 32)
_FRACTION_BITS = 4  # of OpenCV's drawing coordinates


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """What projecting the labels of some records gives; rows that could not be projected are NaN.

    Attributes:
        crop_px: Joints in the stored crop, pixels.
        round_trip_mm: Largest error of projecting and lifting back, millimetres.
        weighted: Joints whose weight for u and v is not 0.
        in_crop: Joints that fall into the stored crop.
        in_square: Joints that fall into the nominal person square.
        bone_mm: Length of each bone, millimetres.
    """

    crop_px: Float[np.ndarray, "n joints 2"]
    round_trip_mm: Float[np.ndarray, " n"]
    weighted: Bool[np.ndarray, "n joints"]
    in_crop: Bool[np.ndarray, "n joints"]
    in_square: Bool[np.ndarray, "n joints"]
    bone_mm: Float[np.ndarray, "n bones"]


def measure(store: Store, rows: Int64[np.ndarray, " n"]) -> Geometry:
    """Project the labels of these rows into their crops."""
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
    bones = np.array(store.skeleton.bones)
    half_square_px = size / store.header.margin / 2
    return Geometry(
        crop_px=crop_px,
        round_trip_mm=round_trip_mm,
        weighted=np.all(records.weight[rows][..., :2] > 0, axis=-1),
        in_crop=np.all((crop_px >= -0.5) & (crop_px < size - 0.5), axis=-1),
        in_square=np.all(np.abs(crop_px - (size - 1) / 2) <= half_square_px, axis=-1),
        bone_mm=np.linalg.norm(joints[:, bones[:, 0]] - joints[:, bones[:, 1]], axis=-1),
    )


def check_records(store: Store, *, decode: bool = True) -> list[str]:
    """Look for records that cannot be right.

    Checked: finite joints, maps, boxes and weights; positive depths; a joint of weight above 0; at
    least half of such joints in the stored crop; projection and back-projection agreeing to
    0.01 mm; the crop showing `margin` times the box, its corners right to 0.1 px; weighted bones of
    20 to 800 mm, none off its subject's median by more than 60 % and 100 mm, left and right medians
    of a subject within 25 % (where five records have both); unique names; each JPEG decoding.

    Args:
        store: An open store.
        decode: Also decode every image.

    Returns:
        One line per problem, each naming its record; empty if all is well.
    """
    names = Counter(store.record_name(i) for i in range(len(store)))
    problems = [f"{name}: occurs {count} times" for name, count in names.items() if count > 1]
    for start in range(0, len(store), 4096):
        problems += _label_problems(store, np.arange(start, min(start + 4096, len(store))))
    problems += _bone_problems(store)
    if decode:
        for index in range(len(store)):
            try:
                store.image(index)
            except ValueError as error:
                problems.append(str(error))
    return problems


def _label_problems(store: Store, rows: Int64[np.ndarray, " n"]) -> list[str]:
    """The problems of `check_records` that labels alone show."""
    records, header = store.records, store.header
    joints, maps = records.joints_camera_mm[rows], records.store_from_image[rows]
    boxes = records.box_image_px[rows]
    finite = np.isfinite(joints).all((1, 2)) & np.isfinite(records.weight[rows]).all((1, 2))
    finite &= np.isfinite(boxes).all(1) & np.isfinite(maps).all((1, 2))
    geometry = measure(store, rows)
    num_weighted = geometry.weighted.sum(1)
    share = (geometry.in_crop & geometry.weighted).sum(1) / np.maximum(num_weighted, 1)
    shown_px = header.crop_size_px / np.sqrt(np.abs(np.linalg.det(maps[:, :2, :2])))
    expected_px = boxes[:, 2] * header.margin
    corners_off_px = _corner_errors(store, rows)
    problems = []
    for i, row in enumerate(rows):
        name = store.record_name(row)
        if not finite[i]:
            problems.append(f"{name}: a label is not finite")
        elif not (joints[i, :, 2] > 0).all():
            problems.append(f"{name}: depth {joints[i, :, 2].min():.0f} mm is not positive")
        elif geometry.round_trip_mm[i] > ROUND_TRIP_LIMIT_MM:
            error = geometry.round_trip_mm[i]
            problems.append(f"{name}: projecting and lifting back misses by {error:.3g} mm")
        elif not boxes[i, 2] > 0:
            problems.append(f"{name}: box of side {boxes[i, 2]:.0f} px has no area")
        elif not num_weighted[i]:
            problems.append(f"{name}: no joint has a weight above 0")
        elif share[i] < 0.5:
            problems.append(f"{name}: only {share[i]:.0%} of the joints fall into the crop")
        elif abs(shown_px[i] / expected_px[i] - 1) > 0.01:
            problems.append(
                f"{name}: crop shows {shown_px[i]:.0f} px, expected {expected_px[i]:.0f} px"
            )
        elif not corners_off_px[i] <= CORNER_LIMIT_PX:
            problems.append(
                f"{name}: a corner of the crop is off by {corners_off_px[i]:.2f} px of where box "
                "and margin put it"
            )
    return problems


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


def _bone_problems(store: Store) -> list[str]:
    """Bones that are too short, too long, unlike the subject's others, or unlike the other side."""
    records, skeleton = store.records, store.skeleton
    bones = np.array(skeleton.bones)
    joints = records.joints_camera_mm
    sound = np.isfinite(joints).all((1, 2)) & (np.nan_to_num(joints[..., 2]) > 0).all(1)
    counted = np.all(records.weight[..., :2] > 0, axis=-1)[:, bones].all(-1) & sound[:, None]
    length_mm = np.linalg.norm(joints[:, bones[:, 0]] - joints[:, bones[:, 1]], axis=-1)
    length_mm = np.where(counted, length_mm, np.nan)
    long, short = length_mm > MAX_BONE_MM, length_mm < MIN_BONE_MM
    subjects = np.unique(records.subject)
    median_mm = np.stack([_medians(length_mm[records.subject == s]) for s in subjects])
    usual_mm = median_mm[np.searchsorted(subjects, records.subject)]
    off_mm = np.abs(length_mm - usual_mm)
    odd = (off_mm > MAX_DEVIATION * usual_mm) & (off_mm > MIN_DEVIATION_MM) & ~long & ~short
    names = [" to ".join(skeleton.joint_names[j] for j in bone) for bone in bones]
    problems = []
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
    for subject in subjects:
        of_subject = length_mm[records.subject == subject]
        problems += [f"subject {subject}: {text}" for text in _side_problems(store, of_subject)]
    return problems


def _medians(length_mm: Float[np.ndarray, "n bones"]) -> Float[np.ndarray, " bones"]:
    """Median of each bone over the records that have it; NaN if none has."""
    known = [column[np.isfinite(column)] for column in length_mm.T]
    return np.array([np.median(column) if len(column) else np.nan for column in known])


def _side_problems(store: Store, length_mm: Float[np.ndarray, "n bones"]) -> list[str]:
    """Left and right bones of unlike length, from one subject's records."""
    skeleton = store.skeleton
    mirrored, bones = skeleton.mirror_permutation, skeleton.bones
    names = [" to ".join(skeleton.joint_names[j] for j in bone) for bone in bones]
    problems = []
    for bone, (parent, child) in enumerate(bones):
        partner = bones.index((mirrored[parent], mirrored[child]))
        pairs = length_mm[:, [bone, partner]]
        pairs = pairs[np.isfinite(pairs).all(1)]
        if bone >= partner or len(pairs) < MIN_RECORDS_FOR_SIDES:
            continue
        here, there = np.median(pairs, axis=0)
        if max(here, there) > MAX_SIDE_RATIO * min(here, there):
            problems.append(
                f"{names[bone]} is {here:.0f} mm long, {names[partner]} {there:.0f} mm (medians)"
            )
    return problems


def print_summary(store: Store, console: Console) -> None:
    """Print what a store holds: counts, ranges, and bone lengths per subject."""
    records, header = store.records, store.header
    geometry = measure(store, np.arange(len(store)))
    weighted = geometry.weighted
    depth_m = records.joints_camera_mm[..., 2] / 1000
    sizes = [len(store.image_bytes(i)) for i in range(0, len(store), max(len(store) // 500, 1))]
    table = Table(show_header=False, box=None)
    for name, value in {
        "records": f"{len(store)} ({_counted(records.split)})",
        "subjects": _counted(records.subject),
        "actions": _counted(records.action),
        "cameras": f"{_counted(records.camera_name)}; {len(np.unique(records.camera_index))} poses",
        "source": header.source,
        "box": header.box_definition,
        "crops": f"{header.crop_size_px} px, margin {header.margin:g}, JPEG quality "
        f"{header.jpeg_quality}, mean {np.mean(sizes) / 1000:.1f} kB",
        "left out": f"{len(store.skipped)} source records",
        "depth": f"{depth_m.min():.2f} to {depth_m.max():.2f} m",
        "round trip": f"at most {np.nanmax(geometry.round_trip_mm):.2g} mm",
        "joints in the square": f"{geometry.in_square[weighted].mean():.2%}",
        "joints in the crop": f"{geometry.in_crop[weighted].mean():.2%}",
        "joints of weight 0": _withheld(store, weighted),
        "digest": store.digest,
    }.items():
        table.add_row(name, value)
    console.print(table)
    console.print(_bone_table(store, geometry))


def _counted(values: np.ndarray) -> str:
    """Distinct values and how often each occurs."""
    names, counts = np.unique(values, return_counts=True)
    shown = ", ".join(f"{name}: {count}" for name, count in zip(names[:16], counts, strict=False))
    return shown + (f" and {len(names) - 16} more" if len(names) > 16 else "")


def _withheld(store: Store, weighted: Bool[np.ndarray, "n joints"]) -> str:
    """Joints of weight 0 by name."""
    counts = (~weighted).sum(0)
    names = store.skeleton.joint_names
    return ", ".join(f"{names[j]}: {counts[j]}" for j in np.flatnonzero(counts)) or "none"


def _bone_table(store: Store, geometry: Geometry) -> Table:
    """Mean and standard deviation of each bone by subject, weighted joints only."""
    bones = np.array(store.skeleton.bones)
    counted = np.all(geometry.weighted[:, bones], axis=-1)
    subjects = np.unique(store.records.subject)[:8]
    table = Table("bone length / mm", *(f"S{subject}" for subject in subjects), box=None)
    for bone, (parent, child) in enumerate(store.skeleton.bones):
        cells = []
        for subject in subjects:
            rows = (store.records.subject == subject) & counted[:, bone]
            length = geometry.bone_mm[rows, bone]
            cells.append(f"{length.mean():.0f} ± {length.std():.0f}" if len(length) else "-")
        names = store.skeleton.joint_names
        table.add_row(f"{names[parent]} to {names[child]}", *cells)
    return table


def spread_rows(store: Store, *, count: int) -> Int64[np.ndarray, " n"]:
    """At most `count` rows, evenly spread, every split with a part of them."""
    order = np.lexsort((np.arange(len(store)), store.records.split))
    chosen = np.linspace(0, len(store) - 1, min(count, len(store))).round().astype(np.int64)
    return order[chosen]


def overlay_sheet(
    store: Store, *, rows: int = 5, columns: int = 6, cell_px: int = 288
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the labels of records spread over the store on the middle of their crops.

    Bones and joints of the right side are orange, of the left side blue, of the middle white; a red
    cross marks a joint of weight 0 (its bones are left out); the green square is the nominal person
    square. Every cell names its record.

    Returns:
        The sheet, RGB.
    """
    chosen = spread_rows(store, count=rows * columns)
    cells = [draw_record(store, int(row), cell_px=cell_px) for row in chosen]
    blank = np.full_like(cells[0], PAPER_BGR[0])
    cells += [blank] * (-len(cells) % columns)
    lines = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    legend = np.full((28, lines[0].shape[1], 3), PAPER_BGR[0], np.uint8)
    x = 8
    for text, colour in (
        (f"{store.path.name}: {len(store)} records", CENTRE_BGR),
        ("right", RIGHT_BGR),
        ("left", LEFT_BGR),
        ("middle", CENTRE_BGR),
        ("x weight 0", WITHHELD_BGR),
        ("person square", BOX_BGR),
    ):
        cv2.putText(legend, text, (x, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0] + 24
    return cv2.cvtColor(np.vstack([legend, *lines]), cv2.COLOR_BGR2RGB)


def draw_record(store: Store, row: int, *, cell_px: int) -> UInt8[np.ndarray, "height width 3"]:
    """One cell of the sheet, BGR: the crop with its labels above the record's name."""
    header, skeleton = store.header, store.skeleton
    zoom = cell_px / header.crop_size_px * max(header.margin / SHEET_MARGIN, 1)
    shift = (cell_px - 1) / 2 - zoom * (header.crop_size_px - 1) / 2
    image = _middle_of_crop(store, row, cell_px=cell_px, zoom=zoom, shift=shift)
    geometry = measure(store, np.array([row]))
    points = np.nan_to_num(geometry.crop_px[0] * zoom + shift)
    weighted = geometry.weighted[0]
    half = zoom * header.crop_size_px / header.margin / 2
    middle = (cell_px - 1) / 2
    low, high = _fixed([middle - half] * 2), _fixed([middle + half] * 2)
    cv2.rectangle(image, low, high, BOX_BGR, 1, cv2.LINE_AA, _FRACTION_BITS)
    for parent, child in skeleton.bones:
        if weighted[parent] and weighted[child]:
            ends = _fixed(points[parent]), _fixed(points[child])
            cv2.line(image, *ends, (0, 0, 0), 4, cv2.LINE_AA, _FRACTION_BITS)
            colour = _side_colour(skeleton.joint_names[child])
            cv2.line(image, *ends, colour, 2, cv2.LINE_AA, _FRACTION_BITS)
    for joint, name in enumerate(skeleton.joint_names):
        centre = _fixed(points[joint])
        if weighted[joint]:
            radius = 3 << _FRACTION_BITS
            cv2.circle(image, centre, radius, (0, 0, 0), -1, cv2.LINE_AA, _FRACTION_BITS)
            radius = 2 << _FRACTION_BITS
            cv2.circle(image, centre, radius, _side_colour(name), -1, cv2.LINE_AA, _FRACTION_BITS)
        else:
            x, y = (value >> _FRACTION_BITS for value in centre)
            cv2.drawMarker(image, (x, y), WITHHELD_BGR, cv2.MARKER_TILTED_CROSS, 12, 2, cv2.LINE_AA)
    strip = np.full((20, cell_px, 3), PAPER_BGR[0], np.uint8)
    text = f"{store.record_name(row)} {store.records.split[row]}"
    cv2.putText(strip, text, (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.36, CENTRE_BGR, 1, cv2.LINE_AA)
    cell = np.vstack([image, strip])
    return np.pad(cell, ((2, 2), (2, 2), (0, 0)), constant_values=PAPER_BGR[0])


def _middle_of_crop(
    store: Store, row: int, *, cell_px: int, zoom: float, shift: float
) -> np.ndarray:
    """The middle of a record's crop, BGR; grey if the crop is bad."""
    try:
        image = cv2.cvtColor(store.image(row), cv2.COLOR_RGB2BGR)
    except ValueError:
        return np.full((cell_px, cell_px, 3), 96, np.uint8)
    cell_from_store = np.array([[zoom, 0, shift], [0, zoom, shift], [0, 0, 1]])
    return cut_crop(image, cell_from_store, crop_size_px=cell_px)


def _side_colour(joint_name: str) -> tuple[int, int, int]:
    """The colour of a joint's side."""
    return {"R": RIGHT_BGR, "L": LEFT_BGR}.get(joint_name.partition("_")[0], CENTRE_BGR)


def _fixed(point: Float[np.ndarray, " 2"] | list[float]) -> tuple[int, int]:
    """A point in OpenCV's fixed-point drawing coordinates, held within their range."""
    x, y = np.clip(np.asarray(point) * (1 << _FRACTION_BITS), -(1 << 20), 1 << 20).round()
    return int(x), int(y)


def write_sheet(
    store: Store, path: Path | str, *, rows: int = 5, columns: int = 6, cell_px: int = 288
) -> None:
    """Write the overlay sheet as a PNG.

    Raises:
        OSError: If the file cannot be written.
    """
    path = Path(path)
    sheet = overlay_sheet(store, rows=rows, columns=columns, cell_px=cell_px)
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise OSError(f"cannot write the sheet {path}: {error.strerror}") from error
