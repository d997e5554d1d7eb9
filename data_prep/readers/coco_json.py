"""Read people with 2-D joints in COCO's layout: person_keypoints_*.json, or files of its shape.

    SOURCE/annotations/person_keypoints_train2017.json
    SOURCE/annotations/person_keypoints_val2017.json
    SOURCE/train2017/000000391895.jpg           or SOURCE/images/train2017/…

Read from `images`: id, file_name, width, height; from `annotations`: image_id, bbox (x, y, width,
height, pixels), keypoints (x, y, flag per joint) and, if there, id, category_id, iscrowd; from
`categories`: the joints' names in their order. A flag of 0 is no label, 1 a label of a hidden
joint, 2 of a visible one.

Joints are taken by name; of COCO's 17 these are the hips, knees, ankles, shoulders, elbows, wrists
and the nose. The pelvis is put between the hips and the thorax between the shoulders.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from data_prep.readers.files import RECORD_ERRORS, fault_of, image_size
from data_prep.readers.flat_files import FlatPerson, FlatReader, FlatTable
from data_prep.readers.joint_names import joint_of
from pose3d.geometry.skeleton import HUMAN36M_18

COCO_JOINTS = (
    "nose",
    *("left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
"""COCO's joints in its order, for files that do not name them."""
_EXPECTED = 'expected {"images": [...], "annotations": [...], "categories": [...]}'


class CocoJsonReader(FlatReader):
    """People with 2-D joints in COCO's layout; a `Reader`, see `FlatReader` for the arguments."""

    layout = "coco"
    patterns = ("annotations/person_keypoints_*.json", "person_keypoints_*.json")

    def _parse(self, content: Any, path: Path) -> FlatTable:
        return parse_coco(content, path, joint_names=COCO_JOINTS)


def parse_coco(content: Any, path: Path, *, joint_names: Sequence[str]) -> FlatTable:
    """The people of a file of COCO's shape.

    Args:
        content: The parsed JSON.
        path: The file, for messages.
        joint_names: Names of the joints where the file's categories have none.

    Raises:
        ValueError: If the file is not of this shape, or has no joint that is known.
    """
    images, annotations = _lists(content, path)
    names = _names_by_category(content, path, joint_names=joint_names)
    notes = [_note_on_names(names)]
    has_visibility = any(2 in _flags(annotation) for annotation in annotations)
    if not has_visibility:
        notes.append(
            "flags are 0 and 1 only: 1 is read as labelled, and as visible, since nothing tells "
            "hidden joints apart"
        )
    people, faults, left_out = [], [], Counter[str]()
    for number, annotation in enumerate(annotations):
        label = f"annotation {_get(annotation, 'id', number)}"
        if _get(annotation, "iscrowd", 0) == 1:
            left_out["annotations of crowds"] += 1
            continue
        if not any(_flags(annotation)):
            left_out["annotations without labelled joints"] += 1
            continue
        try:
            people.append(
                _person(annotation, images, names, number=number, seen=1 + has_visibility)
            )
        except RECORD_ERRORS as error:
            faults.append((f"{path.name} {label}", fault_of(error)))
    return FlatTable(
        people=people,
        faults=faults,
        left_out=left_out,
        notes=notes,
        num_annotations=len(annotations),
    )


def _lists(content: Any, path: Path) -> tuple[dict[Any, Any], list[Any]]:
    """Images by id, and annotations."""
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; {_EXPECTED}")
    images, annotations = content.get("images"), content.get("annotations")
    if not (isinstance(images, list) and isinstance(annotations, list)):
        raise ValueError(f"{path} has the keys {sorted(content)[:8]}; {_EXPECTED}")
    if not annotations:
        raise ValueError(f"{path} has no annotations; a test set without labels cannot be used")
    by_id = {
        image["id"]: image
        for image in images
        if isinstance(image, dict) and isinstance(image.get("id"), int | str)
    }
    if len(by_id) != len(images):
        raise ValueError(f"{path}: {len(images) - len(by_id)} images lack an id of their own")
    return by_id, annotations


