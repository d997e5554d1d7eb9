"""From which triangle each sample shows to its colour: places between corners, layers, light."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.synthetic.furniture import Piece
from data_prep.synthetic.lighting import Light
from data_prep.synthetic.patterns import PATTERN_SIZE
from data_prep.synthetic.raster import SUPERSAMPLING, Tile
from data_prep.synthetic.surface import BodySurface
from data_prep.synthetic.wardrobe import FIRST_MATERIAL, NUM_MATERIALS, Look, layers_at


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """Triangles in the room, with all that their colours depend on."""

    vertices_mm: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    parts: Int[np.ndarray, " faces"]
    """Part of the body or material, see `wardrobe`."""
    bones: Int[np.ndarray, " faces"]
    """Bone that a face of the body follows most; -1 for furniture."""
    values: Float[np.ndarray, "vertices 5"]
    """Brightness; place on the body at rest or in the surface's pattern (3); place on the limb."""


def body_mesh(
    surface: BodySurface, vertices_mm: Float[np.ndarray, "vertices 3"], light: Light
) -> Mesh:
    """The lit mesh of a posed body."""
    shade = light.shade(surface.normals(vertices_mm))
    values = np.column_stack([shade, surface.places_mm, surface.limb])
    return Mesh(
        vertices_mm=vertices_mm,
        faces=surface.faces,
        parts=surface.parts,
        bones=surface.bones,
        values=values.astype(np.float32),
    )


def furniture_mesh(piece: Piece, light: Light, *, first_material: int) -> Mesh:
    """The lit mesh of a piece of furniture."""
    # Little light reaches the floor under and behind things.
    height = piece.vertices_mm[:, 2]
    shade = light.shade(piece.normals) * (0.75 + 0.25 * np.clip(height / 500.0, 0.0, 1.0))
    zero = np.zeros_like(shade)
    values = np.column_stack([shade, piece.texture_mm, zero, zero])
    materials = FIRST_MATERIAL + (first_material + piece.materials) % NUM_MATERIALS
    return Mesh(
        vertices_mm=piece.vertices_mm,
        faces=piece.faces,
        parts=materials,
        bones=np.full(len(materials), -1),
        values=values.astype(np.float32),
    )


def join_meshes(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0] + [len(mesh.vertices_mm) for mesh in meshes[:-1]])
    return Mesh(
        vertices_mm=np.concatenate([mesh.vertices_mm for mesh in meshes]),
        faces=np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]),
        parts=np.concatenate([mesh.parts for mesh in meshes]),
        bones=np.concatenate([mesh.bones for mesh in meshes]),
        values=np.concatenate([mesh.values for mesh in meshes]),
    )


def shade_tile(
    tile: Tile,
    mesh: Mesh,
    drawn: Int[np.ndarray, " triangles"],
    look: Look,
    light: Light,
    landmarks: dict[str, Float[np.ndarray, "3"]],
) -> UInt8[np.ndarray, "height width 4"]:
    """Colour a tile.

    Args:
        tile: What each sample shows.
        mesh: Whose faces were drawn.
        drawn: The mesh's face of each of the tile's triangles.
        look: What the layers look like.
        light: Its colour counts here; the brightness is in the mesh.
        landmarks: See `BodySurface`.

    Returns:
        For every pixel RGB multiplied by coverage, and coverage (0 to 255).
    """
    height, width = tile.triangle.shape
    shown = tile.triangle.ravel()
    samples = np.flatnonzero(shown >= 0)
    triangle = shown[samples]
    row, column = np.divmod(samples, width)
    x, y = column.astype(np.float32), row.astype(np.float32)
    maps = tile.maps.astype(np.float32).reshape(-1, 6).take(triangle, axis=0).T
    second, third = (maps[i] * x + maps[i + 1] * y + maps[i + 2] for i in (0, 3))
    # Each triangle's values at its first corner, and how they change towards the others.
    corners = mesh.values[mesh.faces[drawn]]
    start, along, across = (
        part.take(triangle, axis=0)
        for part in (corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    )
    values = start + second[:, None] * along + third[:, None] * across
    parts = mesh.parts[drawn].take(triangle)
    layer, texels = layers_at(look, parts, values[:, 1:4], values[:, 4], landmarks)
    u, v = (np.floor(texels).astype(np.int32) & (PATTERN_SIZE - 1)).T
    grey = look.patterns.ravel().take((layer * PATTERN_SIZE + v) * PATTERN_SIZE + u)
    colours = look.colours.reshape(-1, 3).take(layer * 256 + grey, axis=0)
    colours *= values[:, :1] * (255.0 * light.tint).astype(np.float32)
    canvas = np.zeros((height * width, 4), np.uint8)
    canvas[samples, :3] = np.minimum(colours, np.float32(255.0))
    canvas[samples, 3] = 255
    size = (width // SUPERSAMPLING, height // SUPERSAMPLING)
    return cv2.resize(canvas.reshape(height, width, 4), size, interpolation=cv2.INTER_AREA)
