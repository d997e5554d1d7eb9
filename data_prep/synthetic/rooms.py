"""Paint a room: floor, ceiling and four walls with doors, windows, posters and shelves."""

from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.synthetic.patterns import Colour, varied
from data_prep.synthetic.room_things import (
    TEXELS_PER_METRE,
    Image,
    any_colour,
    hang_something,
    lay_something,
)
from data_prep.synthetic.textures import NUM_TEXTURES, TEXTURE_SIZE, floor_textures, wall_textures

_PER_MM = TEXELS_PER_METRE / 1000.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """A box of a room with a picture on each side; or just a picture, without a room.

    Pictures have `TEXELS_PER_METRE`. The walls stand at low x, high x, low y, high y; their
    pictures run along y or x from its low end, with the ceiling in row 0.
    """

    low_mm: Float[np.ndarray, "2"]
    high_mm: Float[np.ndarray, "2"]
    height_mm: float
    floor: Image
    ceiling: Image
    walls: tuple[Image, Image, Image, Image]
    noise: Image | None
    """What is behind the person where there is no room."""

    @cached_property
    def atlas(self) -> tuple[Image, Int[np.ndarray, "6 2"], Int[np.ndarray, " 6"]]:
        """Floor, ceiling and walls under one another, their sizes, and their first rows."""
        pictures = (self.floor, self.ceiling, *self.walls)
        sizes = np.array([picture.shape[:2] for picture in pictures])
        starts = np.concatenate([[0], np.cumsum(sizes[:-1, 0])])
        atlas = np.zeros((sizes[:, 0].sum(), sizes[:, 1].max(), 3), np.uint8)
        for picture, start in zip(pictures, starts, strict=True):
            atlas[start : start + len(picture), : picture.shape[1]] = picture
        return atlas, sizes, starts


class Painter:
    """Paints rooms with the textures that it drew at first."""

    def __init__(self, seed: int) -> None:
        self._floors, self._walls = _textures(seed)

    def paint(self, rng: np.random.Generator) -> Room:
        """Draw a room that holds all four cameras."""
        low = -rng.uniform([3000.0, 5800.0], [5500.0, 8500.0])
        high = rng.uniform([3000.0, 5800.0], [5500.0, 8500.0])
        height = float(rng.uniform(2700.0, 4800.0))
        width, depth = ((high - low) * _PER_MM).astype(int).tolist()
        rows = int(height * _PER_MM)
        wall_pair = _two_colours(rng, _WALLS)
        texture = self._walls[int(rng.integers(NUM_TEXTURES))]
        num_things = int(rng.integers(0, 6))
        walls = []
        for length in (depth, depth, width, width):
            wall = _covered(texture, wall_pair, rng, rows=rows, columns=length, is_turned=False)
            for _ in range(num_things):
                hang_something(wall, rng)
            walls.append(_darkened_at_edges(wall, light=float(rng.uniform(0.7, 1.05))))
        texture = self._floors[int(rng.integers(NUM_TEXTURES))]
        floor_pair = _two_colours(rng, _FLOORS)
        floor = _covered(texture, floor_pair, rng, rows=depth, columns=width, is_turned=True)
        for _ in range(int(rng.integers(0, 4))):
            lay_something(floor, rng)
        return Room(
            low_mm=low,
            high_mm=high,
            height_mm=height,
            floor=_darkened_at_edges(floor, light=1.0),
            ceiling=_ceiling(rng, rows=depth, columns=width),
            walls=(walls[0], walls[1], walls[2], walls[3]),
            noise=_noise(rng) if rng.random() < 0.12 else None,
        )


