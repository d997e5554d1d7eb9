"""Chairs, tables, shelves and boxes: upright blocks put together, cut where the lens bends them.

A piece stands at the origin of its own axes (x to the left of who uses it, who faces -y, z up)
until it is placed in the room.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from data_prep.synthetic.motion import Seat
from data_prep.synthetic.rotations import rotation_z

CELL_MM = 400.0
"""Longest side of a cell: within it, the lens bends a line by less than half a pixel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A piece of furniture as cells of flat faces."""

    vertices_mm: Float[np.ndarray, "vertices 3"]
    normals: Float[np.ndarray, "vertices 3"]
    texture_mm: Float[np.ndarray, "vertices 2"]
    """Place of each vertex in the pattern of its surface."""
    faces: Int[np.ndarray, "faces 3"]
    materials: Int[np.ndarray, " faces"]
    """0 for the main material, 1 and 2 for others of the piece."""

    def placed(self, centre_mm: Float[np.ndarray, "2"], turn_rad: float) -> "Piece":
        """The piece turned about z and moved over the floor."""
        turn = rotation_z(turn_rad)
        return replace(
            self,
            vertices_mm=self.vertices_mm @ turn.T + np.append(centre_mm, 0.0),
            normals=self.normals @ turn.T,
        )


def join(pieces: list[Piece]) -> Piece:
    """Several pieces, at least one, as one."""
    starts = np.cumsum([0] + [len(piece.vertices_mm) for piece in pieces[:-1]])
    return Piece(
        vertices_mm=np.concatenate([piece.vertices_mm for piece in pieces]),
        normals=np.concatenate([piece.normals for piece in pieces]),
        texture_mm=np.concatenate([piece.texture_mm for piece in pieces]),
        faces=np.concatenate([p.faces + s for p, s in zip(pieces, starts, strict=True)]),
        materials=np.concatenate([piece.materials for piece in pieces]),
    )


def block(
    low_mm: tuple[float, float, float], high_mm: tuple[float, float, float], *, material: int = 0
) -> Piece:
    """An upright box."""
    low, extent = np.array(low_mm), np.subtract(high_mm, low_mm)
    counts = np.maximum(1, np.ceil(extent / CELL_MM)).astype(int)
    places, axes, normals, faces = _unit_block(*counts.tolist())
    vertices = low + places * extent
    return Piece(
        vertices_mm=vertices,
        normals=normals,
        texture_mm=np.take_along_axis(vertices, axes, axis=1),
        faces=faces,
        materials=np.full(len(faces), material, np.int64),
    )


@cache
def _unit_block(*counts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The unit cube cut into cells: vertices, axes of their textures, normals, and faces."""
    vertices, axes, normals = [], [], []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        quads = _cells(counts[u], counts[v])  # [cells 4 2], anticlockwise in (u, v)
        for end in (0, 1):
            corners = np.full((len(quads), 4, 3), float(end))
            corners[..., [u, v]] = quads if end else quads[:, ::-1]
            vertices.append(corners.reshape(-1, 3))
            normals.append(np.tile(np.eye(3)[axis] * (2 * end - 1), (4 * len(quads), 1)))
            # Patterns run along z on upright faces.
            axes.append(np.tile([v, u] if axis == 1 else [u, v], (4 * len(quads), 1)))
    merged = np.concatenate(vertices)
    first = np.arange(0, len(merged), 4)[:, None, None]
    faces = (first + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    return merged, np.concatenate(axes), np.concatenate(normals), faces


def _cells(columns: int, rows: int) -> Float[np.ndarray, "cells 4 2"]:
    """Corners of the cells of the unit square."""
    i, j = (m.ravel() for m in np.meshgrid(np.arange(columns), np.arange(rows)))
    corners = [((i + p) / columns, (j + q) / rows) for p, q in ((0, 0), (1, 0), (1, 1), (0, 1))]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


def _legs(width: float, depth: float, height: float, *, thick: float, material: int) -> list[Piece]:
    """Four legs at the corners of a rectangle."""
    x, y = width / 2, depth / 2
    return [
        block((a, b, 0.0), (a + thick, b + thick, height), material=material)
        for a in (-x, x - thick)
        for b in (-y, y - thick)
    ]


def chair(
    rng: np.random.Generator, *, width: float, depth: float, height: float, back: bool = True
) -> Piece:
    """A seat on legs or a block, with or without a back, at a height."""
    x, y = width / 2, depth / 2
    slab = float(rng.uniform(25.0, 70.0))
    parts = [block((-x, -y, height - slab), (x, y, height), material=1)]
    if rng.random() < 0.25:
        parts.append(block((-x, -y, 0.0), (x, y, height - slab)))
    else:
        parts += _legs(width, depth, height - slab, thick=rng.uniform(22.0, 45.0), material=0)
    if back:
        top = height + float(rng.uniform(330.0, 480.0))
        thick = float(rng.uniform(20.0, 50.0))
        if rng.random() < 0.5:
            parts.append(block((-x, y, height - slab), (x, y + thick, top), material=1))
        else:
            low, post = height + float(rng.uniform(120.0, 200.0)), 30.0
            parts.append(block((-x, y, low), (x, y + thick, top), material=1))
            parts += [
                block((a, y, height - slab), (a + post, y + thick, top)) for a in (-x, x - post)
            ]
    return join(parts)


def seat_piece(seat: Seat, rng: np.random.Generator) -> Piece:
    """What a sitter sits on, in the room."""
    width, depth, height = seat.size_mm.tolist()
    piece = chair(rng, width=width, depth=depth, height=height, back=rng.random() < 0.4)
    return piece.placed(seat.centre_mm, seat.heading_rad)


def _any_chair(rng: np.random.Generator) -> Piece:
    width, depth = rng.uniform(380.0, 520.0, size=2)
    height = rng.uniform(400.0, 480.0)
    return chair(rng, width=width, depth=depth, height=height, back=rng.random() < 0.8)


def _table(rng: np.random.Generator) -> Piece:
    width, depth, height = rng.uniform([700.0, 500.0, 450.0], [1500.0, 800.0, 780.0])
    slab, thick = rng.uniform([25.0, 35.0], [50.0, 70.0])
    x, y = width / 2, depth / 2
    parts = [block((-x, -y, height - slab), (x, y, height), material=1)]
    if rng.random() < 0.3:  # a desk with sides
        parts += [block((a, -y, 0.0), (a + 30.0, y, height - slab)) for a in (-x + 20.0, x - 50.0)]
    else:
        parts += _legs(width - 60.0, depth - 60.0, height - slab, thick=thick, material=0)
    for _ in range(int(rng.integers(0, 4))):  # things on it
        size = rng.uniform([60.0, 60.0, 20.0], [320.0, 240.0, 330.0])
        a, b = rng.uniform(-0.6, 0.6, size=2) * [x, y]
        low, high = (a - size[0] / 2, b - size[1] / 2), (a + size[0] / 2, b + size[1] / 2)
        parts.append(block((*low, height), (*high, height + size[2]), material=2))
    return join(parts)


def _boxes(rng: np.random.Generator) -> Piece:
    parts, base = [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        x, y, height = rng.uniform([150.0, 150.0, 180.0], [320.0, 300.0, 420.0])
        a, b = rng.uniform(-40.0, 40.0, size=2)
        material = int(rng.integers(0, 3))
        parts.append(block((a - x, b - y, base), (a + x, b + y, base + height), material=material))
        base += height
    return join(parts)


def _shelf(rng: np.random.Generator) -> Piece:
    width, depth, height = rng.uniform([600.0, 250.0, 900.0], [1200.0, 400.0, 2000.0])
    x, y, board = width / 2, depth / 2, 25.0
    parts = [block((a, -y, 0.0), (a + board, y, height)) for a in (-x, x - board)]
    parts.append(block((-x, y - 10.0, 0.0), (x, y, height)))
    floors = np.linspace(60.0, height - board, int(rng.integers(3, 6)))
    for low, high in zip(floors, [*floors[1:], height], strict=True):
        parts.append(block((-x, -y, low), (x, y, low + board)))
        place = -x + 40.0
        while place < x - 120.0 and high - low > 150.0:
            thick = float(rng.uniform(40.0, 160.0))
            if rng.random() < 0.7:
                top = low + board + float(rng.uniform(0.4, 0.85)) * (high - low - board)
                material = int(rng.integers(1, 3))
                ends = (place, -0.7 * y, low + board), (place + thick, y - 12.0, top)
                parts.append(block(*ends, material=material))
            place += thick + 10.0
    return join(parts)


def _armchair(rng: np.random.Generator) -> Piece:
    width, depth = rng.uniform([650.0, 600.0], [1700.0, 850.0])
    seat, arm, back = rng.uniform([350.0, 520.0, 750.0], [450.0, 640.0, 950.0])
    x, y = width / 2, depth / 2
    # No two faces in one plane: which of them is seen would be chance.
    parts = [block((20.0 - x, 10.0 - y, 60.0), (x - 20.0, y - 10.0, seat), material=1)]
    parts.append(block((10.0 - x, y - 180.0, seat - 20.0), (x - 10.0, y + 10.0, back)))
    parts += [block((a, -y, 50.0), (a + 130.0, y, arm)) for a in (-x, x - 130.0)]
    return join(parts)


def _board(rng: np.random.Generator) -> Piece:
    width, low, high = rng.uniform([700.0, 350.0, 1250.0], [1300.0, 800.0, 1800.0])
    x = width / 2
    parts = [block((-x, -12.0, low), (x, 12.0, high), material=2)]
    for a in (-x - 30.0, x):
        parts.append(block((a, -15.0, 0.0), (a + 30.0, 15.0, high)))
        parts.append(block((a, -250.0, 0.0), (a + 30.0, 250.0, 35.0)))
    return join(parts)


def _pole(rng: np.random.Generator) -> Piece:
    """A lamp, a tripod or a plant: something thin that is wider at its top."""
    height, wide = rng.uniform([1000.0, 90.0], [1800.0, 220.0])
    top = height + float(rng.uniform(150.0, 400.0))
    return join(
        [
            block((-140.0, -140.0, 0.0), (140.0, 140.0, 30.0)),
            block((-16.0, -16.0, 30.0), (16.0, 16.0, height)),
            block((-wide, -wide, height), (wide, wide, top), material=1),
        ]
    )


CATALOGUE: tuple[Callable[[np.random.Generator], Piece], ...] = (
    *(_any_chair, _any_chair, _table, _table, _boxes, _boxes, _shelf, _armchair, _board, _pole),
)
LOW_CATALOGUE: tuple[Callable[[np.random.Generator], Piece], ...] = (
    *(_any_chair, _any_chair, _any_chair, _table, _table, _boxes, _armchair, _pole),
)
"""What may stand between camera and person without hiding all of the latter."""


def draw_piece(rng: np.random.Generator, *, low: bool = False) -> Piece:
    """Draw a piece of furniture at the origin."""
    catalogue = LOW_CATALOGUE if low else CATALOGUE
    return catalogue[int(rng.integers(len(catalogue)))](rng)
