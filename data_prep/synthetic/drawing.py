"""Draw a frame of a take as a camera sees it: the person in the scenery, developed."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from data_prep.human36m_cameras import IMAGE_SIZES_PX
from data_prep.synthetic.develop import Darkroom
from data_prep.synthetic.raster import SUPERSAMPLING, Renderer, Tile, rasterise
from data_prep.synthetic.scenery import (
    NEAREST_MM,
    Scenery,
    View,
    in_picture,
    on_floor,
    pixel_depths,
    project,
    seat_meshes,
)
from data_prep.synthetic.shading import body_mesh, join_meshes, shade_tile
from data_prep.synthetic.surface import BodySurface
from data_prep.synthetic.takes import Take

SHADOW_STEP_PX = 8
"""Grid of the body's shadow, pixels of the full image: no coarser than the mesh."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A developed picture, and what was drawn of person and furniture."""

    image: UInt8[np.ndarray, "height width 3"]
    tile: Tile
    """What is seen of person and seat."""
    bones: Int[np.ndarray, " triangles"]
    """Bone that each triangle of the tile follows most; -1 for the seat."""
    before_mm: Float[np.ndarray, "height width"] | None
    """Camera z of other furniture that may come before the person; infinite: none."""

    def before_at(self, points_px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
        """Camera z of furniture at points of the picture; infinite where there is none."""
        if self.before_mm is None:
            return np.full(len(points_px), np.inf)
        height, width = self.before_mm.shape
        column, row = np.clip(np.rint(points_px), 0, [width - 1, height - 1]).astype(int).T
        return self.before_mm[row, column].astype(np.float64)

    def person_mask(self) -> Bool[np.ndarray, "height width"]:
        """Pixels that show the person more than anything else."""
        mask = np.zeros(self.image.shape[:2], bool)
        is_person = (self.tile.triangle >= 0) & (self.bones[self.tile.triangle] >= 0)
        height, width = (side // SUPERSAMPLING for side in is_person.shape)
        split = is_person.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
        shown = split.mean(axis=(1, 3)) >= 0.5
        if self.before_mm is not None:
            shown &= self.before_mm[self.tile.rows, self.tile.columns] > pixel_depths(self.tile)
        mask[self.tile.rows, self.tile.columns] = shown
        return mask


class Artist:
    """Draws frames of one take after another.

    Args:
        seed: Of the cameras' noise.
        surface: The body's surface.
        renderer: Finds the seen triangles.
        width_px: Largest width of a picture.
        height_px: Largest height.
        view_scale: Side of a pixel of the full image over that of the stored scenery.
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
        self._scenery = Scenery(renderer, scale=view_scale, landmarks=surface.landmarks)
        self._darkroom = Darkroom(seed, width_px=width_px, height_px=height_px)
        self._take: Take | None = None
        self._views: dict[str, View] = {}

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
        """Draw the body in its scenery.

        Args:
            take: What is seen.
            camera_name: By which camera.
            vertices_mm: The body's vertices in the room.
            picture_from_image: Map from full-image pixels to the picture's, without a turn.
            rng: Of what differs between pictures of one camera.
            width_px: Width of the picture.
            height_px: Its height.
        """
        camera, size = take.cameras[camera_name], (width_px, height_px)
        mesh = join_meshes([body_mesh(self._surface, vertices_mm, take.light), *seat_meshes(take)])
        shadows = on_floor(vertices_mm, take.light)
        points, depths = project(
            camera, np.concatenate([mesh.vertices_mm, shadows]), picture_from_image
        )
        pixels = points[: -len(shadows)]
        drawn = in_picture(pixels[mesh.faces], depths[mesh.faces], width_px, height_px)
        faces = mesh.faces[drawn]
        tile = rasterise(
            self._renderer, pixels[faces], depths[faces], width_px=width_px, height_px=height_px
        )
        person = shade_tile(tile, mesh, drawn, take.look, take.light, self._surface.landmarks)
        view = self._view(take, camera_name)
        picture_from_view = picture_from_image @ np.linalg.inv(self._scenery.view_from_image)
        background = cv2.warpAffine(view.background, picture_from_view[:2], size)
        picture = background[..., :3].astype(np.float32)
        is_seen = depths[-len(shadows) :] > NEAREST_MM
        scale = float(picture_from_image[0, 0])
        darkness = take.light.strength / 255 * background[..., 3].astype(np.float32)
        self._cast_shadow(picture, darkness, points[-len(shadows) :], is_seen, scale)
        before_mm = _compose(picture, person, tile, view, picture_from_view, size)
        exposure = take.exposures[camera_name]
        image = self._darkroom.develop(picture, exposure, rng, image_px=1.0 / scale)
        _blacken_outside(image, picture_from_image, IMAGE_SIZES_PX[take.subject, camera_name])
        return Drawing(image=image, tile=tile, bones=mesh.bones[drawn], before_mm=before_mm)

    def _view(self, take: Take, camera_name: str) -> View:
        """The scenery of a camera, kept while the take stays the same."""
        if take is not self._take:
            self._take, self._views = take, {}
        if camera_name not in self._views:
            self._views[camera_name] = self._scenery.view(take, camera_name)
        return self._views[camera_name]

    def _cast_shadow(
        self,
        picture: Float[np.ndarray, "height width 3"],
        darkness: Float[np.ndarray, "height width"],
        vertices_px: Float[np.ndarray, "vertices 2"],
        is_seen: Bool[np.ndarray, " vertices"],
        scale: float,
    ) -> None:
        """Darken the floor under the shadows of the body's vertices; changes `picture`.

        On a grid that is about as coarse as the mesh, vertices and middles of faces leave few
        holes, which closing fills.
        """
        height, width = darkness.shape
        step = max(1.0, SHADOW_STEP_PX * scale)
        columns, rows = int(np.ceil(width / step)), int(np.ceil(height / step))
        faces = self._surface.faces[is_seen[self._surface.faces].all(axis=1)]
        middles = sum(vertices_px[faces[:, i]] for i in range(3)) / 3.0
        places = np.concatenate([vertices_px[is_seen], middles])
        column, row = np.floor((places + 0.5) / step).astype(np.int64).T
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        if not inside.any():
            return
        mask = np.zeros((rows, columns), np.uint8)
        mask[row[inside], column[inside]] = 255
        closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        soft = cv2.GaussianBlur(closed, (0, 0), 1.0)
        (left, right), (top, bottom) = (
            (int(step * max(0, axis.min() - 4)), int(np.ceil(step * (axis.max() + 5))))
            for axis in (column[inside], row[inside])
        )
        area = (slice(top, bottom), slice(left, right))
        lamp = darkness[area]
        shift = 0.5 * step - 0.5
        large = cv2.warpAffine(
            soft,
            np.array([[step, 0.0, shift - left], [0.0, step, shift - top]]),
            (lamp.shape[1], lamp.shape[0]),
            borderMode=cv2.BORDER_REPLICATE,
        )
        picture[area] *= (1.0 - large * np.float32(1 / 255) * lamp)[..., None]


def _compose(
    picture: Float[np.ndarray, "height width 3"],
    person: UInt8[np.ndarray, "rows columns 4"],
    tile: Tile,
    view: View,
    picture_from_view: Float[np.ndarray, "3 3"],
    size_px: tuple[int, int],
) -> Float[np.ndarray, "height width"] | None:
    """Put person and furniture over one another as their depths are; changes `picture`.

    Returns:
        Camera z of the furniture in the picture; None where there is none.
    """
    area = (tile.rows, tile.columns)
    part = picture[area]
    clear = (255 - person[..., 3:]) * np.float32(1 / 255)
    with_person = part * clear + person[..., :3]
    if view.before is None:
        part[:] = with_person
        return None
    matrix = picture_from_view[:2]
    layer = cv2.warpAffine(view.before.colours, matrix, size_px)
    shown_rows, shown_columns = (np.flatnonzero(layer[..., 3].max(axis=i)) for i in (1, 0))
    if not len(shown_rows):
        part[:] = with_person
        return None
    depth = cv2.warpAffine(
        view.before.depth_mm,
        matrix,
        size_px,
        flags=cv2.INTER_NEAREST,
        borderValue=float("inf"),
    )
    layer_clear = (255 - layer[..., 3:]) * np.float32(1 / 255)
    shown = (
        slice(shown_rows[0], shown_rows[-1] + 1),
        slice(shown_columns[0], shown_columns[-1] + 1),
    )
    picture[shown] *= layer_clear[shown]
    picture[shown] += layer[shown][..., :3]
    # Half-covered pixels on the rim of furniture go with it.
    near = cv2.erode(depth[area], np.ones((3, 3), np.uint8)) < pixel_depths(tile)
    hidden = with_person * layer_clear[area] + layer[area][..., :3]
    part[:] = np.where(near[..., None], hidden, part * clear + person[..., :3])
    return depth


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
