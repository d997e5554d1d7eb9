"""Read the labels of H36M-Toolbox (multiview-human-pose, cross-view fusion) with their images.

    SOURCE/annot/h36m_train.pkl, h36m_validation.pkl
    SOURCE/images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg

Each file is a pickled list, one dictionary per image: `image`, `subject`, `action`, `subaction`,
`camera_id` (0 to 3), `image_id` (from 1), `joints_3d_camera` (17, 3) in the camera's frame,
millimetres, `joints_2d` (17, 2), pixels as the lens has them, `box` (left, top, right, bottom),
2000 mm at the root's depth, and `camera` {R, T, fx, fy, cx, cy, k, p}. `joints_3d` is not read: it
holds the universal skeleton, of the same limbs for everybody, which does not fit the images. The
order of joints is Human3.6M's 17; the raw joint 16 stands in the place of 13, at the same point.

A file is in memory as a whole while it is reduced to arrays: about 10 kB per image, 16 GB and four
minutes for all 1.5 million training images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from data_prep.human36m import sequences
from data_prep.people import check_millimetres
from data_prep.pictures import ImageFiles
from data_prep.readers.files import digest_of_files
from data_prep.readers.sampling import protocol_of_frames
from data_prep.readers.unpickle import load_pickle
from data_prep.readers.views import (
    UNUSABLE_NOTE,
    View,
    camera_arrays,
    recognised_camera,
    renumbered_step,
)
from data_prep.takes import LazyTake, Take
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.skeleton import HUMAN36M_17

FILES = {"train": "h36m_train.pkl", "test": "h36m_validation.pkl"}
NUMBERS = ("subject", "action", "subaction", "camera_id", "image_id")
ARRAYS = {"joints_3d_camera": (17, 3), "joints_2d": (17, 2), "box": (4,)}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Labels:
    """Labels of one view, ordered by frame."""

    frame: Int[np.ndarray, " n"]
    joints_mm: Float32[np.ndarray, "n 17 3"]
    source_px: Float32[np.ndarray, "n 17 2"]
    box_xyxy_px: Float32[np.ndarray, "n 4"]


class H36mToolboxReader:
    """The labels of H36M-Toolbox; a `Reader`.

    Args:
        source: Folder with annot/ and images/.

    Raises:
        ValueError: If a file is missing or not of this layout.
    """

    skeleton = HUMAN36M_17.name
    box_kind = "annotation"
    is_human36m = True
    description = "h36m-toolbox"

    def __init__(self, source: Path | str) -> None:
        self._source = Path(source)
        folder = self._source / "annot"
        self._paths = {s: folder / name for s, name in FILES.items() if (folder / name).is_file()}
        if not self._paths:
            raise ValueError(
                f"neither {' nor '.join(FILES.values())} is in {folder}; SOURCE must hold annot/ "
                "and images/"
            )
        self.notes = [f"{split} set: {path}" for split, path in self._paths.items()]
        self.missing: list[str] = []
        self._renumbered: list[str] = []
        self._frames: list[tuple[int, np.ndarray]] = []
        self._units = [
            unit for split, path in self._paths.items() for unit in self._list(split, path)
        ]
        self.default_protocol = protocol_of_frames(self._frames)
        if self._renumbered:
            self.notes.append(
                f"{len(self._renumbered)} sequences look as if their images were thinned out "
                f"before they were numbered ({self._renumbered[0]}); labels would not belong to "
                "them then: see the overlay sheet, and extract every frame of the videos"
            )

    def identity(self) -> dict[str, Any]:
        """Names and sizes of the label files."""
        return {"labels": digest_of_files(self._paths.values(), folder=self._source)}

    def units(self) -> list[LazyTake]:
        """One take per split, sequence and camera."""
        return self._units

    def _list(self, split: str, path: Path) -> Iterator[LazyTake]:
        """The units of one file."""
        for view, camera, labels in _views(path):
            if view.is_unusable:
                self.notes.append(UNUSABLE_NOTE)
                continue
            num_poses = sequences()[view.subject, view.action, view.subaction].num_poses
            step = renumbered_step(labels.frame, num_poses)
            if step is not None:
                self._renumbered.append(
                    f"{view.name}: {len(labels.frame)} images without gaps, 1/{step} of "
                    f"{num_poses} poses"
                )
            self._frames.append((view.subject, labels.frame))
            read = partial(
                _take, view, labels, camera=camera, images=self._source / "images", path=path
            )
            yield view.unit(split=split, count=len(labels.frame), read=read)


def _views(path: Path) -> Iterator[tuple[View, Camera, _Labels]]:
    """The labels of each view, as arrays."""
    records = load_pickle(path)
    if not isinstance(records, list) or not records:
        raise ValueError(
            f"{path} holds a {type(records).__name__}, expected a list of one dictionary per image"
        )
    numbers, arrays = _arrays(records, path=path)
    order = np.lexsort(numbers.T[::-1])
    starts = np.flatnonzero(np.diff(numbers[order, :4], axis=0).any(1)) + 1
    groups = np.split(order, starts)
    firsts = [records[rows[0]] for rows in groups]
    del records
    for rows, first in zip(groups, firsts, strict=True):
        view = _view(numbers[rows[0]], path=path)
        frame = numbers[rows, 4] - 1
        if frame[0] < 0 or (np.diff(frame) == 0).any():
            raise ValueError(f"{path}: {view.name} has an image twice, or one of number 0")
        if view.name not in first["image"]:
            raise ValueError(
                f"{path}: image {first['image']} belongs to a record of {view.name}; the file is "
                "not of this layout"
            )
        labels = _Labels(
            frame=frame,
            joints_mm=arrays["joints_3d_camera"][rows],
            source_px=arrays["joints_2d"][rows],
            box_xyxy_px=arrays["box"][rows],
        )
        yield view, _camera(first.get("camera", {}), view, path=path), labels


def _arrays(
    records: list[Any], *, path: Path
) -> tuple[Int[np.ndarray, "n 5"], dict[str, Shaped[np.ndarray, "n ..."]]]:
    """Numbers and labels of all records; float32 is exact to 0.001 mm and halves the memory."""
    numbers = np.empty((len(records), len(NUMBERS)), np.int64)
    arrays = {key: np.empty((len(records), *s), np.float32) for key, s in ARRAYS.items()}
    for row, record in enumerate(records):
        try:
            numbers[row] = [record[key] for key in NUMBERS]
            for key, shape in ARRAYS.items():
                if np.shape(record[key]) != shape:
                    raise ValueError(f"{key} has shape {np.shape(record[key])}, expected {shape}")
                arrays[key][row] = record[key]
            if not record["image"].endswith(f"_{record['image_id']:06d}.jpg"):
                raise ValueError(
                    f"image {record['image']} and image_id {record['image_id']} do not belong "
                    "together"
                )
        except KeyError as error:
            raise ValueError(
                f"{path}: record {row} has no {error.args[0]}; make the file again with the "
                "current H36M-Toolbox"
            ) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: record {row}: {error}") from error
    return numbers, arrays


def _view(numbers: Int[np.ndarray, " 5"], *, path: Path) -> View:
    """The view that a record's numbers state."""
    subject, action, subaction, camera = numbers[:4].tolist()
    if not 0 <= camera < len(HUMAN36M_CAMERA_NAMES):
        raise ValueError(f"{path}: camera_id is {camera}, must be 0 to 3")
    try:
        return View(
            subject=subject,
            action=action,
            subaction=subaction,
            camera_name=HUMAN36M_CAMERA_NAMES[camera],
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _camera(entry: Mapping[str, Any], view: View, *, path: Path) -> Camera:
    """The camera of a record."""
    name = f"{path}, camera {view.camera_name} of S{view.subject}"
    shapes = {"R": (3, 3), "T": (3,), "k": (3,), "p": (2,), "fx": (), "fy": (), "cx": (), "cy": ()}
    values = camera_arrays(entry, shapes, name=name)
    camera, _ = recognised_camera(
        view.subject,
        view.camera_name,
        rotation=values["R"],
        translation=values["T"],
        focal_px=np.stack([values["fx"], values["fy"]]),
        principal_point_px=np.stack([values["cx"], values["cy"]]),
        radial=values["k"],
        tangential=values["p"],
        documented=("camera from world", "the centre in mm"),
        name=name,
    )
    return camera


def _take(view: View, labels: _Labels, *, camera: Camera, images: Path, path: Path) -> Take:
    """The take of one view."""
    joints: Float[np.ndarray, "n 17 3"] = labels.joints_mm.astype(np.float64)
    check_millimetres(joints, name=f"joints_3d_camera of {path}")
    box = labels.box_xyxy_px.astype(np.float64)
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=joints,
        camera=camera,
        camera_name=view.camera_name,
        image_size_px=view.image_sizes_px(len(labels.frame)),
        frame=labels.frame,
        pictures=ImageFiles(
            folder=images,
            names=tuple(f"{view.name}/{view.name}_{f + 1:06d}.jpg" for f in labels.frame),
        ),
        box_xywh_px=np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1),
        source_px=labels.source_px.astype(np.float64),
    )
