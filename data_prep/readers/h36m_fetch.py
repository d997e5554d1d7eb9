"""Read the tree that h36m-fetch makes of Human3.6M's archives (its folder `processed`).

    SOURCE/S1/Directions-1/annot.h5                                labels of all cameras
    SOURCE/S1/Directions-1/imageSequence/54138969/img_000001.jpg   frames, numbered from 1

Folders are called by the action names of metadata.xml (TakingPhoto, WalkingDog, WalkingTogether)
and the subaction. Row k of a file's arrays belongs to `camera[k]` and `frame[k]` (from 1):
`pose/3d` (M, 32, 3) in the camera's frame, millimetres, and `pose/2d` (M, 32, 2), pixels. The file
has no extrinsics: Human3.6M's known cameras are put in. Its `intrinsics/<camera>` (fx, cx, fy, cy)
are least-squares estimates of a camera without distortion, used only when asked for.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from data_prep.human36m import RAW_17, action_number
from data_prep.people import check_millimetres
from data_prep.pictures import ImageFiles
from data_prep.readers.files import digest_of_files
from data_prep.readers.sampling import protocol_of_frames
from data_prep.readers.views import UNUSABLE_NOTE, View
from data_prep.takes import LazyTake, Take
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.skeleton import HUMAN36M_17

INTRINSICS = ("human36m", "estimated")
LABELS = "annot.h5"
IMAGES = "imageSequence"
_SUBJECT = re.compile(r"S(\d+)")
_PERFORMANCE = re.compile(r"([A-Za-z]+)-(\d+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Folder:
    """One performance's folder and, by camera, its frames; None where it cannot be read."""

    path: Path
    subject: int
    action: int
    subaction: int
    frames: dict[str, np.ndarray] | None

    def view(self, camera_name: str) -> View:
        return View(
            subject=self.subject,
            action=self.action,
            subaction=self.subaction,
            camera_name=camera_name,
        )


class H36mFetchReader:
    """The processed tree of h36m-fetch; a `Reader`.

    Args:
        source: The folder `processed`, with S1/Directions-1/annot.h5 and so on, or the one that
            holds it.
        intrinsics: "human36m" takes the cameras of the release, with distortion; "estimated" the
            file's estimates, without.

    Raises:
        ValueError: If the folder is not of this layout.
    """

    skeleton = HUMAN36M_17.name
    box_kind = "none"
    is_human36m = True
    description = "h36m-fetch (processed)"

    def __init__(self, source: Path | str, *, intrinsics: str = "human36m") -> None:
        if intrinsics not in INTRINSICS:
            raise ValueError(
                f"intrinsics must be one of {', '.join(INTRINSICS)}, got {intrinsics!r}"
            )
        inner = Path(source) / "processed"
        self._source = inner if inner.is_dir() else Path(source)
        self._intrinsics = intrinsics
        self.notes: list[str] = []
        self.missing: list[str] = []
        folders = list(self._folders())
        if not folders:
            raise ValueError(
                f"no S*/*/{LABELS} in {self._source}; SOURCE must be h36m-fetch's folder "
                "'processed', with S1/Directions-1/annot.h5 and so on"
            )
        self._paths = [folder.path / LABELS for folder in folders]
        self._units = self._list(folders)
        self.default_protocol = protocol_of_frames(
            (folder.subject, frame)
            for folder in folders
            for frame in (folder.frames or {}).values()
        )

    def identity(self) -> dict[str, Any]:
        """Names and sizes of the label files and the choice of intrinsics."""
        return {
            "labels": digest_of_files(self._paths, folder=self._source),
            "intrinsics": self._intrinsics,
        }

    def units(self) -> list[LazyTake]:
        """One take per performance and camera."""
        return self._units

    def _folders(self) -> Iterator[_Folder]:
        """Performances with labels, in the order of their numbers."""
        found = []
        for path in self._source.glob(f"S*/*/{LABELS}"):
            subject = _SUBJECT.fullmatch(path.parent.parent.name)
            performance = _PERFORMANCE.fullmatch(path.parent.name)
            if subject is None or performance is None:
                raise ValueError(
                    f"{path}: expected a folder such as S1/Directions-1 (an early h36m-fetch made "
                    "S1/Directions and lacks poses in the camera's frame: process again with the "
                    "current one)"
                )
            action, subaction = performance.groups()
            try:
                numbers = (int(subject.group(1)), action_number(action), int(subaction))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            found.append((numbers, path))
        for numbers, path in sorted(found):
            yield _folder(path, *numbers)

    def _list(self, folders: list[_Folder]) -> list[LazyTake]:
        """Units of all views that are there; what is not is put down as missing."""
        recorded = {name for folder in folders for name in folder.frames or {}}
        expected = [name for name in HUMAN36M_CAMERA_NAMES if name in recorded or not recorded]
        units = []
        for folder in folders:
            for name in dict.fromkeys((*expected, *(folder.frames or {}))):
                try:
                    view = folder.view(name)
                except ValueError as error:
                    raise ValueError(f"{folder.path / LABELS}: {error}") from error
                images = folder.path / IMAGES / name
                if view.is_unusable:
                    self.notes.append(UNUSABLE_NOTE)
                elif folder.frames is not None and name not in folder.frames:
                    self.missing.append(f"{folder.path / LABELS} has no rows of camera {name}")
                elif not images.is_dir():
                    self.missing.append(f"folder {images} is missing")
                else:
                    count = 0 if folder.frames is None else len(folder.frames[name])
                    units.append(self._unit(view, folder, count))
        labelled = {folder.path for folder in folders}
        for path in sorted(self._source.glob(f"S*/*/{IMAGES}")):
            if path.parent not in labelled:
                self.missing.append(f"file {path.parent / LABELS} is missing")
        return units

    def _unit(self, view: View, folder: _Folder, count: int) -> LazyTake:
        name = folder.path.relative_to(self._source).as_posix()
        read = partial(_take, self._source, name, view, intrinsics=self._intrinsics)
        return view.unit(split=None, count=count, read=read)


