"""Clips of motion capture in one form, chosen by name, by action and by where their feet are."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from data_prep.synthetic.rotations import dot, unit
from pose3d.geometry.skeleton import HUMAN36M_17

Joints = Float[np.ndarray, "frames 17 3"]

ANKLE_HEIGHT_PER_LEG = 0.0875
"""Height of a standing ankle above the floor in lengths of thigh and shank together; that of the
synthetic body, within 6 % for every shape."""
RAISED_PER_LEG = 0.12
"""An ankle this many leg lengths above its standing height is in the air."""
LONGEST_FLIGHT_S = 0.7
"""Both feet are off the floor for longer than that only where they stand on something else."""
MOST_RAISED_SHARE = 0.05
"""Clips with more of their frames off the floor stand on things that are not there."""
MOST_BACKWARD_SHARE = 0.3
LEAST_DURATION_S = 0.9
MOST_MM_PER_S = 10500.0
"""Boxers' wrists and footballers' feet stay below that against the pelvis."""
MOST_USUAL_MM_PER_S = 7000.0
"""Whoever is as fast in every tenth frame is a fault of the recording."""

_HIPS = [HUMAN36M_17.index(name) for name in ("R_Hip", "L_Hip")]
_KNEES = [HUMAN36M_17.index(name) for name in ("R_Knee", "L_Knee")]
ANKLES = [HUMAN36M_17.index(name) for name in ("R_Ankle", "L_Ankle")]
"""Right and left ankle among the joints."""
_SHOULDERS = [HUMAN36M_17.index(name) for name in ("R_Shoulder", "L_Shoulder")]
_ELBOWS = [HUMAN36M_17.index(name) for name in ("R_Elbow", "L_Elbow")]
_WRISTS = [HUMAN36M_17.index(name) for name in ("R_Wrist", "L_Wrist")]
_NECK = HUMAN36M_17.index("Neck")


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """One recording: joints of one person in a room.

    The pelvis is the middle of the hips and, in files of rigs, the neck that of the shoulders;
    where the other joints come from is said in `mocap_rigs`.
    """

    joints_mm: Joints
    """Joints of `HUMAN36M_17`, z up, floor at z = 0, millimetres."""
    frames_per_s: float
    name: str
    action: str
    subject: str
    """Who moves."""
    rig: str
    """Clips of one rig define their joints in the same way."""
    recording: str
    """Name of the recording that the clip is a piece of; its own where it is whole."""
    upright_mm: Float[np.ndarray, "17 3"] | None = None
    """Mean stance of the rig in upright frames: x to the left, y backward, z up from the pelvis;
    None where the rig never stands, or where its joints are the synthetic body's own."""

    @property
    def num_frames(self) -> int:
        """How many frames there are."""
        return len(self.joints_mm)

    @property
    def duration_s(self) -> float:
        """From the first frame to the last, seconds."""
        return (self.num_frames - 1) / self.frames_per_s

    @cached_property
    def leg_mm(self) -> float:
        """Length of thigh and shank together; the median over frames, the mean of both legs."""
        return leg_length_mm(self.joints_mm)

    @cached_property
    def raised_share(self) -> float:
        """Share of the frames in which both feet are off the floor for longer than a jump lasts.

        Who climbs, or sits with dangling legs, stands on something that an empty room has not.
        """
        lowest = self.joints_mm[:, ANKLES, 2].min(axis=1) / self.leg_mm
        is_raised = lowest > ANKLE_HEIGHT_PER_LEG + RAISED_PER_LEG
        lengths = [stop - start for start, stop in stretches(is_raised)]
        longest = LONGEST_FLIGHT_S * self.frames_per_s
        return sum(length for length in lengths if length > longest) / self.num_frames

    @cached_property
    def speeds_mm_per_s(self) -> Float[np.ndarray, " steps"]:
        """Speed of the fastest joint against the pelvis, over steps of about 1/12 s."""
        step = max(1, round(self.frames_per_s / 12.0))
        relative = self.joints_mm - self.joints_mm[:, :1]
        moved = np.linalg.norm(relative[step:] - relative[:-step], axis=-1)
        return moved.max(axis=1) * self.frames_per_s / step

    @cached_property
    def backward_elbow_share(self) -> float:
        """Share of the frames in which an elbow is bent the wrong way: it points forward, and the
        wrist is behind the shoulder. Some recordings have their arms turned so throughout.
        """
        is_backward = np.zeros(self.num_frames, bool)
        across = self.joints_mm[:, _SHOULDERS[1]] - self.joints_mm[:, _SHOULDERS[0]]
        front = unit(np.cross(across, self.joints_mm[:, _NECK] - self.joints_mm[:, 0]))
        for shoulder, elbow, wrist in zip(_SHOULDERS, _ELBOWS, _WRISTS, strict=True):
            reach = self.joints_mm[:, wrist] - self.joints_mm[:, shoulder]
            bend = self.joints_mm[:, elbow] - self.joints_mm[:, shoulder] - reach / 2
            is_backward |= (dot(front, bend) > 50.0) & (dot(front, reach) < -50.0)
        return float(is_backward.mean())

    def fault(
        self,
        *,
        most_raised_share: float = MOST_RAISED_SHARE,
        least_duration_s: float = LEAST_DURATION_S,
    ) -> str | None:
        """Why the clip cannot be shown in an empty room with a floor; None where it can.

        It is too short, its feet are off the floor for long, its elbows bend the wrong way, or a
        limb is faster than people are (a damaged recording, or a pirouette too fast for its rate).
        """
        if self.duration_s < least_duration_s:
            return f"lasts {self.duration_s:.2f} s, less than {least_duration_s} s"
        if self.raised_share > most_raised_share:
            return f"has its feet off the floor in {self.raised_share:.0%} of its frames"
        if self.backward_elbow_share > MOST_BACKWARD_SHARE:
            return f"bends an elbow backward in {self.backward_elbow_share:.0%} of its frames"
        fastest, usual = np.percentile(np.append(self.speeds_mm_per_s, 0.0), (100, 90))
        if fastest > MOST_MM_PER_S or usual > MOST_USUAL_MM_PER_S:
            return f"moves a joint at {fastest / 1e3:.1f} m/s, and often at {usual / 1e3:.1f} m/s"
        return None

    def piece(self, start: int, stop: int, number: int) -> "Clip":
        """The frames from `start` up to `stop` under a name of their own."""
        return replace(
            self, joints_mm=self.joints_mm[start:stop], name=f"{self.recording}/{number}"
        )


