"""Labels as data sets state them become annotated people: camera, box, plausible joints.

What every reader of a data set with world coordinates needs, whatever its files look like.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from data_prep.crops import AnnotatedPerson, Rejection
from pose3d.data.store import HUMAN36M_ACTIONS, HUMAN36M_FIRST_ACTION
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.crop import box_from_joints, square_box
from pose3d.geometry.skeleton import HUMAN36M_17

BOXES = ("annotation", "joints", "metric")
TRANSLATIONS = ("auto", "centre", "minus-rc")
JOINT_BOX_ENLARGE = 1.2
METRIC_BOX_MM = 2000.0
MAX_BONE_MM = 800.0
HUMAN36M_IMAGE_SIZES = ((1000, 1000), (1000, 1002))


@dataclass(frozen=True, kw_only=True, eq=False)
class Label:
    """One pair, parsed; the translation not yet interpreted."""

    file_name: str
    split: str
    image_size_px: tuple[int, int]
    rotation: np.ndarray
    translation_mm: np.ndarray
    focal_px: np.ndarray
    principal_point_px: np.ndarray
    radial: np.ndarray
    tangential: np.ndarray
    box_xywh_px: np.ndarray
    joints_world_mm: np.ndarray
    numbers: tuple[int, int, int, int, int]
    """Subject, action, subaction, camera, frame from 0."""


def check_unit(labels: Sequence[Label]) -> None:
    """Refuse joints in metres."""
    sizes_mm = [np.ptp(label.joints_world_mm, axis=0).max() for label in labels]
    if labels and np.median(sizes_mm) < 100:
        raise ValueError(
            f"people are {np.median(sizes_mm):.3g} units large in keypoints_world; "
            "expected millimetres"
        )


def decide_translation(labels: Sequence[Label], *, asked: str, say: Callable[[str], Any]) -> str:
    """Whether cam_param.t is the camera's centre ("centre") or −R C ("minus-rc").

    Raises:
        ValueError: If "auto" is asked and neither puts most people into their images.
    """
    if asked != "auto" or not labels:
        return asked if asked != "auto" else "centre"
    share = {name: _share_in_view(labels, translation=name) for name in ("centre", "minus-rc")}
    best = max(share, key=lambda name: share[name])  # the layout's own reading wins a tie
    found = f"centre C: {share['centre']:.0%}, −R·C: {share['minus-rc']:.0%} of the people in view"
    if share[best] < 0.5:
        raise ValueError(
            f"no reading of cam_param.t puts the people before the cameras and into the images "
            f"({found}); cam_param and keypoints_world must belong together, in millimetres"
        )
    if best == "minus-rc":
        say(f"note: cam_param.t is read as −R·C, not as the camera's centre ({found})")
    else:
        say(f"cam_param.t is the camera's centre ({found})")
    return best


def _share_in_view(labels: Sequence[Label], *, translation: str) -> float:
    """Share of people wholly before the camera with most joints in the image (pinhole)."""
    rotation = np.stack([label.rotation for label in labels])
    shift = np.stack([label.translation_mm for label in labels])[:, None]
    world = np.stack([label.joints_world_mm for label in labels])
    if translation == "centre":
        joints = np.einsum("nij,nkj->nki", rotation, world - shift)
    else:
        joints = np.einsum("nij,nkj->nki", rotation, world) + shift
    focal = np.stack([label.focal_px for label in labels])[:, None]
    point = np.stack([label.principal_point_px for label in labels])[:, None]
    size = np.array([label.image_size_px for label in labels])[:, None]
    depth = joints[..., 2:]
    image_px = joints[..., :2] / np.where(depth > 0, depth, np.nan) * focal + point
    inside = ((image_px >= 0) & (image_px < size)).all(-1)
    return float(((depth > 0).all((1, 2)) & (inside.mean(1) >= 0.5)).mean())


class PersonBuilder:
    """Turn parsed labels into annotated people; keeps one Camera per distinct camera."""

    def __init__(self, image_folder: Path, *, translation: str, box: str, enlarge: float) -> None:
        self.num_implausible: dict[str, int] = {}
        self._image_folder = image_folder
        self._translation = translation
        self._box_kind = box
        self._enlarge = enlarge
        self._cameras: dict[bytes, Camera] = {}
        self._seen: set[str] = set()

    def build(self, label: Label) -> AnnotatedPerson | Rejection:
        """The person, or why there is none."""
        try:
            return self._build(label)
        except ValueError as error:
            return Rejection(name=label.file_name, reason=str(error), split=label.split)

    def _build(self, label: Label) -> AnnotatedPerson:
        image_path = self._image_folder / label.file_name
        if label.file_name in self._seen:
            raise ValueError("file_name occurs twice; one person per image is expected")
        self._seen.add(label.file_name)
        if not image_path.is_file():
            raise ValueError(f"image {image_path} is missing")
        camera = self._camera(label)
        joints = camera.world_to_camera(torch.from_numpy(label.joints_world_mm))
        depth_mm = joints[:, 2].min().item()
        if not depth_mm > 0:
            raise ValueError(
                f"a joint has depth {depth_mm:.0f} mm (behind the camera) with cam_param.t read as "
                f"{self._translation}"
            )
        image_px = camera.camera_to_image(joints).numpy()
        plausible = plausible_joints(joints.numpy())
        for joint in np.flatnonzero(~plausible):
            name = HUMAN36M_17.joint_names[joint]
            self.num_implausible[name] = self.num_implausible.get(name, 0) + 1
        inside = ((image_px >= -0.5) & (image_px < np.array(label.image_size_px) - 0.5)).all(1)
        subject, action, subaction, camera_number, frame = label.numbers
        return AnnotatedPerson(
            image_path=image_path,
            source_file=label.file_name,
            image_size_px=label.image_size_px,
            joints_camera_mm=joints.numpy(),
            weight=np.repeat(plausible[:, None], 3, axis=1).astype(np.float64),
            visibility=(inside & plausible).astype(np.uint8),
            camera=camera,
            camera_name=_camera_name(camera_number, image_size_px=label.image_size_px),
            square_box_px=self._box(label, joints.numpy(), image_px, plausible),
            subject=subject,
            action=_action_name(action),
            subaction=subaction,
            frame=frame,
            split=label.split,
        )

    def _camera(self, label: Label) -> Camera:
        """The label's camera, shared with the others that have it."""
        values = (
            *(label.rotation, label.translation_mm, label.focal_px, label.principal_point_px),
            *(label.radial, label.tangential),
        )
        key = b"".join(value.tobytes() for value in values)
        if key not in self._cameras:
            centre = label.translation_mm
            if self._translation == "minus-rc":
                centre = -label.rotation.T @ label.translation_mm
            self._cameras[key] = Camera.from_parameters(
                rotation=label.rotation,
                centre_world_mm=centre,
                focal_px=label.focal_px,
                principal_point_px=label.principal_point_px,
                radial=label.radial,
                tangential=label.tangential,
            )
        return self._cameras[key]

    def _box(
        self,
        label: Label,
        joints_camera_mm: Float[np.ndarray, "joints 3"],
        image_px: Float[np.ndarray, "joints 2"],
        plausible: Bool[np.ndarray, " joints"],
    ) -> Float[np.ndarray, " 3"]:
        """The nominal person square by the definition asked for."""
        kind = self._box_kind
        if kind == "metric":
            root = HUMAN36M_17.root
            size = METRIC_BOX_MM * label.focal_px / joints_camera_mm[root, 2]
            box = torch.from_numpy(np.concatenate([image_px[root] - size / 2, size]))
        elif kind == "joints" or not plausible.all():
            chosen = torch.from_numpy(image_px[plausible])
            box = box_from_joints(chosen, enlarge=JOINT_BOX_ENLARGE)
        else:
            box = torch.from_numpy(label.box_xywh_px)
        return square_box(box, enlarge=self._enlarge).numpy()


