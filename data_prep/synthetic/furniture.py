"""A seat for those who sit: boxes cut into small triangles, so that they sort well by depth."""

import numpy as np
from jaxtyping import Float

CELL_MM = 110.0


def box_triangles(
    low_mm: Float[np.ndarray, "3"], high_mm: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "triangles 3 3"]:
    """Outward triangles of an upright box."""
    parts = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for end, value in enumerate((low_mm[axis], high_mm[axis])):
            quads = _cells(low_mm[[u, v]], high_mm[[u, v]])  # [cells 4 2], anticlockwise in (u, v)
            corners = np.empty((*quads.shape[:2], 3))
            corners[..., axis] = value
            corners[..., [u, v]] = quads if end else quads[:, ::-1]
            parts += [corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]]
    return np.concatenate(parts)


def _cells(low: Float[np.ndarray, "2"], high: Float[np.ndarray, "2"]) -> np.ndarray:
    """Corners of the cells of a rectangle."""
    counts = np.maximum(1, np.rint((high - low) / CELL_MM)).astype(int)
    a, b = (np.linspace(low[i], high[i], counts[i] + 1) for i in range(2))
    i, j = (m.ravel() for m in np.meshgrid(np.arange(counts[0]), np.arange(counts[1])))
    corners = [(a[i + p], b[j + q]) for p, q in ((0, 0), (1, 0), (1, 1), (0, 1))]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


def seat_triangles(
    height_mm: float, *, rng: np.random.Generator
) -> Float[np.ndarray, "triangles 3 3"]:
    """A block or a stool under a sitter at the origin who faces -y; its top at a height."""
    half_width = rng.uniform(170.0, 240.0)
    front, back = -rng.uniform(130.0, 190.0), rng.uniform(150.0, 210.0)
    low, high = np.array([-half_width, front, 0.0]), np.array([half_width, back, height_mm])
    if rng.random() < 0.35:
        return box_triangles(low, high)
    slab = rng.uniform(25.0, 60.0)
    leg = rng.uniform(25.0, 45.0)
    parts = [box_triangles(np.array([low[0], low[1], height_mm - slab]), high)]
    for x in (low[0], high[0] - leg):
        for y in (low[1], high[1] - leg):
            foot = np.array([x, y, 0.0])
            parts.append(box_triangles(foot, foot + np.array([leg, leg, height_mm - slab])))
    return np.concatenate(parts)
