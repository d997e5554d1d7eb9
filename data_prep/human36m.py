"""Facts of Human3.6M that no file states alone: sequences, joint orders, known faults, protocols.

Sources: Ionescu et al., PAMI 2014; metadata.xml of the release (names and lengths of sequences);
the protocols as the named codes have them. Counts were computed from the lengths of sequences.
"""

import csv
import math
from collections.abc import Set
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Bool, Float, Int

from pose3d.data.store import HUMAN36M_ACTIONS, HUMAN36M_FIRST_ACTION
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
"""Subjects whose poses are public."""
TRAIN_SUBJECTS, TEST_SUBJECTS = (1, 5, 6, 7, 8), (9, 11)
"""Who trains and who tests by custom."""
FRAMES_PER_S = 50.0

RAW_17 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""The 17 joints of `HUMAN36M_17` among the 32 of the release."""
LEARNABLE_FROM_17 = (3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13, 9)
"""Order of learnable-triangulation (MPII's 16 joints, then the nose)."""

SHIFTED = ((9, 5, 2), (9, 10, 2), (9, 13, 1))
"""Subject, action, subaction whose poses lie 200 mm off along the world's x axis: the files
Greeting, SittingDown 1 and Waiting 1 of S9, the block list of the RLE code."""
SHIFT_MM = (200.0, 0.0, 0.0)
"""What has to be taken off them (the repair of metro's code)."""
UNUSABLE_VIDEO = (11, 2, 2, "54138969")
"""Subject, action, subaction, camera without a usable video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceFact:
    """What is known of one performance."""

    subject: int
    action: int
    subaction: int
    file_name: str
    """Base name of its files, as `<mapping>` states it, e.g. "WalkingDog 1"."""
    num_poses: int
    """Poses per camera."""


@cache
def sequences() -> dict[tuple[int, int, int], SequenceFact]:
    """All 210 performances by subject, action number (2 to 16) and subaction."""
    path = resources.files("data_prep") / "assets" / "human36m_sequences.tsv"
    with path.open(encoding="utf-8") as file:
        lines = (line for line in file if not line.startswith("#"))
        facts = [
            SequenceFact(
                subject=int(row["subject"]),
                action=int(row["action"]),
                subaction=int(row["subaction"]),
                file_name=row["file_name"],
                num_poses=int(row["poses"]),
            )
            for row in csv.DictReader(lines, delimiter="\t")
        ]
    return {(fact.subject, fact.action, fact.subaction): fact for fact in facts}


_SYNONYMS = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog", "WalkingTogether": "WalkTogether"}


def action_name(number: int) -> str:
    """Name of an action by its number, 2 to 16.

    Raises:
        ValueError: If there is no such action.
    """
    position = number - HUMAN36M_FIRST_ACTION
    if not 0 <= position < len(HUMAN36M_ACTIONS):
        last = HUMAN36M_FIRST_ACTION + len(HUMAN36M_ACTIONS) - 1
        raise ValueError(f"action_idx {number} is unknown, must be 2 to {last}")
    return HUMAN36M_ACTIONS[position]


def action_number(name: str) -> int:
    """Number of an action, 2 to 16, by its name; TakingPhoto, WalkingDog and the like are known.

    Raises:
        ValueError: If there is no such action.
    """
    known = _SYNONYMS.get(name, name)
    if known not in HUMAN36M_ACTIONS:
        raise ValueError(f"action {name!r} is unknown; known: {', '.join(HUMAN36M_ACTIONS)}")
    return HUMAN36M_ACTIONS.index(known) + HUMAN36M_FIRST_ACTION


def find_sequence(subject: int, file_name: str) -> SequenceFact:
    """The performance that files of this name hold.

    Action and subaction cannot be read off a name ("Eating 2" is S1's first subaction, S6's
    second), so the release's mapping is looked up. "TakingPhoto" and "Photo", "WalkingDog" and
    "WalkDog" are taken for one another, since many layouts rename S1's files; underscores
    stand for blanks.

    Raises:
        ValueError: If the subject has no such files.
    """
    wanted = plain_file_name(file_name)
    for fact in sequences().values():
        if fact.subject == subject and plain_file_name(fact.file_name) == wanted:
            return fact
    known = [fact.file_name for fact in sequences().values() if fact.subject == subject]
    raise ValueError(
        f"S{subject} has no sequence {file_name!r}; expected one of {', '.join(known)}"
        if known
        else f"subject S{subject} is not one of {', '.join(f'S{s}' for s in SUBJECTS)}"
    )


def plain_file_name(file_name: str) -> str:
    """A base name as it is compared: blanks for underscores, the names of most subjects."""
    stem, _, number = file_name.replace("_", " ").strip().partition(" ")
    return f"{_SYNONYMS.get(stem, stem)} {number}".strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkProtocol:
    """Which frames of which subjects train and test.

    A source that states the splits itself keeps them; it is thinned out as the protocol says.
    """

    name: str
    train_subjects: tuple[int, ...] = TRAIN_SUBJECTS
    test_subjects: tuple[int, ...] = TEST_SUBJECTS
    train_every: int
    """Keep frames whose number from 0 is a multiple of this."""
    test_every: int
    moved_mm: float = 0.0
    """Of training frames, keep those where a joint has moved so far since the last one kept."""
    cameras: tuple[str, ...] = HUMAN36M_CAMERA_NAMES
    blocks_shifted: bool = False
    """Whether the reproduced work leaves the shifted sequences of S9 out."""
    is_thinned_before: bool = False
    """Whether its sources come thinned out by rules of their own, so that no count is known."""
    meaning: str
    """In words."""

    def split_of(self, subject: int) -> str | None:
        """ "train", "test", or None for a subject that takes no part."""
        if subject in self.train_subjects:
            return "train"
        return "test" if subject in self.test_subjects else None

    def every(self, split: str) -> int:
        """The step between frames of a split."""
        return self.train_every if split == "train" else self.test_every

    def choose(
        self,
        frame: Int[np.ndarray, " n"],
        joints_mm: Float[np.ndarray, "n joints 3"],
        *,
        split: str,
    ) -> Bool[np.ndarray, " n"]:
        """Which frames of one sequence, in order of time, take part.

        Args:
            frame: Frame numbers from 0.
            joints_mm: Joints of one body, in a frame that does not move, millimetres.
            split: "train" or "test".
        """
        chosen = frame % self.every(split) == 0
        if split == "train" and self.moved_mm > 0:
            chosen[chosen] = has_moved(joints_mm[chosen], limit_mm=self.moved_mm)
        return chosen


def has_moved(
    joints_mm: Float[np.ndarray, "n joints 3"], *, limit_mm: float
) -> Bool[np.ndarray, " n"]:
    """Frames where any joint is at least so far from where it was in the last frame kept."""
    kept = np.zeros(len(joints_mm), bool)
    last = None
    for position, joints in enumerate(joints_mm):
        if last is None or np.linalg.norm(joints - last, axis=-1).max() >= limit_mm:
            kept[position] = True
            last = joints
    return kept


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        BenchmarkProtocol(
            name="full",
            train_every=1,
            test_every=1,
            meaning="every frame there is; S1,5,6,7,8 train, S9,11 test (Martinez, VideoPose3D)",
        ),
        BenchmarkProtocol(
            name="as-found",
            train_every=1,
            test_every=1,
            blocks_shifted=True,
            is_thinned_before=True,
            meaning="the RLE code on its own files, which come thinned out: every frame there is, "
            "S9's three shifted sequences left out",
        ),
        BenchmarkProtocol(
            name="rle-2",
            train_every=5,
            test_every=64,
            blocks_shifted=True,
            meaning="protocol 2 of the RLE paper: every 5th frame of S1,5,6,7,8 trains, every 64th "
            "of S9,11 tests, S9's three shifted sequences left out",
        ),
        BenchmarkProtocol(
            name="rle-1",
            train_subjects=(*TRAIN_SUBJECTS, 9),
            test_subjects=(11,),
            train_every=5,
            test_every=64,
            blocks_shifted=True,
            meaning="protocol 1 of the RLE paper: S9 trains as well, S11 tests (PA-MPJPE)",
        ),
        BenchmarkProtocol(
            name="posenet-2",
            train_every=5,
            test_every=64,
            meaning="protocol 2 of PoseNet: as rle-2, the shifted sequences kept",
        ),
        BenchmarkProtocol(
            name="posenet-1",
            train_subjects=(*TRAIN_SUBJECTS, 9),
            test_subjects=(11,),
            train_every=5,
            test_every=64,
            meaning="protocol 1 of PoseNet: as rle-1, the shifted sequences kept",
        ),
        BenchmarkProtocol(
            name="hmr-1",
            train_every=5,
            test_every=5,
            meaning="protocol 1 of HMR and SPIN: every 5th frame, all cameras",
        ),
        BenchmarkProtocol(
            name="hmr-2",
            train_every=5,
            test_every=5,
            cameras=("60457274",),
            meaning="protocol 2 of HMR and SPIN: every 5th frame of the frontal camera 60457274",
        ),
        BenchmarkProtocol(
            name="metro",
            train_every=5,
            test_every=64,
            moved_mm=100.0,
            meaning="metro and MeTRAbs: every 5th frame in which a joint has moved 100 mm trains, "
            "every 64th tests",
        ),
        BenchmarkProtocol(
            name="h36m-fetch",
            train_every=1,
            test_every=64,
            moved_mm=40.0,
            meaning="h36m-fetch: frames in which a joint has moved 40 mm train, every 64th tests",
        ),
    )
}


def protocol_by_name(name: str) -> BenchmarkProtocol:
    """A protocol by its name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def expected_counts(
    protocol: BenchmarkProtocol,
    *,
    is_shifted_kept: bool,
    has_unusable_video: bool = False,
    without: Set[tuple[int, int, int]] = frozenset(),
) -> dict[str, int] | None:
    """Images per split that the whole of Human3.6M has under a protocol.

    Args:
        protocol: The protocol.
        is_shifted_kept: Whether S9's three shifted sequences take part.
        has_unusable_video: Whether S11's unusable video counts (poses alone need no video).
        without: Subject, action, subaction of performances that do not count.

    Returns:
        Counts by split; None where they depend on how much people move, or on what the source
        left out before.
    """
    if protocol.moved_mm > 0 or protocol.is_thinned_before:
        return None
    counts = {"train": 0, "test": 0}
    for key, fact in sequences().items():
        split = protocol.split_of(fact.subject)
        if split is None or key in without or (key in SHIFTED and not is_shifted_kept):
            continue
        cameras = [
            name
            for name in protocol.cameras
            if has_unusable_video or (*key, name) != UNUSABLE_VIDEO
        ]
        counts[split] += len(cameras) * math.ceil(fact.num_poses / protocol.every(split))
    return counts
