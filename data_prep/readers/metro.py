"""Read the tree that metro and MeTRAbs train on.

    SOURCE/S1/Images/Directions 1.54138969/frame_000000.jpg      every 5th and every 64th, from 0
    SOURCE/S1/BBoxes/Directions 1.54138969.npy                   left, top, width, height, pixels
    SOURCE/S1/MyPoseFeatures/D3_Positions/Directions 1.cdf       poses in the world, all frames
    SOURCE/Release-v1.2/metadata.xml                             cameras; the known ones without it

Boxes are those of the release's masks, width = last − first + 1, zeros where a mask is empty. That
code writes one row per frame of the whole sequence and takes every 5th of them; files with as many
rows as there are images are read as one row per image.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from data_prep.human36m import RAW_17, plain_file_name, sequences
from data_prep.people import check_millimetres
from data_prep.readers.cdf import read_poses
from data_prep.readers.files import digest_of_files
from data_prep.readers.image_trees import TREE_KINDS, ImageTree, open_image_tree
from data_prep.readers.metadata import Metadata, read_metadata
from data_prep.readers.raw_tree import find_metadata
from data_prep.readers.views import UNUSABLE_NOTE, View, camera_joints, renumbered_step
from data_prep.takes import LazyTake, Take
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.skeleton import HUMAN36M_17

METADATA_PLACES = ("Release-v1.2/metadata.xml", "metadata.xml")
POSES = "MyPoseFeatures/D3_Positions"


class MetroReader:
    """The tree of metro and MeTRAbs; a `Reader`.

    Args:
        source: The folder of S1, S5 and so on, or one that holds it as `h36m`.
        metadata: The release's metadata.xml; looked for in SOURCE if None.

    Raises:
        ValueError: If the folder is not of this layout, or metadata.xml is damaged.
    """

    skeleton = HUMAN36M_17.name
    is_human36m = True
    default_protocol = "rle-2"
    description = "metro"

    def __init__(self, source: Path | str, *, metadata: Path | str | None = None) -> None:
        kinds = [kind for kind in TREE_KINDS if kind.name == "metro"]
        self._tree = open_image_tree(source, kinds=kinds)
        self._root = self._tree.folder
        self.notes = self._tree.notes
        self.missing: list[str] = []
        self._metadata = self._find_metadata(None if metadata is None else Path(metadata))
        has_boxes = any(self._root.glob("S*/BBoxes/*.npy"))
        self.box_kind = "mask" if has_boxes else "none"
        if not has_boxes:
            self.notes.append(f"no S*/BBoxes/*.npy in {self._root}: boxes are those of the joints")
        self._poses: dict[tuple[int, str], Path] = {}
        self._units = list(self._list())

    def identity(self) -> dict[str, Any]:
        """Names and sizes of the poses, and whether cameras are the file's."""
        return {
            "poses": digest_of_files(set(self._poses.values()), folder=self._root),
            "metadata": self._metadata is not None,
        }

    def units(self) -> list[LazyTake]:
        """One take per performance and camera."""
        return self._units

    def _find_metadata(self, given: Path | None) -> Metadata | None:
        """metadata.xml, if there is one."""
        places = [self._root / name for name in METADATA_PLACES]
        if given is not None:
            places = [find_metadata(self._root, given)]
        for path in places:
            if path.is_file():
                self.notes.append(f"cameras: {path}")
                return read_metadata(path)
        self.notes.append(f"{places[0]} is missing: Human3.6M's known cameras are put in")
        return None

    def _list(self) -> Iterator[LazyTake]:
        """Views whose files are there; what is not is put down as missing."""
        found: dict[tuple[int, int, int], dict[str, str]] = {}
        for (*key, camera_name), name in self._tree.sequences.items():
            found.setdefault((key[0], key[1], key[2]), {})[camera_name] = name
        recorded = {name for cameras in found.values() for name in cameras}
        for numbers, cameras in sorted(found.items()):
            for camera_name in (name for name in HUMAN36M_CAMERA_NAMES if name in recorded):
                unit = self._unit(numbers, camera_name, cameras)
                if unit is not None:
                    yield unit

    def _unit(
        self, numbers: tuple[int, int, int], camera_name: str, cameras: dict[str, str]
    ) -> LazyTake | None:
        """One view's unit; None if a file is missing."""
        subject, action, subaction = numbers
        view = View(subject=subject, action=action, subaction=subaction, camera_name=camera_name)
        folder, _, other = next(iter(cameras.values())).rpartition(".")
        base = folder.rpartition("/")[2]
        if view.is_unusable:
            self.notes.append(UNUSABLE_NOTE)
            return None
        if camera_name not in cameras:
            self.missing.append(
                f"folder {self._root / folder}.{camera_name} is missing, of camera {other} it is "
                "there"
            )
            return None
        poses = self._pose_file(view, base)
        boxes = None
        if self.box_kind == "mask":
            boxes = self._root / f"S{subject}/BBoxes/{base}.{camera_name}.npy"
        for path in (poses, boxes):
            if path is not None and not path.is_file():
                self.missing.append(f"file {path} is missing")
                return None
        self._poses[subject, base] = poses
        read = partial(
            _take,
            view,
            poses=poses,
            boxes=boxes,
            camera=self._camera(view, base),
            tree=replace(self._tree, sequences={(*numbers, camera_name): cameras[camera_name]}),
        )
        return view.unit(split=None, count=sequences()[numbers].num_poses, read=read)

    def _pose_file(self, view: View, base: str) -> Path:
        """The CDF file; S1's images may have been renamed and its poses not, or the reverse."""
        folder = self._root / f"S{view.subject}" / POSES
        fact = sequences()[view.subject, view.action, view.subaction]
        names = dict.fromkeys((base, fact.file_name, plain_file_name(base)))
        paths = [folder / f"{name}.cdf" for name in names]
        return next((path for path in paths if path.is_file()), paths[0])

    def _camera(self, view: View, base: str) -> Camera:
        """The camera of metadata.xml, if its names of files are the tree's; else the known one."""
        if self._metadata is None:
            return view.known_camera
        stated = self._metadata.file_name((view.subject, view.action, view.subaction))
        if plain_file_name(stated) != plain_file_name(base):
            raise ValueError(
                f"{self._metadata.path} calls S{view.subject}, action {view.action}, subaction "
                f"{view.subaction} {stated!r}, the tree {base!r}; both must be of one release"
            )
        if view.camera_name not in self._metadata.camera_names:
            raise ValueError(f"{self._metadata.path} has no camera {view.camera_name}")
        return self._metadata.camera(view.subject, view.camera_name)


