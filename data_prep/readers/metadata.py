"""Read Human3.6M's metadata.xml: names and lengths of sequences, cameras, image sizes.

Names of files come from `<mapping>` alone: which subaction a file holds cannot be told otherwise.

    <mapping>    rows of cells: row 0 the subjects; rows 1 to 32 action, subaction and each
                 subject's base name of files; row 34 each subject's image sizes,
                 "[height width; ...]", one pair per camera
    <frames>     a row per subject, cells as rows 1 to 32 above after an empty one:
                 "[video frames of cameras 1 to 4, poses of the four cameras together]"
    <w0>         300 numbers: of camera 0 to 3 and subject 1 to 11, from 6 (11 camera + subject − 1)
                 on, three angles (radians) and the centre C (mm); of each camera, from
                 264 + 9 camera on, fx fy cx cy k1 k2 k3 p1 p2
    <dbcameras>  <index2id>: the cameras' names, in the order of their numbers

Source:
    Human3.6M, Ionescu et al., PAMI 2014: Release-v1.2/metadata.xml in code-v1.2.zip.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch

from pose3d.geometry.camera import Camera, rotation_from_angles

NUM_SUBJECTS = 11
NUM_CAMERAS = 4
NUM_ACTIONS = 16
NUM_SUBACTIONS = 2
SIZES_ROW = 34
EXTRINSICS, INTRINSICS = 6, 9
NUM_W0 = NUM_CAMERAS * (NUM_SUBJECTS * EXTRINSICS + INTRINSICS)
REMEDY = "take metadata.xml out of the release's code-v1.2.zip again"

Key = tuple[int, int, int]
"""Subject, action (1 to 16) and subaction (1 or 2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Metadata:
    """What metadata.xml states.

    Attributes:
        path: The file.
        subjects: Subjects that the columns of `<mapping>` stand for.
        camera_names: Names of the cameras 1 to 4.
        cameras: By camera and subject, a batch (4, 11); float64, with distortion.
        file_names: Base names of files, as far as there are any.
        num_frames: Frames of the four videos, then the poses of the four cameras together.
        image_sizes_px: Width and height by subject and camera name, as far as they are stated.
    """

    path: Path
    subjects: tuple[int, ...]
    camera_names: tuple[str, ...]
    cameras: Camera
    file_names: dict[Key, str]
    num_frames: dict[Key, tuple[int, ...]]
    image_sizes_px: dict[tuple[int, str], tuple[int, int]]

    def file_name(self, key: Key) -> str:
        """Base name of a performance's files, e.g. "Eating 2".

        Raises:
            ValueError: If `<mapping>` has no such row, or no such cell in it.
        """
        if key not in self.file_names:
            raise ValueError(f"{self.path}: row {_row_of(key)} of <mapping> {_lacks(key)}")
        return self.file_names[key]

    def num_poses(self, key: Key) -> int:
        """Poses per camera: a quarter of the total, rounded down.

        Raises:
            ValueError: If `<frames>` does not state it.
        """
        if key not in self.num_frames:
            raise ValueError(f"{self.path}: <frames> {_lacks(key)}")
        return self.num_frames[key][-1] // NUM_CAMERAS

    def camera(self, subject: int, camera_name: str) -> Camera:
        """A camera as it stood for a subject (1 to 11); world in millimetres."""
        one = self.cameras[self.camera_names.index(camera_name), subject - 1]
        return Camera(**{part.name: getattr(one, part.name).clone() for part in fields(one)})

    def image_size_px(self, subject: int, camera_name: str) -> tuple[int, int]:
        """Width and height of a camera's images of a subject, pixels.

        Raises:
            ValueError: If row 34 of `<mapping>` does not state it.
        """
        size = self.image_sizes_px.get((subject, camera_name))
        if size is None:
            raise ValueError(
                f"{self.path}: row {SIZES_ROW} of <mapping> states no image size [height width] "
                f"of S{subject}'s camera {camera_name}; {REMEDY}"
            )
        return size


def _row_of(key: Key) -> int:
    """The row of `<mapping>` that a performance has in the release."""
    return (key[1] - 1) * NUM_SUBACTIONS + key[2]


def _lacks(key: Key) -> str:
    subject, action, subaction = key
    return f"states nothing of S{subject}, action {action}, subaction {subaction}; {REMEDY}"


def read_metadata(path: Path) -> Metadata:
    """Read metadata.xml.

    Raises:
        ValueError: Naming the file and what is wrong, if it is missing, no XML, or lacks a part.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise ValueError(f"metadata {path} cannot be read: {error.strerror}") from error
    except ElementTree.ParseError as error:
        raise ValueError(f"metadata {path} is not well-formed XML ({error}); {REMEDY}") from error
    names = tuple((item.text or "").strip() for item in _part(root, "dbcameras/index2id", path))
    if len(names) != NUM_CAMERAS or len(set(names)) != NUM_CAMERAS or not all(names):
        raise ValueError(
            f"metadata {path}: <index2id> names the cameras {', '.join(names) or 'not at all'}; "
            f"expected {NUM_CAMERAS} names; {REMEDY}"
        )
    rows = [[(cell.text or "").strip() for cell in row] for row in _part(root, "mapping", path)]
    subjects = _subjects(rows, path)
    return Metadata(
        path=path,
        subjects=subjects,
        camera_names=names,
        cameras=_cameras(_numbers(_part(root, "w0", path).text, "<w0>", path), path),
        file_names=_file_names(rows, subjects),
        num_frames=_frames(_part(root, "frames", path), path),
        image_sizes_px=_image_sizes(rows, subjects, names, path),
    )


def _part(root: ElementTree.Element, name: str, path: Path) -> ElementTree.Element:
    found = root.find(name)
    if found is None:
        tag = name.rpartition("/")[2]
        raise ValueError(f"metadata {path} has no <{tag}>; {REMEDY}")
    return found


def _numbers(text: str | None, name: str, path: Path) -> list[float]:
    """Numbers in MATLAB's manner, in brackets, with blanks, commas and semicolons between."""
    plain = (text or "").strip().strip("[]").replace(";", " ").replace(",", " ")
    try:
        return [float(word) for word in plain.split()]
    except ValueError as error:
        raise ValueError(
            f"metadata {path}: {name} holds something other than numbers ({error}); {REMEDY}"
        ) from error


def _subjects(rows: list[list[str]], path: Path) -> tuple[int, ...]:
    """The subjects that row 0 names in its third and further cells."""
    names = rows[0][2:] if rows else []
    if not names or not all(name[:1] == "S" and name[1:].isdecimal() for name in names):
        raise ValueError(
            f"metadata {path}: row 0 of <mapping> holds {', '.join(names) or 'no subjects'}; "
            f"expected S1 to S{NUM_SUBJECTS} after two other cells; {REMEDY}"
        )
    return tuple(int(name[1:]) for name in names)


def _file_names(rows: list[list[str]], subjects: tuple[int, ...]) -> dict[Key, str]:
    """Base names by subject and the action and subaction that each row states."""
    found = {}
    for row in rows[1:]:
        if len(row) > 2 and row[0].isdecimal() and row[1].isdecimal():
            for subject, name in zip(subjects, row[2:], strict=False):
                if name:
                    found[subject, int(row[0]), int(row[1])] = name
    return found


def _frames(table: ElementTree.Element, path: Path) -> dict[Key, tuple[int, ...]]:
    """The five numbers of each performance, where a cell holds five."""
    found = {}
    for subject, row in enumerate(table, start=1):
        for column, cell in enumerate(row):
            place = f"row {subject}, cell {column} of <frames>"
            numbers = _numbers(cell.text, place, path) if column else []
            if len(numbers) == NUM_CAMERAS + 1:
                action, subaction = divmod(column - 1, NUM_SUBACTIONS)
                found[subject, action + 1, subaction + 1] = tuple(int(n) for n in numbers)
    return found


def _image_sizes(
    rows: list[list[str]], subjects: tuple[int, ...], names: tuple[str, ...], path: Path
) -> dict[tuple[int, str], tuple[int, int]]:
    """Width and height from the pairs "height width" of row 34, told by its brackets."""
    found = {}
    bracketed = [row for row in rows[1:] if row and row[-1].startswith("[")]
    cells = bracketed[-1][-len(subjects) :] if bracketed else []
    for subject, text in zip(subjects, cells, strict=False):
        numbers = _numbers(text, f"S{subject} in row {SIZES_ROW} of <mapping>", path)
        if len(numbers) == 2 * NUM_CAMERAS:
            for camera, name in enumerate(names):
                height, width = numbers[2 * camera : 2 * camera + 2]
                found[subject, name] = (int(width), int(height))
    return found


def _cameras(numbers: list[float], path: Path) -> Camera:
    """The four cameras as they stood for the eleven subjects, a batch (4, 11).

    Raises:
        ValueError: If there are not 300 numbers, or they make no camera.
    """
    if len(numbers) != NUM_W0:
        raise ValueError(
            f"metadata {path}: <w0> holds {len(numbers)} numbers, expected {NUM_W0}; {REMEDY}"
        )
    table = np.array(numbers)
    shape = (NUM_CAMERAS, NUM_SUBJECTS)
    extrinsics = table[: -NUM_CAMERAS * INTRINSICS].reshape(*shape, EXTRINSICS)
    intrinsics = table[-NUM_CAMERAS * INTRINSICS :].reshape(NUM_CAMERAS, 1, INTRINSICS)
    intrinsics = np.tile(intrinsics, (1, NUM_SUBJECTS, 1))
    try:
        return Camera.from_parameters(
            rotation=rotation_from_angles(*torch.from_numpy(extrinsics[..., :3]).unbind(-1)),
            centre_world_mm=extrinsics[..., 3:],
            focal_px=intrinsics[..., :2],
            principal_point_px=intrinsics[..., 2:4],
            radial=intrinsics[..., 4:7],
            tangential=intrinsics[..., 7:],
        )
    except ValueError as error:
        raise ValueError(f"metadata {path}: cameras of <w0>: {error}; {REMEDY}") from error
