"""What is behind the person: a room with a textured floor and walls, seen through the lens."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from pose3d.geometry.camera import Camera

TEXTURE_SIZE = 512
TEXELS_PER_METRE = 60.0
NUM_TEXTURES = 12
RAY_STEP_PX = 8
FARTHEST_MM = 50_000.0
"""Bound on the depth of a floor point, which keeps texel places within OpenCV's range."""


def floor_textures(rng: np.random.Generator) -> UInt8[np.ndarray, "textures size size"]:
    """Grey floors that tile: checker, planks, tiles, carpet, concrete."""
    makers = (_checker, _planks, _tiles, _carpet, _concrete)
    return np.stack([makers[i % len(makers)](rng) for i in range(NUM_TEXTURES)])


def wall_textures(rng: np.random.Generator) -> UInt8[np.ndarray, "textures size size"]:
    """Grey walls that tile: curtains, bricks, plaster, and cluttered ones with furniture."""
    makers = (_curtain, _clutter, _bricks, _clutter, _concrete)
    return np.stack([makers[i % len(makers)](rng) for i in range(NUM_TEXTURES)])


def smooth_noise(rng: np.random.Generator, *, cells: int) -> Float[np.ndarray, "size size"]:
    """Noise in [0, 1] that tiles, with features of size / cells."""
    grid = np.pad(rng.random((cells, cells)), 2, mode="wrap").astype(np.float32)
    scale = TEXTURE_SIZE // cells
    large = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    start = 2 * scale
    large = large[start : start + cells * scale, start : start + cells * scale]
    return np.clip(cv2.resize(large, (TEXTURE_SIZE, TEXTURE_SIZE)), 0.0, 1.0)


def _as_grey(values: Float[np.ndarray, "size size"]) -> UInt8[np.ndarray, "size size"]:
    # Blurred to what a crop can resolve: sharper texels would only flicker.
    values = cv2.GaussianBlur(values.astype(np.float32), (0, 0), 0.8, borderType=cv2.BORDER_REFLECT)
    return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE])