class Clips:
    """Clips in order; indexed by number or by name."""

    def __init__(self, clips: Collection[Clip]) -> None:
        self._clips = tuple(clips)
        self._number_of = {clip.name: number for number, clip in enumerate(self._clips)}
        if len(self._number_of) < len(self._clips):
            names = [clip.name for clip in self._clips]
            double = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"names of clips must be unique, found twice: {', '.join(double)}")

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips)

    def __getitem__(self, key: int | str) -> Clip:
        if not isinstance(key, str):
            return self._clips[key]
        if key not in self._number_of:
            near = difflib.get_close_matches(key, self._number_of, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"no clip is named {key!r}{hint}")
        return self._clips[self._number_of[key]]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every clip, in order."""
        return tuple(self._number_of)

    @property
    def actions(self) -> tuple[str, ...]:
        """Every action once, sorted."""
        return tuple(sorted({clip.action for clip in self}))

    @property
    def num_frames(self) -> int:
        """Frames of all clips together."""
        return sum(clip.num_frames for clip in self)

    def named(self, names: Collection[str]) -> "Clips":
        """The clips of these names, in the order of the names."""
        return Clips([self[name] for name in names])

    def faults(
        self,
        *,
        exclude_actions: Collection[str] = (),
        most_raised_share: float = MOST_RAISED_SHARE,
        least_duration_s: float = LEAST_DURATION_S,
    ) -> dict[str, str]:
        """Why clips are left out, by name, each to be read after the name.

        Left out are clips of excluded actions, copies of earlier ones, and clips with a fault (see
        `Clip.fault`; a `most_raised_share` of 1.0 keeps those that climb).

        Raises:
            ValueError: If an excluded action does not exist.
        """
        unknown = set(exclude_actions) - set(self.actions)
        if unknown:
            raise ValueError(
                f"cannot exclude actions {sorted(unknown)}, the clips have "
                f"{', '.join(self.actions)}"
            )
        found: dict[str, str] = {}
        seen: dict[bytes, str] = {}
        for clip in self:
            own = clip.fault(most_raised_share=most_raised_share, least_duration_s=least_duration_s)
            fault = own or ("is of an excluded action" if clip.action in exclude_actions else None)
            if fault is None:
                original = seen.setdefault(_content(clip), clip.name)
                fault = None if original == clip.name else f"is a copy of {original}"
            if fault is not None:
                found[clip.name] = fault
        return found

    def usable(
        self,
        *,
        exclude_actions: Collection[str] = (),
        most_raised_share: float = MOST_RAISED_SHARE,
        least_duration_s: float = LEAST_DURATION_S,
    ) -> "Clips":
        """The clips that an empty room with a floor can show, each motion once: without `faults`.

        Raises:
            ValueError: If an excluded action does not exist, or if nothing is left.
        """
        faults = self.faults(
            exclude_actions=exclude_actions,
            most_raised_share=most_raised_share,
            least_duration_s=least_duration_s,
        )
        kept = [clip for clip in self if clip.name not in faults]
        if not kept:
            name, fault = next(iter(faults.items()))
            raise ValueError(f"none of the {len(self)} clips can be used; {name}, for one, {fault}")
        return Clips(kept)


@dataclass(frozen=True, kw_only=True)
class ClipSplit:
    """Names of the clips to train on and to test on."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def split_clips(clips: Clips, seed: int, *, test_share: float = 0.2) -> ClipSplit:
    """Divide clips by recording: all pieces and copies of one recording fall on one side.

    Of every action with two recordings or more about `test_share` of the recordings, and at least
    one, are for testing; an action with a single recording is for training. Where no action has
    two, as many of all recordings are for testing, whatever their action.

    Args:
        clips: What to divide.
        seed: Determines the choice, together with the clips' names and contents.
        test_share: Wanted share of the recordings, in (0, 1).

    Raises:
        ValueError: If the share is not in (0, 1), or if there is only one recording.
    """
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"test_share must be in (0, 1), got {test_share}")
    recordings = _recordings(clips)
    if len(recordings) < 2:
        raise ValueError(
            f"{len(clips)} clips of one recording cannot be divided between training and test; "
            "give more recordings, or ask for images of one split alone (--test 0)"
        )
    by_action: defaultdict[str, list[list[Clip]]] = defaultdict(list)
    for group in recordings:
        by_action[group[0].action].append(group)
    divided = [groups for _, groups in sorted(by_action.items()) if len(groups) > 1]
    rng = np.random.default_rng(seed)
    test: set[str] = set()
    for groups in divided or [recordings]:
        count = max(1, round(test_share * len(groups)))
        chosen = rng.permutation(len(groups))[:count]
        test.update(clip.name for number in chosen for clip in groups[number])
    return ClipSplit(
        train=tuple(name for name in clips.names if name not in test),
        test=tuple(name for name in clips.names if name in test),
    )


