"""What a source or a store holds of which sequence and camera, held against Human3.6M's release."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from rich.table import Table

from data_prep.human36m import (
    SHIFTED,
    SUBJECTS,
    UNUSABLE_VIDEO,
    BenchmarkProtocol,
    action_name,
    action_number,
    sequences,
)
from data_prep.selection import compare_counts
from pose3d.data.store import HUMAN36M_ACTIONS
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

MAX_NAMED = 8
SHIFTED_KEYS = tuple((subject, action_name(action), take) for subject, action, take in SHIFTED)
"""The sequences of S9 whose poses are shifted."""

Key = tuple[int, str, int]
"""Subject, action's name, subaction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """What there is of one sequence from one camera.

    Attributes:
        subject: Number.
        action: Name.
        subaction: Number.
        camera: Name.
        count: Frames.
        step: Greatest common divisor of the frames' numbers; 0 if there is only frame 0.
        last: Number of the last frame.
    """

    subject: int
    action: str
    subaction: int
    camera: str
    count: int
    step: int
    last: int

    @property
    def key(self) -> Key:
        """The sequence."""
        return self.subject, self.action, self.subaction


def holding_of(key: Key, camera: str, frame: Int[np.ndarray, " n"]) -> Holding:
    """The holding that frames of these numbers are."""
    subject, action, subaction = key
    return Holding(
        subject=subject,
        action=action,
        subaction=subaction,
        camera=camera,
        count=len(frame),
        step=int(np.gcd.reduce(frame)) if len(frame) else 0,
        last=int(frame.max()) if len(frame) else -1,
    )


def is_like_human36m(holdings: Sequence[Holding]) -> bool:
    """Whether all subjects, actions and cameras are Human3.6M's."""
    return bool(holdings) and all(
        holding.subject in SUBJECTS
        and holding.action in HUMAN36M_ACTIONS
        and holding.camera in HUMAN36M_CAMERA_NAMES
        for holding in holdings
    )


