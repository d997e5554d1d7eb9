"""Paint a room: floor, ceiling and four walls with doors, windows, posters and shelves."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.synthetic.patterns import Colour, varied
from data_prep.synthetic.textures import NUM_TEXTURES, TEXTURE_SIZE, floor_textures, wall_textures

TEXELS_PER_METRE = 60.0
_PER_MM = TEXELS_PER_METRE / 1000.0

Image = UInt8[np.ndarray, "height width 3"]


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
                _THINGS[int(rng.integers(len(_THINGS)))](wall, rng)
            walls.append(_darkened_at_edges(wall, light=float(rng.uniform(0.7, 1.05))))
        texture = self._floors[int(rng.integers(NUM_TEXTURES))]
        floor_pair = _two_colours(rng, _FLOORS)
        floor = _covered(texture, floor_pair, rng, rows=depth, columns=width, is_turned=True)
        for _ in range(int(rng.integers(0, 4))):
            _lay(floor, rng)
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


def _any_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour of a thing, mostly not loud, 0 to 255."""
    base = rng.uniform(25.0, 235.0) + rng.normal(0.0, 17.0, size=3)
    red, green, blue = np.clip(base, 5.0, 250.0).astype(int).tolist()
    return red, green, blue


def _two_colours(rng: np.random.Generator, usual: tuple[Colour, ...]) -> Float[np.ndarray, "2 3"]:
    """Two related colours, RGB 0 to 255: mostly as rooms have them, now and then any."""
    if rng.random() < 0.85:
        first = 255.0 * varied(usual[int(rng.integers(len(usual)))], rng, 0.06)
    else:
        first = np.array(_any_colour(rng), float)
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


# --- things on walls and floor: each changes a picture ------------------------------------------


def _place_on(
    wall: Image, rng: np.random.Generator, *, size_m: tuple[float, float], bottom_m: float
) -> tuple[int, int, int, int] | None:
    """Corners of a thing whose lower edge hangs at a height; None where the wall is too small."""
    width, height = (int(TEXELS_PER_METRE * size) for size in size_m)
    low = wall.shape[0] - int(TEXELS_PER_METRE * bottom_m)
    if low - height < 1 or width >= wall.shape[1] - 2:
        return None
    left = int(rng.integers(1, wall.shape[1] - width))
    return left, low - height, left + width, low


def _rectangle(
    wall: Image, corners: tuple[int, int, int, int], colour: tuple, rim: int = -1
) -> None:
    left, top, right, bottom = corners
    cv2.rectangle(wall, (left, top), (right, bottom), colour, rim)


