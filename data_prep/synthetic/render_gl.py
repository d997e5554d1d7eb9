"""Find with OpenGL which triangle each pixel shows, through moderngl, without a window."""

import sys
from typing import Any

import moderngl
import numpy as np
from jaxtyping import Float, Int32

from data_prep.synthetic.raster import NEAREST_MM

_VERTEX_SHADER = """
#version 330
in vec3 position;
in vec3 number;
flat out vec3 shown;
void main() {
    gl_Position = vec4(position, 1.0);
    shown = number;
}
"""
_FRAGMENT_SHADER = """
#version 330
flat in vec3 shown;
out vec4 pixel;
void main() {
    pixel = vec4(shown, 1.0);
}
"""
# A triangle's number in three bytes, drawn as if it were a colour.
_CORNER = np.dtype([("position", np.float32, 3), ("number", np.uint32)])


class OpenGLRenderer:
    """A renderer with OpenGL's depth buffer, see `Renderer`."""

    def __init__(self) -> None:
        # Windows and macOS have one backend each, which moderngl finds by itself.
        options: dict[str, Any] = {"backend": "egl"} if sys.platform == "linux" else {}
        self._context = moderngl.create_context(standalone=True, **options)
        self._context.enable(moderngl.DEPTH_TEST)
        self._context.disable(moderngl.CULL_FACE)
        self._program = self._context.program(
            vertex_shader=_VERTEX_SHADER, fragment_shader=_FRAGMENT_SHADER
        )
        self._capacity = 4096  # triangles
        self._allocate()
        self._canvas_size_px = (0, 0)

    def _allocate(self) -> None:
        self._buffer = self._context.buffer(
            reserve=3 * self._capacity * _CORNER.itemsize, dynamic=True
        )
        content = [(self._buffer, "3f 3f1 1x1", "position", "number")]
        self._array = self._context.vertex_array(self._program, content)

    def _canvas(self, width_px: int, height_px: int) -> Any:
        """One framebuffer, made anew where it is too small."""
        if width_px > self._canvas_size_px[0] or height_px > self._canvas_size_px[1]:
            shape = (
                max(width_px, self._canvas_size_px[0]),
                max(height_px, self._canvas_size_px[1]),
            )
            self._framebuffer = self._context.framebuffer(
                self._context.renderbuffer(shape, 4), self._context.depth_renderbuffer(shape)
            )
            self._canvas_size_px = shape
        return self._framebuffer

    def draw(
        self,
        corners_px: Float[np.ndarray, "triangles 3 2"],
        depths_mm: Float[np.ndarray, "triangles 3"],
        *,
        width_px: int,
        height_px: int,
    ) -> Int32[np.ndarray, "height width"]:
        """Find the nearest triangle of every pixel; see `Renderer.draw`."""
        count = len(corners_px)
        if count > self._capacity:
            self._capacity = 2 * count
            self._allocate()
        vertices = np.zeros((count, 3), _CORNER)
        # Row 0 of the picture is OpenGL's bottom row, which is the first that is read back.
        scale = np.array([2.0 / width_px, 2.0 / height_px])
        vertices["position"][..., :2] = (corners_px + 0.5) * scale - 1.0
        # The inverse of depth is linear across a projected triangle.
        vertices["position"][..., 2] = 1.0 - 2.0 * NEAREST_MM / depths_mm
        vertices["number"] = np.arange(1, count + 1, dtype=np.uint32)[:, None]
        canvas = self._canvas(width_px, height_px)
        self._buffer.write(vertices)
        canvas.use()
        viewport = (0, 0, width_px, height_px)
        canvas.viewport = viewport
        canvas.clear(0.0, 0.0, 0.0, 0.0, depth=1.0, viewport=viewport)
        self._array.render(moderngl.TRIANGLES, vertices=3 * count)
        pixels = canvas.read(viewport=viewport, components=4, alignment=1)
        numbers = np.frombuffer(pixels, "<u4").reshape(height_px, width_px)
        return (numbers & 0xFFFFFF).astype(np.int32) - 1
