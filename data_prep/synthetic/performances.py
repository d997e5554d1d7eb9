"""Where the motion of a take comes from."""

import hashlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np

from data_prep.human36m import FRAMES_PER_S
from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.mocap import load_clips
from data_prep.synthetic.mocap_clips import Clip, Clips, split_clips
from data_prep.synthetic.motion import Motion
from data_prep.synthetic.motion_model import draw_motion
from data_prep.synthetic.retarget import retarget
from data_prep.synthetic.retarget_area import cut_to_area
from data_prep.synthetic.retarget_report import RetargetingReport, retargeting_report
from data_prep.synthetic.slots import Performance, model_performances
from data_prep.synthetic.subjects import PHENOTYPES, SPLIT_SUBJECTS

PERFORMERS = 2
"""How many subjects perform a clip."""


class Motions(Protocol):
    """A source of motion."""

    @property
    def description(self) -> str:
        """What it is, in words; the same words mean the same motion."""
        ...

    def performances(self, split: str) -> list[Performance]:
        """What can be filmed for a split."""
        ...

    def motion(
        self,
        body: Body,
        subject: int,
        action: str,
        take: int,
        *,
        rng: np.random.Generator,
        num_frames: int,
    ) -> Motion:
        """The motion of a body in a take.

        Args:
            body: Who moves.
            subject: The body's subject.
            action: Action's name.
            take: Number of the take, from 1.
            rng: All randomness comes from here.
            num_frames: How many frames are wanted, at 50 a second.

        Raises:
            ValueError: If the action is unknown.
        """
        ...


class ModelMotions:
    """Motion from the motion model."""

    description = "motion model"

    def performances(self, split: str) -> list[Performance]:
        """All takes of all actions by the subjects of a split."""
        return model_performances(split)

    def motion(
        self,
        body: Body,
        subject: int,
        action: str,
        take: int,
        *,
        rng: np.random.Generator,
        num_frames: int,
    ) -> Motion:
        """Draw a motion; see `Motions.motion`."""
        return draw_motion(body, action, take, rng=rng, num_frames=num_frames)


class ClipMotions:
    """Motion from motion capture: clips are divided between the splits, then between subjects.

    Each clip is performed by `PERFORMERS` subjects of its split, so that neither a subject nor a
    motion is in both. Clips that an empty room cannot show are left out (`Clips.usable`), long
    ones are cut where they leave the capture area.

    Args:
        path: An NPZ, BVH or AMC file, or a folder of BVH and AMC files; see `load_clips`.
        seed: Decides which clips are for testing.
        exclude_actions: Actions that are left out.
        split: The one split that all clips are for; they are divided if None.

    Attributes:
        left_out: Why clips are left out, by name, see `Clips.faults`.
        report: Joint errors of each clip on the last of its performers.

    Raises:
        ValueError: If a file is damaged or unsuitable, or too few clips are left to be divided.
        FileNotFoundError: If there is nothing at the path.
    """

    def __init__(
        self,
        path: Path,
        *,
        seed: int,
        exclude_actions: Collection[str] = (),
        split: str | None = None,
    ) -> None:
        loaded = load_clips(path)
        self.left_out = loaded.faults(exclude_actions=exclude_actions)
        clips = cut_to_area(loaded.usable(exclude_actions=exclude_actions))
        named = _named_by_split(clips, seed=seed, split=split)
        self._clips: dict[tuple[int, str, int], Clip] = {}
        self._performances: dict[str, list[Performance]] = {
            name: self._cast(clips.named(chosen), SPLIT_SUBJECTS[name]) if chosen else []
            for name, chosen in named.items()
        }
        self.report = self._measure()
        self.description = (
            f"motion capture {Path(path).name} ({_fingerprint(clips)}), {len(named['train'])} "
            f"clips to train and {len(named['test'])} to test, joint error after retargeting "
            f"{self.report.mean_mm.mean():.1f} mm"
        )

    def _cast(self, clips: Clips, subjects: tuple[int, ...]) -> list[Performance]:
        """Give each clip to some subjects, in turn."""
        performances = []
        counts: Counter[tuple[int, str]] = Counter()
        for number, clip in enumerate(clips):
            for place in range(min(PERFORMERS, len(subjects))):
                subject = subjects[(number + place * (1 + len(subjects) // 3)) % len(subjects)]
                counts[subject, clip.action] += 1
                take = counts[subject, clip.action]
                self._clips[subject, clip.action, take] = clip
                performances.append(
                    Performance(
                        subject=subject,
                        action=clip.action,
                        take=take,
                        num_frames=int(clip.duration_s * FRAMES_PER_S + 1e-6) + 1,
                    )
                )
        return performances

    def _measure(self) -> RetargetingReport:
        """Retarget every clip once."""
        model = load_body_model()
        bodies = {subject: Body(model, **shape) for subject, shape in PHENOTYPES.items()}
        last = {clip.name: (clip, subject) for (subject, _, _), clip in self._clips.items()}
        return retargeting_report(
            retarget(clip, bodies[subject]) for clip, subject in last.values()
        )

    def performances(self, split: str) -> list[Performance]:
        """Clips by their performers; see `Motions.performances`."""
        return self._performances[split]

    def motion(
        self,
        body: Body,
        subject: int,
        action: str,
        take: int,
        *,
        rng: np.random.Generator,
        num_frames: int,
    ) -> Motion:
        """The whole clip, whatever number of frames is wanted; see `Motions.motion`."""
        if (subject, action, take) not in self._clips:
            raise ValueError(f"subject {subject} has no clip of action {action!r}, take {take}")
        return retarget(self._clips[subject, action, take], body).motion


def _named_by_split(clips: Clips, *, seed: int, split: str | None) -> dict[str, tuple[str, ...]]:
    """Names of the clips of each split, see `ClipMotions`."""
    if split is not None:
        return {name: tuple(clips.names) if name == split else () for name in SPLIT_SUBJECTS}
    divided = split_clips(clips, seed)
    return {"train": divided.train, "test": divided.test}


def _fingerprint(clips: Clips) -> str:
    """Short digest of what the clips hold."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.name.encode())
        digest.update(np.round(clip.joints_mm, 1).astype("<f4").tobytes())
    return digest.hexdigest()[:12]
