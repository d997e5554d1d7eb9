"""What every reader of a layout yields, in one form: takes, found cheaply and read one by one.

A reader lists `Unit`s: one per (subject, action, subaction, camera), or a block of single images.
Listing is cheap; the labels are read by `Unit.load`, in whatever process converts the unit, and
become one shard of the store.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from data_prep.pictures import Pictures
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import skeleton_by_name

BOX_KINDS = ("none", "annotation", "mask")
"""What the boxes of a layout are: absent, of the layout's own making, or of the person's mask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A source record that cannot be converted."""

    name: str
    reason: str
    split: str


class LaterBoxes(Protocol):
    """Person boxes that cost much to read: read once it is known of which frames.

    Small enough to be sent to another process.
    """

    def __len__(self) -> int: ...

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "LaterBoxes":
        """The boxes of these positions."""
        ...

    def read(self) -> Float[np.ndarray, "n 4"]:
        """Left, top, width, height, pixels; NaN for a frame without a box.

        Raises:
            ValueError: Naming the file, if it cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Take:
    """What one camera saw of one performance, or a block of single images; n frames.

    Attributes:
        skeleton: Name of the joint set, in whose order joints are.
        joints_camera_mm: Joints in the camera frame, x right, y down, z forward, millimetres.
        camera: The full image's camera; one for all frames, or a batch with one per frame. Where
            the layout has no extrinsics it stands at the origin.
        camera_name: Name of the camera, e.g. "54138969".
        image_size_px: Width and height of each full image, pixels.
        frame: Number of each frame within the sequence, from 0.
        pictures: The full images, one per frame.
        weight: Weight of each joint's axes (u, v, d); 1 where left out.
        visibility: 1 where a joint lies in the image and is not known to be hidden; where left
            out, it is made from the projection.
        box_xywh_px: The layout's person boxes: left, top, width, height, pixels; NaN for a frame
            without one.
        later_boxes: In place of `box_xywh_px`, boxes that `with_boxes` reads.
        source_px: The layout's own 2-D labels, pixels, where it has any besides; conversion does
            not need them, they are compared with the projection.
        rejections: Records of this take that cannot be read.
        notes: What a person should be told about this take.
    """

    skeleton: str
    joints_camera_mm: Float[np.ndarray, "n joints 3"]
    camera: Camera
    camera_name: str
    image_size_px: Int[np.ndarray, "n 2"]
    frame: Int[np.ndarray, " n"]
    pictures: Pictures
    weight: Float[np.ndarray, "n joints 3"] | None = None
    visibility: Shaped[np.ndarray, "n joints"] | None = None
    box_xywh_px: Float[np.ndarray, "n 4"] | None = None
    later_boxes: LaterBoxes | None = None
    source_px: Float[np.ndarray, "n joints 2"] | None = None
    rejections: tuple[Rejection, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        count, num_joints = len(self.frame), skeleton_by_name(self.skeleton).num_joints
        expected = {
            "joints_camera_mm": (count, num_joints, 3),
            "image_size_px": (count, 2),
            "weight": (count, num_joints, 3),
            "visibility": (count, num_joints),
            "box_xywh_px": (count, 4),
            "source_px": (count, num_joints, 2),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            assert value is None or value.shape == shape, f"{name} {value.shape}, expected {shape}"
        assert len(self.pictures) == count, f"{len(self.pictures)} pictures of {count} frames"
        assert self.later_boxes is None or len(self.later_boxes) == count, "one box per frame"
        assert tuple(self.camera.batch_shape) in ((), (count,)), "one camera, or one per frame"

    def __len__(self) -> int:
        return len(self.frame)

    def chosen(self, keep: Shaped[np.ndarray, " n"]) -> "Take":
        """The frames of these positions (or where a mask is true), in this order."""
        rows = np.flatnonzero(keep) if keep.dtype == bool else keep
        cut: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in (
                *("joints_camera_mm", "image_size_px", "frame", "weight", "visibility"),
                *("box_xywh_px", "source_px"),
            )
        }
        camera = self.camera
        if camera.batch_shape:
            camera = camera[torch.from_numpy(np.asarray(rows))]
        if self.later_boxes is not None:
            cut["later_boxes"] = self.later_boxes.chosen(rows)
        return replace(self, camera=camera, pictures=self.pictures.chosen(rows), **cut)

    def with_boxes(self) -> "Take":
        """The take with its boxes read, if that was put off.

        Raises:
            ValueError: Naming the file, if they cannot be read.
        """
        if self.later_boxes is None:
            return self
        return replace(self, box_xywh_px=self.later_boxes.read(), later_boxes=None)


class Unit(Protocol):
    """One take before it is read; small enough to be sent to another process."""

    @property
    def name(self) -> str:
        """Unique in the source and fit for a file name, e.g. s_01_act_02_subact_01_ca_01."""
        ...

    @property
    def subject(self) -> int:
        """Subject's number; 0 where nobody is told apart."""
        ...

    @property
    def action(self) -> str:
        """Name of the action, for Human3.6M one of `HUMAN36M_ACTIONS`."""
        ...

    @property
    def subaction(self) -> int:
        """Number of the take of this action, from 1."""
        ...

    @property
    def camera_name(self) -> str:
        """Name of the camera."""
        ...

    @property
    def split(self) -> str | None:
        """ "train" or "test" where the source says so; else None, and the protocol decides."""
        ...

    @property
    def count(self) -> int:
        """Frames, as far as they are known before reading; 0 if not."""
        ...

    def load(self) -> Take:
        """Read the labels.

        Raises:
            ValueError: Naming the file, if a whole file cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyTake:
    """A `Unit` whose labels a function reads.

    Attributes:
        read: Reads the take; a partial of a module's function, since it is sent to processes.
    """

    name: str
    subject: int
    action: str
    subaction: int
    camera_name: str
    split: str | None
    count: int
    read: Callable[[], Take]

    def load(self) -> Take:
        """Read the labels."""
        return self.read()


class Reader(Protocol):
    """A layout of files on disk.

    Attributes:
        description: Where the records come from, in words, for the store's header.
        skeleton: Name of the joint set of all takes.
        box_kind: One of `BOX_KINDS`.
        is_human36m: Whether Human3.6M's known faults and expected counts apply.
        default_protocol: Name of the protocol if none is asked for; "full" takes what there is.
        notes: What a person should be told, e.g. what is left out and why.
        missing: Files that should be there and are not, each in one line.
    """

    description: str
    skeleton: str
    box_kind: str
    is_human36m: bool
    default_protocol: str
    notes: list[str]
    missing: list[str]

    def units(self) -> Sequence[Unit]:
        """All takes, in an order that depends on the source alone.

        Raises:
            ValueError: Naming the file or folder, if the source is not of this layout.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """What the labels depend on (file names, sizes, digests, options), as JSON values."""
        ...


@runtime_checkable
class MaskReader(Protocol):
    """A `Reader` of masks that are too slow to read unless boxes are to be made of them."""

    def use_masks(self) -> None:
        """Make boxes of the masks: `box_kind` is "mask" from now on.

        Raises:
            ValueError: Naming the folder, if the source holds no masks.
        """
        ...


def human36m_unit_name(subject: int, action: int, subaction: int, camera: int) -> str:
    """The name of a sequence of one camera in Human3.6M's manner; all numbers count from 1."""
    return f"s_{subject:02d}_act_{action:02d}_subact_{subaction:02d}_ca_{camera:02d}"
