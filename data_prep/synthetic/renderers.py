"""Choose what draws triangles: OpenGL where it works, NumPy with OpenCV where it does not.

A renderer gets triangles that are already projected into the crop, with their colours, so that
both draw the same geometry; they differ in how they hide surfaces and smooth edges.
"""

from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8
from rich.console import Console

RENDERERS = ("auto", "opengl", "numpy")


class Renderer(Protocol):
    """Draws opaque triangles into a square tile of any size."""

    def draw(
        self,
        corners_px: Float[np.ndarray, "triangles 3 2"],
        depths_mm: Float[np.ndarray, "triangles 3"],
        colours: UInt8[np.ndarray, "triangles 3"],
        *,
        size_px: int,
    ) -> UInt8[np.ndarray, "size size 4"]:
        """Draw triangles, the nearer over the farther.

        Args:
            corners_px: Corners in the tile, pixel centres at integers; what lies beyond is cut.
            depths_mm: Camera z of each corner, > 0.
            colours: RGB of each triangle.
            size_px: Side of the tile.

        Returns:
            RGB multiplied by coverage, and coverage (0 to 255).
        """
        ...


def open_renderer(name: str) -> Renderer:
    """Start a renderer in this process.

    Args:
        name: "opengl" or "numpy".

    Raises:
        ValueError: If the name is unknown, or OpenGL is not to be had here.
    """
    match name:
        case "opengl":
            try:
                from data_prep.synthetic.render_gl import OpenGLRenderer

                return OpenGLRenderer()
            except Exception as error:  # drivers and libraries fail in many ways
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"renderer opengl does not start ({reason}); install the extra [synthetic] "
                    "and the system's libEGL, or use renderer numpy"
                ) from error
        case "numpy":
            from data_prep.synthetic.render_numpy import NumpyRenderer

            return NumpyRenderer()
        case _:
            raise ValueError(f"unknown renderer {name!r}, known: {', '.join(RENDERERS)}")


def resolve_renderer(name: str) -> str:
    """Turn "auto" into what works here, with a printed line where that is not OpenGL.

    Raises:
        ValueError: If the renderer that is asked for is unknown or does not start.
    """
    if name != "auto":
        open_renderer(name)
        return name
    try:
        open_renderer("opengl")
    except ValueError as error:
        Console(stderr=True, soft_wrap=True).print(f"drawing with NumPy: {error}", markup=False)
        return "numpy"
    return "opengl"


TILE_STEP_PX = 32


def draw_triangles(
    renderer: Renderer,
    corners_px: Float[np.ndarray, "triangles 3 2"],
    depths_mm: Float[np.ndarray, "triangles 3"],
    colours: UInt8[np.ndarray, "triangles 3"],
    *,
    size_px: int,
) -> tuple[UInt8[np.ndarray, "height width 4"], tuple[slice, slice]]:
    """Draw triangles in the part of an image that they cover.

    Args:
        renderer: What draws.
        corners_px: Corners in the image, pixel centres at integers.
        depths_mm: Camera z of each corner, > 0.
        colours: RGB of each triangle.
        size_px: Side of the square image.

    Returns:
        The drawn part (see `Renderer.draw`), and its rows and columns in the image.
    """
    low = np.clip(np.floor(corners_px.min(axis=(0, 1))).astype(int) - 1, 0, size_px - 1)
    high = np.clip(np.ceil(corners_px.max(axis=(0, 1))).astype(int) + 2, 1, size_px)
    # Few tile sizes, so that a renderer may keep a canvas of each.
    tile = TILE_STEP_PX * -(-int((high - low).max()) // TILE_STEP_PX)
    drawn = renderer.draw(corners_px - low, depths_mm, colours, size_px=tile)
    width, height = (np.minimum(low + tile, size_px) - low).tolist()
    rows, columns = slice(low[1], low[1] + height), slice(low[0], low[0] + width)
    return drawn[:height, :width], (rows, columns)