@cache
def _textures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Textures of floors and walls."""
    rng = np.random.default_rng((seed, 7919))
    return floor_textures(rng), wall_textures(rng)


_WALLS: tuple[Colour, ...] = (
    *((0.80, 0.78, 0.74), (0.72, 0.72, 0.72), (0.78, 0.72, 0.62), (0.62, 0.66, 0.70)),
    *((0.45, 0.46, 0.48), (0.62, 0.55, 0.45), (0.20, 0.22, 0.26), (0.55, 0.62, 0.52)),
)
_FLOORS: tuple[Colour, ...] = (
    *((0.52, 0.38, 0.25), (0.45, 0.45, 0.46), (0.60, 0.58, 0.54), (0.30, 0.30, 0.32)),
    *((0.66, 0.54, 0.38), (0.25, 0.33, 0.45), (0.35, 0.28, 0.22), (0.36, 0.42, 0.36)),
)


def _two_colours(rng: np.random.Generator, usual: tuple[Colour, ...]) -> Float[np.ndarray, "2 3"]:
    """Two related colours, RGB 0 to 255: mostly as rooms have them, now and then any."""
    if rng.random() < 0.85:
        first = 255.0 * varied(usual[int(rng.integers(len(usual)))], rng, 0.06)
    else:
        first = np.array(any_colour(rng), float)
    contrast = rng.uniform(10.0, 70.0) * (1 if rng.random() < 0.5 else -1)
    second = first + contrast + rng.normal(0.0, 5.0, size=3)
    return np.clip(np.stack([first, second]), 5.0, 250.0)


def _covered(
    texture: UInt8[np.ndarray, "size size"],
    pair: Float[np.ndarray, "2 3"],
    rng: np.random.Generator,
    *,
    rows: int,
    columns: int,
    is_turned: bool,
) -> Image:
    """A surface covered with a texture in two colours."""
    turn = float(rng.uniform(0.0, 2.0 * np.pi)) if is_turned else 0.0
    scale = float(rng.uniform(0.7, 1.5))
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    shift = rng.uniform(0.0, TEXTURE_SIZE, size=2)
    grey = cv2.warpAffine(
        texture,
        np.array([[c, -s, shift[0]], [s, c, shift[1]]]),
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    share = np.linspace(0.0, 1.0, 256)[:, None]
    table = (pair[0] * (1.0 - share) + pair[1] * share).astype(np.uint8)
    return cv2.LUT(cv2.merge([grey, grey, grey]), np.ascontiguousarray(table[None]))


def _darkened_at_edges(surface: Image, *, light: float) -> Image:
    """Less light in the corners of the room."""
    rows, columns = (
        1.0 - 0.3 * np.exp(-np.minimum(place, place[::-1]) / 25.0)
        for place in (np.arange(n, dtype=np.float32) for n in surface.shape[:2])
    )
    shade = (np.float32(light) * rows)[:, None] * columns[None, :]
    return cv2.multiply(surface, cv2.merge([shade, shade, shade]), dtype=cv2.CV_8U)


def _ceiling(rng: np.random.Generator, *, rows: int, columns: int) -> Image:
    """A light ceiling with lamps."""
    grey = int(rng.integers(140, 235))
    ceiling = np.full((rows, columns, 3), grey, np.uint8)
    spacing = int(rng.integers(100, 220))
    length, width = rng.integers([20, 8], [90, 30]).tolist()
    for y in range(spacing // 2, rows, spacing):
        for x in range(spacing // 2, columns, spacing):
            cv2.rectangle(ceiling, (x, y), (x + width, y + length), (252, 252, 250), -1)
    return ceiling


def _noise(rng: np.random.Generator) -> Image:
    """A picture of nothing: blurred noise of several sizes in related colours."""
    total = np.zeros((256, 256, 3), np.float32)
    for cells, weight in ((4, 1.0), (16, float(rng.uniform(0.0, 0.8))), (64, rng.uniform(0, 0.5))):
        grid = rng.normal(0.0, 1.0, size=(cells, cells, 3)).astype(np.float32)
        grid = 0.5 * grid + grid.mean(axis=2, keepdims=True)
        total += weight * cv2.resize(grid, (256, 256), interpolation=cv2.INTER_CUBIC)
    picture = rng.uniform(70.0, 180.0) + rng.uniform(10.0, 35.0) * total
    return np.clip(picture, 0.0, 255.0).astype(np.uint8)
