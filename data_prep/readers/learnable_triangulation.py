"""Read the labels of learnable-triangulation, which come in one .npy file beside the images.

    SOURCE/extra/human36m-multiview-labels-GTbboxes.npy             or the file itself as SOURCE
    IMAGES/S1/Directions-1/imageSequence/54138969/img_000001.jpg    the tree of h36m-fetch
    IMAGES/S1/Directions-1/imageSequence-undistorted/…              the same, distortion taken off

The file is a pickled dictionary: `subject_names`, `camera_names`, `action_names` ("Directions-1");
`cameras` (subjects, cameras) with R, t = −R·C in millimetres, K and dist (k1, k2, p1, p2, k3);
`table`, a row per frame with subject_idx, action_idx, frame_idx (from 0), keypoints (17 joints of
the world in millimetres, in an order of its own) and bbox_by_camera_tlbr: top, left, bottom, right
of the person's mask, made square, bottom and right exclusive; all zero where a view is missing.

The distortion is Human3.6M's own formula in that code too, so undistorted images are seen by the
same camera without distortion.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from data_prep.human36m import LEARNABLE_FROM_17, action_number
from data_prep.people import check_millimetres
from data_prep.readers.files import sha256
from data_prep.readers.image_trees import TREE_KINDS, ImageTree, open_image_tree
from data_prep.readers.sampling import protocol_of_frames
from data_prep.readers.unpickle import load_pickled_npy
from data_prep.readers.views import UNUSABLE_NOTE, View, camera_joints, recognised_camera
from data_prep.takes import LazyTake, Take
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import HUMAN36M_17

PATTERN = "human36m-multiview-labels-*.npy"
GROUND_TRUTH = "GTbboxes"
KEYS = ("subject_names", "camera_names", "action_names", "cameras", "table")
TABLE_FIELDS = {
    "subject_idx": (),
    "action_idx": (),
    "frame_idx": (),
    "keypoints": (17, 3),
    "bbox_by_camera_tlbr": (4, 4),
}
CAMERA_FIELDS = {"R": (3, 3), "t": (3, 1), "K": (3, 3), "dist": (5,)}
_FROM_LEARNABLE = np.argsort(LEARNABLE_FROM_17)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Performance:
    """The rows of one performance, in order of their frames."""

    subject_row: int
    subject: int
    action: int
    subaction: int
    rows: Shaped[np.ndarray, " n"]


class LearnableTriangulationReader:
    """The labels of learnable-triangulation with a tree of images; a `Reader`.

    Args:
        source: The .npy file, or a folder that holds it or extra/ with it.
        images: The images' folder; `processed` in SOURCE, or beside extra/, if None.
        undistorted: Take the images of imageSequence-undistorted if there are both.

    Raises:
        ValueError: If a file is missing or not of this layout.
    """

    skeleton = HUMAN36M_17.name
    is_human36m = True

    def __init__(
        self, source: Path | str, *, images: Path | str | None = None, undistorted: bool = False
    ) -> None:
        self._path = _find_labels(Path(source))
        folder = _find_images(self._path) if images is None else Path(images)
        first = [kind for kind in TREE_KINDS if kind.is_undistorted and undistorted]
        self._tree = open_image_tree(folder, kinds=(*first, *TREE_KINDS))
        self.description = f"learnable-triangulation ({self._path.name})"
        self.box_kind = "mask" if GROUND_TRUTH in self._path.name else "annotation"
        self.notes = [f"labels: {self._path}", *self._tree.notes]
        self.missing: list[str] = []
        content = _content(self._path)
        performances = list(_performances(content, path=self._path))
        cameras = content["cameras"]
        names = [str(name) for name in content["camera_names"]]
        self._units = [
            unit
            for performance in performances
            for column, name in enumerate(names)
            if (unit := self._unit(performance, column, name, cameras)) is not None
        ]
        self.default_protocol = protocol_of_frames(
            (performance.subject, performance.rows["frame_idx"]) for performance in performances
        )

    def identity(self) -> dict[str, Any]:
        """Digest of the labels, and whether images are undistorted."""
        return {"labels": sha256(self._path), "undistorted": self._tree.kind.is_undistorted}

    def units(self) -> list[LazyTake]:
        """One take per performance and camera."""
        return self._units

    def _unit(
        self, performance: _Performance, column: int, camera_name: str, cameras: np.ndarray
    ) -> LazyTake | None:
        """The unit of a view; None, and a note, if it is missing."""
        try:
            view = View(
                subject=performance.subject,
                action=performance.action,
                subaction=performance.subaction,
                camera_name=camera_name,
            )
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error
        boxes = performance.rows["bbox_by_camera_tlbr"][:, column].astype(np.float64)
        is_seen = boxes.any(1)
        if view.is_unusable:
            self.notes.append(UNUSABLE_NOTE)
            return None
        if not is_seen.all():
            count = int((~is_seen).sum())
            self.notes.append(
                f"{view.name}: {count} of {len(boxes)} frames have a box of zeros, which means "
                "that the view is missing; left out"
            )
        key = (view.subject, view.action, view.subaction, view.camera_name)
        if not is_seen.any():
            return None
        if key not in self._tree.sequences:
            self.missing.append(f"{self._tree.folder} has no images of {_in_words(view)}")
            return None
        return view.unit(
            split=None,
            count=int(is_seen.sum()),
            read=partial(
                _take,
                view,
                joints_world_mm=performance.rows["keypoints"][is_seen],
                frame=performance.rows["frame_idx"][is_seen].astype(np.int64),
                box_tlbr_px=boxes[is_seen],
                camera=self._camera(view, cameras[performance.subject_row, column]),
                tree=replace(self._tree, sequences={key: self._tree.sequences[key]}),
                name=str(self._path),
            ),
        )

    def _camera(self, view: View, entry: np.void) -> Camera:
        """The camera of an entry of `cameras`."""
        matrix, distortion = entry["K"].astype(np.float64), entry["dist"].astype(np.float64)
        camera, _ = recognised_camera(
            view.subject,
            view.camera_name,
            rotation=entry["R"].astype(np.float64),
            translation=entry["t"].astype(np.float64)[:, 0],
            focal_px=matrix[[0, 1], [0, 1]],
            principal_point_px=matrix[:2, 2],
            radial=distortion[[0, 1, 4]],
            tangential=distortion[[2, 3]],
            documented=("camera from world", "−R·C in mm"),
            name=f"{self._path}, camera {view.camera_name} of S{view.subject}",
        )
        return camera.without_distortion() if self._tree.kind.is_undistorted else camera


def _find_labels(source: Path) -> Path:
    """The label file; boxes of the ground truth if there are several."""
    if source.is_file():
        return source
    found = sorted(path for inner in ("", "extra") for path in (source / inner).glob(PATTERN))
    best = [path for path in found if GROUND_TRUTH in path.name] if len(found) > 1 else found
    if len(best) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"{source} and its folder extra hold {len(found)} files {PATTERN} ({listed}); name one "
            "file as SOURCE"
        )
    return best[0]


def _find_images(labels: Path) -> Path:
    """The folder `processed` near the label file, or one there that holds its images itself."""
    near = (labels.parent, labels.parent.parent)
    for folder in near:
        if (folder / "processed").is_dir():
            return folder / "processed"
    for folder in near:
        if any(folder.glob("S*/*-*/imageSequence*")):
            return folder
    raise ValueError(f"no folder processed beside {labels}; name the images' folder with --images")


def _content(path: Path) -> dict[str, Any]:
    """The dictionary, its parts of the right types and shapes."""
    array = load_pickled_npy(path)
    content = array.item() if array.dtype == object and array.shape == () else None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds an array of shape {array.shape}, expected a dictionary")
    lacking = [key for key in KEYS if key not in content]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}; expected {', '.join(KEYS)}")
    for key, fields in (("table", TABLE_FIELDS), ("cameras", CAMERA_FIELDS)):
        dtype: Any = getattr(content[key], "dtype", np.dtype(float))
        for field, shape in fields.items():
            found = dtype[field].shape if field in (dtype.names or ()) else None
            if found != shape:
                raise ValueError(
                    f"{path}: {field} of {key} has shape {found}, expected {shape}; use a newer "
                    "labels file of learnable-triangulation"
                )
    expected = (len(content["subject_names"]), len(content["camera_names"]))
    if content["cameras"].shape != expected:
        raise ValueError(f"{path}: cameras has shape {content['cameras'].shape}, not {expected}")
    if content["table"].ndim != 1 or not len(content["table"]):
        raise ValueError(f"{path}: table has shape {content['table'].shape}, expected rows")
    check_millimetres(content["table"]["keypoints"], name=f"keypoints of {path}")
    return content


def _performances(content: Mapping[str, Any], *, path: Path) -> Iterator[_Performance]:
    """The rows of each performance."""
    table = content["table"]
    keys = [table[name].astype(np.int64) for name in ("frame_idx", "action_idx", "subject_idx")]
    for key, names in ((keys[1], content["action_names"]), (keys[2], content["subject_names"])):
        if key.min() < 0 or key.max() >= len(names):
            raise ValueError(f"{path}: table refers to number {key.max()} of {len(names)} names")
    order = np.lexsort(keys)
    starts = np.flatnonzero(np.diff(keys[2][order]) | np.diff(keys[1][order])) + 1
    for rows in np.split(order, starts):
        part = table[rows]
        subject, action, subaction = _numbers(content, part[0], path=path)
        if (np.diff(part["frame_idx"]) == 0).any() or part["frame_idx"][0] < 0:
            raise ValueError(f"{path}: S{subject} has a frame twice, or before 0, in one action")
        yield _Performance(
            subject_row=int(part["subject_idx"][0]),
            subject=subject,
            action=action,
            subaction=subaction,
            rows=part,
        )


def _numbers(content: Mapping[str, Any], row: np.void, *, path: Path) -> tuple[int, int, int]:
    """Subject, action and subaction of a row."""
    subject = str(content["subject_names"][row["subject_idx"]])
    name = str(content["action_names"][row["action_idx"]])
    action, _, subaction = name.rpartition("-")
    if not (subject[:1] == "S" and subject[1:].isdecimal() and subaction.isdecimal()):
        raise ValueError(
            f"{path}: {subject!r}, {name!r} are not a subject and an action like S1, Directions-1"
        )
    try:
        return int(subject[1:]), action_number(action), int(subaction)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _in_words(view: View) -> str:
    return f"S{view.subject}, action {view.action}, take {view.subaction}, {view.camera_name}"


def _take(
    view: View,
    *,
    joints_world_mm: Float[np.ndarray, "n 17 3"],
    frame: Int[np.ndarray, " n"],
    box_tlbr_px: Float[np.ndarray, "n 4"],
    camera: Camera,
    tree: ImageTree,
    name: str,
) -> Take:
    """The frames of one view that have an image."""
    images = tree.find(view.subject, view.action, view.subaction, view.camera_name)
    assert images is not None, "the tree was cut to this sequence"
    rows, pictures = images.match(frame)
    if not len(rows):
        raise ValueError(
            f"{tree.folder / images.name} has none of the {len(frame)} images that {name} labels"
        )
    lacking = len(frame) - len(rows)
    notes = (f"{view.name}: {lacking} of {len(frame)} labels have no image",) if lacking else ()
    top, left, bottom, right = box_tlbr_px[rows].T
    joints = camera_joints(camera, joints_world_mm[rows][:, _FROM_LEARNABLE])
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=joints,
        camera=camera,
        camera_name=view.camera_name,
        image_size_px=view.image_sizes_px(len(rows)),
        frame=frame[rows],
        pictures=pictures,
        box_xywh_px=np.stack([left, top, right - left, bottom - top], axis=1),
        notes=notes,
    )
