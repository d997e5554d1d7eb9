"""Joint sets: names, trees, mirror images and conversion by name."""

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from pose3d.geometry.skeleton import (
    HUMAN36M_17,
    HUMAN36M_18,
    SKELETONS,
    Skeleton,
    append_thorax,
    convert_joints,
    skeleton_by_name,
)

# The tree that PoseNet draws, as bones (parent, child), written down independently.
POSENET_BONES = {(0, 7), (7, 8), (8, 9), (9, 10), (8, 11), (11, 12), (12, 13), (8, 14)} | {
    (14, 15),
    (15, 16),
    (0, 1),
    (1, 2),
    (2, 3),
    (0, 4),
    (4, 5),
    (5, 6),
}


def test_bones_are_the_known_tree():
    assert set(HUMAN36M_17.bones) == POSENET_BONES


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
def test_bones_connect_all_joints(skeleton):
    adjacency = np.zeros((skeleton.num_joints,) * 2)
    for parent, child in skeleton.bones:
        adjacency[parent, child] = 1
    assert len(skeleton.bones) == skeleton.num_joints - 1
    assert connected_components(adjacency, directed=False)[0] == 1


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
def test_mirror_swaps_exactly_the_left_and_right_of_each_name(skeleton):
    other_side = {"L_": "R_", "R_": "L_"}
    for name, image in zip(skeleton.joint_names, skeleton.mirror_permutation, strict=True):
        expected = other_side[name[:2]] + name[2:] if name[:2] in other_side else name
        assert skeleton.joint_names[image] == expected


def test_the_thorax_is_never_evaluated():
    assert HUMAN36M_18.evaluation_joints == tuple(range(17))
    assert HUMAN36M_18.joint_names[17] == "Thorax"


def test_the_thorax_is_halfway_between_the_shoulders():
    joints = torch.randn(2, 17, 3, generator=torch.Generator().manual_seed(0))
    expected = np.mean(joints.numpy()[:, [11, 14]], axis=1)
    np.testing.assert_allclose(append_thorax(joints)[:, 17], expected, rtol=1e-6)


def test_conversion_there_and_back_is_the_identity():
    joints = torch.randn(4, 17, 2, generator=torch.Generator().manual_seed(0))
    longer = convert_joints(joints, source=HUMAN36M_17, target=HUMAN36M_18)
    torch.testing.assert_close(longer, append_thorax(joints))
    back = convert_joints(longer, source=HUMAN36M_18, target=HUMAN36M_17)
    torch.testing.assert_close(back, joints, rtol=0, atol=0)


def test_conversion_goes_by_name():
    names = HUMAN36M_17.joint_names[::-1]
    parents = tuple(16 - p if p >= 0 else -1 for p in HUMAN36M_17.parents[::-1])
    backwards = Skeleton(
        name="backwards",
        joint_names=names,
        parents=parents,
        mirror_pairs=(),
        root=16,
        evaluation_joints=(),
    )
    joints = torch.arange(17.0)[:, None]
    converted = convert_joints(joints, source=HUMAN36M_17, target=backwards)
    assert converted[:, 0].tolist() == list(range(16, -1, -1))


def test_a_missing_joint_is_named():
    one = Skeleton(
        name="one",
        joint_names=("Pelvis",),
        parents=(-1,),
        mirror_pairs=(),
        root=0,
        evaluation_joints=(0,),
    )
    with pytest.raises(ValueError, match="no joint R_Hip, R_Knee"):
        convert_joints(torch.zeros(1, 3), source=one, target=HUMAN36M_17)


def test_joints_of_another_skeleton_are_refused():
    with pytest.raises(ValueError, match=r"17 joints of human36m_17, got shape \(18, 3\)"):
        convert_joints(torch.zeros(18, 3), source=HUMAN36M_17, target=HUMAN36M_18)


def test_names_are_found_and_the_nearest_is_offered():
    assert skeleton_by_name("human36m_18") is HUMAN36M_18
    with pytest.raises(ValueError, match="did you mean human36m_17"):
        skeleton_by_name("Human36M_17")
    with pytest.raises(ValueError, match="known: human36m_17, human36m_18"):
        skeleton_by_name("xyz")
    assert HUMAN36M_17.index("R_Wrist") == 16
    with pytest.raises(ValueError, match="did you mean L_Wrist"):
        HUMAN36M_17.index("l_wrist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joint_names": ("a", "a", "c")}, "unique"),
        ({"parents": (-1, 0)}, "expected 3 parents"),
        ({"parents": (-1, 2, 1)}, "must lead to root"),
        ({"parents": (-1, 0, 7)}, "must lead to root"),
        ({"root": 1}, "parent is -1"),
        ({"mirror_pairs": ((1, 2), (2, 1))}, "disjoint"),
        ({"evaluation_joints": (3,)}, "0..2"),
    ],
)
def test_inconsistent_skeletons_are_refused(changes, message):
    good = {
        "name": "three",
        "joint_names": ("a", "b", "c"),
        "parents": (-1, 0, 1),
        "mirror_pairs": ((1, 2),),
        "root": 0,
        "evaluation_joints": (0, 1, 2),
    }
    Skeleton(**good)
    with pytest.raises(ValueError, match=message):
        Skeleton(**(good | changes))
