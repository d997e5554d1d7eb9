"""Light on a scene: brightness of surfaces, and which triangles show their outside."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, kw_only=True, eq=False)
class Light:
    """A distant lamp, a weaker one, and the light that comes from everywhere."""

    direction: Float[np.ndarray, "3"]
    """From the scene to the lamp, length 1."""
    fill_direction: Float[np.ndarray, "3"]
    ambient: float
    strength: float
    fill_strength: float
    tint: Float[np.ndarray, "3"]

    def shade(self, normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Brightness of surfaces, about 0.3 to 1.2."""
        direct = np.maximum(normals @ self.direction, 0.0)
        fill = np.maximum(normals @ self.fill_direction, 0.0)
        around = self.ambient * (1.0 + 0.25 * normals[:, 2])
        return around + 1.1 * self.strength * direct + self.fill_strength * fill


def draw_light(rng: np.random.Generator) -> Light:
    """A lamp at 25 to 85 degrees above the horizon, another at any height, from any sides."""
    strength = float(rng.uniform(0.25, 0.75))
    fill_strength = float(rng.uniform(0.0, 0.25))
    return Light(
        direction=_direction(rng, 0.42, 0.997),
        fill_direction=_direction(rng, 0.1, 0.95),
        ambient=float(np.clip(rng.normal(0.95 - 0.75 * strength, 0.08), 0.3, 0.9)),
        strength=strength,
        fill_strength=fill_strength,
        tint=np.clip(rng.normal(1.0, 0.04, size=3), 0.88, 1.12),
    )


def _direction(rng: np.random.Generator, lowest: float, highest: float) -> np.ndarray:
    """A direction whose height (its sine) lies between two."""
    height, turn = rng.uniform(lowest, highest), rng.uniform(0.0, 2.0 * np.pi)
    across = np.sqrt(1.0 - height**2)
    return np.array([across * np.cos(turn), across * np.sin(turn), height])


def is_front(corners_px: Float[np.ndarray, "n 3 2"]) -> Bool[np.ndarray, " n"]:
    """Triangles that show their outside: clockwise on the screen's upright axes, y down."""
    first, second = corners_px[:, 1] - corners_px[:, 0], corners_px[:, 2] - corners_px[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0