def plausible_joints(joints_mm: Float[np.ndarray, "joints 3"]) -> Bool[np.ndarray, " joints"]:
    """Joints that no bone longer than `MAX_BONE_MM` speaks against.

    A wrongly reconstructed joint makes all its bones long: the joint with the most long bones is
    taken out (of several, the one furthest from the root), until no long bone is left.
    """
    long = [
        bone
        for bone in HUMAN36M_17.bones
        if np.linalg.norm(joints_mm[bone[0]] - joints_mm[bone[1]]) > MAX_BONE_MM
    ]
    plausible = np.ones(len(joints_mm), bool)
    while long:
        counts = np.bincount(np.ravel(long), minlength=len(joints_mm))
        candidates = np.flatnonzero(counts == counts.max())
        joint = max(candidates.tolist(), key=_distance_from_root)
        plausible[joint] = False
        long = [bone for bone in long if joint not in bone]
    return plausible


def _distance_from_root(joint: int) -> int:
    """Number of bones between a joint and the root."""
    parent = HUMAN36M_17.parents[joint]
    return 0 if parent < 0 else 1 + _distance_from_root(parent)


def _camera_name(number: int, *, image_size_px: tuple[int, int]) -> str:
    """Human3.6M's name for its cameras 1 to 4, told by the image's size; else ca_01 and so on."""
    if tuple(image_size_px) in HUMAN36M_IMAGE_SIZES and 1 <= number <= len(HUMAN36M_CAMERA_NAMES):
        return HUMAN36M_CAMERA_NAMES[number - 1]
    return f"ca_{number:02d}"


def _action_name(number: int) -> str:
    """Human3.6M's name of an action's number, counted from 2."""
    position = number - HUMAN36M_FIRST_ACTION
    if not 0 <= position < len(HUMAN36M_ACTIONS):
        last = HUMAN36M_FIRST_ACTION + len(HUMAN36M_ACTIONS) - 1
        raise ValueError(f"action_idx {number} is unknown, must be 2 to {last}")
    return HUMAN36M_ACTIONS[position]


def box_definition(kind: str, *, enlarge: float) -> str:
    """The definition of the nominal person square, in words."""
    joints = f"tight box of the projected joints × {JOINT_BOX_ENLARGE:g}"
    base = {
        "annotation": f"annotated box (of records with implausible joints: {joints} of the others)",
        "joints": joints,
        "metric": f"{METRIC_BOX_MM:.0f} mm at the root's depth around the projected root",
    }[kind]
    return f"{base}; square of its longer side × {enlarge:g}, same centre, not clipped"
