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
    """Draws opaque triangles into a square image."""

    def draw(
        self,
        corners_px: Float[np.ndarray, "triangles 3 2"],
        depths_mm: Float[np.ndarray, "triangles 3"],
        colours: UInt8[np.ndarray, "triangles 3"],
    ) -> UInt8[np.ndarray, "size size 4"]:
        """Draw triangles, the nearer over the farther.

        Args:
            corners_px: Corners in the image, pixel centres at integers.
            depths_mm: Camera z of each corner, > 0.
            colours: RGB of each triangle.

        Returns:
            RGB multiplied by coverage, and coverage (0 to 255).
        """
        ...


def open_renderer(name: str, *, crop_size_px: int) -> Renderer:
    """Start a renderer in this process.

    Args:
        name: "opengl" or "numpy".
        crop_size_px: Side of the image.

    Raises:
        ValueError: If the name is unknown, or OpenGL is not to be had here.
    """
    match name:
        case "opengl":
            try:
                from data_prep.synthetic.render_gl import OpenGLRenderer

                return OpenGLRenderer(crop_size_px)
            except Exception as error:  # drivers and libraries fail in many ways
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"renderer opengl does not start ({reason}); install the extra [synthetic] "
                    "and the system's libEGL, or use renderer numpy"
                ) from error
        case "numpy":
            from data_prep.synthetic.render_numpy import NumpyRenderer

            return NumpyRenderer(crop_size_px)
        case _:
            raise ValueError(f"unknown renderer {name!r}, known: {', '.join(RENDERERS)}")


def resolve_renderer(name: str) -> str:
    """Turn "auto" into what works here, with a printed line where that is not OpenGL.

    Raises:
        ValueError: If the renderer that is asked for is unknown or does not start.
    """
    if name != "auto":
        open_renderer(name, crop_size_px=16)
        return name
    try:
        open_renderer("opengl", crop_size_px=16)
    except ValueError as error:
        Console(stderr=True, soft_wrap=True).print(f"drawing with NumPy: {error}", markup=False)
        return "numpy"
    return "opengl"
