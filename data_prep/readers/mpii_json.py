"""Read MPII's people with 2-D joints, in the two JSON layouts that are about.

The RLE code's, of COCO's shape with MPII's 16 joints (also what TF-SimpleHumanPose's converter
writes):

    SOURCE/annotations/annot_mpii.json
    SOURCE/images/015601864.jpg

Its flags are 0 or 1; 1 is a labelled joint, hidden or not. RLE's loader takes all flags for 1, so
that joints without a label lie at (0, 0); here they have weight 0.

HRNet's, a list of {image, joints, joints_vis, center, scale}:

    SOURCE/annot/train.json, SOURCE/annot/valid.json
    SOURCE/images/015601864.jpg

Its pixels count from 1, its joints_vis is 1 for labelled joints, and the person's square has
200 × scale × 1.25 px about the centre, which lies 15 × scale px lower than stated.

The release of MPII counts pixels from 1, and neither converter changes that; the RLE code does
not take it off, HRNet's does. `first_pixel` decides otherwise.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.readers.coco_json import parse_coco
from data_prep.readers.files import RECORD_ERRORS, fault_of
from data_prep.readers.flat_files import FlatPerson, FlatReader, FlatTable
from data_prep.readers.joint_names import joint_of
from pose3d.geometry.skeleton import HUMAN36M_18

MPII_JOINTS = (
    *("r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "pelvis", "thorax"),
    *("upper_neck", "head_top", "r_wrist", "r_elbow", "r_shoulder"),
    *("l_shoulder", "l_elbow", "l_wrist"),
)
"""MPII's joints in its order."""
PIXEL_STD = 200.0
"""Side of the square of scale 1, pixels."""


class MpiiJsonReader(FlatReader):
    """MPII's people with 2-D joints; a `Reader`, see `FlatReader` for the other arguments.

    Args:
        first_pixel: What the labels call the first pixel, 0 or 1; None for 0 in files of COCO's
            shape, as the RLE code reads them, and 1 in HRNet's lists, as its code does.
    """

    layout = "mpii"
    patterns = (
        *("annotations/annot_mpii*.json", "annot_mpii*.json"),
        *("annot/train.json", "annot/valid.json"),
    )

    def __init__(
        self,
        source: Path | str,
        *,
        images: Path | str | None = None,
        annotations: Sequence[str] = (),
        split: str = "auto",
        min_joints: int = 1,
        first_pixel: int | None = None,
    ) -> None:
        if first_pixel not in (None, 0, 1):
            raise ValueError(f"first pixel must be 0 or 1, got {first_pixel}")
        self._first_pixel = first_pixel
        super().__init__(
            source, images=images, annotations=annotations, split=split, min_joints=min_joints
        )

    def _parse(self, content: Any, path: Path) -> FlatTable:
        if isinstance(content, list):
            table, first_pixel = parse_hrnet(content, path), 1
        else:
            table, first_pixel = parse_coco(content, path, joint_names=MPII_JOINTS), 0
        if self._first_pixel is not None:
            first_pixel = self._first_pixel
        if first_pixel == 0:
            return table
        note = "pixels count from 1 and are moved by 1"
        people = [_moved(person, -first_pixel) for person in table.people]
        return replace(table, people=people, notes=[*table.notes, note])

    def identity(self) -> dict[str, Any]:
        """As for every layout of 2-D labels, and the first pixel."""
        return {**super().identity(), "first_pixel": self._first_pixel}


def _moved(person: FlatPerson, offset: int) -> FlatPerson:
    """The person with all pixels moved."""
    box = person.box_xywh_px + np.array([offset, offset, 0, 0])
    return replace(person, joints_px=person.joints_px + offset, box_xywh_px=box)


def parse_hrnet(content: Sequence[Any], path: Path) -> FlatTable:
    """The people of HRNet's list, in the file's pixels.

    Raises:
        ValueError: If the list is empty.
    """
    if not content:
        raise ValueError(f"{path} holds no people")
    people, faults, left_out = [], [], Counter[str]()
    for number, entry in enumerate(content):
        try:
            if not np.any(entry["joints_vis"]):
                left_out["people without labelled joints"] += 1
                continue
            people.append(_hrnet_person(entry, number=number))
        except RECORD_ERRORS as error:
            faults.append((f"{path.name} entry {number}", fault_of(error)))
    return FlatTable(
        people=people,
        faults=faults,
        left_out=left_out,
        notes=["HRNet's list; joints_vis is read as labelled, and as visible"],
        num_annotations=len(content),
    )


def _hrnet_person(entry: Mapping, *, number: int) -> FlatPerson:
    """One entry, checked; raises what is wrong with it."""
    joints = np.array(entry["joints"], np.float64)
    flags = np.array(entry["joints_vis"], np.float64)
    centre, scale = np.array(entry["center"], np.float64), float(entry["scale"])
    for name, array, shape in (
        ("joints", joints, (len(MPII_JOINTS), 2)),
        ("joints_vis", flags, (len(MPII_JOINTS),)),
        ("center", centre, (2,)),
    ):
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"has {name} of shape {array.shape}, expected {shape} finite numbers")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"has scale {scale}, expected a number above 0")
    joints_px = np.full((HUMAN36M_18.num_joints, 2), np.nan)
    for row, name in enumerate(MPII_JOINTS):
        joint = joint_of(name)
        if joint is not None and flags[row] > 0:
            joints_px[HUMAN36M_18.index(joint)] = joints[row]
    side = 1.25 * scale * PIXEL_STD
    middle = centre + np.array([0, 15 * scale])
    return FlatPerson(
        number=number,
        label=f"entry {number}",
        file=str(entry["image"]),
        image_size_px=(0, 0),
        joints_px=joints_px,
        visible=np.isfinite(joints_px).all(-1),
        box_xywh_px=np.array([*(middle - side / 2), side, side]),
    )
