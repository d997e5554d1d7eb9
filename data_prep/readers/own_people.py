"""Rows of people's own data become labels: joints by name, in one of five spaces.

world                  x, y, z in the world; the camera's place must be known
camera                 x, y, z in the camera's frame: x right, y down, z forward
image+depth            x, y in the image, pixels; z the depth along the camera's axis
image+relative-depth   the same with z from the pelvis, negative towards the camera
image                  x, y in the image, pixels; no depth
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from data_prep.readers.joint_names import joint_of
from data_prep.readers.own_cameras import MM_PER_UNIT, OwnCamera
from data_prep.readers.own_tables import Row
from data_prep.takes import Rejection
from pose3d.geometry.skeleton import HUMAN36M_18, THORAX

SPACES = ("world", "camera", "image+depth", "image+relative-depth", "image")
BOX = ("box_x", "box_y", "box_width", "box_height")
PLACE = ("subject", "action", "take", "frame", "split")
COLUMNS = ("image", "camera", "width", "height", "space", "unit", *PLACE, *BOX, "root_depth")
DEFAULT_ACTION = "Own"
_JOINT_COLUMN = re.compile(r"(.+)_(x|y|z|visible)")
_AXES = "xyz"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class OwnPerson:
    """One row, read.

    Attributes:
        file: The table.
        place: Where in it, e.g. "line 7".
        image: The image's file.
        camera: The camera's name; empty where none is named.
        size_px: Width and height that the row states; 0, 0 where it does not.
        split: "train" or "test".
        subject: Subject's number.
        action: Action's name.
        take: Number of the take.
        frame: Frame number.
        space: One of `SPACES`.
        values: Joints of `HUMAN36M_18` in this space, lengths in millimetres, the rest in pixels;
            NaN where there is no label, and in z where there is no depth.
        visible: Whether each is not said to be hidden.
        box_xywh_px: Person box; NaN where there is none.
        root_depth_mm: Depth of the pelvis, for image+relative-depth; NaN where it is not known.
    """

    file: Path
    place: str
    image: str
    camera: str
    size_px: tuple[int, int]
    split: str
    subject: int
    action: str
    take: int
    frame: int
    space: str
    values: Float[np.ndarray, "18 3"]
    visible: Bool[np.ndarray, " 18"]
    box_xywh_px: Float[np.ndarray, " 4"]
    root_depth_mm: float


def is_column(name: str) -> bool:
    """Whether a table of people may have this column."""
    if name in COLUMNS:
        return True
    match = _JOINT_COLUMN.fullmatch(name)
    try:
        return bool(match and (joint_of(match[1]), True))
    except ValueError:
        return False


def some_columns() -> tuple[str, ...]:
    """Columns that a message may suggest."""
    return (*COLUMNS, *(f"{name}_{axis}" for name in HUMAN36M_18.joint_names for axis in _AXES))


def joint_columns(columns: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """The prefix of the columns of each joint, and names of joints that are not used.

    Raises:
        ValueError: Naming the column, if one joint has columns under two names.
    """
    found: dict[int, str] = {}
    unused = set()
    for column in columns:
        match = _JOINT_COLUMN.fullmatch(column)
        if match is None or column in COLUMNS:
            continue
        joint = joint_of(match[1])
        if joint is None:
            unused.add(match[1])
            continue
        number = HUMAN36M_18.index(joint)
        if found.setdefault(number, match[1]) != match[1]:
            raise ValueError(f"columns {found[number]} and {match[1]} are both the {joint}")
    return found, sorted(unused)


def has_thorax(joints: Mapping[int, str]) -> bool:
    """Whether the thorax has columns of its own."""
    return HUMAN36M_18.index(THORAX) in joints


def read_people(
    rows: Iterable[Row], joints: Mapping[int, str], cameras: Mapping[str, OwnCamera]
) -> tuple[list[OwnPerson], list[Rejection]]:
    """The people of all rows, and the rows that cannot be read.

    A row without a frame number gets the next of its subject, action, take and camera.

    Args:
        rows: The rows.
        joints: From `joint_columns`.
        cameras: The cameras by name; a row that names none has the only one.
    """
    people: list[OwnPerson] = []
    faults: list[Rejection] = []
    counts: Counter[tuple] = Counter()
    taken: dict[tuple, str] = {}
    for row in rows:
        try:
            person = read_person(row, joints, cameras)
            sequence = (person.subject, person.action, person.take, person.camera)
            if row.is_empty("frame"):
                person = replace(person, frame=counts[sequence])
            counts[sequence] += 1
            other = taken.setdefault((*sequence, person.frame), row.place)
            if other != row.place:
                raise row.error(
                    "frame",
                    f"{person.frame} is that of {other} already, with the same subject, "
                    "action, take and camera; people in one image need different subjects",
                )
            people.append(person)
        except ValueError as error:
            split = row.text("split")
            faults.append(
                Rejection(
                    name=f"{row.file.name}, {row.place}",
                    reason=str(error).removeprefix(f"{row.file}, {row.place}, "),
                    split=split if split in ("train", "test") else "train",
                )
            )
    return people, faults


def read_person(row: Row, joints: Mapping[int, str], cameras: Mapping[str, OwnCamera]) -> OwnPerson:
    """Read one row of a table of people; its frame is 0 where none is given.

    Args:
        row: The row.
        joints: From `joint_columns`.
        cameras: The cameras by name; a row that names none has the only one.

    Raises:
        ValueError: Naming file, line and column.
    """
    image = row.text("image")
    if not image:
        raise row.error("image", "is empty, expected a file")
    camera = row.text("camera")
    width, height = row.whole("width", default=0), row.whole("height", default=0)
    if not camera and len(cameras) == 1 and not width:
        camera = next(iter(cameras))
    if camera and camera not in cameras:
        known = ", ".join(cameras) or "none"
        raise row.error("camera", f"unknown camera {camera!r}; known: {known}")
    if not camera and not (width and height):
        raise row.error("camera", "is empty; name a camera, or give width and height of the image")
    space = row.choice("space", SPACES)
    _check_space(row, space, cameras.get(camera))
    values, visible = _joints(row, joints, space=space)
    mm = _mm_per_unit(row, space)
    values[:, 2] *= mm
    if space in ("world", "camera"):
        values[:, :2] *= mm
    return OwnPerson(
        file=row.file,
        place=row.place,
        image=image,
        camera=camera,
        size_px=(width, height),
        split=row.choice("split", ("train", "test"), default="train"),
        subject=_subject(row),
        action=row.text("action", default=DEFAULT_ACTION),
        take=row.whole("take", default=1),
        frame=row.whole("frame", default=0),
        space=space,
        values=values,
        visible=visible,
        box_xywh_px=_box(row),
        root_depth_mm=_root_depth_mm(row, mm, space),
    )


def _check_space(row: Row, space: str, camera: OwnCamera | None) -> None:
    """Refuse spaces that the camera does not allow."""
    lens = camera is not None and camera.camera is not None
    if space == "world" and not (camera and camera.has_place):
        raise row.error("space", "is world, but the camera has no rotation and t or centre")
    if space in ("camera", "image+depth") and not lens:
        raise row.error("space", f"is {space}, but the camera has no fx, fy, cx, cy")


def _mm_per_unit(row: Row, space: str) -> float:
    """Millimetres per unit of the row's lengths; 1 where it has none."""
    if space == "image":
        return 1.0
    return MM_PER_UNIT[row.choice("unit", tuple(MM_PER_UNIT))]


