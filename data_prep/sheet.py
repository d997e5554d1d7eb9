"""The overlay sheet: labels drawn on the crops that they belong to, for a person to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8

from data_prep.crops import cut_crop
from pose3d.data.store import Store, StoreHeader, StoreRecord
from pose3d.geometry.crop import transform_points
from pose3d.geometry.skeleton import skeleton_by_name

SHEET_MARGIN = 1.25  # what a cell shows over the person square's side
RIGHT_BGR, LEFT_BGR, CENTRE_BGR = (50, 110, 255), (255, 170, 30), (240, 240, 240)
WITHHELD_BGR, BOX_BGR, PAPER_BGR = (0, 0, 220), (110, 200, 110), (32, 32, 32)
MISSING_GREY = 96
_FRACTION_BITS = 4  # of OpenCV's drawing coordinates


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One record to be drawn.

    Attributes:
        name: What is written below it.
        crop: The stored crop, BGR; None if it is bad.
        crop_px: Joints in it, pixels.
        weighted: Joints that have a weight.
    """

    name: str
    crop: UInt8[np.ndarray, "size size 3"] | None
    crop_px: Float[np.ndarray, "joints 2"]
    weighted: Bool[np.ndarray, " joints"]


def cell_of_record(record: StoreRecord, *, name: str) -> Cell:
    """The cell of a record that is not in a store."""
    joints = torch.from_numpy(np.asarray(record.joints_camera_mm, np.float64))
    image_px = record.camera.camera_to_image(joints)
    maps = torch.from_numpy(record.store_from_image)
    return Cell(
        name=name,
        crop=cv2.imdecode(np.frombuffer(record.image_jpeg, np.uint8), cv2.IMREAD_COLOR),
        crop_px=transform_points(maps, image_px).numpy(),
        weighted=np.all(record.weight[..., :2] > 0, axis=-1),
    )


def cell_of_row(store: Store, row: int) -> Cell:
    """The cell of a record of a store, even of a bad one."""
    records = store.records
    joints = records.joints_camera_mm[row].astype(np.float64)
    crop_px = np.full((len(joints), 2), np.nan)
    if np.isfinite(joints).all() and (joints[:, 2] > 0).all():
        camera = store.cameras[int(records.camera_index[row])]
        image_px = camera.camera_to_image(torch.from_numpy(joints))
        maps = torch.from_numpy(records.store_from_image[row])
        crop_px = transform_points(maps, image_px).numpy()
    try:
        crop = cv2.cvtColor(store.image(row), cv2.COLOR_RGB2BGR)
    except ValueError:
        crop = None
    return Cell(
        name=f"{store.record_name(row)} {records.split[row]}",
        crop=crop,
        crop_px=crop_px,
        weighted=np.all(records.weight[row][..., :2] > 0, axis=-1),
    )


def spread_rows(store: Store, *, count: int) -> Int64[np.ndarray, " n"]:
    """At most `count` rows, evenly spread, every split with a part of them."""
    order = np.lexsort((np.arange(len(store)), store.records.split))
    chosen = np.linspace(0, len(store) - 1, min(count, len(store))).round().astype(np.int64)
    return order[chosen]


