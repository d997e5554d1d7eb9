"""Read the poses and cameras of Martinez et al.'s h36m.zip (3d-pose-baseline) with their images.

    SOURCE/S1/MyPoses/3D_positions/Directions 1.h5   3D_positions (96, N): 32 joints, world, mm
    SOURCE/cameras.h5                                subject1/camera1: R, T, f, c, k, p, Name

Files bear the names of the release's, but for Photo and WalkDog of S1. R is transposed on disk, T
is the camera's centre; each camera is read in the way in which it stands where Human3.6M's stood.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float

from data_prep.human36m import RAW_17, SUBJECTS, find_sequence
from data_prep.human36m_cameras import subject_camera
from data_prep.people import check_millimetres
from data_prep.readers.files import digest_of_files, sha256
from data_prep.readers.paired import WorldPoses, open_images, pair
from data_prep.readers.views import recognised_camera
from data_prep.takes import LazyTake
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.skeleton import HUMAN36M_17

POSES = "MyPoses/3D_positions"
DATASET = "3D_positions"
CAMERAS = "cameras.h5"
_SIZES = {"R": (3, 3), "T": (3,), "f": (2,), "c": (2,), "k": (3,), "p": (2,)}


class MartinezReader:
    """The poses and cameras of h36m.zip with a tree of images; a `Reader`.

    Args:
        source: The folder h36m, or the one that holds it.
        images: The images' folder, one of `data_prep.readers.image_trees.TREE_KINDS`; looked for
            in SOURCE if None.

    Raises:
        ValueError: If a folder is missing or not of its layout, or no pose has an image.
    """

    skeleton = HUMAN36M_17.name
    box_kind = "none"
    is_human36m = True
    description = "martinez (h36m.zip)"

    def __init__(self, source: Path | str, *, images: Path | str | None = None) -> None:
        source = Path(source)
        self._folder = source / "h36m" if (source / "h36m").is_dir() else source
        self.missing: list[str] = []
        self.notes: list[str] = []
        self._paths = sorted(self._folder.glob(f"S*/{POSES}/*.h5"))
        if not self._paths:
            raise ValueError(
                f"{self._folder} holds no S1/{POSES}/Directions 1.h5 and the like; SOURCE must be "
                "the folder h36m"
            )
        performances = [
            poses for path in self._paths if (poses := self._performance(path)) is not None
        ]
        subjects = sorted({poses.subject for poses in performances})
        if not performances:
            raise ValueError(self.missing[0])
        order = sorted(performances, key=lambda p: (p.subject, p.action, p.subaction))
        pairs = pair(order, self._cameras(subjects), open_images(images, beside=source))
        self.notes += pairs.notes
        self.default_protocol = pairs.default_protocol
        self._units = pairs.units

    def identity(self) -> dict[str, Any]:
        """Names and sizes of the poses' files, the cameras' digest, how many images there are."""
        path = self._folder / CAMERAS
        return {
            "poses": digest_of_files(self._paths, folder=self._folder),
            "cameras": path.is_file() and sha256(path),
            "images": {unit.name: unit.count for unit in self._units},
        }

    def units(self) -> list[LazyTake]:
        """One take per performance and camera with images."""
        return self._units

    def _performance(self, path: Path) -> WorldPoses | None:
        """List one file; None, and a line, if it cannot be read."""
        subject = path.relative_to(self._folder).parts[0].removeprefix("S")
        if path.name.startswith("_ALL") or not subject.isdecimal():
            return None
        try:
            fact = find_sequence(int(subject), path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        try:
            with _opened(path) as file:
                count = _dataset(file, path).shape[1]
        except ValueError as error:
            self.missing.append(str(error))
            return None
        return WorldPoses(
            subject=fact.subject,
            action=fact.action,
            subaction=fact.subaction,
            count=count,
            read=partial(read_poses, path),
            points_px={},
        )

    def _cameras(self, subjects: list[int]) -> dict[tuple[int, str], Camera]:
        """Cameras by subject and name; those that are not there are put down as missing."""
        path = self._folder / CAMERAS
        if not path.is_file():
            self.notes.append(f"there is no {path}: Human3.6M's known cameras are taken")
            return {
                (subject, name): subject_camera(subject, name)
                for subject in SUBJECTS
                for name in HUMAN36M_CAMERA_NAMES
            }
        cameras, readings = {}, set()
        with _opened(path) as file:
            for subject in subjects:
                for number, expected in enumerate(HUMAN36M_CAMERA_NAMES, 1):
                    entry = f"subject{subject}/camera{number}"
                    if not isinstance(file.get(entry), h5py.Group):
                        self.missing.append(f"{path} has no {entry}")
                        continue
                    camera, reading = _camera(file[entry], subject, expected, f"{path}: {entry}")
                    cameras[subject, expected] = camera
                    readings.add(reading)
        if not cameras:
            raise ValueError(f"{self.missing[-1]}, nor any other camera of the poses' subjects")
        self.notes += [f"{CAMERAS}: {reading}" for reading in sorted(readings)]
        return cameras


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file; what is wrong with it becomes one line that names it."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except ValueError:
        raise
    except (OSError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{path} is not readable ({said}); it is damaged or cut off: fetch it again"
        ) from error


def _dataset(file: h5py.File, path: Path) -> h5py.Dataset:
    """The poses of a file."""
    values = file.get(DATASET)
    if not isinstance(values, h5py.Dataset) or values.ndim != 2 or values.shape[0] != 96:
        shape = values.shape if isinstance(values, h5py.Dataset) else None
        raise ValueError(
            f"{path}: {DATASET} has the shape {shape}, expected (96, poses): 32 joints, world, mm"
        )
    return values


def read_poses(path: Path) -> Float[np.ndarray, "n 17 3"]:
    """The 17 joints of every pose of a file, world, millimetres.

    Raises:
        ValueError: Naming the file, if it is damaged or not in millimetres.
    """
    with _opened(path) as file:
        values = np.asarray(_dataset(file, path), np.float64)
    joints = values.T.reshape(-1, 32, 3)[:, RAW_17]
    check_millimetres(joints, name=str(path))
    return joints


def _camera(group: h5py.Group, subject: int, expected: str, name: str) -> tuple[Camera, str]:
    """One camera of the file."""
    arrays = {}
    for key, shape in _SIZES.items():
        values = np.asarray(group[key], np.float64) if key in group else np.zeros(0)
        if values.size != np.prod(shape):
            raise ValueError(f"{name}/{key} has the shape {values.shape}, expected {shape}")
        arrays[key] = values.reshape(shape)
    if "Name" in group:
        codes = np.asarray(group["Name"], int).ravel()
        called = "".join(map(chr, codes[(codes > 0) & (codes < 128)]))
        if called != expected:
            raise ValueError(f"{name} is called {called!r}, expected {expected}")
    return recognised_camera(
        subject,
        expected,
        rotation=arrays["R"],
        translation=arrays["T"],
        focal_px=arrays["f"],
        principal_point_px=arrays["c"],
        radial=arrays["k"],
        tangential=arrays["p"],
        documented=("world from camera", "the centre in mm"),
        name=name,
    )
