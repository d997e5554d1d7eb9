"""Read Human3.6M as mmpose's preprocess_h36m.py lays it out.

    SOURCE/annotation_body3d/cameras.pkl                            cameras by subject and name
    SOURCE/annotation_body3d/fps50/h36m_train.npz, h36m_test.npz    or fps10: every 5th frame
    SOURCE/images/S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg

Rows of a .npz: `imgname`; `S` (17, 4), the camera's frame in metres and a 1; `part` (17, 3), pixels
as the lens has them and a 1; `center` (2), pixels, and `scale`, 1.2 times the longer side of the
joints' box over 200. cameras.pkl: `R` world from camera, `T` the centre in metres, `f`, `c`, `k`,
`p`; its `h` is 1000 for two cameras of S7 that have 1002 rows, so sizes are not taken from it.

Files are large (1.5 million rows at 50 frames a second): names are listed once, other rows are read
when it is their sequence's turn.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.human36m import FRAMES_PER_S, find_sequence
from data_prep.pictures import ImageFiles
from data_prep.readers.files import digest_of_files
from data_prep.readers.npz_rows import array_facts, read_rows, row_blocks
from data_prep.readers.unpickle import load_pickle
from data_prep.readers.views import UNUSABLE_NOTE, View, camera_arrays, recognised_camera
from data_prep.takes import LazyTake, Take
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import HUMAN36M_17

ANNOTATIONS = "annotation_body3d"
FILES = {"train": "h36m_train.npz", "test": "h36m_test.npz"}
ROWS = {"S": (17, 4), "part": (17, 3), "center": (2,), "scale": ()}
SCALE_PX = 200.0
LARGEST_PERSON_M = 10.0
_SEQUENCE = re.compile(r"S(\d+)_(.+)\.(\d+)")
_FRAME = re.compile(r"(.+)_(\d+)\.\w+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Consecutive rows of one sequence and camera."""

    start: int
    stop: int
    """Row of the first image and after the last."""
    offset: int = 0
    """By how many rows the labels come later than the image names."""


