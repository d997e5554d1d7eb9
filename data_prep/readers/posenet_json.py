"""Read PoseNet's JSON layout of Human3.6M (3DMPPE_POSENET, also I2L-MeshNet, Pose2Mesh).

    SOURCE/annotations/Human36M_subject1_data.json       images and annotations, by image id
    SOURCE/annotations/Human36M_subject1_camera.json     {"1": {R, t, f, c}, …, "4": …}
    SOURCE/annotations/Human36M_subject1_joint_3d.json   [action][subaction][frame] → 17×3, world mm
    SOURCE/images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg
    SOURCE/bbox_root/bbox_root_human36m_output.json      boxes of a detector, if asked for

The first layout of 2019, Human36M_subject1.json with camera and joints in every record, is read
where the three files are missing. Frames are those of frame_idx, from 0, and need not be
contiguous. The cameras have no distortion. `t` is −R·C in the files that are given out now and the
centre C in those of the published script; "auto" decides for each subject by the reading that puts
the people before the cameras and into the images.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.human36m import SUBJECTS, action_name
from data_prep.people import camera_name_of, check_millimetres, decide_translation
from data_prep.pictures import ImageFiles
from data_prep.readers.files import read_boxes, sha256
from data_prep.readers.posenet_labels import (
    SubjectLabels,
    ViewNumbers,
    ViewRows,
    label_paths,
    read_subject,
)
from data_prep.readers.sampling import protocol_of_frames
from data_prep.readers.views import CameraValues
from data_prep.takes import LazyTake, Rejection, Take, human36m_unit_name
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import HUMAN36M_17

_MOST_LOOKED_AT = 50
"""People of each view by whom the reading of t is decided."""


class PosenetJsonReader:
    """PoseNet's layout; a `Reader`.

    Args:
        source: Folder with annotations/ and images/.
        translation: Reading of the cameras' t: "centre", "minus-rc" or "auto".
        bbox_root: JSON list of {image_id, bbox} whose boxes take the place of the annotated ones
            where it has any; image_id is an image's id or its file name.

    Raises:
        ValueError: If no subject's files can be read, or the boxes cannot.
    """

    skeleton = HUMAN36M_17.name
    box_kind = "annotation"
    is_human36m = True

    def __init__(
        self,
        source: Path | str,
        *,
        translation: str = "auto",
        bbox_root: Path | str | None = None,
    ) -> None:
        self._source = Path(source)
        self.notes: list[str] = []
        self.missing: list[str] = []
        folder = self._source / "annotations"
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}; SOURCE must hold annotations/ and images/")
        self._paths = self._find(folder)
        self._translation: dict[int, str] = {}
        self._subjects: list[SubjectLabels] = []
        for subject, paths in self._paths.items():
            try:
                labels = read_subject(paths, subject)
                self._translation[subject] = self._decide(labels, asked=translation)
            except ValueError as error:
                self.missing.append(str(error))
            else:
                self._subjects.append(labels)
        if not self._subjects:
            raise ValueError(self.missing[0])
        self._boxes_path = None if bbox_root is None else Path(bbox_root)
        self._boxes = {} if self._boxes_path is None else read_boxes(self._boxes_path)
        self._units = [
            self._unit(labels, numbers) for labels in self._subjects for numbers in labels.views
        ] + [self._unreadable(labels) for labels in self._subjects if labels.faults]
        names = ", ".join(f"S{labels.subject}" for labels in self._subjects)
        self.description = f"posenet-json ({names})"
        self.default_protocol = protocol_of_frames(
            (labels.subject, rows.frame)
            for labels in self._subjects
            for rows in labels.views.values()
        )

    def identity(self) -> dict[str, Any]:
        """Digests of the label files, the readings of t and the boxes."""
        read = [self._paths[labels.subject] for labels in self._subjects]
        return {
            "annotations": {path.name: sha256(path) for paths in read for path in paths.values()},
            "translation": {str(subject): how for subject, how in self._translation.items()},
            "boxes": self._boxes_path and sha256(self._boxes_path),
        }

    def units(self) -> list[LazyTake]:
        """One take per subject, action, subaction and camera."""
        return self._units

    def _find(self, folder: Path) -> dict[int, dict[str, Path]]:
        """The label files of every subject that has any; which are not there is put down."""
        found, absent = {}, []
        for subject in SUBJECTS:
            paths = label_paths(folder, subject)
            lost = [path for path in paths.values() if not path.is_file()]
            if not lost:
                found[subject] = paths
            elif len(lost) < len(paths):
                self.missing += [f"annotation file {path} is missing" for path in lost]
            else:
                absent.append(f"S{subject}")
        if absent:
            self.notes.append(f"there is nothing of {', '.join(absent)} in {folder}")
        if not found:
            raise ValueError(
                self.missing[0]
                if self.missing
                else f"{folder} holds no Human36M_subject1_data.json, …_camera.json and "
                "…_joint_3d.json, nor those of another subject"
            )
        return found

    def _decide(self, labels: SubjectLabels, *, asked: str) -> str:
        """The reading of t for a subject."""
        views = [
            (labels.cameras[camera], rows, rows.joints_world_mm[rows.pose[_spread(len(rows.pose))]])
            for (_, _, camera), rows in labels.views.items()
        ]
        joints = np.concatenate([joints for _, _, joints in views])
        counts = [len(joints) for _, _, joints in views]
        name = f"t of S{labels.subject}'s cameras"
        check_millimetres(joints, name=f"the joints of S{labels.subject}")

        def of_camera(field: str) -> np.ndarray:
            return np.repeat([getattr(camera, field) for camera, _, _ in views], counts, axis=0)

        size = np.repeat([rows.image_size_px[0] for _, rows, _ in views], counts, axis=0)
        translation, why = decide_translation(
            of_camera("rotation"),
            of_camera("translation_mm"),
            of_camera("focal_px"),
            of_camera("principal_point_px"),
            joints,
            size,
            asked=asked,
            name=name,
        )
        self.notes.append(why)
        return translation

    def _unit(self, labels: SubjectLabels, numbers: ViewNumbers) -> LazyTake:
        """The unit of one view."""
        action, subaction, number = numbers
        rows = labels.views[numbers]
        name = camera_name_of(number, image_size_px=rows.image_size_px[0])
        camera = _camera(labels.cameras[number], translation=self._translation[labels.subject])
        boxes = self._boxes_of(rows) if self._boxes else {}
        folder = self._source / "images"
        return LazyTake(
            name=human36m_unit_name(labels.subject, action, subaction, number),
            subject=labels.subject,
            action=action_name(action),
            subaction=subaction,
            camera_name=name,
            split=None,
            count=len(rows.frame),
            read=partial(_take, rows, camera, boxes, camera_name=name, folder=folder),
        )

    def _boxes_of(self, rows: ViewRows) -> dict[int, list[float]]:
        """The boxes of a detector for a view, by row."""
        return {
            row: self._boxes[key]
            for row, keys in enumerate(zip(rows.image_id.tolist(), rows.file_name, strict=True))
            for key in keys
            if key in self._boxes
        }

    def _unreadable(self, labels: SubjectLabels) -> LazyTake:
        """A unit of all records of a subject that cannot be used."""
        return LazyTake(
            name=f"s_{labels.subject:02d}_unreadable",
            subject=labels.subject,
            action="unreadable",
            subaction=1,
            camera_name="unreadable",
            split=None,
            count=len(labels.faults),
            read=partial(_faulty_take, tuple(labels.faults)),
        )


def _spread(count: int) -> np.ndarray:
    """Some positions of so many."""
    return np.arange(0, count, max(count // _MOST_LOOKED_AT, 1))


def _camera(values: CameraValues, *, translation: str) -> Camera:
    """The camera, without distortion as the layout has it."""
    centre = values.translation_mm
    if translation == "minus-rc":
        centre = -values.rotation.T @ centre
    return Camera.from_parameters(
        rotation=values.rotation,
        centre_world_mm=centre,
        focal_px=values.focal_px,
        principal_point_px=values.principal_point_px,
    )


def _take(
    rows: ViewRows,
    camera: Camera,
    boxes: Mapping[int, list[float]],
    *,
    camera_name: str,
    folder: Path,
) -> Take:
    """The take of one view."""
    joints = torch.from_numpy(rows.joints_world_mm[rows.pose])
    box = rows.box_xywh_px.copy()
    for row, values in boxes.items():
        box[row] = values
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=camera.world_to_camera(joints).numpy(),
        camera=camera,
        camera_name=camera_name,
        image_size_px=rows.image_size_px,
        frame=rows.frame,
        pictures=ImageFiles(folder=folder, names=tuple(n.decode() for n in rows.file_name)),
        visibility=rows.visibility,
        box_xywh_px=box,
    )


def _faulty_take(faults: tuple[tuple[str, str], ...]) -> Take:
    """A take of no frames."""
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=np.zeros((0, 17, 3)),
        camera=Camera.from_parameters(focal_px=[1.0, 1.0], principal_point_px=[0.0, 0.0]),
        camera_name="unreadable",
        image_size_px=np.zeros((0, 2), int),
        frame=np.zeros(0, int),
        pictures=ImageFiles(folder=Path(), names=()),
        rejections=tuple(Rejection(name=name, reason=why, split="train") for name, why in faults),
    )
