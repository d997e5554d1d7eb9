"""One camera's view of one performance of Human3.6M, and its cameras in whatever convention."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from data_prep.human36m import SUBJECTS, UNUSABLE_VIDEO, action_name, sequences
from data_prep.human36m_cameras import IMAGE_SIZES_PX, subject_camera
from data_prep.readers.files import float_array
from data_prep.takes import LazyTake, Take, human36m_unit_name
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera

MAX_TURN = 1e-3
"""By how much an entry of a rotation may differ from Human3.6M's own."""
MAX_SHIFT_MM = 2.0
"""By how much a centre may differ from Human3.6M's own along an axis."""
ROTATION_READINGS = ("camera from world", "world from camera")
TRANSLATION_READINGS = ("the centre in mm", "the centre in m", "−R·C in mm", "−R·C in m")
THINNING_STEPS = (2, 5, 10)
THINNING_SLACK = 2.0
"""Frames by which a thinned-out sequence's length may differ from the poses over the step."""


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class View:
    """What one of Human3.6M's cameras saw of one performance.

    Attributes:
        subject: 1, 5, 6, 7, 8, 9 or 11.
        action: Human3.6M's number, 2 to 16.
        subaction: 1 or 2.
        camera_name: One of `HUMAN36M_CAMERA_NAMES`.

    Raises:
        ValueError: If Human3.6M has no such performance or camera.
    """

    subject: int
    action: int
    subaction: int
    camera_name: str

    def __post_init__(self) -> None:
        if self.subject not in SUBJECTS:
            known = ", ".join(f"S{subject}" for subject in SUBJECTS)
            raise ValueError(f"subject S{self.subject} has no public poses; known: {known}")
        action_name(self.action)
        if (self.subject, self.action, self.subaction) not in sequences():
            raise ValueError(f"subaction {self.subaction} is unknown, must be 1 or 2")
        if self.camera_name not in HUMAN36M_CAMERA_NAMES:
            known = ", ".join(HUMAN36M_CAMERA_NAMES)
            raise ValueError(f"camera {self.camera_name} is unknown; known: {known}")

    @property
    def name(self) -> str:
        """The unit's name, e.g. s_01_act_02_subact_01_ca_01."""
        return human36m_unit_name(self.subject, self.action, self.subaction, self.camera_number)

    @property
    def camera_number(self) -> int:
        """The camera's number, 1 to 4."""
        return HUMAN36M_CAMERA_NAMES.index(self.camera_name) + 1

    @property
    def is_unusable(self) -> bool:
        """Whether this is S11's view whose video cannot be used."""
        return (self.subject, self.action, self.subaction, self.camera_name) == UNUSABLE_VIDEO

    @property
    def known_camera(self) -> Camera:
        """The camera as it stood for the subject, with its lens."""
        return subject_camera(self.subject, self.camera_name)

    def image_sizes_px(self, count: int) -> Int[np.ndarray, "n 2"]:
        """Width and height of so many images, pixels; layouts that state them get S7's wrong."""
        return np.tile(IMAGE_SIZES_PX[self.subject, self.camera_name], (count, 1))

    def unit(self, *, split: str | None, count: int, read: Callable[[], Take]) -> LazyTake:
        """The unit that a reader lists for this view."""
        return LazyTake(
            name=self.name,
            subject=self.subject,
            action=action_name(self.action),
            subaction=self.subaction,
            camera_name=self.camera_name,
            split=split,
            count=count,
            read=read,
        )


