"""What bones tell of labels: lengths, whether these last, and whether sides are confused."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from data_prep.tally import LENGTH_EDGES_MM, Tally
from pose3d.geometry.skeleton import Skeleton

MAX_SIDE_RATIO = 1.25
MIN_RECORDS_FOR_SIDES = 5  # the median of fewer follows the noise of triangulated labels
CONSTANT_MM = 15.0
"""By how much bones of one subject of Human3.6M may differ; the release's do not, labels that were
fitted anew or carry noise do by some millimetres, mixed-up joints by far more."""
MOST = 0.8
"""Share of the frames of a subject that must have it so: single wrong ones are named one by one."""
SMALLEST_PERSON_MM = 100.0
MIN_SINE = 0.2
"""Bends and turns below 12 degrees say nothing about the side."""
MIN_VOTES = 10
CLEAR_MAJORITY = 0.7

FACING_TESTS = ("hips", "shoulders", "agreement")


def bone_names(skeleton: Skeleton) -> list[str]:
    """Names such as "R_Hip to R_Knee", in the order of `Skeleton.bones`."""
    return [" to ".join(skeleton.joint_names[j] for j in bone) for bone in skeleton.bones]


def bone_lengths_mm(
    joints_mm: Float[np.ndarray, "n joints 3"],
    counted: Bool[np.ndarray, "n joints"],
    skeleton: Skeleton,
) -> Float[np.ndarray, "n bones"]:
    """Lengths, millimetres; NaN where an end does not count (its depth is not known, say)."""
    bones = np.array(skeleton.bones)
    lengths = np.linalg.norm(joints_mm[:, bones[:, 0]] - joints_mm[:, bones[:, 1]], axis=-1)
    return np.where(counted[:, bones].all(-1), lengths, np.nan)


@dataclass(kw_only=True, eq=False)
class BoneTally:
    """Bones and sides of one subject, gathered from any number of frames.

    Attributes:
        skeleton: The joint set.
        lengths: Of each bone.
        votes: Frames for and against the sides being named rightly, by `FACING_TESTS`.
    """

    skeleton: Skeleton
    lengths: Tally = field(init=False)
    votes: Int[np.ndarray, "3 2"] = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = Tally.empty(LENGTH_EDGES_MM, len(self.skeleton.bones))
        self.votes = np.zeros((len(FACING_TESTS), 2), np.int64)

    def add(
        self, joints_mm: Float[np.ndarray, "n joints 3"], counted: Bool[np.ndarray, "n joints"]
    ) -> "BoneTally":
        """Look at more frames; joints whose depth is not known do not count."""
        self.lengths.add(bone_lengths_mm(joints_mm, counted, self.skeleton))
        self.votes += facing_votes(joints_mm, counted, self.skeleton)
        return self

    def merge(self, other: "BoneTally") -> "BoneTally":
        """Take up what another has seen."""
        self.lengths.merge(other.lengths)
        self.votes += other.votes
        return self

    def problems(self, *, is_constant: bool = False) -> list[str]:
        """What cannot be right about these bones, in words.

        Args:
            is_constant: Whether the bones of one subject have one length, as Human3.6M's have.
        """
        unit = not_millimetres(self.lengths.quantile(0.5))
        if unit:
            return [unit]
        problems = unlike_sides(self.lengths, self.skeleton)
        confused = swapped_sides(self.votes)
        problems += [confused] if confused else []
        spread, median = self.lengths.spread(MOST), self.lengths.quantile(0.5)
        uneven = np.flatnonzero(np.nan_to_num(spread) > CONSTANT_MM)
        if is_constant and len(uneven):
            worst = uneven[np.argmax(spread[uneven])]
            others = f" (and {len(uneven) - 1} bones more)" if len(uneven) > 1 else ""
            problems.append(
                f"{bone_names(self.skeleton)[worst]} is {median[worst]:.0f} ± {spread[worst]:.0f} "
                f"mm long{others}, while a subject's bones have one length in Human3.6M; joints "
                "are in another order, or of several people"
            )
        return problems


def subject_problems(bones: Mapping[int, BoneTally], *, is_constant: bool) -> list[str]:
    """What cannot be right about subjects' bones and sides, in the order of their numbers.

    Args:
        bones: By subject's number.
        is_constant: As for `BoneTally.problems`.
    """
    return [
        f"subject {subject}: {line}"
        for subject, tally in sorted(bones.items())
        for line in tally.problems(is_constant=is_constant)
    ]


def unlike_sides(lengths: Tally, skeleton: Skeleton) -> list[str]:
    """Left and right bones whose medians differ by more than `MAX_SIDE_RATIO`."""
    mirrored, bones, names = skeleton.mirror_permutation, skeleton.bones, bone_names(skeleton)
    median_mm, number = lengths.quantile(0.5), lengths.number
    problems = []
    for bone, (parent, child) in enumerate(bones):
        partner = bones.index((mirrored[parent], mirrored[child]))
        if bone >= partner or min(number[bone], number[partner]) < MIN_RECORDS_FOR_SIDES:
            continue
        here, there = median_mm[bone], median_mm[partner]
        if max(here, there) > MAX_SIDE_RATIO * min(here, there):
            problems.append(
                f"{names[bone]} is {here:.0f} mm long, {names[partner]} {there:.0f} mm (medians)"
            )
    return problems


def facing_votes(
    joints_mm: Float[np.ndarray, "n joints 3"],
    counted: Bool[np.ndarray, "n joints"],
    skeleton: Skeleton,
) -> Int[np.ndarray, "3 2"]:
    """Frames that speak for and against left and right being named rightly.

    Knees bend one way only: with thigh t and shank s, both pointing down, t × s points to the
    person's left. The nose lies before the line from neck to head: with the spine p, to the left
    is p × (nose - line). Each is held against the line from the right to the left hip, and
    shoulder; and the two lines against each other.

    Args:
        joints_mm: Joints in a right-handed frame, millimetres.
        counted: Joints whose depth is known.
        skeleton: A joint set with hips, knees, ankles, shoulders, neck, nose, head and pelvis.

    Returns:
        By `FACING_TESTS`: votes for, votes against; both knees of a frame have one each.
    """

    def at(name: str) -> np.ndarray:
        return np.where(
            counted[:, skeleton.index(name), None], joints_mm[:, skeleton.index(name)], np.nan
        )

    hips = at("L_Hip") - at("R_Hip")
    shoulders = at("L_Shoulder") - at("R_Shoulder")
    bends = [
        np.cross(at(f"{side}_Knee") - at(f"{side}_Hip"), at(f"{side}_Ankle") - at(f"{side}_Knee"))
        / _norms(at(f"{side}_Knee") - at(f"{side}_Hip"))
        / _norms(at(f"{side}_Ankle") - at(f"{side}_Knee"))
        for side in ("R", "L")
    ]
    spine = at("Neck") - at("Pelvis")
    before = at("Nose") - (at("Neck") + at("Head")) / 2
    left_of_face = np.cross(spine, before) / _norms(before) / _norms(spine)
    tests = (
        np.concatenate([_along(bend, hips) for bend in bends]),
        _along(left_of_face, shoulders),
        _along(hips / _norms(hips), shoulders),
    )
    return np.array([[(test > MIN_SINE).sum(), (test < -MIN_SINE).sum()] for test in tests])


def _norms(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 1"]:
    """Lengths; NaN for a vector without one."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(norms > 0, norms, np.nan)