def leg_length_mm(joints_mm: Joints) -> float:
    """Length of thigh and shank together; the median over frames, the mean of both legs."""
    thighs = np.linalg.norm(joints_mm[:, _KNEES] - joints_mm[:, _HIPS], axis=-1)
    shanks = np.linalg.norm(joints_mm[:, ANKLES] - joints_mm[:, _KNEES], axis=-1)
    return float(np.median(thighs + shanks, axis=0).mean())


def stretches(mask: Bool[np.ndarray, " frames"]) -> list[tuple[int, int]]:
    """Runs of true frames, (start, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _recordings(clips: Clips) -> list[list[Clip]]:
    """Clips that belong together: pieces of one recording, and copies under another name."""
    groups: dict[str, list[Clip]] = {}
    recording_of: dict[bytes, str] = {}
    for clip in sorted(clips, key=lambda clip: clip.name):
        recording = recording_of.setdefault(_content(clip), clip.recording)
        groups.setdefault(recording, []).append(clip)
    return list(groups.values())


def _content(clip: Clip) -> bytes:
    """What two copies of one clip have in common: every joint to a tenth of a millimetre."""
    relative = clip.joints_mm - clip.joints_mm[0, 0]
    return np.rint(10.0 * relative).astype(np.int32).tobytes()
