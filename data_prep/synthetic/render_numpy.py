"""Find with NumPy alone which triangle each pixel shows: a depth buffer over candidate pixels."""

import numpy as np
from jaxtyping import Float, Int32

from data_prep.synthetic.raster import NEAREST_MM, barycentric_maps

MAX_CANDIDATES = 2_000_000
"""Pixels in the boxes around triangles that are looked at together, for memory's sake."""
_INDEX_BITS = 24
_EDGE_TOLERANCE = 1e-6


class NumpyRenderer:
    """A renderer without OpenGL, see `Renderer`."""

    def draw(
        self,
        corners_px: Float[np.ndarray, "triangles 3 2"],
        depths_mm: Float[np.ndarray, "triangles 3"],
        *,
        width_px: int,
        height_px: int,
    ) -> Int32[np.ndarray, "height width"]:
        """Find the nearest triangle of every pixel; see `Renderer.draw`."""
        limits = np.array([width_px - 1, height_px - 1])
        low = np.clip(np.ceil(corners_px.min(axis=1)), 0, None).astype(np.int64)
        high = np.minimum(np.floor(corners_px.max(axis=1)), limits).astype(np.int64)
        extent = np.maximum(high - low + 1, 0)
        counts = extent[:, 0] * extent[:, 1]
        # Nearness in the high bits, the triangle in the low ones: the largest is what is seen.
        best = np.zeros(width_px * height_px, np.int64)
        maps = barycentric_maps(corners_px)
        group = np.cumsum(counts) // MAX_CANDIDATES
        for number in np.unique(group[counts > 0]):
            chosen = np.flatnonzero((group == number) & (counts > 0))
            pixel, key = _covered(
                chosen, low[chosen], extent[chosen], maps[chosen], depths_mm[chosen], width_px
            )
            np.maximum.at(best, pixel, key)
        seen = (best & (2**_INDEX_BITS - 1)).astype(np.int32) - 1
        return seen.reshape(height_px, width_px)


def _covered(
    triangles: np.ndarray,
    low: np.ndarray,
    extent: np.ndarray,
    maps: np.ndarray,
    depths_mm: np.ndarray,
    width_px: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose centres lie in triangles, and what to remember of each."""
    counts = extent[:, 0] * extent[:, 1]
    row = np.repeat(np.arange(len(triangles)), counts)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    down, across = np.divmod(place, extent[row, 0])
    x, y = low[row, 0] + across, low[row, 1] + down
    second, third = (maps[row, i, 0] * x + maps[row, i, 1] * y + maps[row, i, 2] for i in range(2))
    inside = (
        (second >= -_EDGE_TOLERANCE)
        & (third >= -_EDGE_TOLERANCE)
        & (second + third <= 1.0 + _EDGE_TOLERANCE)
    )
    row, second, third = row[inside], second[inside], third[inside]
    inverse = NEAREST_MM / depths_mm
    nearness = (1.0 - second - third) * inverse[row, 0]
    nearness += second * inverse[row, 1] + third * inverse[row, 2]
    high_bits = (np.clip(nearness, 0.0, 1.0) * 2.0**38).astype(np.int64) << _INDEX_BITS
    return y[inside] * width_px + x[inside], high_bits | (triangles[row] + 1)
