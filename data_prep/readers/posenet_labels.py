"""The label files of one subject in PoseNet's layouts, brought into arrays."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from data_prep.human36m import action_name
from data_prep.readers.files import RECORD_ERRORS, fault_of, image_size, person_box, read_json
from data_prep.readers.rle_json import NUMBER_KEYS, load_pairs
from data_prep.readers.views import CameraValues
from pose3d.data.store import INT32_MAX

ViewNumbers = tuple[int, int, int]
"""Action (2 to 16), subaction and camera (1 to 4)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewRows:
    """What one camera saw of one performance, in order of time."""

    frame: Int[np.ndarray, " n"]
    image_id: Int[np.ndarray, " n"]
    image_size_px: Int[np.ndarray, "n 2"]
    box_xywh_px: Float[np.ndarray, "n 4"]
    visibility: Bool[np.ndarray, "n 17"]
    file_name: Shaped[np.ndarray, " n"]
    """Bytes in UTF-8."""
    joints_world_mm: Float[np.ndarray, "poses 17 3"]
    """Joints of the whole performance, shared by its views."""
    pose: Int[np.ndarray, " n"]
    """Each frame's row of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectLabels:
    """All labels of one subject.

    Attributes:
        subject: Number of the subject.
        cameras: By number, 1 to 4.
        views: By action, subaction and camera.
        faults: Name and reason of every record that cannot be used.
    """

    subject: int
    cameras: dict[int, CameraValues]
    views: dict[ViewNumbers, ViewRows]
    faults: list[tuple[str, str]]


def label_paths(folder: Path, subject: int) -> dict[str, Path]:
    """The files of a subject by what they hold; of the first layout's one file, if it is there."""
    start = f"Human36M_subject{subject}"
    second = {kind: folder / f"{start}_{kind}.json" for kind in ("data", "camera", "joint_3d")}
    first = folder / f"{start}.json"
    if first.is_file() and not second["data"].is_file():
        return {"all": first}
    return second


def read_subject(paths: Mapping[str, Path], subject: int) -> SubjectLabels:
    """Read the labels of one subject.

    Raises:
        ValueError: Naming the file, if one of them is missing, damaged or of another layout.
    """
    rows = _Rows(subject)
    if "all" in paths:
        cameras, joints = _read_pairs(paths["all"], rows)
        source = paths["all"].name
    else:
        cameras = _cameras(paths["camera"], _mapping(paths["camera"]))
        joints = _joints(paths["joint_3d"], _mapping(paths["joint_3d"]))
        _read_records(paths["data"], rows)
        source = paths["joint_3d"].name
    views = dict(rows.views(joints, source=source))
    if not views:
        name, reason = rows.faults[0]
        path = paths.get("data", paths.get("all"))
        raise ValueError(f"{path} has no record that can be used; the first, {name}: {reason}")
    for number in sorted({number for _, _, number in views}):
        if number not in cameras:
            path = paths.get("camera", paths.get("all"))
            raise ValueError(f"{path} has no camera {number}, which images of S{subject} name")
    return SubjectLabels(subject=subject, cameras=cameras, views=views, faults=rows.faults)


def _mapping(path: Path) -> Mapping:
    """A JSON file that holds an object."""
    content = read_json(path, name="annotation file")
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected an object")
    return content