UNUSABLE_NOTE = (
    "left out S11 Directions, take 2, camera 54138969 (file Directions.54138969): its video cannot "
    "be used"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraValues:
    """A camera as PoseNet's layouts have it; the translation not yet interpreted."""

    rotation: Float[np.ndarray, "3 3"]
    translation_mm: Float[np.ndarray, " 3"]
    focal_px: Float[np.ndarray, " 2"]
    principal_point_px: Float[np.ndarray, " 2"]

    @classmethod
    def read(cls, entry: Mapping, *, name: str = "") -> "CameraValues":
        """Check R, t, f and c of an entry.

        Args:
            entry: The camera.
            name: What stands before R and f in messages.

        Raises:
            KeyError, TypeError: If one is not there, or holds no numbers.
            ValueError: If one has another shape, is not finite, or is no rotation or focal length.
        """
        rotation = float_array(entry, "R", (3, 3))
        is_rotation = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
        if not is_rotation or np.linalg.det(rotation) < 0:
            raise ValueError(f"{name}R is not a rotation")
        focal = float_array(entry, "f", (2,))
        if not (focal > 0).all():
            raise ValueError(f"{name}f is {focal.tolist()} px, must be > 0")
        return cls(
            rotation=rotation,
            translation_mm=float_array(entry, "t", (3,)),
            focal_px=focal,
            principal_point_px=float_array(entry, "c", (2,)),
        )


def camera_arrays(
    entry: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, name: str
) -> dict[str, Float[np.ndarray, "..."]]:
    """The parts of a camera's entry, float64.

    Args:
        entry: The camera as the file has it.
        shapes: The parts that are wanted, and their shapes.
        name: What the camera is called in messages: file and entry.

    Raises:
        ValueError: Naming the part that is missing or has another number of elements.
    """
    arrays = {}
    for key, shape in shapes.items():
        try:
            arrays[key] = np.asarray(entry[key], np.float64).reshape(shape)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: {key} is missing or not of shape {shape}") from error
    return arrays


def recognised_camera(
    subject: int,
    camera_name: str,
    *,
    rotation: Float[np.ndarray, "3 3"],
    translation: Float[np.ndarray, " 3"],
    focal_px: Float[np.ndarray, " 2"],
    principal_point_px: Float[np.ndarray, " 2"],
    radial: Float[np.ndarray, " 3"],
    tangential: Float[np.ndarray, " 2"],
    documented: tuple[str, str],
    name: str,
) -> tuple[Camera, str]:
    """A camera of a file in the store's convention, whichever the file has.

    Human3.6M's cameras are known: of the rotation and its transpose (camera from world, world from
    camera), and of the translation as the centre C or −R·C, in millimetres or metres, that
    reading is taken that stands where the subject's camera stood. A camera whose rotation is none
    of Human3.6M's (calibrated anew, or of other recordings in this layout) is read as the layout's
    authors write it.

    Args:
        subject: Subject's number.
        camera_name: One of `HUMAN36M_CAMERA_NAMES`.
        rotation: As the file has it.
        translation: As the file has it.
        focal_px: fx, fy, pixels.
        principal_point_px: cx, cy, pixels.
        radial: k1, k2, k3.
        tangential: p1, p2.
        documented: How the layout's authors write rotation and translation: one of
            `ROTATION_READINGS` and one of `TRANSLATION_READINGS`.
        name: What the camera is called in messages: file and entry.

    Returns:
        The camera, and how its rotation and translation were read.

    Raises:
        ValueError: Naming the entry, if R is no rotation or another camera's, or the translation
            is not that of Human3.6M's camera whose rotation it has.
    """
    known = subject_camera(subject, camera_name)
    rotations = dict(zip(ROTATION_READINGS, (rotation, rotation.T), strict=True))
    camera_from_world, turned = _nearest(rotations, known.rotation.numpy())
    is_known = np.abs(camera_from_world - known.rotation.numpy()).max() <= MAX_TURN
    if not is_known:
        _refuse_rotation(rotation, subject, camera_name, name=name)
        turned = documented[0]
        camera_from_world = np.asarray(rotations[turned], np.float64)
    centre = translation.reshape(3)
    minus_rc = -camera_from_world.T @ centre
    centres_mm = dict(
        zip(
            TRANSLATION_READINGS,
            (centre, 1000 * centre, minus_rc, 1000 * minus_rc),
            strict=True,
        )
    )
    if is_known:
        centre_mm, placed = _nearest(centres_mm, known.centre_world_mm.numpy())
    else:
        placed = documented[1]
        centre_mm = np.asarray(centres_mm[placed], np.float64)
    distance_mm = np.abs(centre_mm - known.centre_world_mm.numpy()).max()
    if is_known and not distance_mm <= MAX_SHIFT_MM:
        raise ValueError(
            f"{name}: as {placed}, the translation is {distance_mm:.0f} mm from where Human3.6M's "
            f"camera {camera_name} stood for S{subject}; the file is of another data set or damaged"
        )
    camera = Camera.from_parameters(
        rotation=camera_from_world,
        centre_world_mm=centre_mm,
        focal_px=focal_px,
        principal_point_px=principal_point_px,
        radial=radial,
        tangential=tangential,
    )
    own = "" if is_known else " (not Human3.6M's camera: read as the layout is documented)"
    return camera, f"R is {turned}, the translation {placed}{own}"


def _refuse_rotation(
    rotation: Float[np.ndarray, "3 3"], subject: int, camera_name: str, *, name: str
) -> None:
    """Refuse what cannot be the rotation of any camera of this name."""
    is_rotation = (
        np.isfinite(rotation).all()
        and np.abs(rotation @ rotation.T - np.eye(3)).max() <= MAX_TURN
        and np.linalg.det(rotation) > 0
    )
    if not is_rotation or np.abs(rotation - np.eye(3)).max() <= MAX_TURN:
        raise ValueError(
            f"{name}: neither R nor its transpose is the rotation of Human3.6M's camera "
            f"{camera_name} for S{subject}, nor of any camera; the file is damaged"
        )
    for other in HUMAN36M_CAMERA_NAMES:
        theirs = subject_camera(subject, other).rotation.numpy()
        for reading in (rotation, rotation.T):
            if np.abs(reading - theirs).max() <= MAX_TURN:
                raise ValueError(
                    f"{name}: R is the rotation of camera {other}, not of {camera_name}; cameras "
                    "are in another order than their names"
                )


def _nearest(readings: dict[str, np.ndarray], wanted: np.ndarray) -> tuple[np.ndarray, str]:
    """The reading that is nearest to what is wanted, and its name."""
    name = min(readings, key=lambda reading: float(np.abs(readings[reading] - wanted).max()))
    return np.asarray(readings[name], np.float64), name


def camera_joints(camera: Camera, joints_world_mm: np.ndarray) -> Float[np.ndarray, "n joints 3"]:
    """Joints of the world in a camera's frame, millimetres, float64."""
    return camera.world_to_camera(torch.from_numpy(np.asarray(joints_world_mm, np.float64))).numpy()


def renumbered_step(frame: Int[np.ndarray, " n"], num_poses: int) -> int | None:
    """By which step images seem to have been thinned out before they were numbered.

    Frames 0 to m without a gap, m a fifth of the poses or the like, hint at every fifth image of
    the video under consecutive numbers: every label then stands beside another pose's image.

    Args:
        frame: The frames that there are, ascending.
        num_poses: How many poses the release has.

    Returns:
        The step; None if nothing hints at one.
    """
    if not np.array_equal(frame, np.arange(len(frame))):
        return None
    for step in THINNING_STEPS:
        if abs(len(frame) - num_poses / step) <= THINNING_SLACK:
            return step
    return None
