"""Draw triangles with OpenCV from the farthest to the nearest (painter's algorithm)."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SUPERSAMPLING = 3
_FRACTION_BITS = 4  # corners are given to OpenCV in sixteenths of a fine pixel


class NumpyRenderer:
    """A renderer without OpenGL, see `Renderer`."""

    def draw(
        self,
        corners_px: Float[np.ndarray, "triangles 3 2"],
        depths_mm: Float[np.ndarray, "triangles 3"],
        colours: UInt8[np.ndarray, "triangles 3"],
        *,
        size_px: int,
    ) -> UInt8[np.ndarray, "size size 4"]:
        """Draw triangles, the farther first; see `Renderer.draw`."""
        fine = SUPERSAMPLING * (corners_px + 0.5) - 0.5
        # OpenCV fills the outline too, half a fine pixel beyond the edge: draw that much less.
        centres = fine.mean(axis=1, keepdims=True)
        outward = fine - centres
        length = np.linalg.norm(outward, axis=2, keepdims=True)
        fine = fine - outward * np.minimum(0.5 / np.maximum(length, 1e-6), 0.5)
        fixed = np.rint(fine * 2**_FRACTION_BITS).astype(np.int32)
        order = np.argsort(-depths_mm.mean(axis=1), kind="stable")
        side = SUPERSAMPLING * size_px
        canvas = np.zeros((side, side, 4), np.uint8)
        shades = colours.tolist()
        for triangle in order.tolist():
            red, green, blue = shades[triangle]
            cv2.fillConvexPoly(
                canvas,
                fixed[triangle],
                (red, green, blue, 255),
                lineType=cv2.LINE_8,
                shift=_FRACTION_BITS,
            )
        return cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)