def overlay_sheet(
    store: Store, *, rows: int = 5, columns: int = 6, cell_px: int = 288
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the labels of records spread over the store, see `draw_sheet`.

    Returns:
        The sheet, RGB.
    """
    cells = [cell_of_row(store, int(row)) for row in spread_rows(store, count=rows * columns)]
    title = f"{store.path.name}: {len(store)} records"
    return draw_sheet(cells, header=store.header, title=title, columns=columns, cell_px=cell_px)


def draw_sheet(
    cells: Sequence[Cell], *, header: StoreHeader, title: str, columns: int, cell_px: int = 288
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw labels on the middle of crops.

    Bones and joints of the right side are orange, of the left side blue, of the middle white; a red
    cross marks a joint of weight 0 (its bones are left out); the green square is the nominal person
    square. Every cell names its record.

    Args:
        cells: What is drawn, from left to right and down.
        header: Of the store that the crops are, or would be, in.
        title: Written above them.
        columns: Cells in a line.
        cell_px: Side of a cell, pixels.

    Returns:
        The sheet, RGB.
    """
    drawn = [draw_cell(cell, header=header, cell_px=cell_px) for cell in cells]
    blank = np.full((cell_px + 24, cell_px + 4, 3), PAPER_BGR[0], np.uint8)
    drawn += [blank] * max(-len(drawn) % columns, columns - len(drawn))
    lines = [np.hstack(drawn[i : i + columns]) for i in range(0, len(drawn), columns)]
    legend = np.full((28, lines[0].shape[1], 3), PAPER_BGR[0], np.uint8)
    x = 8
    for text, colour in (
        (title, CENTRE_BGR),
        ("right", RIGHT_BGR),
        ("left", LEFT_BGR),
        ("middle", CENTRE_BGR),
        ("x weight 0", WITHHELD_BGR),
        ("person square", BOX_BGR),
    ):
        cv2.putText(legend, text, (x, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0] + 24
    return cv2.cvtColor(np.vstack([legend, *lines]), cv2.COLOR_BGR2RGB)


def draw_cell(
    cell: Cell, *, header: StoreHeader, cell_px: int
) -> UInt8[np.ndarray, "height width 3"]:
    """One cell of the sheet, BGR: the crop with its labels above the record's name."""
    zoom = cell_px / header.crop_size_px * max(header.margin / SHEET_MARGIN, 1)
    shift = (cell_px - 1) / 2 - zoom * (header.crop_size_px - 1) / 2
    image = np.full((cell_px, cell_px, 3), MISSING_GREY, np.uint8)
    if cell.crop is not None:
        cell_from_store = np.array([[zoom, 0, shift], [0, zoom, shift], [0, 0, 1]])
        image = cut_crop(cell.crop, cell_from_store, crop_size_px=cell_px)
    half = zoom * header.crop_size_px / header.margin / 2
    middle = (cell_px - 1) / 2
    low, high = _fixed([middle - half] * 2), _fixed([middle + half] * 2)
    cv2.rectangle(image, low, high, BOX_BGR, 1, cv2.LINE_AA, _FRACTION_BITS)
    _draw_labels(image, cell, header=header, points=np.nan_to_num(cell.crop_px * zoom + shift))
    strip = np.full((20, cell_px, 3), PAPER_BGR[0], np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(strip, _plain(cell.name), (3, 14), font, 0.36, CENTRE_BGR, 1, cv2.LINE_AA)
    return np.pad(np.vstack([image, strip]), ((2, 2), (2, 2), (0, 0)), constant_values=PAPER_BGR[0])


def _draw_labels(
    image: UInt8[np.ndarray, "h w 3"],
    cell: Cell,
    *,
    header: StoreHeader,
    points: Float[np.ndarray, "joints 2"],
) -> None:
    """Bones between weighted joints, then the joints."""
    skeleton = skeleton_by_name(header.skeleton)
    for parent, child in skeleton.bones:
        if cell.weighted[parent] and cell.weighted[child]:
            ends = _fixed(points[parent]), _fixed(points[child])
            cv2.line(image, *ends, (0, 0, 0), 4, cv2.LINE_AA, _FRACTION_BITS)
            colour = _side_colour(skeleton.joint_names[child])
            cv2.line(image, *ends, colour, 2, cv2.LINE_AA, _FRACTION_BITS)
    for joint, name in enumerate(skeleton.joint_names):
        centre = _fixed(points[joint])
        if cell.weighted[joint]:
            radius = 3 << _FRACTION_BITS
            cv2.circle(image, centre, radius, (0, 0, 0), -1, cv2.LINE_AA, _FRACTION_BITS)
            radius = 2 << _FRACTION_BITS
            cv2.circle(image, centre, radius, _side_colour(name), -1, cv2.LINE_AA, _FRACTION_BITS)
        else:
            x, y = (value >> _FRACTION_BITS for value in centre)
            cv2.drawMarker(image, (x, y), WITHHELD_BGR, cv2.MARKER_TILTED_CROSS, 12, 2, cv2.LINE_AA)


def _side_colour(joint_name: str) -> tuple[int, int, int]:
    """The colour of a joint's side."""
    return {"R": RIGHT_BGR, "L": LEFT_BGR}.get(joint_name.partition("_")[0], CENTRE_BGR)


def _fixed(point: Float[np.ndarray, " 2"] | list[float]) -> tuple[int, int]:
    """A point in OpenCV's fixed-point drawing coordinates, held within their range."""
    x, y = np.clip(np.asarray(point) * (1 << _FRACTION_BITS), -(1 << 20), 1 << 20).round()
    return int(x), int(y)


def _plain(text: str) -> str:
    """OpenCV draws nothing but ASCII."""
    return text.encode("ascii", "replace").decode("ascii")


def write_sheet(sheet: UInt8[np.ndarray, "height width 3"], path: Path | str) -> None:
    """Write an overlay sheet as a PNG.

    Raises:
        OSError: If the file cannot be written.
    """
    path = Path(path)
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise OSError(f"cannot write the sheet {path}: {error.strerror}") from error
