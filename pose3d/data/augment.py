"""Augmentation of a whole batch at once, on the device that trains, images and labels together.

Every random number is a hash of (seed, epoch, record, draw): it depends neither on the batch a
record falls into, nor on the worker, the device or what was drawn before. The parameters are drawn
and the labels encoded on the host in float64; images are only touched on their own device:
occlusion in the stored uint8 crop, one bilinear warp from there, then colour, range and
normalisation. Nothing waits for the device.

On a CPU the batch is warped in pieces that fit the cache, one image per thread at 256², and from
float images in channels_last order. With one thread and 64 images that took 61 ms from 471² to 256²
instead of 231 ms for the batch in one piece (10 against 42 ms from 236² to 128²); images in channel
planes cost a third more, and a selection by mask in uint8 12 times less as bit operations than as
`torch.where`. `benchmarks/bench_data.py` repeats the comparison with `cv2.warpAffine`.
"""

import functools
import math
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8, UInt64
from scipy.special import ndtri
from torch import Tensor
from torch.nn import functional

from pose3d.geometry.camera import Camera
from pose3d.geometry.crop import crop_from_image, invert_map
from pose3d.geometry.skeleton import Skeleton
from pose3d.geometry.uvd import DEPTH_RANGE_MM, encode_uvd, mirror_scale, uvd_in_range

Normalisation = Literal["imagenet", "released"]

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "released": ((0.406, 0.457, 0.480), (0.225, 0.224, 0.229)),
}
"""Mean and standard deviation of red, green and blue in [0, 1].

`imagenet` are the statistics that torchvision's weights expect; `released` are those of the
published RLE weights, which apply the statistics of blue, green, red to red, green, blue.
"""

_CHUNK_VALUES = 2**20
"""Values of float32 images that one CPU thread warps at a time: what its cache holds."""
_NOISE_STARTS = 2**20
"""Different positions in the noise table at which an image's noise may start."""


