"""Doors, windows, posters and shelves on a room's walls, rugs and tape on its floor.

Each is painted into the picture of a surface, which it changes.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

TEXELS_PER_METRE = 60.0

Image = UInt8[np.ndarray, "height width 3"]


def any_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour of a thing, mostly not loud, 0 to 255."""
    base = rng.uniform(25.0, 235.0) + rng.normal(0.0, 17.0, size=3)
    red, green, blue = np.clip(base, 5.0, 250.0).astype(int).tolist()
    return red, green, blue


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
    colour, rim = any_colour(rng), any_colour(rng)
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
        cloth = np.array(any_colour(rng), float)
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
    _rectangle(wall, corners, any_colour(rng))
    for _ in range(int(rng.integers(1, 7))):
        x, y = int(rng.integers(left, right)), int(rng.integers(top, bottom))
        w, h = rng.integers(3, 30, size=2).tolist()
        if rng.random() < 0.6:
            ends = (x, y, min(x + w, right), min(y + h, bottom))
            _rectangle(wall, ends, any_colour(rng))
        else:
            radius = min(w, x - left, right - x, y - top, bottom - y)
            cv2.circle(wall, (x, y), max(1, radius), any_colour(rng), -1)
    _rectangle(wall, corners, any_colour(rng), 2)


def _shelves(wall: Image, rng: np.random.Generator) -> None:
    size = (float(rng.uniform(0.8, 2.5)), float(rng.uniform(0.8, 2.2)))
    corners = _place_on(wall, rng, size_m=size, bottom_m=float(rng.uniform(0.0, 0.6)))
    if corners is None:
        return
    left, top, right, bottom = corners
    wood = any_colour(rng)
    _rectangle(wall, corners, tuple(int(0.5 * c) for c in wood))
    step = int(rng.integers(18, 28))
    for floor in range(bottom, top + step - 1, -step):
        x = left + 3
        while x < right - 8:
            width = int(rng.integers(2, 9))
            high = int(rng.integers(8, step - 2))
            if rng.random() < 0.8:
                _rectangle(
                    wall, (x, floor - high, min(x + width, right - 3), floor), any_colour(rng)
                )
            x += width + 1
        cv2.line(wall, (left, floor), (right, floor), wood, 2)
    _rectangle(wall, corners, wood, 3)


def _board(wall: Image, rng: np.random.Generator) -> None:
    """A white board, a cupboard, a heater: something plain."""
    size = (float(rng.uniform(0.6, 2.4)), float(rng.uniform(0.5, 1.9)))
    corners = _place_on(wall, rng, size_m=size, bottom_m=float(rng.uniform(0.0, 1.0)))
    if corners is not None:
        _rectangle(wall, corners, any_colour(rng))
        _rectangle(wall, corners, any_colour(rng), 2)


def _band(wall: Image, rng: np.random.Generator) -> None:
    """A strip along the wall: paint, a rail, a pipe."""
    middle = int(rng.integers(0, wall.shape[0]))
    wall[middle : middle + int(rng.integers(2, 40))] = any_colour(rng)


_THINGS: tuple[Callable[[Image, np.random.Generator], None], ...] = (
    *(_door, _window, _window, _poster, _poster, _shelves, _board, _board, _band),
)


def hang_something(wall: Image, rng: np.random.Generator) -> None:
    """Paint one thing on a wall."""
    _THINGS[int(rng.integers(len(_THINGS)))](wall, rng)


def lay_something(floor: Image, rng: np.random.Generator) -> None:
    """A rug, a mat or tape on the floor."""
    rows, columns = floor.shape[:2]
    centre = (float(rng.uniform(0.2, 0.8) * columns), float(rng.uniform(0.2, 0.8) * rows))
    angle = float(rng.uniform(0.0, 180.0))
    if rng.random() < 0.5:
        size = tuple(float(v) for v in rng.uniform(60.0, 260.0, size=2))
    else:
        size = (float(rng.uniform(100.0, 900.0)), float(rng.uniform(2.0, 5.0)))
    corners = cv2.boxPoints((centre, size, angle)).astype(np.int32)
    cv2.fillConvexPoly(floor, corners, any_colour(rng), lineType=cv2.LINE_AA)
    if min(size) > 50.0 and rng.random() < 0.5:
        cv2.polylines(floor, [corners], True, any_colour(rng), 5, lineType=cv2.LINE_AA)