def _checker(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    cell = int(rng.choice([16, 32, 64]))
    return _as_grey(((x // cell + y // cell) % 2) * 0.7 + 0.3 * smooth_noise(rng, cells=64))


def _planks(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    width, length = int(rng.choice([8, 16])), 128
    row = y // width
    along = (x + 53 * row) % TEXTURE_SIZE
    shades = rng.random((TEXTURE_SIZE // width, TEXTURE_SIZE // length))
    values = 0.35 + 0.4 * shades[row, along // length]
    values[(y % width == 0) | (along % length == 0)] = 0.1
    return _as_grey(values + 0.25 * (smooth_noise(rng, cells=128) - 0.5))


def _tiles(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    cell = int(rng.choice([32, 64]))
    shades = rng.random((TEXTURE_SIZE // cell, TEXTURE_SIZE // cell))
    values = 0.55 + 0.3 * shades[y // cell, x // cell]
    values[(y % cell < 2) | (x % cell < 2)] = 0.2
    return _as_grey(values + 0.1 * (smooth_noise(rng, cells=64) - 0.5))


def _carpet(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    fine, coarse = smooth_noise(rng, cells=256), smooth_noise(rng, cells=8)
    return _as_grey(0.6 * fine + 0.4 * coarse)


def _concrete(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    octaves = [smooth_noise(rng, cells=cells) for cells in (4, 16, 64)]
    return _as_grey(0.5 * octaves[0] + 0.3 * octaves[1] + 0.2 * octaves[2])


def _curtain(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    _, x = _grid()
    folds = int(rng.integers(12, 40))
    bend = 6.0 * smooth_noise(rng, cells=8)
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * folds * x / TEXTURE_SIZE + bend)
    return _as_grey(0.7 * waves + 0.3 * smooth_noise(rng, cells=16))


def _bricks(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    y, x = _grid()
    height, width = 8, 16
    row = y // height
    along = (x + (row % 2) * width // 2) % TEXTURE_SIZE
    shades = rng.random((TEXTURE_SIZE // height, TEXTURE_SIZE // width))
    values = 0.4 + 0.4 * shades[row, along // width]
    values[(y % height == 0) | (along % width == 0)] = 0.85
    return _as_grey(values)


def _clutter(rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    """A plain wall with doors, shelves, pictures: rectangles and lines of many greys."""
    values = 0.45 + 0.2 * smooth_noise(rng, cells=4)
    for _ in range(int(rng.integers(10, 26))):
        left, top = (int(v) for v in rng.integers(0, TEXTURE_SIZE - 20, size=2))
        width, height = (int(v) for v in rng.integers(12, 120, size=2))
        shade, rim = float(rng.random()), float(rng.random())
        corner = (left + width, top + height)
        cv2.rectangle(values, (left, top), corner, shade, thickness=-1)
        cv2.rectangle(values, (left, top), corner, rim, thickness=2)
    return _as_grey(values + 0.08 * (smooth_noise(rng, cells=128) - 0.5))


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """A box of a room: floor at z = 0, four walls; textures by number, each with two colours."""

    low_mm: Float[np.ndarray, "2"]
    high_mm: Float[np.ndarray, "2"]
    floor_texture: int
    floor_colours: Float[np.ndarray, "2 3"]
    floor_turn_rad: float
    floor_scale: float
    wall_texture: int
    wall_colours: Float[np.ndarray, "2 3"]
    wall_light: Float[np.ndarray, "4"]
    shift: Float[np.ndarray, "2"]


def draw_room_plan(rng: np.random.Generator) -> Room:
    """Draw a room that holds all four cameras."""
    return Room(
        low_mm=-rng.uniform([3000.0, 5800.0], [5500.0, 8500.0]),
        high_mm=rng.uniform([3000.0, 5800.0], [5500.0, 8500.0]),
        floor_texture=int(rng.integers(NUM_TEXTURES)),
        floor_colours=_two_colours(rng),
        floor_turn_rad=float(rng.uniform(0.0, 2.0 * np.pi)),
        floor_scale=float(rng.uniform(0.6, 1.5)),
        wall_texture=int(rng.integers(NUM_TEXTURES)),
        wall_colours=_two_colours(rng),
        wall_light=rng.uniform(0.65, 1.1, size=4),
        shift=rng.uniform(0.0, TEXTURE_SIZE, size=2),
    )


def _two_colours(rng: np.random.Generator) -> Float[np.ndarray, "2 3"]:
    """Two related colours, RGB 0 to 255: mostly greyish, as rooms are."""
    base = rng.uniform(60.0, 200.0) + rng.normal(0.0, 22.0, size=3)
    contrast = rng.uniform(15.0, 95.0) * (1 if rng.random() < 0.5 else -1)
    other = base + contrast + rng.normal(0.0, 10.0, size=3)
    return np.clip(np.stack([base, other]), 5.0, 250.0)


class Backdrop:
    """Draws rooms behind the crop of one camera after another.

    Attributes:
        floors, walls: Grey textures.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng((seed, 7919))
        self.floors = floor_textures(rng)
        self.walls = wall_textures(rng)
        self._ray_tables: dict[str, np.ndarray] = {}

    def _rays(
        self, camera: Camera, name: str, image_from_store: np.ndarray, *, size: int
    ) -> Float[np.ndarray, "size size 2"]:
        """Undistorted rays x/z, y/z of the crop's pixels, from a table of the full image."""
        if name not in self._ray_tables:
            grid = torch.arange(0, 1001 + RAY_STEP_PX, RAY_STEP_PX, dtype=torch.float64)
            y, x = torch.meshgrid(grid, grid, indexing="ij")
            rays = camera.image_to_rays(torch.stack([x, y], dim=-1).reshape(-1, 2))
            self._ray_tables[name] = rays.reshape(len(grid), len(grid), 2).float().numpy()
        table_from_store = image_from_store[:2] / RAY_STEP_PX
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            self._ray_tables[name],
            table_from_store,
            (size, size),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def draw(
        self, room: Room, camera: Camera, name: str, *, image_from_store: np.ndarray, size: int
    ) -> tuple[Float[np.ndarray, "size size 3"], Bool[np.ndarray, "size size"]]:
        """Draw a room in the crop.

        Args:
            room: What to draw.
            camera: The full image's camera in the world.
            name: Its name: cameras of one name share their lens.
            image_from_store: Map from crop pixels to full-image pixels.
            size: Side of the crop, pixels.

        Returns:
            RGB, 0 to 255, and where the floor is seen.
        """
        rays = self._rays(camera, name, image_from_store, size=size)
        rotation = camera.rotation.numpy().astype(np.float32)  # camera from world
        x, y, z = camera.centre_world_mm.tolist()
        dx, dy, dz = (
            rays[..., 0] * rotation[0, i] + rays[..., 1] * rotation[1, i] + rotation[2, i]
            for i in range(3)
        )
        floor_t = np.float32(z) / np.maximum(-dz, np.float32(z / FARTHEST_MM))
        wall_x, x_t = _hit(dx, x, room.low_mm[0], room.high_mm[0])
        wall_y, y_t = _hit(dy, y, room.low_mm[1], room.high_mm[1])
        is_x_wall = x_t < y_t
        wall_t = np.where(is_x_wall, x_t, y_t)
        is_floor = floor_t < wall_t
        t = np.where(is_floor, floor_t, wall_t)
        hit_x, hit_y, hit_z = x + dx * t, y + dy * t, z + dz * t
        u, v = _texel_places(room, hit_x, hit_y, hit_z, is_floor=is_floor, is_x_wall=is_x_wall)
        textures = (self.floors[room.floor_texture], self.walls[room.wall_texture])
        grey = _sample(textures, u, v, is_second=~is_floor)
        surface = np.where(is_floor, 0, np.where(is_x_wall, 1 + wall_x, 3 + wall_y))
        return np.take(_palette(room), (surface << 8) + grey, axis=0), is_floor


def _texel_places(
    room: Room,
    x: Float[np.ndarray, "size size"],
    y: Float[np.ndarray, "size size"],
    z: Float[np.ndarray, "size size"],
    *,
    is_floor: Bool[np.ndarray, "size size"],
    is_x_wall: Bool[np.ndarray, "size size"],
) -> tuple[Float[np.ndarray, "size size"], Float[np.ndarray, "size size"]]:
    """Places in the floor's or the walls' texture of points of the room, texels."""
    scale = TEXELS_PER_METRE / 1000.0
    turned = room.floor_scale * scale
    c, s = (np.float32(turned * f(room.floor_turn_rad)) for f in (np.cos, np.sin))
    shift_u, shift_v = (np.float32(value) for value in room.shift)
    along = np.where(is_x_wall, y, x)
    u = np.where(is_floor, c * x - s * y + shift_u, np.float32(scale) * along + shift_v)
    v = np.where(is_floor, s * x + c * y + shift_v, np.float32(-scale) * z - np.float32(1.0))
    return u, v


def _hit(direction: np.ndarray, start: float, low: float, high: float) -> tuple[np.ndarray, ...]:
    """Which of two walls a ray meets (1 for the high one), and how far along the ray."""
    positive = direction > 0
    distance = np.where(positive, np.float32(high - start), np.float32(start - low))
    return positive.astype(np.int64), distance / np.maximum(np.abs(direction), np.float32(1e-6))


def _sample(
    textures: tuple[np.ndarray, np.ndarray],
    u: Float[np.ndarray, "size size"],
    v: Float[np.ndarray, "size size"],
    *,
    is_second: Bool[np.ndarray, "size size"],
) -> UInt8[np.ndarray, "size size"]:
    """One of two textures at texel places, repeated without end."""
    side = TEXTURE_SIZE + 1  # a texture's first row and column again, so that it joins itself
    atlas = np.empty((side, 2 * side), np.uint8)
    for texture, half in zip(textures, (atlas[:, :side], atlas[:, side:]), strict=True):
        half[:-1, :-1] = texture
        half[-1, :-1], half[:, -1] = texture[0], half[:, 0]
    u = u - TEXTURE_SIZE * np.floor(u * np.float32(1 / TEXTURE_SIZE))
    v = v - TEXTURE_SIZE * np.floor(v * np.float32(1 / TEXTURE_SIZE))
    u += np.float32(side) * is_second
    return cv2.remap(atlas, u, v, cv2.INTER_LINEAR)


def _palette(room: Room) -> Float[np.ndarray, "shades 3"]:
    """Colours of all greys of the floor, then of the four walls, which light meets differently."""
    share = np.linspace(0.0, 1.0, 256)[:, None]
    blends = [
        light * (colours[0] * (1.0 - share) + colours[1] * share)
        for colours, light in (
            (room.floor_colours, 1.0),
            *((room.wall_colours, float(light)) for light in room.wall_light),
        )
    ]
    return np.concatenate(blends).astype(np.float32)
