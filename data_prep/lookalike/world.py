"""Synthetic performances with Human3.6M's 32 joints before its cameras, and the store made of them.

What look-alike trees are written from, and what reading them back must equal: `WorldReader` yields
the same takes straight from memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from data_prep.human36m import (
    RAW_17,
    SUBJECTS,
    TEST_SUBJECTS,
    action_name,
    action_number,
    sequences,
)
from data_prep.human36m_cameras import IMAGE_SIZES_PX, subject_camera
from data_prep.pictures import Image
from data_prep.takes import LazyTake, Take, human36m_unit_name
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.skeleton import HUMAN36M_17

_SIDES = (("R", -1.0), ("L", 1.0))
_SHAPES_MM = {
    # half hips, thigh, shank, pelvis to torso, torso to neck, half shoulders, arm, forearm
    1: (132, 442, 454, 233, 257, 151, 278, 251),
    5: (126, 430, 440, 228, 250, 146, 268, 243),
    6: (138, 455, 462, 240, 262, 158, 286, 258),
    7: (130, 448, 450, 236, 254, 150, 280, 250),
    8: (140, 436, 446, 230, 259, 160, 274, 247),
    9: (128, 460, 470, 242, 265, 153, 290, 262),
    11: (134, 440, 456, 235, 252, 149, 276, 249),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Performance:
    """What one subject did once.

    Attributes:
        subject: 1, 5, 6, 7, 8, 9 or 11.
        action: Human3.6M's number, 2 to 16.
        subaction: 1 or 2.
        joints32_world_mm: The release's 32 joints in the world, millimetres, duplicates included.
    """

    subject: int
    action: int
    subaction: int
    joints32_world_mm: Float[np.ndarray, "n 32 3"]

    @property
    def key(self) -> tuple[int, int, int]:
        """Subject, action and subaction."""
        return self.subject, self.action, self.subaction

    @property
    def is_test(self) -> bool:
        """Whether the subject is of the usual test set, S9 and S11."""
        return self.subject in TEST_SUBJECTS

    @property
    def file_name(self) -> str:
        """Base name of its files in the release, e.g. "WalkingDog 1"."""
        return sequences()[self.key].file_name

    @property
    def joints_world_mm(self) -> Float[np.ndarray, "n 17 3"]:
        """The 17 joints of `HUMAN36M_17`."""
        return self.joints32_world_mm[:, RAW_17]

    def __len__(self) -> int:
        return len(self.joints32_world_mm)


class Painter(Protocol):
    """Draws full images of performances."""

    def image(self, performance: Performance, camera_name: str, frame: int) -> Image:
        """The full image, BGR."""
        ...

    def mask(
        self, performance: Performance, camera_name: str, frame: int
    ) -> Bool[np.ndarray, "height width"]:
        """Where the person is."""
        ...


class FigurePainter:
    """Draws limbs of even colour before a grey wall, with the frame's number beside them."""

    def image(self, performance: Performance, camera_name: str, frame: int) -> Image:
        """The full image, BGR."""
        width, height = IMAGE_SIZES_PX[performance.subject, camera_name]
        shade = np.linspace(70, 150, width, dtype=np.uint8)
        image = np.repeat(np.tile(shade, (height, 1))[..., None], 3, axis=2)
        points = world_points(performance, camera_name, frame)
        _draw_limbs(image, points, colours=True)
        place = (points[0] + [20, 0]).astype(int).tolist()
        cv2.putText(image, str(frame), place, cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 3)
        return image

    def mask(
        self, performance: Performance, camera_name: str, frame: int
    ) -> Bool[np.ndarray, "height width"]:
        """Where the limbs are."""
        width, height = IMAGE_SIZES_PX[performance.subject, camera_name]
        canvas = np.zeros((height, width, 3), np.uint8)
        _draw_limbs(canvas, world_points(performance, camera_name, frame), colours=False)
        return canvas[..., 0] > 0


def world_points(
    performance: Performance, camera_name: str, frame: int
) -> Float[np.ndarray, "17 2"]:
    """The 17 joints of a frame in the full image of a camera, pixels."""
    camera = subject_camera(performance.subject, camera_name)
    joints = camera.world_to_camera(torch.from_numpy(performance.joints_world_mm[frame]))
    return camera.camera_to_image(joints).numpy()


