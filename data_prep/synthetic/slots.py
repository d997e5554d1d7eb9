"""What each record of the data set shows: which takes there are, how many images each gets, when.

Images are spread evenly over subjects, actions and takes. A take with at least `ALL_CAMERAS_FROM`
images shows every instant by all four cameras; one with fewer shows each instant by one camera, in
turn, since in a small set more poses are worth more than more views. Instants are spread evenly
over the take, at frames that are multiples of `FRAME_STEP`, as Human3.6M is customarily thinned
out; only frames in which all cameras see the whole person count, as long as there are enough.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from data_prep.synthetic.subjects import SPLIT_SUBJECTS
from pose3d.data.store import HUMAN36M_ACTIONS
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

NUM_TAKES = 2
FRAME_STEP = {"train": 5, "test": 64}
FRAMES_PER_INSTANT = {"train": 10, "test": 64}
"""How long the takes of the motion model are, by the number of their instants."""
ALL_CAMERAS_FROM = 64
NUM_CAMERAS = len(HUMAN36M_CAMERA_NAMES)


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What can be filmed: a take of an action by a subject."""

    subject: int
    action: str
    take: int
    num_frames: int | None
    """Its length at 50 frames a second; None: as long as one likes."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A take and how many images of it there are."""

    split: str
    rank: int
    """Its place in the order in which takes get images."""
    first_record: int
    """Number of its first image in the split."""
    num_records: int
    performance: Performance

    @property
    def shows_all_cameras(self) -> bool:
        """Whether each instant is seen by all cameras."""
        return self.num_records >= ALL_CAMERAS_FROM

    @property
    def num_instants(self) -> int:
        """How many instants are shown."""
        return -(-self.num_records // NUM_CAMERAS) if self.shows_all_cameras else self.num_records

    @property
    def num_frames(self) -> int:
        """Length of the take."""
        if self.performance.num_frames is not None:
            return self.performance.num_frames
        doubled = 2 if self.split == "train" and self.shows_all_cameras else 1
        return doubled * self.num_instants * FRAMES_PER_INSTANT[self.split]


def model_performances(split: str) -> list[Performance]:
    """All takes of the motion model that belong to a split."""
    return [
        Performance(subject=subject, action=action, take=take, num_frames=None)
        for subject in SPLIT_SUBJECTS[split]
        for action in HUMAN36M_ACTIONS
        for take in range(1, NUM_TAKES + 1)
    ]


def plan_sequences(split: str, count: int, performances: list[Performance]) -> list[Sequence]:
    """Spread images over takes.

    Takes as long as one likes get equally many, others as many as their length asks for.

    Args:
        split: "train" or "test".
        count: Images of the split.
        performances: What can be filmed.

    Returns:
        The takes that get any, in the order of `performances`.

    Raises:
        ValueError: If there is nothing to film.
    """
    if count and not performances:
        raise ValueError(f"there is no motion for the split {split}; give more clips")
    total = len(performances)
    lengths = np.array([p.num_frames or 1 for p in performances], float)
    ideal = count * lengths / max(lengths.sum(), 1.0)
    counts = np.floor(ideal + 1e-9).astype(int)
    # A stride prime to the total, near the golden section of it, visits takes evenly.
    visited = np.arange(total) * _stride(total) % total
    rank = np.empty(total, int)
    rank[visited] = np.arange(total)
    order = np.lexsort((rank, -np.round(ideal - counts, 6)))
    counts[order[: count - counts.sum()]] += 1
    starts = np.cumsum(counts) - counts
    return [
        Sequence(
            split=split,
            rank=int(rank[i]),
            first_record=int(starts[i]),
            num_records=int(counts[i]),
            performance=performances[i],
        )
        for i in range(total)
        if counts[i]
    ]


def _stride(total: int) -> int:
    stride = max(1, round(total * 0.6180339887))
    while np.gcd(stride, total) != 1:
        stride += 1
    return stride


def views_of(sequence: Sequence, fits: Bool[np.ndarray, " frames"]) -> list[tuple[int, str]]:
    """Frame and camera of each image of a sequence, in order.

    Args:
        sequence: Whose images.
        fits: Frames of the take in which all cameras see the whole person.

    Raises:
        ValueError: If the take has fewer frames than it must show.
    """
    frames = _spread_frames(fits, sequence.num_instants, step=FRAME_STEP[sequence.split])
    if sequence.shows_all_cameras:
        pairs = [(f, i) for f in frames for i in range(NUM_CAMERAS)][: sequence.num_records]
    else:
        pairs = list(zip(frames, range(len(frames)), strict=True))
    names = HUMAN36M_CAMERA_NAMES
    return [(frame, names[(i + sequence.rank) % NUM_CAMERAS]) for frame, i in pairs]


def _spread_frames(fits: Bool[np.ndarray, " frames"], count: int, *, step: int) -> list[int]:
    """Frames at equal distances among those that suit best: at multiples of a step, else others."""
    if count > len(fits):
        raise ValueError(f"a take of {len(fits)} frames cannot show {count} instants; ask for less")
    on_step = np.arange(len(fits)) % step == 0
    choices = (fits & on_step, fits, on_step, np.ones_like(fits))
    frames = next(found for found in map(np.flatnonzero, choices) if len(found) >= count)
    return frames[((np.arange(count) + 0.5) * len(frames) / count).astype(int)].tolist()
