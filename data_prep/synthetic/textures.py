"""Grey textures of floors and walls that tile."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.synthetic.patterns import tiling_noise

TEXTURE_SIZE = 512
NUM_TEXTURES = 12


def floor_textures(rng: np.random.Generator) -> UInt8[np.ndarray, "textures size size"]:
    """Grey floors that tile: checker, planks, tiles, carpet, concrete."""
    makers = (_checker, _planks, _tiles, _carpet, _concrete)
    return np.stack([makers[i % len(makers)](rng) for i in range(NUM_TEXTURES)])


def wall_textures(rng: np.random.Generator) -> UInt8[np.ndarray, "textures size size"]:
    """Grey walls that tile: plaster, bricks, panels, curtains, and cluttered ones."""
    makers = (_concrete, _plaster, _bricks, _plaster, _tiles, _curtain, _clutter)
    return np.stack([makers[i % len(makers)](rng) for i in range(NUM_TEXTURES)])


def _noise(rng: np.random.Generator, *, cells: int) -> Float[np.ndarray, "size size"]:
    """Noise in [0, 1] that tiles, with features of size / cells."""
    return np.clip(tiling_noise(rng, size=TEXTURE_SIZE, cells=cells), 0.0, 1.0)


def _as_grey(values: Float[np.ndarray, "size size"]) -> UInt8[np.ndarray, "size size"]:
    # Blurred to what a crop can resolve: sharper texels would only flicker.
    values = cv2.GaussianBlur(values.astype(np.float32), (0, 0), 0.8, borderType=cv2.BORDER_REFLECT)
    return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE])


def _checker(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    cell = int(rng.choice([16, 32, 64]))
    return _as_grey(((x // cell + y // cell) % 2) * 0.7 + 0.3 * _noise(rng, cells=64))


def _planks(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    width, length = int(rng.choice([8, 16])), 128
    row = y // width
    along = (x + 53 * row) % TEXTURE_SIZE
    shades = rng.random((TEXTURE_SIZE // width, TEXTURE_SIZE // length))
    values = 0.35 + 0.4 * shades[row, along // length]
    values[(y % width == 0) | (along % length == 0)] = 0.1
    return _as_grey(values + 0.25 * (_noise(rng, cells=128) - 0.5))


def _tiles(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    cell = int(rng.choice([32, 64]))
    shades = rng.random((TEXTURE_SIZE // cell, TEXTURE_SIZE // cell))
    values = 0.55 + 0.3 * shades[y // cell, x // cell]
    values[(y % cell < 2) | (x % cell < 2)] = 0.2
    return _as_grey(values + 0.1 * (_noise(rng, cells=64) - 0.5))


def _carpet(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    fine, coarse = _noise(rng, cells=256), _noise(rng, cells=8)
    return _as_grey(0.6 * fine + 0.4 * coarse)


def _concrete(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    octaves = [_noise(rng, cells=cells) for cells in (4, 16, 64)]
    return _as_grey(0.5 * octaves[0] + 0.3 * octaves[1] + 0.2 * octaves[2])


def _plaster(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    coarse, fine = _noise(rng, cells=4), _noise(rng, cells=128)
    return _as_grey(0.4 + 0.25 * coarse + 0.06 * fine)


def _curtain(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    _, x = _grid()
    folds = int(rng.integers(12, 40))
    bend = 6.0 * _noise(rng, cells=8)
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * folds * x / TEXTURE_SIZE + bend)
    return _as_grey(0.7 * waves + 0.3 * _noise(rng, cells=16))


def _bricks(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    height, width = 8, 16
    row = y // height
    along = (x + (row % 2) * width // 2) % TEXTURE_SIZE
    shades = rng.random((TEXTURE_SIZE // height, TEXTURE_SIZE // width))
    values = 0.4 + 0.4 * shades[row, along // width]
    values[(y % height == 0) | (along % width == 0)] = 0.85
    return _as_grey(values)


def _clutter(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    """A plain wall with doors, shelves, pictures: rectangles and lines of many greys."""
    values = 0.45 + 0.2 * _noise(rng, cells=4)
    for _ in range(int(rng.integers(10, 26))):
        left, top = (int(v) for v in rng.integers(0, TEXTURE_SIZE - 20, size=2))
        width, height = (int(v) for v in rng.integers(12, 120, size=2))
        shade, rim = float(rng.random()), float(rng.random())
        corner = (left + width, top + height)
        cv2.rectangle(values, (left, top), corner, shade, thickness=-1)
        cv2.rectangle(values, (left, top), corner, rim, thickness=2)
    return _as_grey(values + 0.08 * (_noise(rng, cells=128) - 0.5))
