"""What a camera makes of light: softness, motion, grain, exposure and colour."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_NOISE_RIM_PX = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Exposure:
    """How one camera records one sequence."""

    gamma: float
    gains: Float[np.ndarray, "3"]
    grain: float
    """Standard deviation of the noise, grey levels."""
    defocus_px: float
    """Standard deviation of the blur in the full image; 0: none."""


def draw_exposure(rng: np.random.Generator) -> Exposure:
    """Draw how a camera is set."""
    return Exposure(
        gamma=float(rng.uniform(0.8, 1.25)),
        gains=rng.uniform(0.8, 1.15) * rng.normal(1.0, 0.04, size=3),
        grain=float(rng.uniform(0.5, 4.0)),
        defocus_px=float(rng.uniform(1.0, 3.0)) if rng.random() < 0.4 else 0.0,
    )


class Darkroom:
    """Develops pictures.

    Args:
        seed: Of the noise, which is drawn once and shifted for every picture.
        width_px: Largest width of a picture.
        height_px: Largest height.
    """

    def __init__(self, seed: int, *, width_px: int, height_px: int) -> None:
        noise = np.random.default_rng((seed, 104729))
        shape = (height_px + _NOISE_RIM_PX, width_px + _NOISE_RIM_PX, 3)
        self._noise = noise.standard_normal(shape, dtype=np.float32)

    def develop(
        self,
        picture: Float[np.ndarray, "height width 3"],
        exposure: Exposure,
        rng: np.random.Generator,
        *,
        image_px: float,
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Turn light into a photograph.

        Args:
            picture: RGB, 0 to 255.
            exposure: How the camera is set.
            rng: Decides what differs between pictures of one camera.
            image_px: Pixels of the full image per pixel of this one: blurs arise in the former,
                some of four pixels being one of a usual crop.
        """
        if exposure.defocus_px > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), exposure.defocus_px / image_px)
        if rng.random() < 0.15:
            picture = _shaken(picture, rng, length_px=rng.uniform(6.0, 14.0) / image_px)
        height, width = picture.shape[:2]
        top, left = rng.integers(0, _NOISE_RIM_PX, size=2)
        grain = np.float32(exposure.grain)
        picture = picture + grain * self._noise[top : top + height, left : left + width]
        levels = np.linspace(0.0, 1.0, 256)[:, None] ** exposure.gamma * exposure.gains
        table = np.clip(255.0 * levels, 0.0, 255.0).astype(np.uint8)
        return cv2.LUT(np.clip(picture, 0.0, 255.0).astype(np.uint8), table[None])


def _shaken(picture: np.ndarray, rng: np.random.Generator, *, length_px: float) -> np.ndarray:
    """Blur along a line, as movement during the exposure does."""
    side = 2 * int(np.ceil(length_px / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    turn = rng.uniform(0.0, np.pi)
    step = 0.5 * length_px * np.array([np.cos(turn), np.sin(turn)])
    ends = [tuple(np.rint(16 * (side // 2 + s * step)).astype(int).tolist()) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, lineType=cv2.LINE_AA, shift=4)
    return cv2.filter2D(picture, -1, kernel / kernel.sum())