def _take(view: View, *, poses: Path, boxes: Path | None, camera: Camera, tree: ImageTree) -> Take:
    """The frames of one view that have an image."""
    joints_world_mm = read_poses(poses, num_axes=3)[:, RAW_17]
    check_millimetres(joints_world_mm, name=str(poses))
    images = tree.find(view.subject, view.action, view.subaction, view.camera_name)
    assert images is not None, "the tree was cut to this sequence"
    assert images.frame is not None, "this tree has no videos"
    frame, pictures = images.match(np.arange(len(joints_world_mm)))
    if not len(frame):
        raise ValueError(
            f"{tree.folder / images.name} has no image of the {len(joints_world_mm)} poses of "
            f"{poses}"
        )
    num_poses = sequences()[view.subject, view.action, view.subaction].num_poses
    step = renumbered_step(images.frame, num_poses)
    note = (
        f"{tree.folder / images.name} holds {len(images.frame)} images without gaps for "
        f"{num_poses} poses: if only every {step}th was extracted and then numbered, labels do not "
        "belong to them"
    )
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=camera_joints(camera, joints_world_mm[frame]),
        camera=camera,
        camera_name=view.camera_name,
        image_size_px=view.image_sizes_px(len(frame)),
        frame=frame,
        pictures=pictures,
        box_xywh_px=None if boxes is None else read_boxes(boxes, frame, images.frame),
        notes=() if step is None else (note,),
    )


def read_boxes(
    path: Path, frame: Int[np.ndarray, " n"], image_frame: Int[np.ndarray, " images"]
) -> Float[np.ndarray, "n 4"]:
    """The boxes of frames; NaN where a mask was empty.

    Args:
        path: The .npy file.
        frame: Which frames, from 0.
        image_frame: Frames of all images that there are, ascending; rows belong to them if there
            are as many, and fewer than the sequence is long.

    Raises:
        ValueError: Naming the file, if it is damaged or has another number of rows.
    """
    try:
        boxes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read ({reason}); it is damaged or cut off: make it again"
        ) from error
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
        raise ValueError(
            f"{path} has shape {boxes.shape}, expected rows of left, top, width, height"
        )
    rows = frame
    if len(boxes) <= frame.max():
        if len(boxes) != len(image_frame):
            raise ValueError(
                f"{path} has {len(boxes)} rows, expected one per frame (at least "
                f"{frame.max() + 1}) or one per image ({len(image_frame)})"
            )
        rows = np.searchsorted(image_frame, frame)
    chosen = boxes[rows].astype(np.float64)
    chosen[(chosen[:, 2:] <= 0).any(1)] = np.nan
    return chosen