def _draw_limbs(canvas: UInt8[np.ndarray, "h w 3"], points: np.ndarray, *, colours: bool) -> None:
    """Bones as thick lines."""
    for bone, (parent, child) in enumerate(HUMAN36M_17.bones):
        colour = (40 + 13 * bone, 255 - 14 * bone, (90 * bone) % 255) if colours else (255,) * 3
        start, end = (points[[parent, child]] * 16).round().astype(int).tolist()
        cv2.line(canvas, start, end, colour, 22, cv2.LINE_AA, 4)


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Performances before Human3.6M's real cameras.

    Attributes:
        performances: In the order of subject, action and subaction.
        painter: Draws the images.
        camera_names: Cameras that recorded.
    """

    performances: Sequence[Performance]
    painter: Painter
    camera_names: tuple[str, ...] = HUMAN36M_CAMERA_NAMES

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects that occur."""
        return tuple(sorted({performance.subject for performance in self.performances}))

    def camera(self, subject: int, name: str) -> Camera:
        """A camera as it stood for a subject, with its distortion; world in millimetres."""
        return subject_camera(subject, name)

    def image_size_px(self, subject: int, name: str) -> tuple[int, int]:
        """Width and height of the full images."""
        return IMAGE_SIZES_PX[subject, name]


def make_world(
    *,
    subjects: Sequence[int] = SUBJECTS,
    actions: Sequence[int] = (2, 14),
    subactions: Sequence[int] = (1, 2),
    num_poses: int = 12,
    camera_names: Sequence[str] = HUMAN36M_CAMERA_NAMES,
    painter: Painter | None = None,
    seed: int = 0,
) -> World:
    """Make performances that differ in body, place, heading and movement.

    Args:
        subjects: Subjects' numbers.
        actions: Human3.6M's numbers of actions, 2 to 16.
        subactions: 1 and/or 2.
        num_poses: Poses of the first performance; every further one has one more, so that lengths
            tell performances apart.
        camera_names: Cameras that record.
        painter: Draws the images; coloured limbs if None.
        seed: Everything follows from it.
    """
    rng = np.random.default_rng(seed)
    performances: list[Performance] = []
    for subject in sorted(subjects):
        for action in sorted(actions):
            for subaction in sorted(subactions):
                count = num_poses + len(performances) % 7
                joints = _perform(count, _SHAPES_MM[subject], rng)
                performances.append(
                    Performance(
                        subject=subject,
                        action=action,
                        subaction=subaction,
                        joints32_world_mm=joints,
                    )
                )
    return World(
        performances=tuple(performances),
        painter=painter or FigurePainter(),
        camera_names=tuple(camera_names),
    )


def parse_world(
    *, subjects: str, actions: str, subactions: str, num_poses: int, seed: int
) -> World:
    """Make performances from lists as they are typed, e.g. "1,9" and "Directions,14".

    Raises:
        ValueError: If one is unknown.
    """
    return make_world(
        subjects=_parse_numbers("subject", subjects, known=SUBJECTS),
        actions=[
            _parse_numbers("action", word, known=range(2, 17))[0]
            if word.strip().isdecimal()
            else action_number(word.strip())
            for word in actions.split(",")
        ],
        subactions=_parse_numbers("subaction", subactions, known=(1, 2)),
        num_poses=num_poses,
        seed=seed,
    )


def _parse_numbers(name: str, text: str, *, known: Sequence[int]) -> list[int]:
    """Numbers with commas between."""
    words = [word.strip().removeprefix("S") for word in text.split(",")]
    for word in words:
        if not (word.isdecimal() and int(word) in known):
            listed = ", ".join(map(str, known))
            raise ValueError(f"{name} {word!r} is unknown; known: {listed}")
    return [int(word) for word in words]


