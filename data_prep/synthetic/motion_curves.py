"""Curves in time: eased moves that may overlap, smooth noise, envelopes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d, minimum_filter1d

from data_prep.human36m import FRAMES_PER_S


def ease(phase: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """From 0 to 1 with the least jerk; at rest outside.

    Source: Flash & Hogan (1985), The coordination of arm movements, J. Neuroscience 5.
    """
    p = np.clip(phase, 0.0, 1.0)
    return p**3 * (10.0 - 15.0 * p + 6.0 * p**2)


def bump(phase: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """From 0 up to 1 in the middle and back to 0, at rest outside."""
    p = np.clip(phase, 0.0, 1.0)
    return (4.0 * p * (1.0 - p)) ** 2


@dataclass(kw_only=True)
class Channel:
    """A quantity that moves from value to value; moves that overlap add up smoothly."""

    value: np.ndarray
    """Where it ends after all moves so far."""
    start_value: np.ndarray = field(init=False)
    moves: list[tuple[float, float, np.ndarray]] = field(default_factory=list)
    """Start and end in seconds, and by how much the value changes."""

    def __post_init__(self) -> None:
        self.start_value = self.value = np.asarray(self.value, dtype=np.float64)

    def move(self, value: np.ndarray | float, start_s: float, end_s: float) -> None:
        """Go to a value between two times."""
        target = np.asarray(value, dtype=np.float64)
        self.moves.append((start_s, max(end_s, start_s + 1e-3), target - self.value))
        self.value = target

    def at(
        self,
        times_s: Float[np.ndarray, " frames"],
        shape: Callable[[np.ndarray], np.ndarray] = ease,
    ) -> Float[np.ndarray, "frames ..."]:
        """The values at ascending times."""
        out = np.broadcast_to(self.start_value, (len(times_s), *self.start_value.shape)).copy()
        for start_s, end_s, change in self.moves:
            first, last = np.searchsorted(times_s, (start_s, end_s))
            progress = shape((times_s[first:last] - start_s) / (end_s - start_s))
            out[first:last] += progress.reshape(-1, *[1] * change.ndim) * change
            out[last:] += change
        return out


def smooth_noise(
    rng: np.random.Generator, times_s: Float[np.ndarray, " frames"], *, period_s: float, size: int
) -> Float[np.ndarray, "frames size"]:
    """Smooth random curves of about unit deviation that change over about a period."""
    step_s = 0.5 * period_s
    count = int((times_s[-1] - times_s[0]) / step_s) + 4
    knots = times_s[0] + step_s * (np.arange(count) - rng.random())
    return CubicSpline(knots, rng.normal(size=(count, size)))(times_s)


def smooth(
    values: Float[np.ndarray, "frames ..."], deviation_s: float
) -> Float[np.ndarray, "frames ..."]:
    """Gaussian mean over time."""
    return gaussian_filter1d(values, deviation_s * FRAMES_PER_S, axis=0, mode="nearest")


def lower_envelope(
    limit: Float[np.ndarray, " frames"], deviation_s: float
) -> Float[np.ndarray, " frames"]:
    """A smooth curve that is never above the limit: a mean of minima."""
    deviation = deviation_s * FRAMES_PER_S
    half = int(3.0 * deviation + 0.5)
    lowest = minimum_filter1d(limit, 2 * half + 1, mode="nearest")
    return gaussian_filter1d(lowest, deviation, mode="nearest", radius=half)
