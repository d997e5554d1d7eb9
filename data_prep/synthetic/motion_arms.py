"""Arms over time: which hand goes where and when, drawn as poses and joined smoothly."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.arms import FREE_ARM
from data_prep.synthetic.draft import Mixture, choose, outward_sign
from data_prep.synthetic.motion_arm_poses import (
    WAY_PHASES,
    ArmJudge,
    ArmPose,
    nearest_sign,
    turn_between,
    unpack,
)
from data_prep.synthetic.motion_curves import Channel, smooth_noise
from data_prep.synthetic.motion_score import Score, Span
from data_prep.synthetic.motion_solve import Carried

HOLD_S: dict[str, tuple[float, float]] = {
    "gesture": (0.0, 0.9),
    "raise": (0.5, 2.0),
    "wave": (0.0, 0.08),
    "front": (0.6, 3.0),
    "low": (0.4, 1.8),
    "pick": (0.4, 1.8),
    "mouth": (0.6, 2.2),
    "ear": (4.0, 12.0),
    "head": (1.5, 5.0),
    "two_head": (1.5, 5.0),
    "hip": (2.0, 7.0),
    "knee": (2.0, 8.0),
    "behind": (2.0, 8.0),
    "beside": (2.0, 8.0),
    "shin": (2.0, 7.0),
    "leash": (0.3, 1.6),
    "camera": (1.5, 5.0),
    "two_camera": (1.5, 6.0),
    "two_crossed": (3.0, 9.0),
    "hang": (1.5, 6.0),
    "two_swing": (4.0, 12.0),
}
"""How long a hand stays, from and to."""
LASTING = ("ear", "hip", "hang", "two_swing", "head", "leash", "knee", "behind", "beside", "shin")
"""An arm that is drawn again under one of these names mostly stays as it is."""
SEATED = {
    "chair": {"hang": "knee", "hip": "front", "two_swing": "knee"},
    "floor": {"hang": "beside", "hip": "shin", "front": "shin"},
}
"""What those who sit do instead."""
VIAS = ("gesture", "front", "wave", "hang")
"""What arms pass through where the straight way is barred."""
TOLERATED_FAULT = 12.0
"""What arms may do wrong: millimetres inside the body, or hundredths of a radian of limit."""
NUM_CHOICES = 4
SHORT_HOLD_S = 0.25
"""How long arms stay where nothing better than a faulty pose was found."""


@dataclass(kw_only=True)
class ArmTrack:
    """One arm over time."""

    pose: Channel
    """Moves of an `ArmPose`."""
    name: str
    """What the hand is at."""


@dataclass(kw_only=True)
class ArmPlan:
    """What both arms do through a whole score, written key by key.

    Attributes:
        score: Its spans say what the legs do when.
        times_s: Times of the frames that the judge knows.
        judge: Draws poses on the solved trunk and legs.
        tracks: What is written so far.
    """

    score: Score
    times_s: Float[np.ndarray, " frames"]
    judge: ArmJudge
    tracks: dict[str, ArmTrack]

    def write(self, mixtures: dict[str, Mixture]) -> None:
        """Write all keys; mixtures by what legs do, "" for all other legs."""
        for span in sorted(self.score.spans, key=lambda span: span.start_s):
            mixture = mixtures.get(span.legs, mixtures[""])
            now_s = span.start_s
            while now_s < span.end_s:
                now_s = self._write_key(span, mixture, now_s)

    def _write_key(self, span: Span, mixture: Mixture, now_s: float) -> float:
        """Write one move of both arms and how long they stay; returns when that ends."""
        tempo, least = self.score.style.tempo, math.inf
        for _ in range(NUM_CHOICES):
            drawn = self._choose(mixture, span.legs)
            stay_s = min(float(self.score.rng.uniform(*HOLD_S[name])) for name in drawn.values())
            stay = now_s + tempo * (0.7 + stay_s * np.array([0.0, 0.5, 1.0]))
            during = self._frames(np.minimum(stay, span.end_s))
            found, fault = self.judge.draw(during, drawn)
            if fault < least:
                least, names, poses, hold_s, frames = fault, drawn, found, tempo * stay_s, during
            if least <= TOLERATED_FAULT:
                break
        if least > TOLERATED_FAULT:
            hold_s = SHORT_HOLD_S
        ends = [self._move_arm(side, names[side], poses[side], frames, now_s) for side in names]
        return max(ends) + hold_s

    def _move_arm(
        self, side: str, name: str, pose: ArmPose, frames: list[int], now_s: float
    ) -> float:
        """Move an arm, or let it stay as it is; returns when the move ends."""
        if side not in self.tracks:
            self.tracks[side] = ArmTrack(pose=Channel(value=pose), name=name)
        track, tempo = self.tracks[side], self.score.style.tempo
        may_stay = track.name == name and name in LASTING and self.score.rng.random() < 0.8
        if may_stay and self.judge.fault(frames, {side: track.pose.value}) <= TOLERATED_FAULT:
            return now_s + 0.5 * tempo
        is_waving = name == track.name == "wave"
        duration = 0.3 * tempo if is_waving else self._duration_s(pose, track.pose.value)
        track.name = name
        return self._go(track, side, pose, now_s, duration)

    def _go(
        self, track: ArmTrack, side: str, pose: ArmPose, now_s: float, duration_s: float
    ) -> float:
        """Move an arm on a way that keeps to its limits and off the body; returns when it ends."""
        before = track.pose.value
        frames = self._frames(now_s + WAY_PHASES * duration_s)
        best: ArmPose | None = None
        least = self.judge.way_fault(side, frames, before, pose)
        for name in VIAS:
            if least <= TOLERATED_FAULT:
                break
            via = self.judge.draw([frames[len(frames) // 2]], {side: name})[0][side]
            fault = max(
                self.judge.way_fault(side, frames, before, via),
                self.judge.way_fault(side, frames, via, pose),
            )
            if fault < least:
                best, least = nearest_sign(via, before), fault
        if best is None:
            track.pose.move(nearest_sign(pose, before), now_s, now_s + duration_s)
            return now_s + duration_s
        first, second = self._duration_s(best, before), self._duration_s(pose, best)
        track.pose.move(best, now_s, now_s + first)
        start_s = now_s + 0.8 * first  # the two moves flow into one another
        track.pose.move(nearest_sign(pose, best), start_s, start_s + second)
        return start_s + second

    def _choose(self, mixture: Mixture, legs: str) -> dict[str, str]:
        """Draw what the left and the right arm do."""
        rng, busy = self.score.rng, self.score.style.hand
        name = choose(mixture, rng)
        free = "r" if busy == "l" else "l"
        if name.startswith("two_"):
            names = {"l": name, "r": name}
        elif name.startswith("one:"):
            names = {busy: name.removeprefix("one:"), free: choose(FREE_ARM, rng)}
        else:
            other = name if rng.random() < 0.7 else choose(mixture, rng)
            names = {busy: name, free: name if other.startswith(("two_", "one:")) else other}
        return {side: SEATED.get(legs, {}).get(name, name) for side, name in names.items()}

    def _duration_s(self, pose: ArmPose, before: ArmPose) -> float:
        """How long a move takes."""
        seconds = 0.3 + turn_between(pose, before) / 3.4
        return float(np.clip(seconds, 0.32, 1.3)) * self.score.style.tempo

    def _frames(self, times_s: Float[np.ndarray, " times"]) -> list[int]:
        """Numbers of the frames at some times, the last one for those after it."""
        frames = np.searchsorted(self.times_s, times_s)
        return [int(frame) for frame in np.minimum(frames, len(self.times_s) - 1)]


def draw_arm_motion(
    score: Score,
    carried: Carried,
    times_s: Float[np.ndarray, " frames"],
    mixtures: dict[str, Mixture],
    *,
    rng: np.random.Generator,
) -> dict[str, Float[np.ndarray, "frames 3 3"]]:
    """Local rotations of both arms in every frame; hanging arms swing against the legs.

    Args:
        score: What the legs do when.
        carried: The solved trunk and legs, which hands reach from and for.
        times_s: Times of the frames of `carried`.
        mixtures: What arms do by what legs do; "" for all other legs.
        rng: All randomness besides the score's comes from here.
    """
    judge = ArmJudge(body=score.body, carried=carried, rng=score.rng)
    plan = ArmPlan(score=score, times_s=times_s, judge=judge, tracks={})
    plan.write(mixtures)
    local: dict[str, np.ndarray] = {}
    for side, track in plan.tracks.items():
        pose = track.pose.at(times_s)
        more = smooth_noise(rng, times_s, period_s=1.4, size=3) * np.radians(1.2)
        swing = outward_sign(side) * score.style.swing_rad * carried.stride
        swing *= 0.15 + 0.85 * pose[:, 13]
        more += np.stack([swing, 0.0 * swing, 0.5 * np.maximum(0.0, -swing)], axis=1)
        local |= unpack(side, pose, judge.level, more)
    return local
