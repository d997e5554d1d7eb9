"""Continuous motion of one body in a room, and the seat it may need."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True, eq=False)
class Seat:
    """A box somebody sits on, in the room."""

    centre_mm: Float[np.ndarray, "2"]
    """x, y of its middle."""
    size_mm: Float[np.ndarray, "3"]
    """Width (across the sitter), depth, height."""
    heading_rad: float
    """Direction the sitter faces, about z; 0 is towards -y."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Continuous motion of one body in a room: z up, floor at z = 0, room's middle at x = y = 0."""

    local: dict[str, Float[np.ndarray, "frames 3 3"]]
    """Rotation per bone in its parent's frame, as `Body.pose_frames` takes them; the pelvis's is
    its orientation in the room."""
    root_mm: Float[np.ndarray, "frames 3"]
    """The pelvis in the room."""
    frames_per_s: float
    seat: Seat | None
    source: str
    """Where it comes from, such as "motion model, Walking 1" or "cmu 02_01"."""

    @property
    def num_frames(self) -> int:
        """How many frames there are."""
        return len(self.root_mm)