class MmposeReader:
    """mmpose's layout of Human3.6M; a `Reader`.

    Args:
        source: Folder with annotation_body3d/ and images/.
        frames_per_s: 50 or 10, which folder of annotations; the one there is, 50 of both, if None.

    Raises:
        ValueError: If a file is missing or not of this layout.
    """

    skeleton = HUMAN36M_17.name
    box_kind = "annotation"
    is_human36m = True

    def __init__(self, source: Path | str, *, frames_per_s: int | None = None) -> None:
        self._source = Path(source)
        self.notes: list[str] = []
        self.missing: list[str] = []
        folder, is_whole = self._folder(frames_per_s)
        self.default_protocol = "rle-2" if is_whole else "full"
        self.description = f"mmpose ({folder.name})"
        self._paths = {s: folder / name for s, name in FILES.items() if (folder / name).is_file()}
        if not self._paths:
            raise ValueError(f"neither {' nor '.join(FILES.values())} is in {folder}")
        self.notes += [f"{split} set: {path}" for split, path in self._paths.items()]
        self._pickle = self._source / ANNOTATIONS / "cameras.pkl"
        cameras = self._cameras()
        self._units = [
            self._unit(view, split, tuple(runs), cameras)
            for split, path in self._paths.items()
            for view, runs in sorted(self._views(path).items())
        ]

    def identity(self) -> dict[str, Any]:
        """Names and sizes of the annotation files."""
        paths = [*self._paths.values(), *([self._pickle] if self._pickle.is_file() else [])]
        return {"annotations": digest_of_files(paths, folder=self._source)}

    def units(self) -> list[LazyTake]:
        """One take per split, sequence and camera."""
        return self._units

    def _folder(self, frames_per_s: int | None) -> tuple[Path, bool]:
        """The folder of annotations, and whether they are of all frames."""
        parent = self._source / ANNOTATIONS
        known = {int(p.name[3:]): p for p in parent.glob("fps*") if p.name[3:].isdecimal()}
        if not known:
            raise ValueError(
                f"no folder {parent}/fps50 or fps10; SOURCE must hold {ANNOTATIONS}/ and images/"
            )
        rate = max(known) if frames_per_s is None else frames_per_s
        if rate not in known:
            raise ValueError(
                f"{parent} has no folder fps{rate}, only "
                f"{', '.join(path.name for path in known.values())}"
            )
        if len(known) > 1 and frames_per_s is None:
            self.notes.append(f"of {len(known)} folders of annotations fps{rate} is read (--fps)")
        return known[rate], rate == FRAMES_PER_S

    def _cameras(self) -> dict[Any, Any]:
        """What cameras.pkl holds; nothing if it is not there, since the cameras are known."""
        if not self._pickle.is_file():
            self.notes.append(f"{self._pickle} is missing: Human3.6M's known cameras are put in")
            return {}
        content = load_pickle(self._pickle)
        if not isinstance(content, dict) or not content:
            raise ValueError(f"{self._pickle} holds no cameras by subject and name")
        return content

    def _views(self, path: Path) -> dict[View, list[Run]]:
        """The rows of each view; labels of an unusable video without images are stepped over."""
        num_labels = _num_labels(path)
        views: dict[View, list[Run]] = {}
        for view, start, stop in _runs(path):
            if view.is_unusable:
                self.notes.append(UNUSABLE_NOTE)
                continue
            views.setdefault(view, []).append(Run(start=start, stop=stop))
        num_names = array_facts(path, "imgname").shape[0]
        if num_labels == num_names:
            return views
        gap = num_labels - num_names
        after = _after_gap(views, gap)
        if after is None:
            raise ValueError(
                f"{path} has {num_names} image names but labels of {num_labels} images, so that "
                "names and labels do not belong together; make it again from whole videos"
            )
        self.notes.append(f"{path} has labels but no names of {gap} images; {UNUSABLE_NOTE}")
        return {
            view: [
                Run(start=run.start, stop=run.stop, offset=gap if run.start >= after else 0)
                for run in runs
            ]
            for view, runs in views.items()
        }

    def _unit(
        self, view: View, split: str, runs: tuple[Run, ...], cameras: dict[Any, Any]
    ) -> LazyTake:
        read = partial(
            _take,
            self._paths[split],
            view,
            runs,
            images=self._source / "images",
            camera=_camera(cameras, view, path=self._pickle) if cameras else view.known_camera,
        )
        return view.unit(split=split, count=sum(run.stop - run.start for run in runs), read=read)


def _num_labels(path: Path) -> int:
    """Rows of the labels, after a look at all shapes."""
    counts = {}
    for name, row in ROWS.items():
        shape = array_facts(path, name).shape
        if shape[1:] != row:
            raise ValueError(f"{path}: {name} has shape {shape}, expected {('N', *row)}")
        counts[name] = shape[0]
    if len(set(counts.values())) != 1:
        raise ValueError(f"{path} has arrays of different lengths: {counts}; make it again")
    return counts["S"]


def _runs(path: Path) -> Iterator[tuple[View, int, int]]:
    """Views with the first row of each run of theirs and the row after its last."""
    facts = array_facts(path, "imgname")
    if facts.dtype.kind not in "US":
        raise ValueError(f"{path}: imgname holds {facts.dtype}, expected file names")
    names = itertools.chain.from_iterable(
        block.astype(str).tolist() for block in row_blocks(path, "imgname")
    )
    start = 0
    for sequence, group in itertools.groupby(names, lambda name: name.rpartition("_")[0]):
        stop = start + sum(1 for _ in group)
        yield _view(sequence, path=path), start, stop
        start = stop


