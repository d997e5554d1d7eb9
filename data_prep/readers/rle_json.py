"""Read the annotation layout of the released RLE code (PoseNet's first JSON layout).

    SOURCE/annotations/Sample_trainmin_train_Human36M_protocol_2.json   training set
    SOURCE/annotations/Sample_64_test_Human36M_protocol_2.json          test set
    SOURCE/images/<file_name>
    SOURCE/annotations/<name>_protocol_2.json       boxes of a detector, if asked for

Each file holds {"images": [...], "annotations": [...]}, paired by position. Read from an image:
file_name, width, height, cam_param {R, t, f, c and, if there, k (k1 k2 k3), p (p1 p2)} and, if
there, subject, action_idx, subaction_idx, cam_idx, frame_idx (else from the file's name); from an
annotation: bbox (x, y, width, height, pixels) and keypoints_world (17 joints, millimetres).

`cam_param.t` is the camera's centre C in this layout, X_camera = R (X_world − C), while other files
of the same shape hold −R C; "auto" takes the reading that puts people before the cameras and into
the images, for the source as a whole.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.human36m import action_name
from data_prep.people import camera_name_of, check_millimetres, decide_translation
from data_prep.pictures import ImageFiles
from data_prep.readers.files import (
    RECORD_ERRORS,
    fault_of,
    float_array,
    image_size,
    person_box,
    read_boxes,
    read_json,
    sha256,
)
from data_prep.readers.views import CameraValues
from data_prep.takes import LazyTake, Rejection, Take, human36m_unit_name
from pose3d.data.store import INT32_MAX
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import HUMAN36M_17

TRAIN_PATTERN = "Sample_trainmin_train_*protocol_2.json"
TEST_PATTERN = "Sample_64_test_*protocol_2.json"
NUMBER_KEYS = ("subject", "action_idx", "subaction_idx", "cam_idx", "frame_idx")
_FILE_NAME = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)_(\d+)\.\w+$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Label:
    """One pair, parsed."""

    file_name: str
    split: str
    image_size_px: tuple[int, int]
    camera: CameraValues
    radial: np.ndarray
    tangential: np.ndarray
    box_xywh_px: np.ndarray
    joints_world_mm: np.ndarray
    numbers: tuple[int, int, int, int, int]
    """Subject, action, subaction, camera, frame from 0."""


class RleJsonReader:
    """The annotation layout of the released RLE code; a `Reader`.

    Args:
        source: Folder with annotations/ and images/.
        train_annotation: File name in annotations/; found by pattern if None.
        test_annotation: The same for the test set.
        translation: Reading of cam_param.t: "centre", "minus-rc" or "auto".
        detector_boxes: JSON list of {image_id, bbox} whose boxes take the place of the annotated
            ones where it has any; image_id is an image's file name.

    Raises:
        ValueError: If a file is missing or not of this layout.
    """

    skeleton = HUMAN36M_17.name
    box_kind = "annotation"
    is_human36m = True
    default_protocol = "as-found"

    def __init__(
        self,
        source: Path | str,
        *,
        train_annotation: str | None = None,
        test_annotation: str | None = None,
        translation: str = "auto",
        detector_boxes: Path | str | None = None,
    ) -> None:
        self._source = Path(source)
        self._paths = find_annotations(
            self._source, train_annotation=train_annotation, test_annotation=test_annotation
        )
        self.description = f"rle-json ({', '.join(path.name for path in self._paths.values())})"
        self.notes = [f"{split} set: {path}" for split, path in self._paths.items()]
        self.missing: list[str] = []
        self._items = [
            _parse(image, annotation, split=split)
            for split, path in self._paths.items()
            for image, annotation in load_pairs(path)
        ]
        self._boxes_path = None if detector_boxes is None else Path(detector_boxes)
        if self._boxes_path is not None:
            self._put_boxes(self._boxes_path)
        labels = [item for item in self._items if isinstance(item, Label)]
        self._translation = self._decide(labels, asked=translation)

    def _put_boxes(self, path: Path) -> None:
        """Put a detector's boxes in the place of the annotated ones."""
        boxes, count = read_boxes(path), 0
        for row, item in enumerate(self._items):
            if isinstance(item, Label) and (box := boxes.get(item.file_name.encode())):
                self._items[row] = replace(item, box_xywh_px=np.array(box))
                count += 1
        if not count:
            raise ValueError(f"{path} has no box of any image; image_id must be its file_name")
        self.notes.append(f"boxes of {count} of {len(self._items)} records are those of {path}")

    def _decide(self, labels: Sequence[Label], *, asked: str) -> str:
        """The reading of cam_param.t for the source as a whole."""
        if not labels:
            return "centre"
        joints = np.stack([label.joints_world_mm for label in labels])
        check_millimetres(joints, name="keypoints_world")
        translation, why = decide_translation(
            np.stack([label.camera.rotation for label in labels]),
            np.stack([label.camera.translation_mm for label in labels]),
            np.stack([label.camera.focal_px for label in labels]),
            np.stack([label.camera.principal_point_px for label in labels]),
            joints,
            np.array([label.image_size_px for label in labels]),
            asked=asked,
            name="cam_param.t",
        )
        self.notes.append(why)
        return translation

    def identity(self) -> dict[str, Any]:
        """Digests of the annotation files and the reading of cam_param.t."""
        return {
            "annotations": {split: sha256(path) for split, path in self._paths.items()},
            "translation": self._translation,
            **({"boxes": sha256(self._boxes_path)} if self._boxes_path else {}),
        }

    def units(self) -> list[LazyTake]:
        """One take per split, subject, action, subaction and camera."""
        groups: dict[tuple, list[Label | Rejection]] = {}
        seen: set[tuple[str, str]] = set()
        for item in self._items:
            if isinstance(item, Label):
                key = (item.split, *item.numbers[:4])
                if (item.split, item.file_name) in seen:
                    reason = "file_name occurs twice; one person per image is expected"
                    item = Rejection(name=item.file_name, reason=reason, split=item.split)
                else:
                    seen.add((item.split, item.file_name))
            else:
                key = (item.split, 0, 0, 0, 0)  # nothing tells where it belongs
            groups.setdefault(key, []).append(item)
        return [self._unit(key, tuple(items)) for key, items in sorted(groups.items())]

    def _unit(self, key: tuple, items: tuple[Label | Rejection, ...]) -> LazyTake:
        split, subject, action, subaction, camera = key
        labels = [item for item in items if isinstance(item, Label)]
        size = labels[0].image_size_px if labels else (0, 0)
        return LazyTake(
            name=human36m_unit_name(subject, action, subaction, camera)
            if subject or labels
            else "unreadable",
            subject=subject,
            action=action_name(action) if labels else "unreadable",
            subaction=subaction,
            camera_name=camera_name_of(camera, image_size_px=size),
            split=split,
            count=len(items),
            read=partial(
                _take, items, folder=self._source / "images", translation=self._translation
            ),
        )