def _names_by_category(
    content: Mapping, path: Path, *, joint_names: Sequence[str]
) -> dict[Any, Int[np.ndarray, " keypoints"]]:
    """The joint of `HUMAN36M_18` for each keypoint of each category; -1 for joints not used."""
    categories = [
        category
        for category in content.get("categories") or []
        if isinstance(category, dict) and category.get("keypoints")
    ] or [{"keypoints": joint_names}]
    found, unknown = {}, []
    for category in categories:
        joints = []
        for name in category["keypoints"]:
            try:
                joint = joint_of(str(name))
            except ValueError:
                unknown.append(str(name))
                joint = None
            joints.append(-1 if joint is None else HUMAN36M_18.index(joint))
        found[category.get("id")] = np.array(joints)
    if not any((joints >= 0).any() for joints in found.values()):
        raise ValueError(
            f"{path}: no keypoint of its categories is known ({', '.join(unknown[:6])}); name them "
            f"like {', '.join(COCO_JOINTS[5:7])}"
        )
    return found


def _note_on_names(names: Mapping[Any, Int[np.ndarray, " keypoints"]]) -> str:
    """Which joints are labelled."""
    used = {joint for joints in names.values() for joint in joints.tolist() if joint >= 0}
    listed = ", ".join(HUMAN36M_18.joint_names[joint] for joint in sorted(used))
    return f"joints by name: {listed}"


def _get(annotation: Any, key: str, default: Any) -> Any:
    """A value of an annotation that may be anything."""
    return annotation.get(key, default) if isinstance(annotation, dict) else default


def _flags(annotation: Any) -> Sequence[Any]:
    """The flags of an annotation; a flag of 1 for what is no list, which is found to be a fault."""
    keypoints = _get(annotation, "keypoints", [])
    return keypoints[2::3] if isinstance(annotation, dict) and isinstance(keypoints, list) else (1,)


def _person(
    annotation: Mapping,
    images: Mapping[Any, Mapping],
    names: Mapping[Any, Int[np.ndarray, " keypoints"]],
    *,
    number: int,
    seen: int,
) -> FlatPerson:
    """One annotation, checked; raises what is wrong with it."""
    if annotation["image_id"] not in images:
        raise ValueError(f"is of image {annotation['image_id']}, which `images` has not")
    image = images[annotation["image_id"]]
    category = annotation.get("category_id")
    if category not in names and len(names) > 1:
        raise ValueError(f"has category_id {category}, expected one of {list(names)}")
    joints = names.get(category, next(iter(names.values())))
    keypoints = np.array(annotation["keypoints"], np.float64)
    if keypoints.shape != (3 * len(joints),):
        raise ValueError(f"has {keypoints.size} keypoint numbers, expected {3 * len(joints)}")
    keypoints = keypoints.reshape(-1, 3)
    flags = keypoints[:, 2]
    if not set(flags.tolist()) <= {0, 1, 2}:
        raise ValueError(f"has flags {sorted(set(flags.tolist()))}, expected 0, 1, 2")
    if not np.isfinite(keypoints).all() and not np.isfinite(keypoints[flags > 0]).all():
        raise ValueError("has a labelled keypoint that is no number")
    used = np.flatnonzero((joints >= 0) & (flags > 0))
    joints_px = np.full((HUMAN36M_18.num_joints, 2), np.nan)
    joints_px[joints[used]] = keypoints[used, :2]
    visible = np.zeros(HUMAN36M_18.num_joints, bool)
    visible[joints[used]] = flags[used] >= seen
    return FlatPerson(
        number=number,
        label=f"annotation {annotation.get('id', number)}",
        file=str(image["file_name"]),
        image_size_px=image_size(image),
        joints_px=joints_px,
        visible=visible,
        box_xywh_px=_box(annotation),
    )


def _box(annotation: Mapping) -> np.ndarray:
    box = np.array(annotation["bbox"], np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > 0).all():
        raise ValueError(f"has bbox {box.tolist()}, expected x, y, width, height in pixels, > 0")
    return box