class _Rows:
    """Records in the order of the file, by view."""

    def __init__(self, subject: int) -> None:
        self.subject = subject
        self.faults: list[tuple[str, str]] = []
        self._views: dict[ViewNumbers, list[tuple]] = {}

    def add(self, image: Any, annotation: Any) -> None:
        """Take one record, or note what is wrong with it."""
        name = str(image.get("file_name", "?")) if isinstance(image, Mapping) else "?"
        try:
            if annotation is None:
                raise ValueError("has no annotation, or several; one person per image is expected")
            numbers, row = self._parse(image, annotation)
        except RECORD_ERRORS as error:
            self.faults.append((name, fault_of(error)))
        else:
            self._views.setdefault(numbers, []).append(row)

    def _parse(self, image: Mapping, annotation: Mapping) -> tuple[ViewNumbers, tuple]:
        subject, action, subaction, camera, frame = (int(image[key]) for key in NUMBER_KEYS)
        if subject != self.subject:
            raise ValueError(f"is of subject {subject} in the file of subject {self.subject}")
        action_name(action)
        for key, number in (
            ("subaction_idx", subaction),
            ("cam_idx", camera),
            ("frame_idx", frame),
        ):
            if not 0 <= number <= INT32_MAX:
                raise ValueError(f"{key} is {number}, must be 0 to {INT32_MAX}")
        box = person_box(annotation)
        visible = np.array(annotation.get("keypoints_vis", [True] * 17), bool)
        if visible.shape != (17,):
            raise ValueError(f"keypoints_vis has shape {visible.shape}, expected (17,)")
        size = image_size(image)
        name = str(image["file_name"]).encode()
        row = (frame, int(image.get("id", -1)), size, box, visible, name)
        return (action, subaction, camera), row

    def views(
        self, joints: Mapping[tuple[int, int], tuple[np.ndarray, np.ndarray]], *, source: str
    ) -> Iterator[tuple[ViewNumbers, ViewRows]]:
        """Arrays of every view; records without joints, and those that occur twice, are faults."""
        for numbers, rows in sorted(self._views.items()):
            poses, joints_mm = joints.get(numbers[:2], (np.zeros(0, int), np.zeros((0, 17, 3))))
            rows.sort(key=lambda row: row[0])
            frame = np.array([row[0] for row in rows])
            pose = np.searchsorted(poses, frame)
            is_there = np.isin(frame, poses)
            is_new = np.diff(frame, prepend=-1) > 0
            for row in np.flatnonzero(~is_there | ~is_new):
                reason = "occurs twice" if is_there[row] else f"has no joints of 17×3 in {source}"
                self.faults.append((rows[row][5].decode(), reason))
            kept = np.flatnonzero(is_there & is_new)
            columns = list(zip(*(rows[row] for row in kept), strict=True))
            if columns:
                yield (
                    numbers,
                    ViewRows(
                        frame=frame[kept],
                        image_id=np.array(columns[1]),
                        image_size_px=np.array(columns[2]),
                        box_xywh_px=np.array(columns[3]),
                        visibility=np.array(columns[4]),
                        file_name=np.array(columns[5]),
                        joints_world_mm=joints_mm,
                        pose=pose[kept],
                    ),
                )


def _read_records(path: Path, rows: _Rows) -> None:
    """The records of the second layout: images and annotations are joined by the image's id."""
    content = _mapping(path)
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list) or not images:
        raise ValueError(
            f'{path} has the keys {sorted(content)[:8]}; expected {{"images": [...], '
            '"annotations": [...]}}'
        )
    by_image: dict[Any, Any] = {}
    for annotation in annotations:
        key = _hashable(annotation.get("image_id")) if isinstance(annotation, Mapping) else None
        by_image[key] = None if key in by_image else annotation
    for image in images:
        key = _hashable(image.get("id")) if isinstance(image, Mapping) else None
        rows.add(image, by_image.get(key))


def _hashable(key: Any) -> Any:
    """An id as JSON may have it; lists and objects are none."""
    return None if isinstance(key, list | dict) else key


def _read_pairs(
    path: Path, rows: _Rows
) -> tuple[dict[int, CameraValues], dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]]:
    """The records of the first layout, with cameras and joints in every one of them."""
    cameras: dict[str, Any] = {}
    poses: dict[str, dict[str, dict[str, Any]]] = {}
    for image, annotation in load_pairs(path):
        try:
            action, subaction, camera, frame = (str(int(image[key])) for key in NUMBER_KEYS[1:])
            first = cameras.setdefault(camera, image["cam_param"])
            if image["cam_param"] != first:
                raise ValueError("cam_param differs from that of its camera's other images")
            joints = annotation["keypoints_world"]
        except (KeyError, TypeError, ValueError) as error:
            name = str(image.get("file_name", "?")) if isinstance(image, Mapping) else "?"
            rows.faults.append((name, f"is not of this layout ({type(error).__name__}: {error})"))
            continue
        poses.setdefault(action, {}).setdefault(subaction, {})[frame] = joints
        rows.add(image, annotation)
    return _cameras(path, cameras), _joints(path, poses)


def _cameras(path: Path, content: Mapping) -> dict[int, CameraValues]:
    """Cameras by number."""
    cameras = {}
    for number, values in content.items():
        try:
            cameras[int(number)] = CameraValues.read(values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: camera {number!r} is not of this layout ({type(error).__name__}: "
                f"{error}); expected R 3×3, t 3, f 2, c 2"
            ) from error
    return cameras


def _joints(path: Path, content: Mapping) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """Frame numbers, ascending, and joints by action and subaction; odd shapes are left out."""
    joints = {}
    try:
        for action, subactions in content.items():
            for subaction, frames in subactions.items():
                sound = {int(frame): pose for frame, pose in frames.items() if _is_pose(pose)}
                numbers = sorted(sound)
                array = np.array([sound[number] for number in numbers], np.float64)
                joints[int(action), int(subaction)] = (
                    np.array(numbers, int),
                    array.reshape(-1, 17, 3),
                )
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not of this layout ({type(error).__name__}: {error}); expected joints as "
            "[action_idx][subaction_idx][frame_idx]: 17×3, world, millimetres"
        ) from error
    return joints


def _is_pose(pose: Any) -> bool:
    """Whether this is a list of 17 joints."""
    return (
        isinstance(pose, list)
        and len(pose) == 17
        and all(isinstance(joint, list) and len(joint) == 3 for joint in pose)
    )
