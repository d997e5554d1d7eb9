"""Photographs of takes: crops for the store, and full frames, with labels and visibility."""

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from data_prep.human36m_cameras import IMAGE_SIZES_PX
from data_prep.synthetic.body import load_body_model
from data_prep.synthetic.drawing import Artist, Drawing
from data_prep.synthetic.performances import ModelMotions, Motions
from data_prep.synthetic.raster import Renderer
from data_prep.synthetic.surface import BodySurface
from data_prep.synthetic.takes import Stage, Take
from data_prep.synthetic.visibility import Sight
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.crop import box_from_joints, crop_from_image, square_box, transform_points

BOX_ENLARGE = 1.2
BOX_DEFINITION = "square around the 17 projected joints, its side 1.2 times the longer extent"
KEPT_TAKES = 2
VIEW_SCALE_PER_PX = 1 / 760
"""A crop shows about 1000 pixels of the full image; the scenery is kept somewhat finer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """A drawn crop before it is encoded."""

    subject: int
    action: str
    take: int
    camera_name: str
    frame: int
    image: UInt8[np.ndarray, "size size 3"]
    """The crop, RGB."""
    quality_share: float
    """Where its JPEG quality lies between the lowest (0) and the highest (1) of its store."""
    vertices_world_mm: Float[np.ndarray, "vertices 3"]
    joints_camera_mm: Float[np.ndarray, "17 3"]
    joints_store_px: Float[np.ndarray, "17 2"]
    visibility: UInt8[np.ndarray, " 17"]
    """1: in the full image and hidden neither by the body nor by furniture."""
    camera: Camera
    store_from_image: Float[np.ndarray, "3 3"]
    box_image_px: Float[np.ndarray, " 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Photograph:
    """A full frame of one camera."""

    image: UInt8[np.ndarray, "height width 3"]
    """RGB."""
    mask: Bool[np.ndarray, "height width"]
    """Pixels that show the person."""
    joints_world_mm: Float[np.ndarray, "17 3"]
    camera: Camera
    visibility: UInt8[np.ndarray, " 17"]
    """1: in the image and hidden neither by the body nor by furniture."""


class Studio:
    """Everything that photographs share, once per process.

    Args:
        seed: Everything follows from it.
        crop_size_px: Side of the crops.
        margin: What a crop shows over the side of the person's square.
        renderer: Finds the seen triangles.
        motions: Where motion comes from; the motion model if not given.
        has_jitter: Whether cameras are moved a little, anew for each take.
    """

    def __init__(
        self,
        seed: int,
        *,
        crop_size_px: int,
        margin: float,
        renderer: Renderer,
        motions: Motions | None = None,
        has_jitter: bool = False,
    ) -> None:
        self._seed = seed
        self._crop_size_px = crop_size_px
        self._margin = margin
        self._renderer = renderer
        model = load_body_model()
        self._surface = BodySurface(model)
        self._sight = Sight(model.bone_names)
        self._stage = Stage(
            seed,
            model=model,
            surface=self._surface,
            motions=motions or ModelMotions(),
            has_jitter=has_jitter,
        )
        self._takes: OrderedDict[tuple[int, str, int, int], Take] = OrderedDict()

    @cached_property
    def _crop_artist(self) -> Artist:
        size = self._crop_size_px
        scale = min(1.0, VIEW_SCALE_PER_PX * size)
        return self._artist(width_px=size, height_px=size, view_scale=scale)

    @cached_property
    def _frame_artist(self) -> Artist:
        width, height = (max(sides) for sides in zip(*IMAGE_SIZES_PX.values(), strict=True))
        return self._artist(width_px=width, height_px=height, view_scale=1.0)

    def _artist(self, *, width_px: int, height_px: int, view_scale: float) -> Artist:
        return Artist(
            self._seed,
            surface=self._surface,
            renderer=self._renderer,
            width_px=width_px,
            height_px=height_px,
            view_scale=view_scale,
        )

    def take(self, subject: int, action: str, number: int, *, num_frames: int) -> Take:
        """A take; prepared anew where it is not one of the last.

        Args:
            subject: 1, 5, 6, 7, 8, 9 or 11.
            action: One of those that the source of motion knows.
            number: Number of the take of this action, from 1.
            num_frames: How many frames are wanted, at 50 a second.
        """
        key = (subject, action, number, num_frames)
        if key not in self._takes:
            self._takes[key] = self._stage.prepare(subject, action, number, num_frames=num_frames)
            while len(self._takes) > KEPT_TAKES:
                self._takes.popitem(last=False)
        self._takes.move_to_end(key)
        return self._takes[key]

    def shoot(self, take: Take, camera_name: str, frame: int) -> Shot:
        """Draw the crop of one frame as a camera sees it."""
        camera, size = take.cameras[camera_name], self._crop_size_px
        joints_camera = camera.world_to_camera(torch.from_numpy(take.joints_mm[frame]))
        joints_image = camera.camera_to_image(joints_camera)
        square = square_box(box_from_joints(joints_image, enlarge=1.0), enlarge=BOX_ENLARGE)
        store_from_image = crop_from_image(
            square * torch.tensor([1.0, 1.0, self._margin]), crop_size_px=size
        )
        vertices = take.body.skin(take.skeletons.frame(frame))
        rng = self._rng(take, camera_name, frame)
        drawing = self._crop_artist.draw(
            take,
            camera_name,
            vertices,
            store_from_image.numpy(),
            rng,
            width_px=size,
            height_px=size,
        )
        joints_store = transform_points(store_from_image, joints_image).numpy()
        visibility = self._visibility(
            drawing,
            joints_store,
            joints_camera[:, 2].numpy(),
            _are_inside(joints_image.numpy(), IMAGE_SIZES_PX[take.subject, camera_name]),
        )
        return Shot(
            subject=take.subject,
            action=take.action,
            take=take.number,
            camera_name=camera_name,
            frame=frame,
            image=drawing.image,
            quality_share=float(rng.random()),
            vertices_world_mm=vertices,
            joints_camera_mm=joints_camera.numpy(),
            joints_store_px=joints_store,
            visibility=visibility,
            camera=camera,
            store_from_image=store_from_image.numpy(),
            box_image_px=square.numpy(),
        )

    def photograph(
        self,
        subject: int,
        action: str,
        take: int,
        camera_name: str,
        frame: int,
        *,
        num_frames: int = 500,
    ) -> Photograph:
        """Draw a full frame, as one of Human3.6M's cameras films it.

        Args:
            subject: 1, 5, 6, 7, 8, 9 or 11.
            action: One of those that the source of motion knows.
            take: Number of the take, from 1.
            camera_name: One of `HUMAN36M_CAMERA_NAMES`.
            frame: From 0.
            num_frames: Length of the take, which its motion depends on.

        Raises:
            ValueError: If there is no such subject, action, camera or frame.
        """
        whole = self.take(subject, action, take, num_frames=num_frames)
        if camera_name not in whole.cameras:
            raise ValueError(f"camera must be one of {HUMAN36M_CAMERA_NAMES}, got {camera_name!r}")
        if not 0 <= frame < whole.num_frames:
            raise ValueError(f"frame must be in [0, {whole.num_frames}), got {frame}")
        camera = whole.cameras[camera_name]
        width, height = IMAGE_SIZES_PX[subject, camera_name]
        drawing = self._frame_artist.draw(
            whole,
            camera_name,
            whole.body.skin(whole.skeletons.frame(frame)),
            np.eye(3),
            self._rng(whole, camera_name, frame),
            width_px=width,
            height_px=height,
        )
        joints_camera = camera.world_to_camera(torch.from_numpy(whole.joints_mm[frame]))
        joints_image = camera.camera_to_image(joints_camera).numpy()
        is_inside = _are_inside(joints_image, (width, height))
        depths = joints_camera[:, 2].numpy()
        return Photograph(
            image=drawing.image,
            mask=drawing.person_mask(),
            joints_world_mm=whole.joints_mm[frame],
            camera=camera,
            visibility=self._visibility(drawing, joints_image, depths, is_inside),
        )

    def _visibility(
        self,
        drawing: Drawing,
        joints_px: Float[np.ndarray, "17 2"],
        depths_mm: Float[np.ndarray, " 17"],
        is_inside: Bool[np.ndarray, " 17"],
    ) -> UInt8[np.ndarray, " 17"]:
        before = drawing.before_at(joints_px)
        seen = self._sight.seen(drawing.tile, drawing.bones, joints_px, depths_mm, before)
        return (seen & is_inside).astype(np.uint8)

    def _rng(self, take: Take, camera_name: str, frame: int) -> np.random.Generator:
        camera = HUMAN36M_CAMERA_NAMES.index(camera_name)
        action = zlib.crc32(take.action.encode())
        return np.random.default_rng((self._seed, take.subject, action, take.number, frame, camera))


def _are_inside(
    points_px: Float[np.ndarray, "n 2"], image_size_px: tuple[int, int]
) -> Bool[np.ndarray, " n"]:
    """Points that lie in the full image."""
    high = np.array(image_size_px) - 0.5
    inside: np.ndarray = (points_px >= -0.5) & (points_px <= high)
    return np.all(inside, axis=1)
