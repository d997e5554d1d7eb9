"""Which triangle each pixel shows: what a renderer answers, and depths and places that follow.

A renderer gets triangles that are already projected and answers, for every pixel, which of them is
nearest. Colours, visibility and everything else follow from that answer, so that pictures of all
renderers are the same but for the odd pixel on an edge. Edges are smoothed by drawing finer.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int32, Int64

SUPERSAMPLING = 2
"""Samples to a pixel along each axis."""
NEAREST_MM = 100.0
"""Nothing that is drawn is nearer to the camera."""


class Renderer(Protocol):
    """Finds which opaque triangle each pixel shows."""

    def draw(
        self,
        corners_px: Float[np.ndarray, "triangles 3 2"],
        depths_mm: Float[np.ndarray, "triangles 3"],
        *,
        width_px: int,
        height_px: int,
    ) -> Int32[np.ndarray, "height width"]:
        """Find the nearest triangle of every pixel.

        Args:
            corners_px: Corners in the picture, pixel centres at integers; what lies beyond is cut.
            depths_mm: Camera z of each corner, > `NEAREST_MM`.
            width_px: Width of the picture.
            height_px: Its height.

        Returns:
            The triangle that is nearest at each pixel's centre; -1 where there is none.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """What is seen in the part of a picture that triangles cover, on a finer grid."""

    rows: slice
    """The part's pixel rows in the picture."""
    columns: slice
    triangle: Int32[np.ndarray, "height width"]
    """Nearest triangle at each fine sample, `SUPERSAMPLING` to a pixel and axis; -1: none."""
    maps: Float[np.ndarray, "triangles 2 3"]
    """Barycentric coordinates from fine samples of the tile, see `barycentric_maps`."""
    inverse_depths: Float[np.ndarray, "triangles 3"]

    def depths_mm(self) -> Float[np.ndarray, "height width"]:
        """Camera z of what each fine sample shows; infinite where there is nothing."""
        samples = np.flatnonzero(self.triangle >= 0)
        row, column = np.divmod(samples, self.triangle.shape[1])
        depths = np.full(self.triangle.size, np.inf, np.float32)
        depths[samples] = self._depth_mm(self.triangle.ravel()[samples], column, row)
        return depths.reshape(self.triangle.shape)

    def look_at(
        self, points_px: Float[np.ndarray, "n 2"]
    ) -> tuple[Int32[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The triangle that is seen at points of the picture (-1: none), and its camera z there."""
        origin = np.array([self.columns.start, self.rows.start])
        fine = SUPERSAMPLING * (points_px - origin + 0.5) - 0.5
        column, row = np.rint(fine).astype(np.int64).T
        height, width = self.triangle.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        triangle = np.where(inside, self.triangle[row * inside, column * inside], -1)
        depths = self._depth_mm(triangle, column, row)
        return triangle, np.where(triangle >= 0, depths, np.inf)

    def _depth_mm(
        self,
        triangle: Int32[np.ndarray, " n"],
        column: Int64[np.ndarray, " n"],
        row: Int64[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """Camera z of triangles at fine samples: its inverse is linear across a triangle."""
        maps = self.maps.reshape(-1, 6).take(triangle, axis=0).T
        second, third = (maps[i] * column + maps[i + 1] * row + maps[i + 2] for i in (0, 3))
        a, b, c = self.inverse_depths.take(triangle, axis=0).T
        return 1.0 / ((1.0 - second - third) * a + second * b + third * c)


def rasterise(
    renderer: Renderer,
    corners_px: Float[np.ndarray, "triangles 3 2"],
    depths_mm: Float[np.ndarray, "triangles 3"],
    *,
    width_px: int,
    height_px: int,
) -> Tile:
    """Find what is seen of triangles in the part of a picture that they cover.

    Args:
        renderer: What finds it.
        corners_px: Corners in the picture, pixel centres at integers; at least one triangle.
        depths_mm: Camera z of each corner, > `NEAREST_MM`.
        width_px: Width of the picture.
        height_px: Its height.
    """
    size = np.array([width_px, height_px])
    low = np.clip(np.floor(corners_px.min(axis=(0, 1))).astype(int), 0, size - 1)
    high = np.clip(np.ceil(corners_px.max(axis=(0, 1))).astype(int) + 1, low + 1, size)
    fine = SUPERSAMPLING * (corners_px - low + 0.5) - 0.5
    width, height = (SUPERSAMPLING * (high - low)).tolist()
    return Tile(
        rows=slice(int(low[1]), int(high[1])),
        columns=slice(int(low[0]), int(high[0])),
        triangle=renderer.draw(fine, depths_mm, width_px=width, height_px=height),
        maps=barycentric_maps(fine),
        inverse_depths=1.0 / depths_mm,
    )


def barycentric_maps(
    corners_px: Float[np.ndarray, "triangles 3 2"],
) -> Float[np.ndarray, "triangles 2 3"]:
    """Weights of the second and third corner as affine functions of x and y: (a, b, c) each.

    A triangle without area gets functions that are 2 everywhere: no point lies in it.
    """
    first = corners_px[:, 0]
    (x1, y1), (x2, y2) = (corners_px[:, i].T - first.T for i in (1, 2))
    area = x1 * y2 - x2 * y1
    is_flat = np.abs(area) < 1e-9
    scale = np.where(is_flat, 0.0, 1.0 / np.where(is_flat, 1.0, area))
    slopes = np.stack([np.stack([y2, -x2], -1), np.stack([-y1, x1], -1)], axis=1)
    slopes = slopes * scale[:, None, None]
    constants = -np.einsum("tij,tj->ti", slopes, first) + 2.0 * is_flat[:, None]
    return np.concatenate([slopes, constants[..., None]], axis=2)
