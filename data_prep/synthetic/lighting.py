"""Light on a scene: shading of triangles, which of them are seen, shadows on the floor."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Light:
    """A distant lamp and the light that comes from everywhere."""

    direction: Float[np.ndarray, "3"]
    """From the scene to the lamp, length 1."""
    ambient: float
    strength: float
    tint: Float[np.ndarray, "3"]

    def shade(self, normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Brightness of surfaces, about 0.3 to 1.2."""
        direct = np.maximum(normals @ self.direction, 0.0)
        return self.ambient * (1.0 + 0.25 * normals[:, 2]) + self.strength * 1.1 * direct


def draw_light(rng: np.random.Generator) -> Light:
    """A lamp at 25 to 85 degrees above the horizon, from any side."""
    height, turn = rng.uniform(0.42, 0.997), rng.uniform(0.0, 2.0 * np.pi)
    across = np.sqrt(1.0 - height**2)
    strength = float(rng.uniform(0.3, 0.75))
    return Light(
        direction=np.array([across * np.cos(turn), across * np.sin(turn), height]),
        ambient=float(np.clip(rng.normal(0.98 - 0.75 * strength, 0.08), 0.3, 0.9)),
        strength=strength,
        tint=np.clip(rng.normal(1.0, 0.03, size=3), 0.9, 1.1),
    )


def face_normals(triangles_mm: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3"]:
    """Outward unit normals."""
    a, b, c = triangles_mm[:, 0], triangles_mm[:, 1], triangles_mm[:, 2]
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)


def smooth_shade(
    vertices_mm: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], light: Light
) -> Float[np.ndarray, " faces"]:
    """Brightness of each face from the normals of its three vertices."""
    a, b, c = (vertices_mm[faces[:, i]] for i in range(3))
    area_normals = np.cross(b - a, c - a)
    count = len(vertices_mm)
    summed = np.stack(
        [
            sum(np.bincount(faces[:, k], area_normals[:, axis], count) for k in range(3))
            for axis in range(3)
        ],
        axis=1,
    )
    summed /= np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-9)
    return light.shade(summed)[faces].mean(axis=1)


def is_front(corners_px: Float[np.ndarray, "n 3 2"]) -> Bool[np.ndarray, " n"]:
    """Triangles that show their outside: clockwise on the screen's upright axes, y down."""
    first, second = corners_px[:, 1] - corners_px[:, 0], corners_px[:, 2] - corners_px[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0


def shadow_mask(points_px: Float[np.ndarray, "n 2"], size: int) -> Float[np.ndarray, "size size"]:
    """Soft union of small patches around points, 0 to 1, drawn at half the size."""
    half = (size + 1) // 2
    mask = np.zeros((half, half), np.uint8)
    column, row = np.rint((points_px - 0.5) / 2.0).astype(np.int64).T
    inside = (column >= 0) & (column < half) & (row >= 0) & (row < half)
    mask[row[inside], column[inside]] = 255
    grown = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    soft = cv2.GaussianBlur(cv2.dilate(grown, np.ones((3, 3), np.uint8)), (0, 0), 1.4)
    return cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255.0