def sequence_name(key: Key) -> str:
    """A sequence as people call it, e.g. "S9 Greeting, take 2 (file Greeting)"."""
    subject, action, subaction = key
    name = f"S{subject} {action}, take {subaction}"
    if action in HUMAN36M_ACTIONS:
        fact = sequences().get((subject, action_number(action), subaction))
        name += f" (files {fact.file_name!r})" if fact else ""
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How something compares with what is expected.

    Attributes:
        odd: What is unlike the rest: one thing per line, each a problem.
        notes: What holds for all or most of it, in sentences.
    """

    odd: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def against_release(
    holdings: Sequence[Holding],
    protocol: BenchmarkProtocol,
    found: Mapping[str, int],
    *,
    is_shifted_kept: bool,
    is_corrected: bool,
    num_skipped: int,
    is_whole: bool,
) -> Comparison:
    """All that tells holdings from Human3.6M's release: gaps, lengths, counts, known faults.

    Args:
        holdings: What there is.
        protocol: The protocol in force.
        found: Images by split.
        is_shifted_kept: Whether S9's shifted sequences take part, corrected or not.
        is_corrected: Whether their shift is taken off.
        num_skipped: Records that were left out.
        is_whole: Whether all is there that should be; else what is unlike the rest has its reason
            and is only noted.
    """
    gaps = absent(holdings, protocol, is_shifted_kept=is_shifted_kept)
    lengths = lengths_against_release(holdings)
    counts = compare_counts(
        {holding.key for holding in holdings},
        protocol,
        found,
        is_shifted_kept=is_shifted_kept,
        num_skipped=num_skipped,
    )
    shifted = shifted_notes(holdings, is_corrected=is_corrected)
    odd = (*gaps.odd, *lengths.odd)
    notes = (*gaps.notes, *lengths.notes, *counts, *shifted)
    return Comparison(odd=odd, notes=notes) if is_whole else Comparison(notes=(*notes, *odd))


def absent(
    holdings: Sequence[Holding], protocol: BenchmarkProtocol, *, is_shifted_kept: bool
) -> Comparison:
    """Sequences and cameras of Human3.6M that a protocol asks for and that are not there.

    Where most of what could be there is, each gap is named as odd; where most is not, the holdings
    are a part of Human3.6M, and a sentence says which.

    Args:
        holdings: What there is.
        protocol: Which subjects and cameras take part.
        is_shifted_kept: Whether S9's shifted sequences do.
    """
    cameras: dict[Key, set[str]] = defaultdict(set)
    for holding in holdings:
        cameras[holding.key].add(holding.camera)
    usual = Counter(name for names in cameras.values() for name in names)
    known = [name for name in protocol.cameras if 2 * usual[name] > len(cameras)]
    odd, notes = [], []
    wanted_subjects = [subject for subject in SUBJECTS if protocol.split_of(subject)]
    subjects = [subject for subject in SUBJECTS if any(key[0] == subject for key in cameras)]
    gone = [f"S{subject}" for subject in wanted_subjects if subject not in subjects]
    if gone:
        notes.append(f"there is nothing of {', '.join(gone)}")
    if len(known) < len(protocol.cameras):
        rare = [name for name in protocol.cameras if name not in known]
        notes.append(f"there is little or nothing of camera {', '.join(rare)}")
    excused = set() if is_shifted_kept else set(SHIFTED_KEYS)
    for subject in subjects:
        wanted = [
            (subject, action_name(action), subaction)
            for of, action, subaction in sequences()
            if of == subject
        ]
        lacking = [key for key in wanted if key not in cameras and key not in excused]
        lines = [f"{sequence_name(key)} is not there" for key in lacking]
        if 2 * len(lacking) < len(wanted):
            odd += lines
        else:
            there = sum(key in cameras for key in wanted)
            notes.append(f"of S{subject}'s {len(wanted)} sequences {there} are there")
    for key, names in sorted(cameras.items()):
        for camera in known:
            number = action_number(key[1])
            if camera not in names and (key[0], number, key[2], camera) != UNUSABLE_VIDEO:
                odd.append(f"{sequence_name(key)} lacks camera {camera}")
    return Comparison(odd=tuple(odd), notes=tuple(notes))


def lengths_against_release(holdings: Sequence[Holding]) -> Comparison:
    """The number of frames of each sequence against the number of poses in the release.

    A sequence of n poses of which every k-th is there should have ceil(n / k) frames. Where most
    sequences have that, each other one is named as odd; where most have not, frames were chosen by
    another rule and a sentence says so.
    """
    differing, steps = [], Counter[int]()
    holdings = [holding for holding in holdings if holding.count]
    for holding in holdings:
        fact = sequences()[holding.subject, action_number(holding.action), holding.subaction]
        if holding.last < fact.num_poses and holding.count == _expected(holding, fact.num_poses):
            steps[max(holding.step, 1)] += 1
        else:
            differing.append((holding, fact.num_poses))
    notes = [
        f"{count} of {len(holdings)} sequences of a camera have "
        f"{'all frames' if step == 1 else f'one frame in {step}, none missing'}, as in the release"
        for step, count in sorted(steps.items())
    ]
    if 2 * len(differing) < len(holdings):
        return Comparison(odd=tuple(_gather_cameras(differing)), notes=tuple(notes))
    if differing:
        notes.append(
            f"{len(differing)} of {len(holdings)} sequences of a camera have other lengths than in "
            f"the release, e.g. {_length_line(*differing[0])}: frames were chosen by another rule, "
            "or this is only a part of the release, or not its data"
        )
    return Comparison(notes=tuple(notes))


def _expected(holding: Holding, num_poses: int) -> int:
    """Frames that a sequence of so many poses has at the holding's step."""
    return -(-num_poses // max(holding.step, 1))


def _length_line(holding: Holding, num_poses: int) -> str:
    """Both numbers of a sequence that differs, and what the difference is."""
    expected = _expected(holding, num_poses)
    if holding.last >= num_poses:
        what = f"has a frame number {holding.last}, the release ends at {num_poses - 1}"
    else:
        difference = holding.count - expected
        what = (
            f"has {holding.count} frames, {abs(difference)} {'fewer' if difference < 0 else 'more'}"
            f" than the {expected} of the release"
        )
    if holding.step > 1:
        what += f" (one in {holding.step} of {num_poses} poses)"
    return f"{sequence_name(holding.key)}: {what}"


def _gather_cameras(differing: Sequence[tuple[Holding, int]]) -> list[str]:
    """One line for all cameras of which the same is to be said."""
    cameras: dict[str, list[str]] = defaultdict(list)
    for holding, poses in differing:
        cameras[_length_line(holding, poses)].append(holding.camera)
    return [f"{line} (camera {', '.join(names)})" for line, names in cameras.items()]


def shifted_notes(holdings: Sequence[Holding], *, is_corrected: bool) -> list[str]:
    """What is to be said of S9's shifted sequences, as far as they are there."""
    fate = "this is taken off" if is_corrected else "they are kept so (--s9 correct takes it off)"
    keys = {holding.key for holding in holdings}
    return [
        f"{sequence_name(key)}: the release's poses lie 200 mm off along the world's x axis; {fate}"
        for key in SHIFTED_KEYS
        if key in keys
    ]


def subject_table(holdings: Sequence[Holding]) -> Table:
    """Sequences, actions, cameras and frames by subject."""
    table = Table("subject", "sequences", "actions", "cameras", "frames", box=None)
    for subject in sorted({holding.subject for holding in holdings}):
        own = [holding for holding in holdings if holding.subject == subject]
        table.add_row(
            f"S{subject}",
            str(len({holding.key for holding in own})),
            named({holding.action for holding in own}),
            named({holding.camera for holding in own}),
            str(sum(holding.count for holding in own)),
        )
    frames = sum(holding.count for holding in holdings)
    table.add_row("all", str(len({h.key for h in holdings})), "", "", str(frames))
    return table


def named(names: Iterable[str]) -> str:
    """How many names there are, and the names if they are few."""
    known = sorted(names)
    return f"{len(known)} ({', '.join(known)})" if len(known) <= MAX_NAMED else str(len(known))