def _view(sequence: str, *, path: Path) -> View:
    """The view of images whose names start like this."""
    found = _SEQUENCE.fullmatch(sequence.rpartition("/")[2])
    if found is None:
        raise ValueError(
            f"{path}: image name {sequence!r}… is not like S1/S1_Directions_1.54138969/"
            "S1_Directions_1.54138969_000001.jpg"
        )
    subject, name, camera_name = found.groups()
    try:
        fact = find_sequence(int(subject), name)
        return View(
            subject=fact.subject,
            action=fact.action,
            subaction=fact.subaction,
            camera_name=camera_name,
        )
    except ValueError as error:
        raise ValueError(f"{path}: image name {sequence!r}…: {error}") from error


def _after_gap(views: dict[View, list[Run]], gap: int) -> int | None:
    """The row of names from which labels come later, if it is plain which images are missing.

    The tool writes labels of a view whose video it cannot read, but no names. If there are as many
    as of the next camera of S11's unusable view, they are that view's.
    """
    for view, runs in views.items():
        is_next = (view.subject, view.action, view.subaction) == (11, 2, 2)
        if is_next and view.camera_number == 2 and runs[0].stop - runs[0].start == gap:
            return runs[0].start
    return None


def _camera(cameras: dict[Any, Any], view: View, *, path: Path) -> Camera:
    """A camera of cameras.pkl."""
    key = (f"S{view.subject}", view.camera_name)
    name = f"{path}, camera {view.camera_name} of S{view.subject}"
    if key not in cameras:
        raise ValueError(f"{name} is missing; make the file again with preprocess_h36m.py")
    shapes = {"R": (3, 3), "T": (3,), "f": (2,), "c": (2,), "k": (3,), "p": (2,)}
    values = camera_arrays(cameras[key], shapes, name=name)
    camera, _ = recognised_camera(
        view.subject,
        view.camera_name,
        rotation=values["R"],
        translation=values["T"],
        focal_px=values["f"],
        principal_point_px=values["c"],
        radial=values["k"],
        tangential=values["p"],
        documented=("world from camera", "the centre in m"),
        name=name,
    )
    return camera


def _take(path: Path, view: View, runs: tuple[Run, ...], *, images: Path, camera: Camera) -> Take:
    """The rows of one view, in order of their frames."""
    names = np.concatenate([read_rows(path, "imgname", run.start, run.stop) for run in runs])
    labels = {
        name: np.concatenate(
            [read_rows(path, name, run.start + run.offset, run.stop + run.offset) for run in runs]
        ).astype(np.float64)
        for name in ROWS
    }
    listed = names.astype(str).tolist()
    frame = np.array([_frame(name, path=path) for name in listed])
    order = np.argsort(frame, kind="stable")
    twice = np.flatnonzero(np.diff(frame[order]) == 0)
    if len(twice):
        raise ValueError(f"{path}: image {listed[order[twice[0]]]} occurs twice")
    joints_m = labels["S"][order, :, :3]
    _check_metres(joints_m, path=path)
    side_px = SCALE_PX * labels["scale"][order, None]
    centre_px = labels["center"][order]
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=1000 * joints_m,
        camera=camera,
        camera_name=view.camera_name,
        image_size_px=view.image_sizes_px(len(frame)),
        frame=frame[order],
        pictures=ImageFiles(folder=images, names=tuple(listed[row] for row in order)),
        box_xywh_px=np.concatenate([centre_px - side_px / 2, side_px, side_px], axis=1),
        source_px=labels["part"][order, :, :2],
    )


def _frame(name: str, *, path: Path) -> int:
    """The frame's number from 0; names count from 1."""
    found = _FRAME.fullmatch(name)
    if found is None or int(found.group(2)) < 1:
        raise ValueError(f"{path}: image name {name!r} must end in the frame's number, from 1")
    return int(found.group(2)) - 1


def _check_metres(joints_m: np.ndarray, *, path: Path) -> None:
    """Refuse joints in millimetres."""
    sizes = np.ptp(joints_m, axis=1).max(-1)
    if np.median(sizes) > LARGEST_PERSON_M:
        raise ValueError(
            f"{path}: people are {np.median(sizes):.3g} units large in S; expected metres"
        )
