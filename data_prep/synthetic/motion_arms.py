"""Arms over time: which hand goes where and when, drawn as poses and joined smoothly."""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from data_prep.synthetic.arms import FREE_ARM, draw_arms
from data_prep.synthetic.draft import Draft, Mixture, outward_sign
from data_prep.synthetic.limits import limit_excess, overlaps
from data_prep.synthetic.motion_curves import Channel, ease, smooth_noise
from data_prep.synthetic.motion_score import Score, Span
from data_prep.synthetic.motion_solve import Carried
from data_prep.synthetic.rotations import rotation_x, rotation_z, shortest_rotation, transposed

NUM_CHOICES = 4
NUM_ATTEMPTS = 5
TOLERATED_FAULT = 12.0
"""What an arm may do wrong on its way: millimetres inside the body, or degrees of limit x 1.7."""
VIAS = ("gesture", "front", "wave", "hang")
"""What arms pass through where the straight way is barred."""
_PHASES = np.linspace(0.08, 0.92, 8)
HANGING = ("hang", "two_swing")
_DOWN = np.array([0.0, 0.0, -1.0])
ARM_BONES = ("clavicle", "upperarm", "hand")

HOLD_S: dict[str, tuple[float, float]] = {
    "gesture": (0.0, 0.9),
    "raise": (0.5, 2.0),
    "wave": (0.0, 0.08),
    "front": (0.6, 3.0),
    "low": (0.4, 1.8),
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
SEATED = {
    "chair": {"hang": "knee", "hip": "front", "two_swing": "knee"},
    "floor": {"hang": "beside", "hip": "shin", "front": "shin"},
}
"""What those who sit do instead."""
LASTING = ("ear", "hip", "hang", "two_swing", "head", "leash", "knee", "behind")
"""An arm that is drawn again under one of these names mostly stays as it is."""


@dataclass(kw_only=True)
class ArmTrack:
    """One arm's joints over time, as an array that moves can add up in."""

    pose: Channel
    """Quaternions of clavicle, upper arm and hand, the elbow's bend, and how much it hangs."""
    name: str = "hang"
    held: list[tuple[float, float, str]] = field(default_factory=list)
    """Start and end in seconds of what the hand was at."""


def plan_arms(
    score: Score,
    carried: Carried,
    times_s: Float[np.ndarray, " frames"],
    mixtures: dict[str, Mixture],
) -> dict[str, ArmTrack]:
    """Draw what both arms do through the whole score.

    Args:
        score: Its spans say what the legs do when.
        carried: The solved trunk and legs, which hands reach from and for.
        times_s: Times of the frames of `carried`.
        mixtures: What arms do by what legs do; "" for all other legs.
    """
    tracks: dict[str, ArmTrack] = {}
    for span in sorted(score.spans, key=lambda s: s.start_s):
        mixture = mixtures.get(span.legs, mixtures[""])
        now = span.start_s
        while now < span.end_s:
            now = _next_key(score, carried, times_s, tracks, span, mixture, now)
    return tracks


def _next_key(
    score: Score,
    carried: Carried,
    times_s: Float[np.ndarray, " frames"],
    tracks: dict[str, ArmTrack],
    span: Span,
    mixture: Mixture,
    now_s: float,
) -> float:
    """Write one move of both arms and how long they stay; returns when that ends."""
    rng, tempo = score.rng, score.style.tempo
    names, values, hold = _draw_key(score, carried, times_s, span, mixture, now_s)
    ends = []
    for side, name in names.items():
        value = values[side]
        if side not in tracks:
            tracks[side] = ArmTrack(pose=Channel(value=value), name=name)
        track = tracks[side]
        if track.name == name and name in LASTING and rng.random() < 0.8:
            ends.append(now_s + 0.5 * tempo)
            continue
        duration = _duration_s(value, track.pose.value, tempo)
        if name == track.name == "wave":
            duration = 0.3 * tempo
        ends.append(_move(score, carried, times_s, track, side, value, now_s, duration))
        track.name = name
    return max(ends) + hold


def _draw_key(
    score: Score,
    carried: Carried,
    times_s: Float[np.ndarray, " frames"],
    span: Span,
    mixture: Mixture,
    now_s: float,
) -> tuple[dict[str, str], dict[str, np.ndarray], float]:
    """What both arms do next, as what, and for how long; without fault if that is easy."""
    tempo = score.style.tempo
    least = math.inf
    for _ in range(NUM_CHOICES):
        names = _choose(score, mixture)
        if span.legs in ("chair", "floor"):
            names = {side: SEATED[span.legs].get(name, name) for side, name in names.items()}
        hold = min(float(score.rng.uniform(*HOLD_S[name])) for name in names.values()) * tempo
        stay = now_s + 0.7 * tempo + hold * np.array([0.0, 0.5, 1.0])
        frames = [_frame(times_s, min(float(time_s), span.end_s)) for time_s in stay]
        values, fault = _key_pose(score, carried, frames, names, span.legs)
        if fault < least:
            best, least = (names, values, hold), fault
        if least <= TOLERATED_FAULT:
            break
    return best


def _frame(times_s: Float[np.ndarray, " frames"], time_s: float) -> int:
    return min(int(np.searchsorted(times_s, time_s)), len(times_s) - 1)


def _move(
    score: Score,
    carried: Carried,
    times_s: Float[np.ndarray, " frames"],
    track: ArmTrack,
    side: str,
    value: Float[np.ndarray, "14"],
    now_s: float,
    duration_s: float,
) -> float:
    """Move an arm on a way that keeps to its limits and off the body; returns when it ends."""
    before = track.pose.value
    frames = [_frame(times_s, now_s + p * duration_s) for p in _PHASES]
    best: np.ndarray | None = None
    least = _way_fault(score, carried, side, frames, before, value)
    for name in VIAS:
        if least <= TOLERATED_FAULT:
            break
        middle = [frames[len(frames) // 2]]
        via = _key_pose(score, carried, middle, {side: name}, "stand")[0][side]
        fault = max(
            _way_fault(score, carried, side, frames, before, via),
            _way_fault(score, carried, side, frames, via, value),
        )
        if fault < least:
            best, least = _same_hemisphere(via, before), fault
    if best is None:
        track.pose.move(_same_hemisphere(value, before), now_s, now_s + duration_s)
        return now_s + duration_s
    tempo = score.style.tempo
    first, second = _duration_s(best, before, tempo), _duration_s(value, best, tempo)
    track.pose.move(best, now_s, now_s + first)
    start = now_s + 0.8 * first  # the two moves flow into one another
    track.pose.move(_same_hemisphere(value, best), start, start + second)
    return start + second


def _way_fault(
    score: Score,
    carried: Carried,
    side: str,
    frames: list[int],
    before: Float[np.ndarray, "14"],
    after: Float[np.ndarray, "14"],
) -> float:
    """How much an arm breaks its limits or enters the body on its way, at worst."""
    pose = before + ease(_PHASES)[:, None] * (_same_hemisphere(after, before) - before)
    return _fault(score, carried, frames, {side: pose})


def _fault(
    score: Score, carried: Carried, frames: list[int], poses: dict[str, np.ndarray]
) -> float:
    """How much arms break their limits or enter body or floor in some frames, at worst."""
    body, root_mm = score.body, carried.root_mm[frames]
    local = {name: turns[frames] for name, turns in carried.local.items()}
    level = _level(score, local, root_mm)
    arms: dict[str, np.ndarray] = {}
    for side, pose in poses.items():
        arms |= _unpack(side, pose, level)
    skeleton = body.pose_frames(local | arms, root_mm)
    found = overlaps(body, skeleton)
    own = [_is_of_arms(pair, tuple(poses)) for pair in found.pairs]
    fault = np.maximum(0.0, found.depth_mm[:, own].max(axis=1) - 6.0) + 100.0 * limit_excess(arms)
    for side in poses:
        fault = fault + np.maximum(0.0, -body.hand_height_mm(skeleton, side))
    return float(fault.max())


def _is_of_arms(pair: tuple[str, str], sides: tuple[str, ...]) -> bool:
    """Whether a pair of limbs has an arm of these sides, and no arm of another."""
    arms = {limb[0] for limb in pair if limb.endswith(("arm", "hand"))}
    return bool(arms) and arms <= set(sides)


def _choose(score: Score, mixture: Mixture) -> dict[str, str]:
    """Draw what the left and the right arm do."""
    draft = Draft(body=score.body, rng=score.rng)
    name = draft.choose(mixture)
    busy = score.style.hand
    free = "r" if busy == "l" else "l"
    if name.startswith("two_"):
        return {"l": name, "r": name}
    if name.startswith("one:"):
        return {busy: name.removeprefix("one:"), free: draft.choose(FREE_ARM)}
    other = name if score.rng.random() < 0.7 else draft.choose(mixture)
    return {busy: name, free: name if other.startswith(("two_", "one:")) else other}


def _key_pose(
    score: Score,
    carried: Carried,
    frames: list[int],
    names: dict[str, str],
    legs: str,
) -> tuple[dict[str, Float[np.ndarray, "14"]], float]:
    """Draw arms for some frames, as free of faults in them as a few attempts allow; with those."""
    frame = frames[len(frames) // 2]
    own = {name: turns[frame] for name, turns in carried.local.items()}
    own["pelvis"] = rotation_z(-carried.heading_rad[frame]) @ own["pelvis"]
    plain = {s: "hang" if n in HANGING else n for s, n in names.items()}
    best: dict[str, np.ndarray] = {}
    least = math.inf
    for _ in range(NUM_ATTEMPTS):
        draft = Draft(body=score.body, rng=score.rng, local=dict(own), legs=legs)
        draw_arms(draft, (plain.get("l", "hang"), plain.get("r", "hang")))
        values = {side: _pack(draft.local, side, name) for side, name in names.items()}
        poses = {side: np.tile(value, (len(frames), 1)) for side, value in values.items()}
        fault = _fault(score, carried, frames, poses)
        if fault < least:
            best, least = values, fault
        if least == 0.0:
            break
    return best, least


def _pack(local: dict[str, np.ndarray], side: str, name: str) -> Float[np.ndarray, "14"]:
    turns = [local.get(f"{side}_{bone}", np.eye(3)) for bone in ARM_BONES]
    if name in HANGING:  # kept as it would be on an upright trunk
        trunk = local["pelvis"] @ local["spine"] @ local["chest"]
        turns[1] = shortest_rotation(_DOWN, trunk.T @ _DOWN).T @ turns[1]
    quaternions = Rotation.from_matrix(np.stack(turns)).as_quat().ravel()
    fore = local[f"{side}_forearm"]
    bend = math.atan2(-fore[2, 1], fore[1, 1])
    is_hanging = float(name in HANGING)
    return np.concatenate([quaternions, [bend, is_hanging]])


def _same_hemisphere(value: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The same rotations with the quaternions' signs nearest to those before."""
    out = value.copy()
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        if out[part] @ before[part] < 0:
            out[part] *= -1.0
    return out


def _duration_s(value: np.ndarray, before: np.ndarray, tempo: float) -> float:
    """How long a move takes that turns the upper arm or the elbow so far."""
    cosine = min(1.0, abs(float(value[4:8] @ before[4:8])))
    angle = max(2.0 * math.acos(cosine), abs(float(value[12] - before[12])))
    return float(np.clip(0.3 + angle / 3.4, 0.32, 1.3)) * tempo


def arm_rotations(
    score: Score,
    carried: Carried,
    tracks: dict[str, ArmTrack],
    times_s: Float[np.ndarray, " frames"],
    *,
    rng: np.random.Generator,
) -> dict[str, Float[np.ndarray, "frames 3 3"]]:
    """Local rotations of both arms in every frame; hanging arms swing against the legs."""
    local: dict[str, np.ndarray] = {}
    level = _level(score, carried.local, carried.root_mm)
    for side, track in tracks.items():
        pose = track.pose.at(times_s)
        noise = smooth_noise(rng, times_s, period_s=1.4, size=3) * np.radians(1.2)
        swing = outward_sign(side) * score.style.swing_rad * carried.stride
        swing *= 0.15 + 0.85 * pose[:, 13]
        noise[:, 0] += swing
        noise[:, 2] += 0.5 * np.maximum(0.0, -swing)
        local |= _unpack(side, pose, level, noise)
    return local


def _level(
    score: Score, local: dict[str, np.ndarray], root_mm: Float[np.ndarray, "frames 3"]
) -> Float[np.ndarray, "frames 3"]:
    """Rotation vector that turns the chest's down to where gravity pulls."""
    index = score.body.index["chest"]
    chest = score.body.pose_frames(local, root_mm).rotations[:, index]
    return Rotation.from_matrix(shortest_rotation(_DOWN, transposed(chest) @ _DOWN)).as_rotvec()


def _unpack(
    side: str,
    pose: Float[np.ndarray, "frames 14"],
    level: Float[np.ndarray, "frames 3"],
    more_rad: Float[np.ndarray, "frames 3"] | None = None,
) -> dict[str, Float[np.ndarray, "frames 3 3"]]:
    """Local rotations of an arm; `more_rad` swings and twists the upper arm and bends the elbow."""
    clavicle, upperarm, hand = (
        Rotation.from_quat(pose[:, 4 * i : 4 * i + 4]).as_matrix() for i in range(3)
    )
    more = np.zeros((len(pose), 3)) if more_rad is None else more_rad
    hung = Rotation.from_rotvec(level * pose[:, 13:14]).as_matrix()
    return {
        f"{side}_clavicle": clavicle,
        f"{side}_upperarm": hung @ rotation_x(more[:, 0]) @ rotation_z(more[:, 1]) @ upperarm,
        f"{side}_forearm": rotation_x(-np.clip(pose[:, 12] + more[:, 2], 0.02, 2.55)),
        f"{side}_hand": hand,
    }