def _take(items: tuple[Label | Rejection, ...], *, folder: Path, translation: str) -> Take:
    """The take of these labels, in order of their frames."""
    labels = sorted(
        (item for item in items if isinstance(item, Label)), key=lambda label: label.numbers[4]
    )
    count = len(labels)
    cameras = [label.camera for label in labels]
    rotation = np.array([camera.rotation for camera in cameras]).reshape(count, 3, 3)
    centre = np.array([camera.translation_mm for camera in cameras]).reshape(count, 3)
    point_px = np.array([camera.principal_point_px for camera in cameras]).reshape(count, 2)
    if translation == "minus-rc":
        centre = -np.einsum("nji,nj->ni", rotation, centre)
    camera = Camera.from_parameters(
        rotation=rotation,
        centre_world_mm=centre,
        focal_px=np.array([camera.focal_px for camera in cameras]).reshape(count, 2),
        principal_point_px=point_px,
        radial=np.array([label.radial for label in labels]).reshape(count, 3),
        tangential=np.array([label.tangential for label in labels]).reshape(count, 2),
    )
    world = np.array([label.joints_world_mm for label in labels]).reshape(count, 17, 3)
    joints = camera.world_to_camera(torch.from_numpy(world)).numpy()
    size = labels[0].image_size_px if labels else (0, 0)
    number = labels[0].numbers[3] if labels else 0
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=joints,
        camera=camera,
        camera_name=camera_name_of(number, image_size_px=size),
        image_size_px=np.array([label.image_size_px for label in labels], int).reshape(count, 2),
        frame=np.array([label.numbers[4] for label in labels], int),
        pictures=ImageFiles(folder=folder, names=tuple(label.file_name for label in labels)),
        box_xywh_px=np.array([label.box_xywh_px for label in labels]).reshape(count, 4),
        rejections=tuple(item for item in items if isinstance(item, Rejection)),
    )


