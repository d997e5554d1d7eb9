"""What does not move in a take, as one camera sees it: the room, its furniture, their shadows.

It is drawn once for a take and camera, in two layers: what is always behind the person, and the
furniture that may come before. Pictures of frames are cut from these layers.
"""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from data_prep.human36m_cameras import IMAGE_SIZES_PX
from data_prep.synthetic.backdrop import Backdrop
from data_prep.synthetic.lighting import Light, is_front
from data_prep.synthetic.raster import SUPERSAMPLING, Renderer, Tile, rasterise
from data_prep.synthetic.shading import Mesh, furniture_mesh, join_meshes, shade_tile
from data_prep.synthetic.takes import Take
from pose3d.geometry.camera import Camera

NEAREST_MM = 400.0
"""Triangles that come nearer to the camera are left out."""
SEAT_MATERIAL = 21
REACH_MM = 1000.0
"""A body reaches no farther from its pelvis, towards or away from the camera."""
SHADOW_BLUR_PX = 6.0
"""Standard deviation of the edge of furniture's shadows, pixels of the full image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Furniture that may come before the person, in the pixels of a view."""

    colours: UInt8[np.ndarray, "height width 4"]
    """RGB multiplied by coverage, and coverage."""
    depth_mm: Float[np.ndarray, "height width"]
    """Camera z; infinite where there is nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What one camera sees of a take that does not move."""

    background: UInt8[np.ndarray, "height width 4"]
    """RGB of what is behind the person, and how much of the bare, lit floor is seen."""
    before: Layer | None


class Scenery:
    """Draws views.

    Args:
        renderer: Finds the seen triangles.
        scale: Side of a pixel of the full image over that of a view's.
        landmarks: See `BodySurface`.
    """

    def __init__(
        self,
        renderer: Renderer,
        *,
        scale: float,
        landmarks: dict[str, Float[np.ndarray, "3"]],
    ) -> None:
        self._renderer = renderer
        self._landmarks = landmarks
        self._backdrop = Backdrop(scale)

    @property
    def view_from_image(self) -> Float[np.ndarray, "3 3"]:
        """Map from pixels of the full image to a view's."""
        return self._backdrop.view_from_image

    def view(self, take: Take, camera_name: str) -> View:
        """Draw what a camera sees of a take without the person."""
        camera, light = take.cameras[camera_name], take.light
        size_px = IMAGE_SIZES_PX[take.subject, camera_name]
        rgb, is_floor = self._backdrop.draw(take.room, camera, camera_name, image_size_px=size_px)
        picture = rgb * light.tint.astype(np.float32)
        floor = np.where(is_floor, np.float32(1.0), np.float32(0.0))
        before, behind = _sort_furniture(take, camera)
        seat = seat_meshes(take)
        if before or behind or seat:
            standing = join_meshes([*before, *behind, *seat])
            shadow = self._shadow(standing, camera, light, floor.shape)
            floor *= 1.0 - shadow
            picture *= 1.0 - np.float32(light.strength) * (shadow * is_floor)[..., None]
        if behind and (layer := self._layer(take, camera, behind, floor.shape)):
            clear = (255 - layer.colours[..., 3:]) * np.float32(1 / 255)
            picture = picture * clear + layer.colours[..., :3]
            floor *= clear[..., 0]
        background = np.dstack([np.minimum(picture, 255.0), 255.0 * floor]).astype(np.uint8)
        return View(
            background=background,
            before=self._layer(take, camera, before, floor.shape) if before else None,
        )

    def _layer(
        self, take: Take, camera: Camera, meshes: list[Mesh], shape: tuple[int, ...]
    ) -> Layer | None:
        """Furniture alone; None where none of it is in the view."""
        height, width = shape
        mesh = join_meshes(meshes)
        pixels, depths = project(camera, mesh.vertices_mm, self.view_from_image)
        drawn = in_picture(pixels[mesh.faces], depths[mesh.faces], width, height)
        if not len(drawn):
            return None
        faces = mesh.faces[drawn]
        tile = rasterise(
            self._renderer, pixels[faces], depths[faces], width_px=width, height_px=height
        )
        colours = np.zeros((height, width, 4), np.uint8)
        colours[tile.rows, tile.columns] = shade_tile(
            tile, mesh, drawn, take.look, take.light, self._landmarks
        )
        depth = np.full((height, width), np.inf, np.float32)
        depth[tile.rows, tile.columns] = pixel_depths(tile)
        return Layer(colours=colours, depth_mm=depth)

    def _shadow(
        self, mesh: Mesh, camera: Camera, light: Light, shape: tuple[int, ...]
    ) -> Float[np.ndarray, "height width"]:
        """How much of the lamp a mesh keeps from the floor, 0 to 1."""
        height, width = shape
        pixels, depths = project(camera, on_floor(mesh.vertices_mm, light), self.view_from_image)
        corners, corner_depths = pixels[mesh.faces], depths[mesh.faces]
        # A long shadow may reach behind the camera.
        seen = corner_depths.min(axis=1) > NEAREST_MM
        shown = self._renderer.draw(
            corners[seen], corner_depths[seen], width_px=width, height_px=height
        )
        mask = np.where(shown >= 0, np.float32(1.0), np.float32(0.0))
        return cv2.GaussianBlur(mask, (0, 0), SHADOW_BLUR_PX * self._backdrop.scale)


