"""Draw triangles with OpenGL through moderngl, without a window (extra `[synthetic]`)."""

import sys
from typing import Any

import moderngl
import numpy as np
from jaxtyping import Float, UInt8

NUM_SAMPLES = 4
NEAREST_MM = 100.0

_VERTEX_SHADER = """
#version 330
in vec3 position;
in vec3 colour;
flat out vec3 shade;
void main() {
    gl_Position = vec4(position, 1.0);
    shade = colour;
}
"""
_FRAGMENT_SHADER = """
#version 330
flat in vec3 shade;
out vec4 pixel;
void main() {
    pixel = vec4(shade, 1.0);
}
"""
_CORNER = np.dtype([("position", np.float32, 3), ("colour", np.uint8, 3), ("spare", np.uint8)])


class OpenGLRenderer:
    """A renderer with a depth buffer and multisampling, see `Renderer`."""

    def __init__(self) -> None:
        # Windows and macOS have one backend each, which moderngl finds by itself.
        options: dict[str, Any] = {"backend": "egl"} if sys.platform == "linux" else {}
        self._context = moderngl.create_context(standalone=True, **options)
        self._context.enable(moderngl.DEPTH_TEST)
        self._context.disable(moderngl.CULL_FACE)
        self._program = self._context.program(
            vertex_shader=_VERTEX_SHADER, fragment_shader=_FRAGMENT_SHADER
        )
        self._framebuffers: dict[int, tuple[Any, Any]] = {}
        self._capacity = 4096  # triangles
        self._allocate()

    def _allocate(self) -> None:
        self._buffer = self._context.buffer(
            reserve=3 * self._capacity * _CORNER.itemsize, dynamic=True
        )
        content = [(self._buffer, "3f 3f1 1x1", "position", "colour")]
        self._array = self._context.vertex_array(self._program, content)

    def _canvases(self, size_px: int) -> tuple[Any, Any]:
        """A multisampled framebuffer and the one it is resolved into, kept by size."""
        if size_px not in self._framebuffers:
            shape = (size_px, size_px)
            samples = min(NUM_SAMPLES, self._context.max_samples)
            multisampled = self._context.framebuffer(
                self._context.renderbuffer(shape, 4, samples=samples),
                self._context.depth_renderbuffer(shape, samples=samples),
            )
            resolved = self._context.framebuffer(self._context.renderbuffer(shape, 4))
            self._framebuffers[size_px] = (multisampled, resolved)
        return self._framebuffers[size_px]

    def draw(
        self,
        corners_px: Float[np.ndarray, "triangles 3 2"],
        depths_mm: Float[np.ndarray, "triangles 3"],
        colours: UInt8[np.ndarray, "triangles 3"],
        *,
        size_px: int,
    ) -> UInt8[np.ndarray, "size size 4"]:
        """Draw triangles with a depth buffer; see `Renderer.draw`."""
        count = len(corners_px)
        if count > self._capacity:
            self._capacity = 2 * count
            self._allocate()
        vertices = np.zeros((count, 3), _CORNER)
        # Row 0 of the picture is OpenGL's bottom row, which is the first that is read back.
        vertices["position"][..., :2] = (corners_px + 0.5) * (2.0 / size_px) - 1.0
        # The inverse of depth is linear across a projected triangle.
        vertices["position"][..., 2] = 1.0 - 2.0 * NEAREST_MM / depths_mm
        vertices["colour"] = colours[:, None, :]
        multisampled, resolved = self._canvases(size_px)
        self._buffer.write(vertices.tobytes())
        multisampled.use()
        multisampled.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self._array.render(moderngl.TRIANGLES, vertices=3 * count)
        self._context.copy_framebuffer(resolved, multisampled)
        pixels = resolved.read(components=4, alignment=1)
        return np.frombuffer(pixels, np.uint8).reshape(size_px, size_px, 4)
