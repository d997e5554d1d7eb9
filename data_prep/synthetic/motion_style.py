"""How one person moves in one take."""

import math
from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.body import STANDARD_LEG_MM


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one person moves in one take."""

    step_s: float
    """Of a step when walking."""
    step_mm: float
    half_width_mm: float
    """From the middle to a foot when standing."""
    toe_out_rad: float
    extension: float
    """How straight the legs are when standing, as a part of their length."""
    tempo: float
    """How long moves take; 1 is average."""
    swing_rad: float
    """Of the arms at a full step."""
    lean_rad: float
    """Of the pelvis, forward."""
    hand: str
    """The busier hand: "l" or "r"."""


def draw_style(rng: np.random.Generator, leg_mm: float) -> Style:
    """Draw how somebody moves."""
    size = leg_mm / STANDARD_LEG_MM
    return Style(
        step_s=float(rng.uniform(0.48, 0.6) * math.sqrt(size)),
        step_mm=float(rng.uniform(440.0, 610.0) * size),
        half_width_mm=float(rng.uniform(90.0, 165.0) * size),
        toe_out_rad=math.radians(rng.uniform(2.0, 16.0)),
        extension=float(rng.uniform(0.987, 0.997)),
        tempo=float(rng.uniform(0.8, 1.35)),
        swing_rad=math.radians(rng.uniform(14.0, 34.0)),
        lean_rad=math.radians(rng.normal(2.0, 2.5)),
        hand="r" if rng.random() < 0.8 else "l",
    )
