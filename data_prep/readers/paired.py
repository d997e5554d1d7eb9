"""Poses in the world, which come without images, paired with a tree of images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.human36m import UNUSABLE_VIDEO, sequences
from data_prep.readers.image_trees import ImageTree, SequenceImages, open_image_tree
from data_prep.readers.sampling import protocol_of_frames
from data_prep.readers.views import UNUSABLE_NOTE, View, camera_joints
from data_prep.takes import LazyTake, Take
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.skeleton import HUMAN36M_17

NUM_NAMED = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldPoses:
    """The poses of one performance, before they are read.

    Attributes:
        subject: 1, 5, 6, 7, 8, 9 or 11.
        action: Human3.6M's number, 2 to 16.
        subaction: 1 or 2.
        count: Number of poses; pose k is of frame k.
        read: Reads the 17 joints of every pose in the world, millimetres; picklable.
        points_px: 2-D labels of every pose by camera, pixels, with the lens's distortion.
    """

    subject: int
    action: int
    subaction: int
    count: int
    read: Callable[[], Float[np.ndarray, "n 17 3"]]
    points_px: Mapping[str, Float[np.ndarray, "n 17 2"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Poses with their images.

    Attributes:
        units: One per performance and camera with images.
        notes: What is left out.
        default_protocol: As `data_prep.takes.Reader` has it.
    """

    units: list[LazyTake]
    notes: list[str]
    default_protocol: str


def open_images(images: Path | str | None, *, beside: Path) -> ImageTree:
    """The tree of images for labels that come without.

    Args:
        images: The folder that was named; None if none was.
        beside: Where to look if none was.

    Raises:
        ValueError: If there is no such tree.
    """
    if images is not None:
        return open_image_tree(images)
    try:
        return open_image_tree(beside)
    except ValueError as error:
        raise ValueError(f"{error}; name another folder of images with --images") from error


def pair(
    performances: Sequence[WorldPoses], cameras: Mapping[tuple[int, str], Camera], tree: ImageTree
) -> Pairs:
    """Find the images of every pose; poses without one are left out and counted.

    Args:
        performances: The poses.
        cameras: By subject and name; a camera that is not there takes no part.
        tree: The images.

    Raises:
        ValueError: If no pose has an image.
    """
    units, without, frames = [], [], []
    notes = tree.notes
    num_poses = num_left_out = 0
    for poses in performances:
        key = (poses.subject, poses.action, poses.subaction)
        for name in HUMAN36M_CAMERA_NAMES:
            if (poses.subject, name) not in cameras:
                continue
            if (*key, name) == UNUSABLE_VIDEO:
                notes.append(UNUSABLE_NOTE)
                continue
            images = tree.find(*key, name)
            found = np.arange(poses.count)
            if images is not None and images.frame is not None:
                found = found[np.isin(found, images.frame)]
            if images is None or not len(found):
                without.append((*key, name))
                continue
            num_poses += poses.count
            num_left_out += poses.count - len(found)
            frames.append((poses.subject, found))
            units.append(_unit(poses, name, images, cameras[poses.subject, name], tree, len(found)))
    if not units:
        raise ValueError(
            f"no pose has an image in {tree.folder}, which holds {len(tree.sequences)} sequences "
            f"like {tree.kind.example}; poses and images must be of the same subjects"
        )
    if without:
        names = ", ".join(_in_words(key) for key in without[:NUM_NAMED])
        more = ", …" if len(without) > NUM_NAMED else ""
        notes.append(f"left out {len(without)} sequences that have no images: {names}{more}")
    if num_left_out:
        notes.append(
            f"left out {num_left_out} of {num_poses} poses before a camera, since they have no "
            "image"
        )
    return Pairs(units=units, notes=notes, default_protocol=protocol_of_frames(frames))


def _in_words(key: tuple[int, int, int, str]) -> str:
    """A sequence as the release's files are called."""
    subject, action, subaction, camera_name = key
    return f"S{subject} {sequences()[subject, action, subaction].file_name}.{camera_name}"


def _unit(
    poses: WorldPoses,
    name: str,
    images: SequenceImages,
    camera: Camera,
    tree: ImageTree,
    count: int,
) -> LazyTake:
    """The unit of one performance before one camera."""
    view = View(
        subject=poses.subject,
        action=poses.action,
        subaction=poses.subaction,
        camera_name=name,
    )
    points_px = poses.points_px.get(name)
    if tree.kind.is_undistorted:
        camera, points_px = camera.without_distortion(), None
    read = partial(_take, view, poses.read, images, camera, points_px)
    return view.unit(split=None, count=count, read=read)


def _take(
    view: View,
    read: Callable[[], Float[np.ndarray, "n 17 3"]],
    images: SequenceImages,
    camera: Camera,
    points_px: Float[np.ndarray, "n 17 2"] | None,
) -> Take:
    """The take of the poses that have an image."""
    world_mm = read()
    rows, pictures = images.match(np.arange(len(world_mm)))
    notes: tuple[str, ...] = ()
    if images.frame is None and len(rows) < len(world_mm):  # a video tells only when it is opened
        notes = (
            f"{images.folder / images.name} has {len(rows)} frames for {len(world_mm)} poses; the "
            "last poses are left out",
        )
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=camera_joints(camera, world_mm[rows]),
        camera=camera,
        camera_name=view.camera_name,
        image_size_px=view.image_sizes_px(len(rows)),
        frame=rows,
        pictures=pictures,
        source_px=None if points_px is None else points_px[rows].astype(np.float64),
        notes=notes,
    )
