"""People's own labels become takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.readers.flat import ImagesOfPeople
from data_prep.readers.joint_names import fill_midpoints, fill_unlabelled
from data_prep.readers.own_cameras import OwnCamera
from data_prep.readers.own_geometry import camera_of, to_camera
from data_prep.readers.own_people import OwnPerson
from data_prep.takes import Rejection, Take
from pose3d.geometry.skeleton import HUMAN36M_18, skeleton_by_name


def own_take(
    people: tuple[OwnPerson, ...],
    own: OwnCamera | None,
    *,
    camera_name: str,
    faults: tuple[Rejection, ...],
    images: Path,
    skeleton: str,
) -> Take:
    """The take of people who share a camera.

    A missing pelvis is put between the hips, a missing thorax between the shoulders. Where the
    pelvis's depth stays unknown no joint's depth has weight, since depth counts from there.

    Args:
        people: Who.
        own: Their camera; None where none is named.
        camera_name: Its name.
        faults: Rows that cannot be read.
        images: Folder that images are relative to.
        skeleton: Name of the joint set, the first 17 or all of `HUMAN36M_18`.
    """
    camera, sizes = camera_of(people, own)
    given_mm, given_depth = to_camera(people, camera)
    joints_mm, visible = fill_midpoints(given_mm, np.array([person.visible for person in people]))
    _, has_depth = fill_midpoints(given_mm, given_depth)
    labelled = np.isfinite(joints_mm).all(-1)
    has_root = has_depth[:, HUMAN36M_18.root]
    rootless = int((has_depth.any(1) & ~has_root).sum())
    has_depth &= has_root[:, None]
    num_joints = skeleton_by_name(skeleton).num_joints
    take = Take(
        skeleton=skeleton,
        joints_camera_mm=fill_unlabelled(joints_mm)[:, :num_joints],
        camera=camera,
        camera_name=camera_name,
        image_size_px=sizes,
        frame=np.array([person.frame for person in people], np.int64),
        pictures=ImagesOfPeople(
            folder=images,
            files=tuple(person.image for person in people),
            labels=tuple(person.place for person in people),
        ),
        weight=np.stack([labelled, labelled, has_depth], axis=-1)[:, :num_joints].astype(float),
        visibility=(visible & labelled)[:, :num_joints],
        box_xywh_px=np.array([person.box_xywh_px for person in people]),
        rejections=faults,
        notes=(f"{rootless} records without the depth of pelvis or hips: no weight on depth",)
        if rootless
        else (),
    )
    is_behind = labelled & ~(joints_mm[..., 2] > 0)
    behind = tuple(
        Rejection(
            name=f"{person.file.name}, {person.place}",
            reason=f"{_names(is_behind[row])} behind the camera; check axes and units",
            split=person.split,
        )
        for row, person in enumerate(people)
        if is_behind[row].any()
    )
    if not behind:
        return take
    return replace(take.chosen(~is_behind.any(1)), rejections=(*faults, *behind))


def _names(joints: np.ndarray) -> str:
    """Joints by name, with their verb."""
    names = [HUMAN36M_18.joint_names[joint] for joint in np.flatnonzero(joints)]
    return f"{', '.join(names)} {'lies' if len(names) == 1 else 'lie'}"
