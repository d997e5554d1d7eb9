"""What a motion will do, written down as moves of its root, trunk, legs and feet over time.

Headings turn about z; 0 faces towards -y. Lengths are millimetres, times seconds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from data_prep.synthetic.body import STANDARD_LEG_MM, Body
from data_prep.synthetic.draft import outward_sign
from data_prep.synthetic.motion import Seat
from data_prep.synthetic.motion_curves import Channel, ease
from data_prep.synthetic.motion_steps import FootTrack, foot_of
from data_prep.synthetic.motion_style import Style

SIDES = ("l", "r")
TRUNK = ("spine", "chest", "neck", "head")
AREA_CENTRE_MM = np.array([0.0, 250.0])
AREA_HALF_MM = np.array([1000.0, 1250.0])
"""The ellipse in which people stand: where Human3.6M's four cameras see them from head to toe."""

TURN_MM = 450.0
"""Bends of about this radius slow people down."""
CLEARANCE_MM = 108.0
"""How far ankles stay apart sideways when one passes the other, on legs of 850 mm."""

Stance = dict[str, tuple[float, float, float]]
"""Per foot: outward and forward from the root, and toes outward (radians)."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time and what the legs do in it."""

    start_s: float
    end_s: float
    legs: str


def in_area(point_mm: Float[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
    """The point, or the one at the area's rim where it lies outside."""
    out = (point_mm - AREA_CENTRE_MM) / AREA_HALF_MM
    return AREA_CENTRE_MM + AREA_HALF_MM * out / max(1.0, float(np.hypot(*out)))


@dataclass(kw_only=True)
class Score:
    """Moves written so far; `now_s` is where the next ones begin."""

    body: Body
    rng: np.random.Generator
    style: Style
    now_s: float = 0.0
    roots: list[tuple[float, float, Callable[[np.ndarray], np.ndarray]]] = field(
        default_factory=list
    )
    place: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """x, y and heading where the moves so far end."""
    start_place: np.ndarray = field(init=False)
    channels: dict[str, Channel] = field(init=False)
    feet: dict[str, FootTrack] = field(init=False, default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    seat: Seat | None = None

    def __post_init__(self) -> None:
        self.start_place = self.place
        values: dict[str, np.ndarray | float] = {name: np.zeros(3) for name in TRUNK}
        values |= {f"{name}_turn": np.zeros(3) for name in TRUNK}
        values |= {"pelvis": np.array([self.style.lean_rad, 0.0, 0.0]), "offset": np.zeros(2)}
        values |= {"height": self.standing_mm(self.style.extension), "shift": 0.0, "load": 1.0}
        values |= {"l_knee": 0.0, "r_knee": 0.0}
        self.channels = {n: Channel(value=np.asarray(value)) for n, value in values.items()}
        foot = foot_of(self.body)
        stance = self.stance()
        for side in SIDES:
            place = self.foot_place(side, stance[side])
            self.feet[side] = FootTrack(
                foot=foot, place=Channel(value=place), pitch=Channel(value=np.zeros(()))
            )

    # Sizes

    @property
    def leg_mm(self) -> float:
        """Length of a straight leg."""
        return self.body.leg_mm

    def standing_mm(self, extension: float) -> float:
        """Height of the pelvis over straight legs times an extension."""
        hip = self.body.offsets_mm[self.body.index["l_thigh"], 2]
        return float(self.body.ankle_height_mm + extension * self.leg_mm - hip)

    def uniform(self, low: float, high: float) -> float:
        """A number between two."""
        return float(self.rng.uniform(low, high))

    def degrees(self, low: float, high: float) -> float:
        """An angle between two in degrees, returned in radians."""
        return math.radians(self.uniform(low, high))

    # Moves

    def move(self, name: str, value: np.ndarray | float, start_s: float, duration_s: float) -> None:
        """Move a channel; the start counts from now."""
        start = self.now_s + start_s
        self.channels[name].move(value, start, start + duration_s)

    def lean(self, pelvis_deg: float, spine_deg: float, start_s: float, duration_s: float) -> None:
        """Bend pelvis and spine forward; the head looks up against it."""
        half = math.radians(0.5 * spine_deg)
        back = math.radians(min(35.0, 0.4 * max(0.0, pelvis_deg + spine_deg)))
        pelvis = self.style.lean_rad + math.radians(pelvis_deg)
        turns = {"pelvis": pelvis, "spine": half, "chest": half, "neck": -back}
        for name, flexion in turns.items():
            value = self.channels[name].value.copy()
            value[0] = flexion
            self.move(name, value, start_s, duration_s)

    def advance(self, duration_s: float) -> None:
        """Go on in time."""
        self.now_s += duration_s

    def span(self, start_s: float, legs: str) -> None:
        """Say what the legs did from a time until now."""
        if self.now_s > start_s:
            self.spans.append(Span(start_s=start_s, end_s=self.now_s, legs=legs))

    # Feet

    def stance(self, *, width: float = 1.0, stagger_mm: float = 60.0) -> Stance:
        """Draw a way to stand."""
        stagger = self.uniform(-stagger_mm, stagger_mm)
        half = width * self.style.half_width_mm
        return {
            side: (
                half + self.uniform(-15.0, 25.0),
                outward_sign(side) * stagger,
                self.style.toe_out_rad + self.degrees(-4.0, 8.0),
            )
            for side in SIDES
        }

    def foot_place(
        self,
        side: str,
        offset: tuple[float, float, float],
        place: Float[np.ndarray, "3"] | None = None,
    ) -> Float[np.ndarray, "5"]:
        """A flat foot beside a root place: x, y, height, yaw, roll."""
        x, y, heading = self.place if place is None else place
        outward = outward_sign(side)
        left, forward = outward * offset[0], offset[1]
        c, s = math.cos(heading), math.sin(heading)
        return np.array(
            [
                x + c * left + s * forward,
                y + s * left - c * forward,
                0.0,
                heading + outward * offset[2],
                0.0,
            ]
        )

    def step_to(
        self, place: Float[np.ndarray, "3"], *, stance: Stance | None = None, pace: float = 1.15
    ) -> None:
        """Move the root to a place nearby and turn, with as many steps as that takes."""
        way = np.hypot(*(place[:2] - self.place[:2]))
        turn = abs(place[2] - self.place[2])
        num_steps = max(2, math.ceil(turn / math.radians(38.0)), math.ceil(way / 330.0))
        duration = num_steps * self.style.step_s * pace
        start, before = self.now_s, self.place
        self.roots.append((start, start + duration, _eased(before, place, start, duration)))
        first = "l" if self._is_left_first(place) else "r"
        self.place = place
        self._steps(duration, num_steps, first=first, stance=stance or self.stance())
        self.advance(duration)

    def _is_left_first(self, place: Float[np.ndarray, "3"]) -> bool:
        turn = place[2] - self.place[2]
        if abs(turn) > 0.3:
            return bool(turn > 0)
        c, s = math.cos(self.place[2]), math.sin(self.place[2])
        left = c * (place[0] - self.place[0]) + s * (place[1] - self.place[1])
        return bool(left > 0)

    def walk(self, points_mm: Float[np.ndarray, "points 2"], *, speed: float = 1.0) -> None:
        """Walk along a smooth curve through points, from where one stands."""
        points = np.concatenate([self.place[None, :2], points_mm])
        chords = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        curve = CubicSpline(chords, points)
        dense = np.linspace(0.0, chords[-1], max(50, int(chords[-1] / 10.0)))
        way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(curve(dense), axis=0).T))])
        velocity = curve(dense, 1)
        headings = np.unwrap(np.arctan2(velocity[:, 0], -velocity[:, 1]))
        headings += 2.0 * math.pi * np.round((self.place[2] - headings[0]) / (2.0 * math.pi))
        if abs(headings[0] - self.place[2]) > math.radians(50.0):
            self.step_to(np.append(self.place[:2], headings[0]))
        pace = speed * self.style.step_mm / self.style.step_s
        bend = np.abs(np.gradient(headings, way))
        slowness = np.sqrt(1.0 + (TURN_MM * bend) ** 2) / pace
        arrival = np.concatenate(
            [[0.0], np.cumsum(0.5 * (slowness[1:] + slowness[:-1]) * np.diff(way))]
        )
        ramp = min(0.9, arrival[-1])
        duration = arrival[-1] + ramp
        num_steps = max(2, round(duration / self.style.step_s))
        clock = np.linspace(0.0, duration, int(200 * duration) + 2)
        haste = ease(clock / ramp) * ease((duration - clock) / ramp)
        progress = np.cumsum(haste) - haste[0]
        along = np.interp(progress / progress[-1] * arrival[-1], arrival, dense)
        turn_off = self.place[2] - headings[0]
        start = self.now_s

        def root(times: np.ndarray) -> np.ndarray:
            u = np.interp(times - start, clock, along)
            heading = np.interp(u, dense, headings) + turn_off * (1.0 - ease((times - start) / 0.9))
            return np.concatenate([curve(u), heading[:, None]], axis=1)

        self.roots.append((start, start + duration, root))
        self.place = root(np.array([start + duration]))[0]
        first = "l" if self.rng.random() < 0.5 else "r"
        self._steps(duration, num_steps, first=first, stance=self.stance())
        self.advance(duration)

    def _steps(self, duration_s: float, num_steps: int, *, first: str, stance: Stance) -> None:
        """Write the swings that follow the root's newest move."""
        start_s, _, root = self.roots[-1]
        step_s = duration_s / num_steps
        sides = (first, "r" if first == "l" else "l")
        size = self.leg_mm / STANDARD_LEG_MM
        narrow = (0.3 * self.style.half_width_mm + 28.0 * size, 0.0, 0.6 * self.style.toe_out_rad)
        for i in range(num_steps):
            side = sides[i % 2]
            lift_s, land_s = start_s + (i + 0.1) * step_s, start_s + (i + 0.9) * step_s
            if i >= num_steps - 2:
                target = self.foot_place(side, stance[side])
            else:
                middle = root(np.array([start_s + (i + 1.5) * step_s]))[0]
                target = self.foot_place(side, narrow, middle)
            self._swing(side, target, lift_s, land_s)

    def _swing(
        self, side: str, target: Float[np.ndarray, "5"], lift_s: float, land_s: float
    ) -> None:
        """Swing a foot past the other one, which stands."""
        size = self.leg_mm / STANDARD_LEG_MM
        track, other = self.feet[side], self.feet["r" if side == "l" else "l"].place.value
        before, heading = track.place.value, self.root_at(np.array([0.5 * (lift_s + land_s)]))[0, 2]
        outward = outward_sign(side) * np.array([math.cos(heading), math.sin(heading)])
        target = target.copy()
        apart = float((target[:2] - other[:2]) @ outward)
        inward = outward_sign(side) * (other[3] - target[3])  # toes that point at the other foot
        clearance = size * (CLEARANCE_MM + 140.0 * math.sin(min(1.2, max(0.0, inward))))
        target[:2] += max(0.0, clearance - apart) * outward
        way = target[:2] - before[:2]
        length = float(np.hypot(*way))
        at = float(np.clip((other[:2] - before[:2]) @ way / max(length, 1.0) ** 2, 0.15, 0.85))
        apart = float((before[:2] + at * way - other[:2]) @ outward)
        aside = max(0.0, clearance - apart) * outward
        roll = math.radians(42.0) * min(1.0, max(0.0, length / size - 150.0) / 850.0)
        lift = size * (25.0 + 15.0 * min(1.0, length / 600.0))
        track.step(target, lift_s, land_s, lift_mm=lift, roll_rad=roll, aside_mm=aside)

    def root_at(self, times_s: Float[np.ndarray, " frames"]) -> Float[np.ndarray, "frames 3"]:
        """x, y and heading of the root."""
        out = np.broadcast_to(self.start_place, (len(times_s), 3)).copy()
        for start_s, end_s, root in self.roots:
            first = int(np.searchsorted(times_s, start_s))
            out[first:] = root(np.minimum(times_s[first:], end_s))
        return out


def _eased(
    before: Float[np.ndarray, "3"], after: Float[np.ndarray, "3"], start_s: float, duration_s: float
) -> Callable[[np.ndarray], np.ndarray]:
    def root(times: np.ndarray) -> np.ndarray:
        return before + ease((times - start_s) / duration_s)[:, None] * (after - before)

    return root
