"""Where the feet are: planted, or on their way to the next place; heels rise and strike."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.body import Body
from data_prep.synthetic.motion_curves import Channel, bump, ease
from data_prep.synthetic.rotations import apply, rotation_x, rotation_y, rotation_z


@dataclass(frozen=True, kw_only=True)
class Foot:
    """The sole of a shape, from the ankle."""

    ankle_mm: float
    """Height of the ankle over the sole."""
    toe_mm: float
    """How far the tip of the toes is in front of the ankle."""
    heel_mm: float
    """How far the heel is behind the ankle."""


def foot_of(body: Body) -> Foot:
    """Measure the sole of a body."""
    bone = body.index["l_foot"]
    vertices = body.rest_vertices_mm[body.model.weights[:, bone] > 0.5]
    forward = vertices[:, 1] - body.rest_heads_mm[bone, 1]
    is_sole = vertices[:, 2] < vertices[:, 2].min() + 15.0
    return Foot(
        ankle_mm=body.ankle_height_mm,
        toe_mm=float(-forward[is_sole].min()),
        heel_mm=float(forward[is_sole].max()),
    )


@dataclass(kw_only=True)
class FootTrack:
    """One foot over time."""

    foot: Foot
    place: Channel
    """x, y of the ankle above the flat sole, height of the sole, yaw, roll."""
    pitch: Channel
    """Turn about the tip of the toes (> 0, heel up) or about the heel (< 0), radians."""
    lifts: list[tuple[float, float, np.ndarray]] = field(default_factory=list)
    """Start and end of each swing in seconds, and how far it leaves the straight way (x, y, z)."""

    def step(
        self,
        place: Float[np.ndarray, "5"],
        start_s: float,
        end_s: float,
        *,
        lift_mm: float,
        roll_rad: float = 0.0,
        aside_mm: Float[np.ndarray, "2"] | None = None,
    ) -> None:
        """Swing the foot to a place; `roll_rad` is how far the heel rises before."""
        self.place.move(place, start_s, end_s)
        aside = np.zeros(2) if aside_mm is None else aside_mm
        self.lifts.append((start_s, end_s, np.append(aside, lift_mm)))
        if roll_rad > 0.0:
            length_s = end_s - start_s
            self.pitch.move(roll_rad, start_s - 0.6 * length_s, start_s + 0.15 * length_s)
            self.pitch.move(-0.4 * roll_rad, start_s + 0.15 * length_s, end_s)
            self.pitch.move(0.0, end_s, end_s + 0.3 * length_s)

    def swings(self, times_s: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
        """1 where the foot is in the air, else 0."""
        flying = np.zeros(len(times_s))
        for start_s, end_s, _ in self.lifts:
            first, last = np.searchsorted(times_s, (start_s, end_s))
            flying[first:last] = 1.0
        return flying

    def at(
        self, times_s: Float[np.ndarray, " frames"]
    ) -> tuple[Float[np.ndarray, "frames 3"], Float[np.ndarray, "frames 3 3"]]:
        """Ankle in the room and the foot's orientation."""
        place = self.place.at(times_s, _stride)
        pitch = self.pitch.at(times_s)
        turn = rotation_z(place[:, 3]) @ rotation_y(place[:, 4]) @ rotation_x(pitch)
        foot = self.foot
        pivot = np.zeros((len(times_s), 3))
        pivot[:, 1] = np.where(pitch > 0, -foot.toe_mm, foot.heel_mm)
        pivot[:, 2] = -foot.ankle_mm
        flat = rotation_z(place[:, 3])
        ankle = place[:, :3] + apply(flat, pivot) - apply(turn, pivot)
        ankle[:, 2] += foot.ankle_mm
        for start_s, end_s, lift in self.lifts:
            first, last = np.searchsorted(times_s, (start_s, end_s))
            phase = (times_s[first:last] - start_s) / (end_s - start_s)
            ankle[first:last] += bump(phase)[:, None] * lift
        return ankle, turn


def _stride(phase: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """A foot's way: faster at both ends than the least jerk, as a swinging leg is."""
    p = np.clip(phase, 0.0, 1.0)
    return 0.5 * (ease(p) + p * p * (3.0 - 2.0 * p))