def seat_meshes(take: Take) -> list[Mesh]:
    """The seat of a take, if it has one."""
    if take.seat is None:
        return []
    return [furniture_mesh(take.seat, take.light, first_material=SEAT_MATERIAL)]


def _sort_furniture(take: Take, camera: Camera) -> tuple[list[Mesh], list[Mesh]]:
    """Furniture that may come before the person, and what is always behind."""
    path = camera.world_to_camera(torch.from_numpy(take.motion.root_mm))
    farthest = float(path[:, 2].max()) + REACH_MM
    before: list[Mesh] = []
    behind: list[Mesh] = []
    for number, piece in enumerate(take.furniture):
        mesh = furniture_mesh(piece, take.light, first_material=3 * number)
        corners = camera.world_to_camera(torch.from_numpy(piece.vertices_mm))
        (before if float(corners[:, 2].min()) < farthest else behind).append(mesh)
    return before, behind


def on_floor(points_mm: Float[np.ndarray, "n 3"], light: Light) -> Float[np.ndarray, "n 3"]:
    """Where the shadows of points fall."""
    return points_mm - points_mm[:, 2:] / light.direction[2] * light.direction


def project(
    camera: Camera,
    points_mm: Float[np.ndarray, "n 3"],
    picture_from_image: Float[np.ndarray, "3 3"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Pixels of a picture and camera z of points in the room, through the lens.

    What is nearer than `NEAREST_MM`, or behind the camera, is projected as if it were that far.
    """
    seen = camera.world_to_camera(torch.from_numpy(points_mm))
    depths = seen[:, 2].numpy().copy()
    seen[:, 2].clamp_(min=NEAREST_MM)
    pixels = camera.camera_to_image(seen).numpy()
    return pixels @ picture_from_image[:2, :2].T + picture_from_image[:2, 2], depths


def in_picture(
    corners_px: Float[np.ndarray, "triangles 3 2"],
    depths_mm: Float[np.ndarray, "triangles 3"],
    width_px: int,
    height_px: int,
) -> Int[np.ndarray, " kept"]:
    """Triangles that show their outside within the picture."""
    first, second, third = (corners_px[:, i] for i in range(3))
    low = np.minimum(np.minimum(first, second), third)
    high = np.maximum(np.maximum(first, second), third)
    kept = is_front(corners_px)
    for axis, size in enumerate((width_px, height_px)):
        kept &= (high[:, axis] > -0.5) & (low[:, axis] < size - 0.5)
    for corner in range(3):
        kept &= depths_mm[:, corner] > NEAREST_MM
    return np.flatnonzero(kept)


def pixel_depths(tile: Tile) -> Float[np.ndarray, "height width"]:
    """Camera z at the nearest of each pixel's samples; infinite where nothing is drawn."""
    samples, step = tile.depths_mm(), SUPERSAMPLING
    places = itertools.product(range(step), range(step))
    return np.minimum.reduce([samples[i::step, j::step] for i, j in places])