class Draw(IntEnum):
    """What a random number is for; numbers with different draws are independent."""

    ORDER = 0
    SCALE = 1
    ROTATION = 2
    IS_ROTATED = 3
    MIRROR = 4
    RED = 5
    GREEN = 6
    BLUE = 7
    IS_OCCLUDED = 8
    OCCLUSION_AREA = 9
    OCCLUSION_ASPECT = 10
    OCCLUSION_LEFT = 11
    OCCLUSION_TOP = 12
    NOISE_START = 13
    NOISE = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """The released recipe; angles in degrees, everything else as a share."""

    enabled: bool = True
    """False trains on the upright nominal crops."""
    scale_std: float = 0.3
    """Standard deviation of the side of the region shown over the nominal side, around 1."""
    scale_limit: float = 0.3
    """Deviations beyond this are cut to it, as in the released code."""
    rotation_std_deg: float = 30.0
    """Standard deviation of the rotation."""
    rotation_limit_deg: float = 60.0
    """Rotations beyond this are cut to it."""
    rotation_probability: float = 0.6
    """Share of images that are rotated at all."""
    mirror_probability: float = 0.5
    """Share of images that are mirrored, left and right joints exchanged."""
    colour_limit: float = 0.2
    """Each channel is multiplied by a factor uniform in 1 ± this."""
    occlusion_probability: float = 1.0
    """Share of images with a rectangle of noise."""
    occlusion_limit: float = 0.7
    """Largest area of the rectangle over that of the nominal box; uniform from 0."""
    occlusion_aspect_limit: float = 3.33
    """Largest ratio of its sides, where the box can hold that; log-uniform."""

    def __post_init__(self) -> None:
        for name in ("rotation", "mirror", "occlusion"):
            self._require(f"{name}_probability", 0.0, 1.0)
        for name in ("scale_limit", "colour_limit", "occlusion_limit"):
            self._require(name, 0.0, 0.95)
        self._require("scale_std", 0.0, math.inf)
        self._require("rotation_std_deg", 0.0, math.inf)
        self._require("rotation_limit_deg", 0.0, 180.0)
        self._require("occlusion_aspect_limit", 1.0, 100.0)

    def _require(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise ValueError(f"augment.{name} must be {low:g} to {high:g}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RawBatch:
    """Records as they are stored, before augmentation.

    Attributes:
        images: Stored square crops, RGB.
        index: Row of each record in its store; the randomness of a record hangs on it.
        joints_camera_mm: Joints in the camera frame, millimetres.
        weight: Weight of the axes (u, v, d) of each joint; 0 = no label.
        camera: The full images' cameras, float64.
        store_from_image: Map from pixels of the full image to pixels of the stored crop.
        box_image_px: Nominal person square in the full image: centre x, centre y, side, pixels.
    """

    images: UInt8[Tensor, "batch stored stored 3"]
    index: Int64[Tensor, " batch"]
    joints_camera_mm: Float[Tensor, "batch joints 3"]
    weight: Float[Tensor, "batch joints 3"]
    camera: Camera
    store_from_image: Float[Tensor, "batch 3 3"]
    box_image_px: Float[Tensor, "batch 3"]

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> "RawBatch":
        """Move the images; labels stay on the host, where they are encoded in float64."""
        return self._with_images(self.images.to(device, non_blocking=True))

    def pin_memory(self) -> "RawBatch":
        """Put the images into page-locked memory, from which `to` returns at once."""
        return self._with_images(self.images.pin_memory())

    def _with_images(self, images: UInt8[Tensor, "batch stored stored 3"]) -> "RawBatch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return RawBatch(**{**values, "images": images})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AugmentParameters:
    """What is done to each image of a batch; tensors on the host.

    Attributes:
        scale: Side of the region shown over the side of the nominal square.
        rotation_rad: Rotation about the centre of the square, radians.
        mirror: Whether the crop is mirrored, after the rotation.
        colour: Factor of red, green and blue.
        occlusion_box: Left, top, right, bottom of the rectangle of noise, in sides of the nominal
            square from its upper left corner; without area = no occlusion.
        noise_start: Where in the noise table the image's noise starts.
    """

    scale: Float[Tensor, " batch"]
    rotation_rad: Float[Tensor, " batch"]
    mirror: Bool[Tensor, " batch"]
    colour: Float[Tensor, "batch 3"]
    occlusion_box: Float[Tensor, "batch 4"]
    noise_start: Int64[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingBatch:
    """What the network and the loss see.

    Attributes:
        images: Normalised crops, on the device of the raw images.
        target: Joints as (u, v, d), on the same device.
        weight: Weight of each axis of each joint, on the same device.
        crop_from_image: Map from full-image pixels to pixels of the crop, float64, on the host.
        index: Row of each record in its store, on the host.
    """

    images: Float[Tensor, "batch 3 size size"]
    target: Float[Tensor, "batch joints 3"]
    weight: Float[Tensor, "batch joints 3"]
    crop_from_image: Float[Tensor, "batch 3 3"]
    index: Int64[Tensor, " batch"]


def random_bits(
    index: Int64[np.ndarray, " n"], draw: int, *, seed: int, epoch: int
) -> UInt64[np.ndarray, " n"]:
    """64 random bits for each index, a pure function of (seed, epoch, index, draw).

    Source:
        The finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number
        generators, OOPSLA 2014), once for each of the four numbers.
    """
    bits = np.zeros(1, np.uint64)
    for word in (seed, epoch, draw):
        bits = _mix(bits ^ np.array([word & (2**64 - 1)], np.uint64))
    return _mix(bits ^ index.astype(np.uint64))


def random_unit(
    index: Int64[np.ndarray, " n"], draw: int, *, seed: int, epoch: int
) -> Float[np.ndarray, " n"]:
    """A number uniform in the open interval (0, 1) for each index; see `random_bits`."""
    bits = random_bits(index, draw, seed=seed, epoch=epoch)
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def draw_parameters(
    config: AugmentConfig, index: Int64[Tensor, " batch"], *, seed: int, epoch: int
) -> AugmentParameters:
    """Draw the augmentation of each record for one epoch.

    Args:
        config: The distributions.
        index: Row of each record in its store.
        seed: The run's seed.
        epoch: The pass over the data.

    Returns:
        The same parameters for the same (seed, epoch, index), whatever else is in the batch.

    Source:
        Released configuration of Li et al., Human pose regression with residual log-likelihood
        estimation, ICCV 2021. Deliberate differences: the rectangle of noise is placed inside the
        nominal box at the first try, where the released code searches without bound; its
        aspect is log-uniform, so that wide is as likely as high.
    """
    if not config.enabled:
        return identity_parameters(len(index))
    rows = index.cpu().numpy()

    def unit(draw: Draw) -> Float[np.ndarray, " batch"]:
        return random_unit(rows, draw, seed=seed, epoch=epoch)

    def cut_normal(draw: Draw, std: float, limit: float) -> Float[np.ndarray, " batch"]:
        return np.clip(std * ndtri(unit(draw)), -limit, limit)

    deviation = cut_normal(Draw.SCALE, config.scale_std, config.scale_limit)
    rotation_deg = cut_normal(Draw.ROTATION, config.rotation_std_deg, config.rotation_limit_deg)
    is_rotated = unit(Draw.IS_ROTATED) < config.rotation_probability
    colour = np.stack([unit(draw) for draw in (Draw.RED, Draw.GREEN, Draw.BLUE)], -1)
    start = random_bits(rows, Draw.NOISE_START, seed=seed, epoch=epoch) % np.uint64(_NOISE_STARTS)
    return AugmentParameters(
        scale=torch.from_numpy(1 + deviation),
        rotation_rad=torch.from_numpy(np.deg2rad(np.where(is_rotated, rotation_deg, 0.0))),
        mirror=torch.from_numpy(unit(Draw.MIRROR) < config.mirror_probability),
        colour=torch.from_numpy(1 + config.colour_limit * (2 * colour - 1)),
        occlusion_box=torch.from_numpy(
            _occlusion_box(
                area=config.occlusion_limit * unit(Draw.OCCLUSION_AREA),
                aspect=unit(Draw.OCCLUSION_ASPECT),
                left=unit(Draw.OCCLUSION_LEFT),
                top=unit(Draw.OCCLUSION_TOP),
                aspect_limit=config.occlusion_aspect_limit,
            )
            * (unit(Draw.IS_OCCLUDED) < config.occlusion_probability)[:, None]
        ),
        noise_start=torch.from_numpy(start.astype(np.int64)),
    )


def identity_parameters(batch_size: int) -> AugmentParameters:
    """Parameters that show the upright nominal square as it is."""
    return AugmentParameters(
        scale=torch.ones(batch_size, dtype=torch.float64),
        rotation_rad=torch.zeros(batch_size, dtype=torch.float64),
        mirror=torch.zeros(batch_size, dtype=torch.bool),
        colour=torch.ones(batch_size, 3, dtype=torch.float64),
        occlusion_box=torch.zeros(batch_size, 4, dtype=torch.float64),
        noise_start=torch.zeros(batch_size, dtype=torch.int64),
    )


def make_batch(
    raw: RawBatch,
    parameters: AugmentParameters,
    *,
    skeleton: Skeleton,
    input_size_px: int,
    depth_range_mm: float = DEPTH_RANGE_MM,
    normalisation: str = "imagenet",
) -> TrainingBatch:
    """Warp, colour and normalise the images and encode the labels to match.

    The warp is bilinear without a filter before it: from a store whose crops have `margin` times
    the input size it shrinks by at most 1 + scale_limit, where aliasing is slight. What lies
    outside the stored crop is black.

    Args:
        raw: Records as stored; the images' device does the work.
        parameters: From `draw_parameters` or `identity_parameters`.
        skeleton: The joint set of `raw`.
        input_size_px: Side of the crops that the network sees, pixels.
        depth_range_mm: Depth that the unit of d stands for, millimetres.
        normalisation: Whose mean and standard deviation, see `NORMALISATIONS`.

    Returns:
        The batch. Weights are 0 on all axes of a joint that leaves ±½ on an axis with a label, for
        every depth of a record whose root has no depth label, and for the root's own depth, which
        is 0 by definition. Joints under the noise remain labelled.

    Raises:
        ValueError: If the normalisation is unknown, or a labelled joint cannot be projected.
    """
    if normalisation not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise ValueError(f"normalisation must be one of {known}, got {normalisation!r}")
    crop_map = crop_from_image(
        raw.box_image_px.double(),
        crop_size_px=input_size_px,
        rotation_rad=parameters.rotation_rad,
        scale=parameters.scale,
        mirror=parameters.mirror,
    )
    target, weight = _encode_labels(
        raw,
        crop_map,
        parameters.mirror,
        skeleton=skeleton,
        input_size_px=input_size_px,
        depth_range_mm=depth_range_mm,
    )
    images = _make_images(
        raw, parameters, crop_map, input_size_px=input_size_px, normalisation=normalisation
    )
    return TrainingBatch(
        images=images,
        target=_to_device(target, images.device),
        weight=_to_device(weight, images.device),
        crop_from_image=crop_map,
        index=raw.index,
    )


def _mix(bits: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Spread every bit over all 64, one to one; arrays wrap around in silence."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _occlusion_box(
    *,
    area: Float[np.ndarray, " batch"],
    aspect: Float[np.ndarray, " batch"],
    left: Float[np.ndarray, " batch"],
    top: Float[np.ndarray, " batch"],
    aspect_limit: float,
) -> Float[np.ndarray, "batch 4"]:
    """Rectangles of exactly this area inside the unit square; the others are uniform draws.

    A rectangle of area a fits if its aspect (height over width) lies between a and 1/a.
    """
    largest = np.minimum(np.log(aspect_limit), -np.log(np.maximum(area, 1e-12)))
    root = np.exp(0.5 * largest * (2 * aspect - 1))
    width, height = np.sqrt(area) / root, np.sqrt(area) * root
    x, y = left * (1 - width), top * (1 - height)
    return np.stack([x, y, x + width, y + height], -1)


def _encode_labels(
    raw: RawBatch,
    crop_map: Float[Tensor, "batch 3 3"],
    mirror: Bool[Tensor, " batch"],
    *,
    skeleton: Skeleton,
    input_size_px: int,
    depth_range_mm: float,
) -> tuple[Float[Tensor, "batch joints 3"], Float[Tensor, "batch joints 3"]]:
    """Target and weight in float32, left and right exchanged where the crop is mirrored."""
    is_labelled = (raw.weight > 0).any(-1, keepdim=True)
    joints = raw.joints_camera_mm.double()
    joints = torch.where(is_labelled, joints, joints[:, skeleton.root, None])
    uvd = encode_uvd(
        joints,
        raw.camera,
        crop_map,
        crop_size_px=input_size_px,
        root=skeleton.root,
        depth_range_mm=depth_range_mm,
    )
    weight = raw.weight.float().clone()
    weight[..., 2] *= weight[:, skeleton.root, None, 2] > 0  # d counts from the root's depth
    weight *= uvd_in_range(torch.where(weight > 0, uvd, 0))[..., None]
    weight[:, skeleton.root, 2] = 0
    is_mirrored = mirror[:, None, None]  # the map has turned u; the joints change their names
    target = torch.where(is_mirrored, mirror_scale(uvd, skeleton), uvd)
    return target.float(), torch.where(is_mirrored, mirror_scale(weight, skeleton), weight)


def _make_images(
    raw: RawBatch,
    parameters: AugmentParameters,
    crop_map: Float[Tensor, "batch 3 3"],
    *,
    input_size_px: int,
    normalisation: str,
) -> Float[Tensor, "batch 3 size size"]:
    """Occlude, warp, colour and normalise on the images' device, in pieces on a CPU."""
    device, stored_px = raw.images.device, raw.images.shape[1]
    store_from_crop = raw.store_from_image.double() @ invert_map(crop_map)
    sampling = _to_device(_sampling_map(store_from_crop, stored_px=stored_px), device)
    mean, std = torch.tensor(NORMALISATIONS[normalisation], dtype=torch.float64)
    gain = _to_device((parameters.colour / (255 * std)).float()[..., None, None], device)
    shift = _to_device((-mean / std).float()[:, None, None], device)
    white = _to_device(((1 - mean) / std).float()[:, None, None], device)
    images = torch.empty(len(raw), 3, input_size_px, input_size_px, device=device)
    has_occlusion = bool((parameters.occlusion_box[:, 2] > parameters.occlusion_box[:, 0]).any())
    if has_occlusion:
        mask_x, mask_y = (
            _to_device(mask, device) for mask in _occlusion_masks(raw, parameters, stored_px)
        )
        noise_start = _to_device(parameters.noise_start, device)
    chunk = _chunk_size(stored_px, device=device, batch_size=len(raw))
    for start in range(0, len(raw), chunk):
        part = slice(start, start + chunk)
        stored = raw.images[part]
        if has_occlusion:
            stored = _occlude(stored, mask_x[part], mask_y[part], noise_start[part])
        shown = functional.grid_sample(
            stored.permute(0, 3, 1, 2).float(),  # keeps the channels_last order
            _sampling_grid(sampling[part], size_px=input_size_px),
            align_corners=False,
        )
        torch.addcmul(shift, shown, gain[part], out=images[part])
        torch.minimum(images[part], white, out=images[part])
    return images


def _chunk_size(stored_px: int, *, device: torch.device, batch_size: int) -> int:
    """Images to warp at once: all on an accelerator, what the threads' caches hold on a CPU."""
    if device.type != "cpu":
        return max(batch_size, 1)
    return torch.get_num_threads() * max(1, _CHUNK_VALUES // (3 * stored_px**2))


def _sampling_map(
    store_from_crop: Float[Tensor, "batch 3 3"], *, stored_px: int
) -> Float[Tensor, "batch 2 3"]:
    """Map from pixels of the crop to `grid_sample`'s coordinates of the stored crop.

    Pixel centres are integers here; without align_corners, grid_sample has -1 and 1 at the outer
    edges of the border pixels, at -½ and S - ½.
    """
    scaled = store_from_crop[:, :2] * (2 / stored_px)
    scaled[:, :, 2] += 1 / stored_px - 1
    return scaled.float()


def _sampling_grid(
    sampling: Float[Tensor, "chunk 2 3"], *, size_px: int
) -> Float[Tensor, "chunk {size_px} {size_px} 2"]:
    """Where each pixel of the crop is looked up."""
    pixel = torch.arange(size_px, dtype=sampling.dtype, device=sampling.device)
    grid = sampling.new_empty(len(sampling), size_px, size_px, 2)
    for axis in range(2):
        along_x, along_y, origin = sampling[:, axis].split(1, dim=-1)  # [chunk 1] each
        columns = (along_x * pixel)[:, None, :]
        rows = (along_y * pixel + origin)[:, :, None]
        torch.add(columns, rows, out=grid[..., axis])
    return grid


def _occlusion_masks(
    raw: RawBatch, parameters: AugmentParameters, stored_px: int
) -> tuple[UInt8[Tensor, "batch stored"], UInt8[Tensor, "batch stored"]]:
    """255 in the columns and rows of the stored crop whose centres the rectangle covers.

    The rectangle's corners are mapped into the stored crop; a box outside it covers nothing.
    """
    centre_px, side_px = raw.box_image_px[:, None, :2].double(), raw.box_image_px[:, None, 2:]
    corners = (parameters.occlusion_box.reshape(-1, 2, 2) - 0.5) * side_px + centre_px
    matrix = raw.store_from_image.double()
    corners = corners @ matrix[:, :2, :2].mT + matrix[:, None, :2, 2]  # [batch corner axis]
    low, high = corners.amin(1), corners.amax(1)
    pixel = torch.arange(stored_px, dtype=torch.float64)
    covers = (pixel >= low[..., None]) & (pixel < high[..., None])  # [batch axis stored]
    mask = covers.to(torch.uint8) * 255
    return mask[:, 0], mask[:, 1]


def _occlude(
    stored: UInt8[Tensor, "chunk stored stored 3"],
    mask_x: UInt8[Tensor, "chunk stored"],
    mask_y: UInt8[Tensor, "chunk stored"],
    noise_start: Int64[Tensor, " chunk"],
) -> UInt8[Tensor, "chunk stored stored 3"]:
    """A copy with noise where both masks are set; bit operations are the fastest selection."""
    size_px = stored.shape[1]
    table = _noise_table(3 * size_px**2, stored.device)
    noise = table.index_select(0, noise_start).view(-1, size_px, 3 * size_px)
    lines = stored.reshape(-1, size_px, 3 * size_px)
    mask = mask_y[:, :, None] & mask_x.repeat_interleave(3, dim=1)[:, None, :]
    return noise.bitwise_xor_(lines).bitwise_and_(mask).bitwise_xor_(lines).view(stored.shape)


@functools.lru_cache(maxsize=4)
def _noise_table(length: int, device: torch.device) -> UInt8[Tensor, "starts {length}"]:
    """Row i is noise of this length that starts at byte i of a fixed table; rows overlap."""
    words = np.arange(-(-(_NOISE_STARTS + length) // 8), dtype=np.int64)
    noise = random_bits(words, Draw.NOISE, seed=0, epoch=0).astype("<u8").view(np.uint8)
    flat = torch.from_numpy(noise).to(device)
    return flat.as_strided((_NOISE_STARTS, length), (1, 1))


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
