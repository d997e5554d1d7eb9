"""Draw a frame of a take as a camera sees it: room, shadow, person and furniture, developed."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from data_prep.synthetic.backdrop import Backdrop
from data_prep.synthetic.cameras import IMAGE_SIZES_PX
from data_prep.synthetic.develop import Darkroom
from data_prep.synthetic.lighting import Light, is_front
from data_prep.synthetic.renderers import SUPERSAMPLING, Renderer, Tile, rasterise
from data_prep.synthetic.shading import Mesh, body_mesh, furniture_mesh, join_meshes, shade_tile
from data_prep.synthetic.surface import BodySurface
from data_prep.synthetic.takes import Take
from pose3d.geometry.camera import Camera

NEAREST_MM = 400.0
"""Triangles that come nearer to the camera are left out."""
SEAT_MATERIAL = 21
REACH_MM = 1000.0
"""A body reaches no farther from its pelvis, towards or away from the camera."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A developed picture, and what was drawn before its background."""

    image: UInt8[np.ndarray, "height width 3"]
    tile: Tile
    bones: Int[np.ndarray, " triangles"]
    """Bone that each triangle of the tile follows most; -1 for furniture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """What a camera sees of a take that does not move."""

    background: UInt8[np.ndarray, "height width 4"]
    """Room and the furniture that is behind the person; RGB, and where the bare floor is seen."""
    before: tuple[Mesh, ...]
    """Furniture that may come before the person."""


class Artist:
    """Draws frames of one take after another.

    Args:
        seed: Of the cameras' noise.
        surface: The body's surface.
        renderer: Finds the seen triangles.
        width_px: Largest width of a picture.
        height_px: Largest height.
        view_scale: Side of a pixel of the full image over that of the stored background.
    """

    def __init__(
        self,
        seed: int,
        *,
        surface: BodySurface,
        renderer: Renderer,
        width_px: int,
        height_px: int,
        view_scale: float,
    ) -> None:
        self._surface = surface
        self._renderer = renderer
        self._backdrop = Backdrop(view_scale)
        self._darkroom = Darkroom(seed, width_px=width_px, height_px=height_px)
        self._take: Take | None = None
        self._views: dict[str, _View] = {}

    def draw(
        self,
        take: Take,
        camera_name: str,
        vertices_mm: Float[np.ndarray, "vertices 3"],
        picture_from_image: Float[np.ndarray, "3 3"],
        rng: np.random.Generator,
        *,
        width_px: int,
        height_px: int,
    ) -> Drawing:
        """Draw the body before its background.

        Args:
            take: What is seen.
            camera_name: By which camera.
            vertices_mm: The body's vertices in the room.
            picture_from_image: Map from full-image pixels to the picture's, without a turn.
            rng: Of what differs between pictures of one camera.
            width_px: Width of the picture.
            height_px: Its height.
        """
        camera, light = take.cameras[camera_name], take.light
        view = self._view(take, camera_name)
        body = body_mesh(self._surface, vertices_mm, light)
        mesh = join_meshes([body, *view.before])
        pixels, depths = project(camera, mesh.vertices_mm, picture_from_image)
        drawn = _in_picture(pixels[mesh.faces], depths[mesh.faces], width_px, height_px)
        faces = mesh.faces[drawn]
        tile = rasterise(
            self._renderer, pixels[faces], depths[faces], width_px=width_px, height_px=height_px
        )
        coloured = shade_tile(tile, mesh, drawn, take.look, light, self._surface.landmarks)
        background = cv2.warpAffine(
            view.background,
            (picture_from_image @ np.linalg.inv(self._backdrop.view_from_image))[:2],
            (width_px, height_px),
            flags=cv2.INTER_LINEAR,
        )
        picture = background[..., :3].astype(np.float32)
        floor = background[..., 3]
        self._cast_shadow(picture, floor, body, camera, light, picture_from_image)
        part = picture[tile.rows, tile.columns]
        part *= (255 - coloured[..., 3:]) * np.float32(1 / 255)
        part += coloured[..., :3]
        scale = float(picture_from_image[0, 0])
        image = self._darkroom.develop(
            picture, take.exposures[camera_name], rng, image_px=1.0 / scale
        )
        _blacken_outside(image, picture_from_image, IMAGE_SIZES_PX[take.subject, camera_name])
        return Drawing(image=image, tile=tile, bones=mesh.bones[drawn])

    def _view(self, take: Take, camera_name: str) -> _View:
        """The background of a camera, kept while the take stays the same."""
        if take is not self._take:
            self._take, self._views = take, {}
        if camera_name not in self._views:
            self._views[camera_name] = self._draw_view(take, camera_name)
        return self._views[camera_name]

    def _draw_view(self, take: Take, camera_name: str) -> _View:
        camera, light = take.cameras[camera_name], take.light
        size_px = IMAGE_SIZES_PX[take.subject, camera_name]
        rgb, is_floor = self._backdrop.draw(take.room, camera, camera_name, image_size_px=size_px)
        picture = rgb.astype(np.float32) * light.tint.astype(np.float32)
        floor = np.where(is_floor, 255, 0).astype(np.uint8)
        before, behind = self._sort_furniture(take, camera)
        view_from_image = self._backdrop.view_from_image
        if before or behind:
            mesh = join_meshes([*before, *behind])
            self._cast_shadow(picture, floor, mesh, camera, light, view_from_image)
        if behind:
            height, width = floor.shape
            mesh = join_meshes(behind)
            pixels, depths = project(camera, mesh.vertices_mm, view_from_image)
            drawn = _in_picture(pixels[mesh.faces], depths[mesh.faces], width, height)
            if len(drawn):
                faces = mesh.faces[drawn]
                tile = rasterise(
                    self._renderer, pixels[faces], depths[faces], width_px=width, height_px=height
                )
                layer = shade_tile(tile, mesh, drawn, take.look, light, self._surface.landmarks)
                part = picture[tile.rows, tile.columns]
                part *= (255 - layer[..., 3:]) * np.float32(1 / 255)
                part += layer[..., :3]
                floor[tile.rows, tile.columns][layer[..., 3] > 0] = 0
        background = np.dstack([np.clip(picture, 0.0, 255.0).astype(np.uint8), floor])
        return _View(background=background, before=tuple(before))

    def _sort_furniture(self, take: Take, camera: Camera) -> tuple[list[Mesh], list[Mesh]]:
        """Furniture that may come before the person, and what is always behind."""
        path = camera.world_to_camera(torch.from_numpy(take.motion.root_mm))
        farthest = float(path[:, 2].max()) + REACH_MM
        before: list[Mesh] = []
        behind: list[Mesh] = []
        for number, piece in enumerate(take.furniture):
            mesh = furniture_mesh(piece, take.light, first_material=3 * number)
            corners = camera.world_to_camera(torch.from_numpy(piece.vertices_mm))
            (before if float(corners[:, 2].min()) < farthest else behind).append(mesh)
        if take.seat is not None:
            before.append(furniture_mesh(take.seat, take.light, first_material=SEAT_MATERIAL))
        return before, behind

    def _cast_shadow(
        self,
        picture: Float[np.ndarray, "height width 3"],
        floor: UInt8[np.ndarray, "height width"],
        mesh: Mesh,
        camera: Camera,
        light: Light,
        picture_from_image: Float[np.ndarray, "3 3"],
    ) -> None:
        """Darken the bare floor where a mesh stands between it and the lamp."""
        points = mesh.vertices_mm
        on_floor = points - points[:, 2:] / light.direction[2] * light.direction
        pixels, depths = project(camera, on_floor, picture_from_image)
        height, width = floor.shape
        half = ((width + 1) // 2, (height + 1) // 2)
        corners, corner_depths = 0.5 * (pixels[mesh.faces] - 0.5), depths[mesh.faces]
        # A long shadow may reach behind the camera.
        seen = (corner_depths > NEAREST_MM).all(axis=1)
        seen &= ((corners.max(axis=1) > 0) & (corners.min(axis=1) < half)).all(axis=1)
        if not seen.any():
            return
        shape = {"width_px": half[0], "height_px": half[1]}
        shadowed = self._renderer.draw(corners[seen], corner_depths[seen], **shape) >= 0
        soft = cv2.GaussianBlur(255 * shadowed.astype(np.uint8), (0, 0), 1.4)
        rows, columns = (np.flatnonzero(soft.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return
        part = (slice(2 * rows[0], 2 * rows[-1] + 2), slice(2 * columns[0], 2 * columns[-1] + 2))
        large = cv2.resize(
            soft[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], None, fx=2, fy=2
        )
        area = picture[part]
        share = large[: len(area), : area.shape[1]].astype(np.float32) * floor[part]
        area *= (1.0 - np.float32(light.strength / 255**2) * share)[..., None]
        floor[part] -= (share * np.float32(1 / 255)).astype(np.uint8)  # no shadow on a shadow


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


def _in_picture(
    corners_px: Float[np.ndarray, "triangles 3 2"],
    depths_mm: Float[np.ndarray, "triangles 3"],
    width_px: int,
    height_px: int,
) -> Int[np.ndarray, " kept"]:
    """Triangles that show their outside within the picture."""
    low, high = corners_px.min(axis=1), corners_px.max(axis=1)
    kept = ((high > -0.5) & (low < [width_px - 0.5, height_px - 0.5])).all(axis=1)
    kept &= is_front(corners_px) & (depths_mm > NEAREST_MM).all(axis=1)
    return np.flatnonzero(kept)


def covered_pixels(samples: np.ndarray) -> np.ndarray:
    """Pixels of which at least half the samples hold."""
    height, width = (side // SUPERSAMPLING for side in samples.shape)
    split = samples.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
    return split.mean(axis=(1, 3)) >= 0.5


def _blacken_outside(
    image: UInt8[np.ndarray, "height width 3"],
    picture_from_image: Float[np.ndarray, "3 3"],
    image_size_px: tuple[int, int],
) -> None:
    """Make black what lies beyond the full image, as where a crop is cut from a real one."""
    scale, shift = picture_from_image[0, 0], picture_from_image[:2, 2]
    for axis, extent in ((1, image_size_px[0]), (0, image_size_px[1])):
        place = (np.arange(image.shape[axis]) - shift[1 - axis]) / scale
        outside = (place < -0.5) | (place > extent - 0.5)
        image[(slice(None),) * axis + (outside,)] = 0
