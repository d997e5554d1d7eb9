"""Read the poses of VideoPose3D (also MHFormer, PoseFormer, MixSTE and others) with their images.

    data_3d_h36m.npz      positions_3d: "S1" → "Directions 1" → (N, 32, 3), world, metres
    data_2d_h36m_gt.npz   positions_2d: "S1" → "Directions 1" → (N, 17, 2) per camera, pixels;
                          optional

Both hold Python objects and are unpickled by `data_prep.readers.unpickle`. Cameras stand in that
project's code, not in its files: Human3.6M's known ones are taken (the code lists the tangential
coefficients as p2, p1; here they are p1, p2). Actions bear the names of the release's files, but
for Photo and WalkDog of S1; S11's Directions is missing. 2-D labels are only compared with the
projection; they may be longer than the poses.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.human36m import RAW_17, SUBJECTS, SequenceFact, find_sequence
from data_prep.human36m_cameras import subject_camera
from data_prep.readers.files import sha256
from data_prep.readers.paired import WorldPoses, open_images, pair
from data_prep.readers.unpickle import load_npz
from data_prep.takes import LazyTake
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES
from pose3d.geometry.skeleton import HUMAN36M_17

POSES = "data_3d_h36m.npz"
POINTS = "data_2d_h36m_gt.npz"
LARGEST_M = 20.0
"""Extent of a person above which poses are not in metres."""


class VideoPose3dReader:
    """VideoPose3D's poses with a tree of images; a `Reader`.

    Args:
        source: data_3d_h36m.npz, or the folder that holds it.
        images: The images' folder, one of `data_prep.readers.image_trees.TREE_KINDS`; looked for
            beside the poses if None.
        keypoints: data_2d_h36m_gt.npz; that beside the poses, if there is one, if None.

    Raises:
        ValueError: If a file or folder is missing or not of its layout, or no pose has an image.
    """

    skeleton = HUMAN36M_17.name
    box_kind = "none"
    is_human36m = True

    def __init__(
        self,
        source: Path | str,
        *,
        images: Path | str | None = None,
        keypoints: Path | str | None = None,
    ) -> None:
        source = Path(source)
        self._path = source / POSES if source.is_dir() else source
        beside = self._path.parent / POINTS
        self._points_path = Path(keypoints) if keypoints else beside if beside.is_file() else None
        self.description = f"videopose3d ({self._path.name})"
        self.missing: list[str] = []
        self.notes: list[str] = []
        points = self._load_points()
        performances = [
            self._performance(fact, poses, points)
            for fact, poses in _entries(self._path, "positions_3d")
        ]
        pairs = pair(
            performances,
            {
                (subject, name): subject_camera(subject, name)
                for subject in SUBJECTS
                for name in HUMAN36M_CAMERA_NAMES
            },
            open_images(images, beside=self._path.parent),
        )
        self.notes += pairs.notes
        self.default_protocol = pairs.default_protocol
        self._units = pairs.units

    def identity(self) -> dict[str, Any]:
        """Digest of the poses, and which sequences have how many images."""
        return {
            "poses": sha256(self._path),
            "images": {unit.name: unit.count for unit in self._units},
        }

    def units(self) -> list[LazyTake]:
        """One take per performance and camera with images."""
        return self._units

    def _load_points(self) -> dict[tuple[int, int, int], Any]:
        """2-D labels by performance."""
        if self._points_path is None:
            return {}
        self.notes.append(f"2-D labels to compare with: {self._points_path}")
        return {
            (fact.subject, fact.action, fact.subaction): views
            for fact, views in _entries(self._points_path, "positions_2d")
        }

    def _performance(
        self, fact: SequenceFact, poses: Any, points: Mapping[tuple[int, int, int], Any]
    ) -> WorldPoses:
        """Check one entry of the poses, and join it with its 2-D labels."""
        where = f"S{fact.subject} {fact.file_name!r}"
        joints_m = _joints(poses, name=f"{self._path}: {where}")
        views = points.get((fact.subject, fact.action, fact.subaction), [])
        if not isinstance(views, list | tuple) or len(views) > len(HUMAN36M_CAMERA_NAMES):
            raise ValueError(f"{self._points_path}: {where} is not a list of one array per camera")
        by_camera = {}
        for name, view in zip(HUMAN36M_CAMERA_NAMES, views, strict=False):
            shape = getattr(view, "shape", None)
            if shape is None or shape[1:] != (17, 2):
                raise ValueError(
                    f"{self._points_path}: {where}, camera {name} has the shape {shape}, expected "
                    f"(poses, 17, 2); detections are of no use here: name {POINTS}"
                )
            if len(view) >= len(joints_m):
                by_camera[name] = view[: len(joints_m)]
            else:
                self.notes.append(
                    f"{self._points_path}: {where}, camera {name} has {len(view)} 2-D labels for "
                    f"{len(joints_m)} poses; they are not compared"
                )
        return WorldPoses(
            subject=fact.subject,
            action=fact.action,
            subaction=fact.subaction,
            count=len(joints_m),
            read=partial(_millimetres, joints_m),
            points_px=by_camera,
        )


def _entries(path: Path, key: str) -> Iterator[tuple[SequenceFact, Any]]:
    """Every performance of a file, in the order of its numbers."""
    content = load_npz(path, [key])[key]
    expected = f'{path}: expected {key} as {{"S1": {{"Directions 1": …}}}}'
    if content.shape != () or not isinstance(content.item(), dict):
        raise ValueError(f"{expected}, got an array of the shape {content.shape}")
    found = {}
    for subject, actions in content.item().items():
        match = re.fullmatch(r"S(\d+)", str(subject))
        if match is None or not isinstance(actions, dict):
            raise ValueError(f"{expected}, got {str(subject)[:40]!r}: {type(actions).__name__}")
        for action, values in actions.items():
            try:
                fact = find_sequence(int(match[1]), str(action))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            found[fact.subject, fact.action, fact.subaction] = (fact, values)
    for _, entry in sorted(found.items(), key=lambda item: item[0]):
        yield entry


def _joints(poses: Any, *, name: str) -> Float[np.ndarray, "n 17 3"]:
    """The 17 joints of an entry, metres."""
    shape = getattr(poses, "shape", None)
    if shape is None or shape[1:] not in ((32, 3), (17, 3)) or poses.dtype.kind != "f":
        raise ValueError(f"{name} has the shape {shape}, expected (poses, 32, 3), world, metres")
    joints = poses[:, RAW_17] if shape[1] == 32 else poses
    if len(joints):
        extent = float(np.median(np.ptp(joints, axis=1).max(-1)))
        if extent > LARGEST_M:
            raise ValueError(
                f"{name}: people are {extent:.4g} units large, expected metres; divide by 1000"
            )
    return joints


def _millimetres(joints_m: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "n 17 3"]:
    """Joints in millimetres, float64."""
    return 1000.0 * joints_m.astype(np.float64)