def find_annotations(
    source: Path, *, train_annotation: str | None, test_annotation: str | None
) -> dict[str, Path]:
    """The annotation file of each split; a split is left out only if nothing fits its pattern.

    Raises:
        ValueError: If the folder or every file is missing, a named file is, or a pattern fits two.
    """
    folder = source / "annotations"
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; SOURCE must hold annotations/ and images/")
    found = {}
    for split, name, pattern in (
        ("train", train_annotation, TRAIN_PATTERN),
        ("test", test_annotation, TEST_PATTERN),
    ):
        paths = [folder / name] if name else sorted(folder.glob(pattern))
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise ValueError(f"{folder} holds several {split} sets ({names}); name one by option")
        if paths and not paths[0].is_file():
            raise ValueError(f"annotation file {paths[0]} is missing")
        if paths:
            found[split] = paths[0]
    if not found:
        raise ValueError(
            f"{folder} holds no {TRAIN_PATTERN} and no {TEST_PATTERN}; name the files with "
            "--train-annotation and --test-annotation"
        )
    return found


def load_pairs(path: Path) -> list[tuple[Any, Any]]:
    """Pairs of image and annotation of one file.

    Raises:
        ValueError: If the file is not JSON of this layout.
    """
    expected = 'expected {"images": [...], "annotations": [...]} of equal lengths'
    content = read_json(path, name="annotation file")
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; {expected}")
    images, annotations = content.get("images"), content.get("annotations")
    if not (isinstance(images, list) and isinstance(annotations, list)):
        raise ValueError(f"{path} has the keys {sorted(content)[:8]}; {expected}")
    if len(images) != len(annotations) or not images:
        raise ValueError(
            f"{path} has {len(images)} images and {len(annotations)} annotations; {expected}, "
            "paired by position"
        )
    return list(zip(images, annotations, strict=True))


def _parse(image: Any, annotation: Any, *, split: str) -> Label | Rejection:
    """Read one pair."""
    name = str(image.get("file_name", "?")) if isinstance(image, Mapping) else "?"
    try:
        return parse_pair(image, annotation, split=split)
    except RECORD_ERRORS as error:
        return Rejection(name=name, reason=fault_of(error), split=split)


def parse_pair(image: Mapping, annotation: Mapping, *, split: str) -> Label:
    """Read and check one pair; raises what `_parse` makes a rejection of."""
    camera = image["cam_param"]
    if "id" in image and annotation.get("image_id", image["id"]) != image["id"]:
        raise ValueError(
            f"is paired by position with the annotation of image {annotation['image_id']}, "
            f"not {image['id']}; bring both lists into the same order"
        )
    joints = float_array(annotation, "keypoints_world", (17, 3), finite=False)
    bad = np.flatnonzero(~np.isfinite(joints).all(1))
    if len(bad):
        names = ", ".join(HUMAN36M_17.joint_names[j] for j in bad)
        raise ValueError(f"keypoints_world of {names} is not finite")
    box = person_box(annotation)
    values = CameraValues.read(camera, name="cam_param.")
    return Label(
        file_name=str(image["file_name"]),
        split=split,
        image_size_px=image_size(image),
        camera=values,
        radial=float_array(camera, "k", (3,)) if "k" in camera else np.zeros(3),
        tangential=float_array(camera, "p", (2,)) if "p" in camera else np.zeros(2),
        box_xywh_px=box,
        joints_world_mm=joints,
        numbers=_numbers(image),
    )


def _numbers(image: Mapping) -> tuple[int, int, int, int, int]:
    """Subject, action, subaction, camera and frame, from the keys or the file's name."""
    keys = NUMBER_KEYS
    if all(key in image for key in keys):
        subject, action, subaction, camera, frame = (int(image[key]) for key in keys)
    elif match := _FILE_NAME.search(image["file_name"]):
        subject, action, subaction, camera, frame = map(int, match.groups())
        frame -= 1
    else:
        raise ValueError(f"has neither the keys {', '.join(keys)} nor a file name that holds them")
    for key, number in zip(keys, (subject, action, subaction, camera, frame), strict=True):
        if not 0 <= number <= INT32_MAX:
            raise ValueError(f"{key} is {number}, must be 0 to {INT32_MAX}")
    action_name(action)
    return subject, action, subaction, camera, frame