def _joints(
    row: Row, joints: Mapping[int, str], *, space: str
) -> tuple[Float[np.ndarray, "18 3"], Bool[np.ndarray, " 18"]]:
    """Values of the row's joints as they stand, and which are not said to be hidden."""
    values = np.full((HUMAN36M_18.num_joints, 3), np.nan)
    visible = np.zeros(HUMAN36M_18.num_joints, bool)
    for joint, prefix in joints.items():
        columns = [f"{prefix}_{axis}" for axis in _AXES]
        numbers = [row.number(column) for column in columns]
        filled = [not np.isnan(number) for number in numbers]
        if not any(filled):
            continue
        needed = 3 if space in ("world", "camera") else 2
        for column, is_filled in zip(columns[:needed], filled, strict=False):
            if not is_filled:
                raise row.error(column, f"is empty, but the joint has other values in {space}")
        if space == "image" and filled[2]:
            raise row.error(
                columns[2],
                "is given, but space is image; say image+depth or image+relative-depth",
            )
        values[joint] = numbers
        visible[joint] = row.truth(f"{prefix}_visible", default=True)
    if not np.isfinite(values).any():
        raise row.error(f"{next(iter(joints.values()), 'joint')}_x", "no joint is labelled")
    return values, visible


def _subject(row: Row) -> int:
    """The subject's number, also written S7; 0 where none is given."""
    text = row.text("subject", default="0")
    number = text.removeprefix("S").removeprefix("s").removesuffix(".0")
    if not number.isdecimal() or len(number) > 9:
        raise row.error("subject", f"expected a whole number from 0, got {text!r}")
    return int(number)


def _box(row: Row) -> Float[np.ndarray, " 4"]:
    """Person box; NaN where there is none."""
    if not row.has_any(BOX):
        return np.full(4, np.nan)
    box = np.array([row.needed(column) for column in BOX])
    for column, size in zip(BOX[2:], box[2:], strict=True):
        if not size > 0:
            raise row.error(column, f"is {size:g} px, expected more than 0")
    return box


def _root_depth_mm(row: Row, mm_per_unit: float, space: str) -> float:
    """Depth of the pelvis that goes with depths from the pelvis."""
    depth_mm = row.number("root_depth") * mm_per_unit
    if np.isfinite(depth_mm) and space != "image+relative-depth":
        raise row.error("root_depth", f"is for space image+relative-depth, not {space}")
    if depth_mm <= 0:
        raise row.error("root_depth", f"is {depth_mm:g} mm, expected more than 0")
    return depth_mm
