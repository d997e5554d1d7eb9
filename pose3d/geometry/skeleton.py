"""Joint sets by name: parents, mirror pairs, root and the joints that are evaluated.

Example:
    >>> HUMAN36M_17.num_joints, HUMAN36M_18.joint_names[-1]
    (17, 'Thorax')
    >>> HUMAN36M_17.joint_names[HUMAN36M_17.mirror_permutation[HUMAN36M_17.index("L_Wrist")]]
    'R_Wrist'
"""

import difflib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

THORAX = "Thorax"


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """A named set of joints in a fixed order.

    Raises:
        ValueError: If parents, mirror pairs, root or evaluation joints do not fit the joint names.
    """

    name: str
    """The name that stores, configs and result files carry."""
    joint_names: tuple[str, ...]
    """One name per joint; left and right start with ``L_`` and ``R_``."""
    parents: tuple[int, ...]
    """Index of each joint's parent; -1 for the root."""
    mirror_pairs: tuple[tuple[int, int], ...]
    """Pairs (right, left) that change places in a mirrored picture."""
    root: int
    """Index of the joint that depth and poses are relative to."""
    evaluation_joints: tuple[int, ...]
    """Indices of the joints that metrics count, in the order of the benchmark."""

    def __post_init__(self) -> None:
        count = len(self.joint_names)
        where = f"skeleton {self.name!r}"
        if len(set(self.joint_names)) != count:
            raise ValueError(f"{where}: joint names must be unique, got {self.joint_names}")
        if len(self.parents) != count:
            raise ValueError(f"{where}: expected {count} parents, got {len(self.parents)}")
        if not 0 <= self.root < count or self.parents[self.root] != -1:
            raise ValueError(f"{where}: root {self.root} must be a joint whose parent is -1")
        for joint in range(count):
            self._check_reaches_root(joint)
        paired = [joint for pair in self.mirror_pairs for joint in pair]
        if len(set(paired)) != len(paired) or not all(0 <= j < count for j in paired):
            raise ValueError(f"{where}: mirror pairs must be disjoint, got {self.mirror_pairs}")
        if not all(0 <= j < count for j in self.evaluation_joints):
            raise ValueError(f"{where}: evaluation joints must be in 0..{count - 1}")

    def _check_reaches_root(self, joint: int) -> None:
        current = joint
        for _ in range(len(self.parents)):
            if current == self.root:
                return
            if not 0 <= current < len(self.parents):
                break
            current = self.parents[current]
        raise ValueError(
            f"skeleton {self.name!r}: the parents of joint {joint} must lead to root {self.root}"
        )

    @property
    def num_joints(self) -> int:
        """Number of joints."""
        return len(self.joint_names)

    @property
    def mirror_permutation(self) -> tuple[int, ...]:
        """For each joint the index of its mirror image; joints on the midline keep their own."""
        permutation = list(range(self.num_joints))
        for first, second in self.mirror_pairs:
            permutation[first], permutation[second] = second, first
        return tuple(permutation)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """Pairs (parent, child), in the order of the children."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    def index(self, name: str) -> int:
        """Position of the joint of this name.

        Raises:
            ValueError: If there is no such joint; the nearest name is given.
        """
        if name not in self.joint_names:
            raise ValueError(
                f"unknown joint {name!r} of skeleton {self.name!r}"
                f"{did_you_mean(name, self.joint_names)}"
            )
        return self.joint_names.index(name)


def did_you_mean(name: str, known: tuple[str, ...]) -> str:
    """The end of an error message that names the nearest known name, or all where none is near."""
    lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f"; did you mean {lower[nearest[0]]}?" if nearest else f"; known: {', '.join(known)}"


HUMAN36M_17 = Skeleton(
    name="human36m_17",
    joint_names=(
        "Pelvis",
        "R_Hip",
        "R_Knee",
        "R_Ankle",
        "L_Hip",
        "L_Knee",
        "L_Ankle",
        "Torso",
        "Neck",
        "Nose",
        "Head",
        "L_Shoulder",
        "L_Elbow",
        "L_Wrist",
        "R_Shoulder",
        "R_Elbow",
        "R_Wrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    mirror_pairs=((1, 4), (2, 5), (3, 6), (14, 11), (15, 12), (16, 13)),
    root=0,
    evaluation_joints=tuple(range(17)),
)
"""Human3.6M's 17 joints, raw joints 0,1,2,3,6,7,8,12,13,14,15,17,18,19,25,26,27 of the 32."""

HUMAN36M_18 = Skeleton(
    name="human36m_18",
    joint_names=(*HUMAN36M_17.joint_names, THORAX),
    parents=(*HUMAN36M_17.parents, 8),
    mirror_pairs=HUMAN36M_17.mirror_pairs,
    root=0,
    evaluation_joints=HUMAN36M_17.evaluation_joints,
)
"""The 17 joints and the Thorax, halfway between the shoulders: trained, never evaluated."""

SKELETONS = (HUMAN36M_17, HUMAN36M_18)
"""Every skeleton that can be named in a store or a config."""


def skeleton_by_name(name: str) -> Skeleton:
    """Find a skeleton by the name that stores and configs carry.

    Raises:
        ValueError: If there is none; the nearest name is given.
    """
    for skeleton in SKELETONS:
        if skeleton.name == name:
            return skeleton
    known = tuple(skeleton.name for skeleton in SKELETONS)
    raise ValueError(f"unknown skeleton {name!r}{did_you_mean(name, known)}")


def append_thorax(joints: Float[Tensor, "*batch 17 c"]) -> Float[Tensor, "*batch 18 c"]:
    """Add the midpoint of the shoulders as an 18th joint, in whatever unit the joints have."""
    left, right = HUMAN36M_17.index("L_Shoulder"), HUMAN36M_17.index("R_Shoulder")
    thorax = (joints[..., left, :] + joints[..., right, :]) / 2
    return torch.cat([joints, thorax[..., None, :]], dim=-2)


def convert_joints(
    joints: Float[Tensor, "*batch source_joints c"], *, source: Skeleton, target: Skeleton
) -> Float[Tensor, "*batch target_joints c"]:
    """Reorder joints from one skeleton to another by name; make the Thorax where it is missing.

    Args:
        joints: Joints in the order of ``source``; any number of coordinates, any unit.
        source: The skeleton that ``joints`` has.
        target: The skeleton that is wanted.

    Returns:
        The joints in the order of ``target``.

    Raises:
        ValueError: If ``joints`` is not of ``source``, or ``target`` has a joint that ``source``
            has not.
    """
    if joints.shape[-2] != source.num_joints:
        raise ValueError(
            f"joints must have the {source.num_joints} joints of {source.name}, "
            f"got shape {tuple(joints.shape)}"
        )
    if source.joint_names == target.joint_names:
        return joints
    names = source.joint_names
    if THORAX in target.joint_names and names == HUMAN36M_17.joint_names:
        joints, names = append_thorax(joints), HUMAN36M_18.joint_names
    missing = [name for name in target.joint_names if name not in names]
    if missing:
        raise ValueError(
            f"cannot convert {source.name} to {target.name}: no joint {', '.join(missing)}"
        )
    return joints[..., [names.index(name) for name in target.joint_names], :]