def _door(wall: Image, rng: np.random.Generator) -> None:
    size = (float(rng.uniform(0.8, 1.7)), float(rng.uniform(1.95, 2.2)))
    corners = _place_on(wall, rng, size_m=size, bottom_m=0.0)
    if corners is None:
        return
    left, top, right, bottom = corners
    colour, rim = _any_colour(rng), _any_colour(rng)
    _rectangle(wall, corners, colour)
    _rectangle(wall, corners, rim, 3)
    if size[0] > 1.2:
        cv2.line(wall, ((left + right) // 2, top), ((left + right) // 2, bottom), rim, 2)
    if rng.random() < 0.5:  # panels
        for y in (top + 8, (top + bottom) // 2 + 4):
            _rectangle(wall, (left + 8, y, right - 8, y + (bottom - top) // 2 - 14), rim, 1)
    cv2.circle(wall, (left + 7, (top + bottom) // 2 + 5), 2, (30, 30, 30), -1)


def _window(wall: Image, rng: np.random.Generator) -> None:
    size = (float(rng.uniform(0.9, 2.8)), float(rng.uniform(1.0, 1.7)))
    corners = _place_on(wall, rng, size_m=size, bottom_m=float(rng.uniform(0.8, 1.2)))
    if corners is None:
        return
    left, top, right, bottom = corners
    sky = rng.uniform([150, 170, 180], [245, 250, 255])
    ground = rng.uniform([60, 90, 50], [170, 190, 160])
    ramp = np.linspace(0.0, 1.0, bottom - top)[:, None, None]
    wall[top:bottom, left:right] = np.where(ramp < rng.uniform(0.4, 0.9), sky, ground)
    if rng.random() < 0.4:  # blinds
        shade = int(rng.integers(120, 240))
        wall[top:bottom:3, left:right] = shade
        wall[top + 1 : bottom : 3, left:right] = shade
    frame = int(rng.integers(20, 240))
    for x in np.linspace(left, right, int(rng.integers(2, 5))).astype(int).tolist():
        cv2.line(wall, (x, top), (x, bottom), (frame, frame, frame), 3)
    _rectangle(wall, corners, (frame, frame, frame), 4)
    if rng.random() < 0.4:  # curtains
        cloth = np.array(_any_colour(rng), float)
        width = (right - left) // 5
        folds = 0.8 + 0.2 * np.sin(np.arange(width) * rng.uniform(0.8, 1.6))
        for start in (max(0, left - width // 2), right - width // 2):
            strip = wall[max(0, top - 8) : bottom + 25, start : start + width]
            strip[:] = np.minimum(cloth * folds[None, : strip.shape[1], None], 255.0)


def _poster(wall: Image, rng: np.random.Generator) -> None:
    size = (float(rng.uniform(0.4, 1.6)), float(rng.uniform(0.4, 1.3)))
    corners = _place_on(wall, rng, size_m=size, bottom_m=float(rng.uniform(0.7, 1.6)))
    if corners is None:
        return
    left, top, right, bottom = corners
    _rectangle(wall, corners, _any_colour(rng))
    for _ in range(int(rng.integers(1, 7))):
        x, y = int(rng.integers(left, right)), int(rng.integers(top, bottom))
        w, h = rng.integers(3, 30, size=2).tolist()
        if rng.random() < 0.6:
            ends = (x, y, min(x + w, right), min(y + h, bottom))
            _rectangle(wall, ends, _any_colour(rng))
        else:
            radius = min(w, x - left, right - x, y - top, bottom - y)
            cv2.circle(wall, (x, y), max(1, radius), _any_colour(rng), -1)
    _rectangle(wall, corners, _any_colour(rng), 2)


def _shelves(wall: Image, rng: np.random.Generator) -> None:
    size = (float(rng.uniform(0.8, 2.5)), float(rng.uniform(0.8, 2.2)))
    corners = _place_on(wall, rng, size_m=size, bottom_m=float(rng.uniform(0.0, 0.6)))
    if corners is None:
        return
    left, top, right, bottom = corners
    wood = _any_colour(rng)
    _rectangle(wall, corners, tuple(int(0.5 * c) for c in wood))
    step = int(rng.integers(18, 28))
    for floor in range(bottom, top + step - 1, -step):
        x = left + 3
        while x < right - 8:
            width = int(rng.integers(2, 9))
            high = int(rng.integers(8, step - 2))
            if rng.random() < 0.8:
                _rectangle(
                    wall, (x, floor - high, min(x + width, right - 3), floor), _any_colour(rng)
                )
            x += width + 1
        cv2.line(wall, (left, floor), (right, floor), wood, 2)
    _rectangle(wall, corners, wood, 3)


def _board(wall: Image, rng: np.random.Generator) -> None:
    """A white board, a cupboard, a heater: something plain."""
    size = (float(rng.uniform(0.6, 2.4)), float(rng.uniform(0.5, 1.9)))
    corners = _place_on(wall, rng, size_m=size, bottom_m=float(rng.uniform(0.0, 1.0)))
    if corners is not None:
        _rectangle(wall, corners, _any_colour(rng))
        _rectangle(wall, corners, _any_colour(rng), 2)


def _band(wall: Image, rng: np.random.Generator) -> None:
    """A strip along the wall: paint, a rail, a pipe."""
    middle = int(rng.integers(0, wall.shape[0]))
    wall[middle : middle + int(rng.integers(2, 40))] = _any_colour(rng)


_THINGS: tuple[Callable[[Image, np.random.Generator], None], ...] = (
    *(_door, _window, _window, _poster, _poster, _shelves, _board, _board, _band),
)


def _lay(floor: Image, rng: np.random.Generator) -> None:
    """A rug, a mat or tape on the floor."""
    rows, columns = floor.shape[:2]
    centre = (float(rng.uniform(0.2, 0.8) * columns), float(rng.uniform(0.2, 0.8) * rows))
    angle = float(rng.uniform(0.0, 180.0))
    if rng.random() < 0.5:
        size = tuple(float(v) for v in rng.uniform(60.0, 260.0, size=2))
    else:
        size = (float(rng.uniform(100.0, 900.0)), float(rng.uniform(2.0, 5.0)))
    corners = cv2.boxPoints((centre, size, angle)).astype(np.int32)
    cv2.fillConvexPoly(floor, corners, _any_colour(rng), lineType=cv2.LINE_AA)
    if min(size) > 50.0 and rng.random() < 0.5:
        cv2.polylines(floor, [corners], True, _any_colour(rng), 5, lineType=cv2.LINE_AA)
