"""Look at one take of a source before it is converted, without decoding its images."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from data_prep.bones import BoneTally
from data_prep.conventions import meant_convention
from data_prep.crops import make_record
from data_prep.inventory import Holding, Key, holding_of
from data_prep.people import LENSES, People, project, with_lens
from data_prep.pictures import VideoFrames, header_problems
from data_prep.selection import ConversionConfig, Job
from data_prep.sheet import Cell, cell_of_record
from data_prep.takes import Take
from data_prep.tally import ERROR_EDGES_PX, Tally
from pose3d.data.store import StoreHeader
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES
from pose3d.geometry.skeleton import skeleton_by_name

MAX_ERROR_PX = 1.0
MAX_PEOPLE = 2000
LAST_VIDEO_FRAME = 150
"""Frames of a video are decoded from its start: later ones would take long."""
_PARTICULAR = re.compile(r"\S*[\d/]\S*")
"""What differs between two messages of one kind: numbers and files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examination:
    """What a process needs to look at one unit.

    Attributes:
        job: The unit and what becomes of it.
        config: How it would be converted.
        box: The box in force.
    """

    job: Job
    config: ConversionConfig
    box: str

    @property
    def key(self) -> Key:
        """The sequence."""
        return self.job.unit.subject, self.job.unit.action, self.job.unit.subaction


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What one unit shows.

    Attributes:
        shard: Name of the shard that the unit would become.
        split: "train" or "test".
        holding: All its frames, whether they take part or not.
        num_chosen: Frames that take part and can be converted, as far as labels show.
        num_left_out: Frames that would take part but cannot.
        problems: One line each.
        notes: The take's.
        bones: Of the frames that take part; None if there is nothing to be seen.
        error_px: Distance of the layout's own 2-D labels from the projection, where it has any.
        off: A line, if these are too far off.
    """

    shard: str
    split: str
    holding: Holding
    num_chosen: int = 0
    num_left_out: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bones: BoneTally | None = None
    error_px: Tally | None = None
    off: str | None = None


def examine(task: Examination, advance: Callable[[int], None]) -> Findings:
    """Read the labels of one unit and look for what would go wrong; the work of one process."""
    job, config = task.job, task.config
    nothing = np.zeros(0, int)
    found = Findings(
        shard=job.shard_name,
        split=job.split,
        holding=holding_of(task.key, job.unit.camera_name, nothing),
    )
    try:
        whole = job.unit.load()
        found = replace(
            found, holding=holding_of(task.key, whole.camera_name, whole.frame), notes=whole.notes
        )
        take = job.choose(whole)
        people = job.people(take, config, box=task.box)
    except ValueError as error:
        advance(job.unit.count)
        return replace(found, problems=(str(error),), num_left_out=job.unit.count)
    advance(len(whole))
    names = take.pictures.names
    rejections = [(item.name, item.reason) for item in take.rejections]
    problems = in_kinds(rejections)
    problems += in_kinds((names[row], reason) for row, reason in people.faults.items())
    problems += header_problems(take.pictures, take.image_size_px)
    sound = np.isfinite(take.joints_camera_mm).all((1, 2))
    labelled = np.any(people.weight > 0, axis=-1)
    convention = _convention(take, sound & labelled.any(1), labelled)
    problems += [f"{job.unit.name}: {convention}"] if convention else []
    errors = source_errors_px(take, lens=config.lens)
    skeleton = skeleton_by_name(take.skeleton)
    has_depth = np.all(people.weight > 0, axis=-1)
    return replace(
        found,
        num_chosen=len(take) - len(people.faults),
        num_left_out=len(rejections) + len(people.faults),
        problems=tuple(problems),
        bones=BoneTally(skeleton=skeleton).add(
            people.take.joints_camera_mm[sound], has_depth[sound]
        ),
        error_px=None if errors is None else Tally.empty(ERROR_EDGES_PX, 1).add(errors),
        off=_off_the_projection(take, errors, name=job.unit.name, lens=config.lens),
    )


def in_kinds(items: Iterable[tuple[str, str]]) -> list[str]:
    """Records and what is wrong with each, one line for all records of one kind of wrong.

    Args:
        items: Name and reason of each record.
    """
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, reason in items:
        kinds[_PARTICULAR.sub("", reason)].append((name, reason))
    lines = []
    for members in kinds.values():
        name, reason = members[0]
        line = reason if name in reason else f"{name}: {reason}"
        if len({reason for _, reason in members}) == 1 and len(members) > 1:
            line = f"{reason} ({len(members)} records, {name} to {members[-1][0]})"
        elif len(members) > 1:
            line += f" (and {len(members) - 1} records more like it, to {members[-1][0]})"
        lines.append(line)
    return lines


def _convention(
    take: Take, usable: Bool[np.ndarray, " n"], labelled: Bool[np.ndarray, "n joints"]
) -> str | None:
    """What reading of the camera was meant, if the people are not in its view."""
    rows = np.flatnonzero(usable)
    rows = rows[:: max(len(rows) // MAX_PEOPLE, 1)]
    part = take.chosen(rows)
    return meant_convention(part.joints_camera_mm, part.camera, part.image_size_px, labelled[rows])


def source_errors_px(take: Take, *, lens: str) -> Float[np.ndarray, "n 1"] | None:
    """How far the layout's own 2-D labels are from the joints' projection, pixels.

    Args:
        take: With its joints as the layout has them.
        lens: As for `people_of`.

    Returns:
        A distance per labelled joint; None for a layout without 2-D labels.
    """
    if take.source_px is None:
        return None
    take = replace(take, camera=with_lens(take.camera, take.camera_name, lens=lens))
    joints = take.joints_camera_mm
    sound = np.isfinite(joints).all((1, 2)) & (np.nan_to_num(joints[..., 2]) > 0).all(1)
    distance = np.linalg.norm(project(take, sound) - take.source_px, axis=-1)
    if take.weight is not None:
        distance = np.where(np.any(take.weight > 0, axis=-1), distance, np.nan)
    return distance.reshape(-1, 1)


def _off_the_projection(
    take: Take, errors_px: Float[np.ndarray, "n 1"] | None, *, name: str, lens: str
) -> str | None:
    """A line if 2-D labels and projection differ, and the lens that would make them agree."""
    if errors_px is None or not np.isfinite(errors_px).any():
        return None
    usual, most = np.nanquantile(errors_px, [0.5, 0.95])
    if most <= MAX_ERROR_PX:
        return None
    line = f"{name}: the layout's 2-D labels are {usual:.2g} px (median; 95 %: {most:.2g} px) off "
    line += "the joints' projection"
    for other in LENSES:
        if other == "distorted" and take.camera_name not in HUMAN36M_CAMERA_NAMES:
            continue
        fits = source_errors_px(take, lens=other)
        if other != lens and fits is not None and np.nanquantile(fits, 0.95) <= MAX_ERROR_PX:
            return f"{line}; --lens {other} makes them agree"
    return line


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketch:
    """What a process needs to cut a few crops of one unit.

    Attributes:
        examination: The unit.
        header: Of the store that the conversion would make.
        count: Crops.
    """

    examination: Examination
    header: StoreHeader
    count: int


def sketch(task: Sketch, advance: Callable[[int], None]) -> tuple[list[Cell], list[str]]:
    """Decode a few frames of a unit and cut their crops; the work of one process.

    Returns:
        Cells of the overlay sheet, and what went wrong with others.
    """
    job, config = task.examination.job, task.examination.config
    cells: list[Cell] = []
    problems: list[str] = []
    try:
        people = job.people(job.load(), config, box=task.examination.box)
    except ValueError:  # told by `examine`
        return cells, problems
    rows = _rows_to_show(people, count=task.count)
    for row, image in zip(rows, people.take.pictures.chosen(rows).frames(), strict=True):
        name = people.take.pictures.names[row]
        try:
            if isinstance(image, ValueError):
                raise image
            record = make_record(people, int(row), image, place=job.place, header=task.header)
        except ValueError as error:
            text = str(error)
            problems.append(text if name in text else f"{name}: {text}")
            continue
        frame = int(people.take.frame[row])
        cells.append(cell_of_record(record, name=f"{job.unit.name}_{frame + 1:06d} {job.split}"))
        advance(1)
    return cells, problems


def _rows_to_show(people: People, *, count: int) -> Int[np.ndarray, " k"]:
    """Frames spread over the take; of a video, over its start."""
    rows = np.array([row for row in range(len(people.take)) if row not in people.faults], int)
    pictures = people.take.pictures
    if isinstance(pictures, VideoFrames):
        rows = rows[pictures.position[rows] <= LAST_VIDEO_FRAME]
    count = min(count, len(rows))
    middle = (np.arange(count) + 0.5) / max(count, 1) * len(rows)
    return rows[middle.astype(int)]