def _perform(
    count: int, shape_mm: Sequence[float], rng: np.random.Generator
) -> Float[np.ndarray, "n 32 3"]:
    """Somebody walks in a curve and swings arms and legs; bones keep their lengths."""
    hip, thigh, shank, trunk, chest, shoulder, arm, forearm = shape_mm
    time_s = np.arange(count) / 50
    phase = 2 * np.pi * rng.uniform(0.6, 1.4) * time_s + rng.uniform(0, 6)
    heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-1, 1) * time_s
    pelvis = np.zeros((count, 3))
    pelvis[:, :2] = rng.uniform(-500, 500, 2) + 150 * np.stack([np.cos(phase), np.sin(phase)], 1)
    pelvis[:, 2] = thigh + shank + 40 + 15 * np.cos(2 * phase)
    up = np.tile([0.0, 0.0, 1.0], (count, 1))
    ahead = np.stack([-np.sin(heading), -np.cos(heading), 0 * heading], axis=1)
    left = np.cross(up, ahead)
    raw = np.zeros((count, 32, 3))
    raw[:, 0] = raw[:, 11] = pelvis
    lean = rng.uniform(-0.2, 0.3)
    spine = _between(up, ahead, np.full(count, lean))
    raw[:, 12] = pelvis + trunk * spine
    neck = raw[:, 12] + chest * spine
    raw[:, 13] = raw[:, 16] = raw[:, 24] = neck
    raw[:, 14] = neck + 115 * _between(up, ahead, np.full(count, lean + 0.5))
    raw[:, 15] = raw[:, 14] + 115 * up
    for name, sign in _SIDES:
        foot, hand = (1, 25) if name == "R" else (6, 17)
        swing = sign * rng.uniform(0.2, 0.7) * np.sin(phase)
        raw[:, foot] = pelvis + sign * hip * left
        raw[:, foot + 1] = raw[:, foot] + thigh * _between(-up, ahead, swing)
        bend = swing - np.abs(rng.uniform(0.1, 0.6) * np.sin(phase))
        raw[:, foot + 2] = raw[:, foot + 1] + shank * _between(-up, ahead, bend)
        raw[:, foot + 3] = raw[:, foot + 2] + 130 * ahead
        raw[:, foot + 4] = raw[:, foot + 3] + 60 * ahead
        raise_rad = -swing + rng.uniform(-0.2, 1.2)
        raw[:, hand] = neck + sign * shoulder * left - 30 * up
        raw[:, hand + 1] = raw[:, hand] + arm * _between(-up, ahead, raise_rad)
        turned = _between(-up, ahead, raise_rad + rng.uniform(0.1, 1.2))
        raw[:, hand + 2] = raw[:, hand + 3] = raw[:, hand + 1] + forearm * turned
        raw[:, hand + 4] = raw[:, hand + 2] + 60 * turned
        raw[:, hand + 5] = raw[:, hand + 6] = raw[:, hand + 2] + 90 * turned
    return raw


def _between(
    first: Float[np.ndarray, "n 3"],
    second: Float[np.ndarray, "n 3"],
    angle: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "n 3"]:
    """Directions turned from one axis towards another at a right angle to it, radians."""
    return np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second


@dataclass(frozen=True, kw_only=True, eq=False)
class PaintedFrames:
    """Images of a performance that are drawn when they are asked for; a `Pictures`."""

    world: World
    performance: Performance
    camera_name: str
    frame: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def names(self) -> Sequence[str]:
        """Names in Human3.6M's manner."""
        return tuple(
            f"{unit_name(self.performance, self.camera_name)}_{f + 1:06d}" for f in self.frame
        )

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "PaintedFrames":
        """The images of these positions."""
        return replace(self, frame=self.frame[rows])

    def missing(self) -> dict[int, str]:
        """None is missing."""
        return {}

    def frames(self) -> Iterator[Image | ValueError]:
        """Draw every image."""
        for frame in self.frame:
            yield self.world.painter.image(self.performance, self.camera_name, int(frame))


def unit_name(performance: Performance, camera_name: str) -> str:
    """The name of what one camera saw, in Human3.6M's manner."""
    return human36m_unit_name(*performance.key, HUMAN36M_CAMERA_NAMES.index(camera_name) + 1)


class WorldReader:
    """A world as a source of its own: the store that every look-alike of it must give."""

    skeleton = HUMAN36M_17.name
    box_kind = "none"
    is_human36m = True
    default_protocol = "full"

    def __init__(self, world: World) -> None:
        self.world = world
        self.description = "look-alike world"
        self.notes: list[str] = []
        self.missing: list[str] = []

    def identity(self) -> dict[str, Any]:
        """Names of the performances and their lengths."""
        return {
            "performances": {
                unit_name(performance, HUMAN36M_CAMERA_NAMES[0]): len(performance)
                for performance in self.world.performances
            }
        }

    def units(self) -> list[LazyTake]:
        """One take per performance and camera."""
        return [
            LazyTake(
                name=unit_name(performance, camera_name),
                subject=performance.subject,
                action=action_name(performance.action),
                subaction=performance.subaction,
                camera_name=camera_name,
                split=None,
                count=len(performance),
                read=partial(direct_take, self.world, performance, camera_name),
            )
            for performance in self.world.performances
            for camera_name in self.world.camera_names
        ]


def direct_take(world: World, performance: Performance, camera_name: str) -> Take:
    """The take of one camera, with its lens."""
    camera = world.camera(performance.subject, camera_name)
    frames = np.arange(len(performance))
    joints = camera.world_to_camera(torch.from_numpy(performance.joints_world_mm)).numpy()
    size = world.image_size_px(performance.subject, camera_name)
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=joints,
        camera=camera,
        camera_name=camera_name,
        image_size_px=np.tile(size, (len(performance), 1)),
        frame=frames,
        pictures=PaintedFrames(
            world=world, performance=performance, camera_name=camera_name, frame=frames
        ),
    )