def _along(
    vectors: Float[np.ndarray, "n 3"], axis: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """Component along an axis; 0, which is no vote, where it is not known."""
    return np.nan_to_num((vectors * axis / _norms(axis)).sum(-1))


def shares_right(votes: Int[np.ndarray, "3 2"]) -> Float[np.ndarray, " 3"]:
    """Share of the votes that speak for the sides being named rightly; NaN without votes."""
    number = votes.sum(1)
    return np.where(number > 0, votes[:, 0] / np.maximum(number, 1), np.nan)


def swapped_sides(votes: Int[np.ndarray, "3 2"]) -> str | None:
    """Say which sides are named the wrong way round, if votes are many and clear."""
    share = np.where(votes.sum(1) >= MIN_VOTES, shares_right(votes), np.nan)
    hips, shoulders, agreement = share.tolist()
    wrong, right = 1 - CLEAR_MAJORITY, CLEAR_MAJORITY
    if agreement < wrong:  # the two lines are against each other: one of them is the wrong way
        trust = np.nan_to_num([hips - 0.5, shoulders - 0.5])
        part = "legs" if trust[0] < trust[1] else "arms"
        return (
            f"left and right of the {part} are swapped: hips and shoulders run against each other "
            f"in {1 - agreement:.0%} of the frames; joints are read in another order than they "
            "were written"
        )
    # Both lines are right, or both are wrong; knees are the better witness.
    witness = hips if not np.isnan(hips) else shoulders
    if witness < wrong and not shoulders > right:
        facts = [f"knees bend backwards in {1 - hips:.0%} of the frames"] if hips < wrong else []
        if shoulders < wrong:
            facts.append(f"noses point backwards in {1 - shoulders:.0%}")
        return (
            f"left and right are swapped, or the space is mirrored: {', '.join(facts)}; joints are "
            "read in another order than they were written, or an axis points the wrong way"
        )
    return None


def not_millimetres(median_mm: Float[np.ndarray, " bones"]) -> str | None:
    """Say so if bones are far too short, or far too long, to be a person's in millimetres."""
    known = median_mm[np.isfinite(median_mm)]
    if not len(known):
        return None
    usual = float(np.median(known))
    if usual < SMALLEST_PERSON_MM / 4:
        return f"bones are {usual:.3g} units long; expected millimetres, got metres or another unit"
    return None