def _folder(path: Path, subject: int, action: int, subaction: int) -> _Folder:
    """Which frames there are; a file that cannot be read is told of when it is its turn."""
    try:
        with opened(path) as file:
            cameras = _array(file, "camera", ())
            numbers = _array(file, "frame", ()).astype(np.int32)
    except ValueError:
        frames = None
    else:
        frames = {str(name): numbers[cameras == name] - 1 for name in np.unique(cameras).tolist()}
    return _Folder(
        path=path.parent, subject=subject, action=action, subaction=subaction, frames=frames
    )


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file; what goes wrong with it inside the block becomes an error that names it.

    Raises:
        ValueError: If it is missing, damaged, or lacks what is asked of it.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read ({reason}); it is damaged or cut off: process the performance "
            "again with h36m-fetch"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _array(
    file: h5py.File, key: str, row: tuple[int, ...], *, rows: slice = slice(None)
) -> np.ndarray:
    """Rows of a dataset whose rows have this shape."""
    if key not in file or not isinstance(file[key], h5py.Dataset):
        raise ValueError(
            f"has no dataset {key}, only {', '.join(sorted(file))}; process the performance again "
            "with the current h36m-fetch"
        )
    shape = file[key].shape
    if len(shape) != 1 + len(row) or shape[1:] != row:
        raise ValueError(f"{key} has shape {shape}, expected {('M', *row)}")
    return file[key][rows]


def _take(source: Path, folder: str, view: View, *, intrinsics: str) -> Take:
    """The rows of one camera, in order of their frames."""
    path = source / folder / LABELS
    with opened(path) as file:
        rows = np.flatnonzero(_array(file, "camera", ()) == int(view.camera_name))
        if not len(rows):
            raise ValueError(f"has no rows of camera {view.camera_name}")
        block = slice(int(rows[0]), int(rows[-1]) + 1)
        rows -= rows[0]
        frame = _array(file, "frame", (), rows=block)[rows].astype(np.int64) - 1
        rows, frame = rows[np.argsort(frame)], np.sort(frame)
        _check_frames(frame)
        for key in ("subject", "action", "subaction"):
            numbers = np.unique(_array(file, key, (), rows=block)[rows])
            if numbers.tolist() != [getattr(view, key)]:
                raise ValueError(
                    f"{key} is {', '.join(map(str, numbers))} in the file, the folder says "
                    f"{getattr(view, key)}; one of them was copied to a wrong place"
                )
        joints = _array(file, "pose/3d", (32, 3), rows=block)[rows][:, RAW_17]
        source_px = _array(file, "pose/2d", (32, 2), rows=block)[rows][:, RAW_17]
        camera = view.known_camera
        if intrinsics == "estimated":
            camera = _estimated(camera, _array(file, f"intrinsics/{view.camera_name}", ()))
        check_millimetres(joints, name="pose/3d")
    names = [f"{folder}/{IMAGES}/{view.camera_name}/img_{f + 1:06d}.jpg" for f in frame]
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=joints.astype(np.float64),
        camera=camera,
        camera_name=view.camera_name,
        image_size_px=view.image_sizes_px(len(frame)),
        frame=frame,
        pictures=ImageFiles(folder=source, names=tuple(names)),
        source_px=source_px.astype(np.float64),
    )


def _check_frames(frame: np.ndarray) -> None:
    """Refuse frame numbers that occur twice or count from 0."""
    if frame[0] < 0:
        raise ValueError(f"frame has the number {frame[0] + 1}; frames count from 1 in this layout")
    twice = frame[1:][np.diff(frame) == 0]
    if len(twice):
        raise ValueError(f"frame {twice[0] + 1} occurs twice for one camera")


def _estimated(camera: Camera, numbers: np.ndarray) -> Camera:
    """The camera with a file's estimates (fx, cx, fy, cy) and no distortion."""
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or not (numbers > 0).all():
        raise ValueError(f"intrinsics are {numbers.tolist()}, expected fx, cx, fy, cy in pixels")
    fx, cx, fy, cy = torch.from_numpy(numbers.astype(np.float64))
    return replace(
        camera.without_distortion(),
        focal_px=torch.stack([fx, fy]),
        principal_point_px=torch.stack([cx, cy]),
    )
