"""What is behind the person: a painted room seen through the lens, the whole frame at once.

A camera sees the same walls in all frames of a sequence, so that its view is drawn once and each
crop is cut from it.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from data_prep.synthetic.room_things import TEXELS_PER_METRE
from data_prep.synthetic.rooms import Room
from pose3d.geometry.camera import Camera

RAY_STEP_PX = 8
FARTHEST_MM = 50_000.0
"""Bound on the distance of what a ray meets."""


class Backdrop:
    """Draws rooms as cameras see them.

    Args:
        scale: Side of a pixel of the full image over that of a pixel of the drawn view.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self._rays: dict[str, Float[np.ndarray, "height width 2"]] = {}

    def view_size(self, image_size_px: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the view of a whole image."""
        width, height = (int(np.ceil(side * self.scale)) for side in image_size_px)
        return width, height

    @property
    def view_from_image(self) -> Float[np.ndarray, "3 3"]:
        """Map from pixels of the full image to pixels of the view."""
        shift = 0.5 * self.scale - 0.5
        return np.array([[self.scale, 0.0, shift], [0.0, self.scale, shift], [0.0, 0.0, 1.0]])

    def _lens(self, camera: Camera, name: str) -> Float[np.ndarray, "height width 2"]:
        """Undistorted rays x/z, y/z of the view's pixels, for images of up to 1008 pixels."""
        if name not in self._rays:
            grid = torch.arange(0, 1008 + RAY_STEP_PX, RAY_STEP_PX, dtype=torch.float64)
            y, x = torch.meshgrid(grid, grid, indexing="ij")
            rays = camera.image_to_rays(torch.stack([x, y], dim=-1).reshape(-1, 2))
            table = rays.reshape(len(grid), len(grid), 2).float().numpy()
            table_from_view = np.linalg.inv(self.view_from_image)[:2] / RAY_STEP_PX
            self._rays[name] = cv2.warpAffine(
                table,
                table_from_view,
                self.view_size((1008, 1008)),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        return self._rays[name]

    def draw(
        self, room: Room, camera: Camera, name: str, *, image_size_px: tuple[int, int]
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """Draw a room as a camera sees it.

        Args:
            room: What to draw.
            camera: The full image's camera in the world.
            name: Its name: cameras of one name share their lens.
            image_size_px: Width and height of the full image.

        Returns:
            RGB, and where the floor is seen.
        """
        width, height = self.view_size(image_size_px)
        if room.noise is not None:
            size = (width, height)
            picture = cv2.resize(room.noise, size, interpolation=cv2.INTER_LINEAR)
            return picture, np.zeros((height, width), bool)
        rays = self._lens(camera, name)[:height, :width]
        rotation = camera.rotation.numpy().astype(np.float32)  # camera from world
        x, y, z = camera.centre_world_mm.tolist()
        dx, dy, dz = (
            rays[..., 0] * rotation[0, i] + rays[..., 1] * rotation[1, i] + rotation[2, i]
            for i in range(3)
        )
        is_down = dz < 0
        level = np.where(is_down, np.float32(z), np.float32(room.height_mm - z))
        level_t = level / np.maximum(np.abs(dz), np.float32(z / FARTHEST_MM))
        wall_x, x_t = _hit(dx, x, room.low_mm[0], room.high_mm[0])
        wall_y, y_t = _hit(dy, y, room.low_mm[1], room.high_mm[1])
        is_x_wall = x_t < y_t
        wall_t = np.where(is_x_wall, x_t, y_t)
        is_level = level_t < wall_t
        t = np.where(is_level, level_t, wall_t)
        # Texels from the low corner of the room and from the ceiling.
        per_mm = np.float32(TEXELS_PER_METRE / 1000.0)
        u, v = (
            (start - low + d * t) * per_mm
            for start, low, d in (
                (np.float32(x), np.float32(room.low_mm[0]), dx),
                (np.float32(y), np.float32(room.low_mm[1]), dy),
            )
        )
        below = (np.float32(room.height_mm - z) - dz * t) * per_mm
        side = np.where(is_x_wall, 2 + wall_x, 4 + wall_y)
        side = np.where(is_level, np.where(is_down, 0, 1), side)
        column = np.where(is_level | ~is_x_wall, u, v)
        row = np.where(is_level, v, below)
        return _sample(room, side, column, row), is_level & is_down


def _hit(direction: np.ndarray, start: float, low: float, high: float) -> tuple[np.ndarray, ...]:
    """Which of two walls a ray meets (1 for the high one), and how far along the ray."""
    positive = direction > 0
    distance = np.where(positive, np.float32(high - start), np.float32(start - low))
    return positive.astype(np.int64), distance / np.maximum(np.abs(direction), np.float32(1e-6))


def _sample(
    room: Room,
    side: np.ndarray,
    column: Float[np.ndarray, "height width"],
    row: Float[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Colours at places of the room's pictures."""
    atlas, sizes, starts = room.atlas
    limits = (sizes - 1).astype(np.float32)
    column = np.clip(column - np.float32(0.5), 0.0, limits[:, 1][side])
    row = np.clip(row - np.float32(0.5), 0.0, limits[:, 0][side])
    row += starts.astype(np.float32)[side]
    return cv2.remap(atlas, column, row, cv2.INTER_LINEAR)
