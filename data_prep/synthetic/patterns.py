"""Patterns of cloth and other materials: small grey textures that tile, and their two colours."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

PATTERN_SIZE = 64
TEXELS_PER_MM = 1 / 6.0

Colour = tuple[float, float, float]


def _grid() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.mgrid[0:PATTERN_SIZE, 0:PATTERN_SIZE])


def tiling_noise(
    rng: np.random.Generator, *, size: int, cells: int
) -> Float[np.ndarray, "size size"]:
    """Noise that tiles, with features of size / cells: about [0, 1], a little beyond at peaks.

    Args:
        rng: All randomness comes from here.
        size: Side of the picture, a multiple of `cells`.
        cells: Random values along a side.
    """
    grid = np.pad(rng.random((cells, cells)).astype(np.float32), 2, mode="wrap")
    scale = size // cells
    large = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return large[2 * scale : -2 * scale, 2 * scale : -2 * scale]


def _plain(rng: np.random.Generator) -> np.ndarray:
    return np.zeros((PATTERN_SIZE, PATTERN_SIZE))


def _worn(rng: np.random.Generator) -> np.ndarray:
    """Soft folds and wear."""
    return 0.5 * tiling_noise(rng, size=PATTERN_SIZE, cells=8)


def _rows(rng: np.random.Generator) -> np.ndarray:
    """Stripes around the body."""
    y, _ = _grid()
    period = int(rng.choice([8, 16, 32]))
    return (y % period < max(2, round(period * rng.uniform(0.2, 0.6)))).astype(float)


def _columns(rng: np.random.Generator) -> np.ndarray:
    """Stripes along the body."""
    return _rows(rng).T


def _checks(rng: np.random.Generator) -> np.ndarray:
    return 0.5 * (_rows(rng) + _columns(rng))


def _dots(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    cell = int(rng.choice([8, 16]))
    half = cell / 2 - 0.5
    return (np.hypot(x % cell - half, y % cell - half) < rng.uniform(0.2, 0.4) * cell).astype(float)


def _blotches(rng: np.random.Generator) -> np.ndarray:
    """Camouflage or flowers."""
    values = tiling_noise(rng, size=PATTERN_SIZE, cells=int(rng.choice([8, 16])))
    return np.rint(np.clip(2.0 * values, 0.0, 2.0)) / 2.0


_CLOTH: tuple[tuple[float, Callable[[np.random.Generator], np.ndarray]], ...] = (
    *((0.30, _plain), (0.28, _worn), (0.14, _rows), (0.06, _columns)),
    *((0.10, _checks), (0.05, _dots), (0.07, _blotches)),
)


def cloth_pattern(
    rng: np.random.Generator, *, quiet: bool = False
) -> UInt8[np.ndarray, "size size"]:
    """Draw a pattern; a quiet one is plain or worn."""
    choices = _CLOTH[:2] if quiet else _CLOTH
    shares = np.cumsum([share for share, _ in choices])
    maker = choices[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))][1]
    values = maker(rng) + rng.normal(0.0, 0.03, size=(PATTERN_SIZE, PATTERN_SIZE))
    return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def wood_pattern(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    """Grain along the second axis of a surface."""
    rows = rng.random(PATTERN_SIZE)
    values = 0.6 * np.convolve(np.pad(rows, 1, mode="wrap"), np.ones(3) / 3, "valid")[:, None]
    values = values + rng.normal(0.0, 0.08, size=(PATTERN_SIZE, PATTERN_SIZE))
    return np.rint(255.0 * np.clip(values.T, 0.0, 1.0)).astype(np.uint8)


def two_colours(first: Colour | np.ndarray, second: Colour | np.ndarray) -> np.ndarray:
    """Colours of the 256 greys of a pattern, (256, 3) in [0, 1]."""
    share = np.linspace(0.0, 1.0, 256)[:, None]
    blend = np.asarray(first) * (1.0 - share) + np.asarray(second) * share
    return np.clip(blend, 0.02, 1.0)


def varied(colour: Colour | np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """A colour made a little lighter or darker and of a slightly other hue."""
    shade = rng.normal(1.0, deviation) + rng.normal(0.0, 0.5 * deviation, size=3)
    return np.clip(np.asarray(colour) * shade + rng.normal(0.0, 0.3 * deviation), 0.02, 1.0)


_NEUTRALS: tuple[Colour, ...] = (
    *((0.06, 0.06, 0.07), (0.85, 0.85, 0.83), (0.42, 0.42, 0.44), (0.62, 0.60, 0.57)),
    *((0.10, 0.13, 0.26), (0.22, 0.30, 0.45), (0.52, 0.45, 0.33), (0.28, 0.20, 0.14)),
)


def cloth_colour(rng: np.random.Generator, *, quiet_share: float = 0.5) -> Float[np.ndarray, "3"]:
    """A colour that people wear: often black, white, grey, blue or brown, else any."""
    if rng.random() < quiet_share:
        return varied(_NEUTRALS[int(rng.integers(len(_NEUTRALS)))], rng, 0.12)
    hue, saturation, value = rng.uniform([0.0, 0.25, 0.2], [1.0, 0.85, 0.85])
    turned = (hue * 6.0 + np.array([0.0, 4.0, 2.0])) % 6.0
    pure = np.clip(np.abs(turned - 3.0) - 1.0, 0.0, 1.0)
    return np.clip(value * (1.0 - saturation * (1.0 - pure)), 0.02, 1.0)


_SKINS: tuple[Colour, ...] = (
    *((0.88, 0.70, 0.60), (0.82, 0.62, 0.50), (0.74, 0.54, 0.42), (0.62, 0.43, 0.32)),
    *((0.48, 0.32, 0.23), (0.33, 0.21, 0.15)),
)
_HAIRS: tuple[Colour, ...] = (
    *((0.05, 0.04, 0.04), (0.12, 0.08, 0.06), (0.25, 0.15, 0.08), (0.38, 0.26, 0.14)),
    *((0.60, 0.50, 0.32), (0.36, 0.20, 0.12), (0.55, 0.54, 0.53)),
)


def skin_colour(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """A tone of skin."""
    place = float(rng.uniform(0.0, len(_SKINS) - 1.001))
    low = int(place)
    first, second = np.array(_SKINS[low]), np.array(_SKINS[low + 1])
    return varied(first + (place - low) * (second - first), rng, 0.05)


def hair_colour(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """A colour of hair."""
    return varied(_HAIRS[int(rng.integers(len(_HAIRS)))], rng, 0.15)
