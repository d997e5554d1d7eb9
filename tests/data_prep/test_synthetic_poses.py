"""Poses of the synthetic data: joint limits, feet on the floor, hands where the action wants."""

import math

import numpy as np
import pytest

from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.limits import ELBOW_LIMIT_RAD, KNEE_LIMIT_RAD, intersection_mm
from data_prep.synthetic.poses import ACTION_PRIORS, draw_pose
from data_prep.synthetic.rotations import rotation_x, rotation_y
from data_prep.synthetic.subjects import PHENOTYPES
from pose3d.data.store import HUMAN36M_ACTIONS
from pose3d.geometry.skeleton import HUMAN36M_17


@pytest.fixture(scope="module")
def body():
    return Body(load_body_model(), **PHENOTYPES[8])


@pytest.fixture(scope="module")
def poses(body):
    rng = np.random.default_rng(3)
    return [
        (action, draw_pose(body, action, rng=rng)) for action in ACTION_PRIORS for _ in "123456"
    ]


def joints_of(body, pose):
    skeleton = body.pose(pose.local, np.zeros(3))
    floor = body.skin(skeleton)[:, 2].min()
    joints = body.joints_mm(skeleton) - [0.0, 0.0, floor]
    return dict(zip(HUMAN36M_17.joint_names, joints, strict=True))


def angle_at(joints, a, b, c):
    """Bend at b, from straight, by the law of cosines on positions alone."""
    u, v = joints[b] - joints[a], joints[c] - joints[b]
    return math.acos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1))


def test_every_action_of_human36m_has_a_prior():
    assert set(ACTION_PRIORS) == set(HUMAN36M_ACTIONS)


def test_elbows_and_knees_stay_within_their_limits(body, poses):
    for action, pose in poses:
        joints = joints_of(body, pose)
        for side in "LR":
            elbow = angle_at(joints, f"{side}_Shoulder", f"{side}_Elbow", f"{side}_Wrist")
            knee = angle_at(joints, f"{side}_Hip", f"{side}_Knee", f"{side}_Ankle")
            assert elbow <= ELBOW_LIMIT_RAD + 1e-6, action
            assert knee <= KNEE_LIMIT_RAD + 1e-6, action


def test_knees_never_bend_forward(body, poses):
    for action, pose in poses:
        for side in "lr":
            turn = pose.local[f"{side}_shank"]
            assert math.atan2(turn[2, 1], turn[1, 1]) >= -1e-9, action


def test_faults_are_rare(poses):
    assert np.mean([pose.excess > 0 for _, pose in poses]) < 0.05


def test_heads_are_where_the_action_has_them(body, poses):
    heights = {
        legs: [joints_of(body, p)["Head"][2] for _, p in poses if p.legs == legs]
        for legs in ("stand", "walk", "chair", "floor")
    }
    assert min(heights["stand"] + heights["walk"]) > 1250
    assert min(heights["chair"]) > 800
    assert max(heights["chair"]) < 1500
    assert max(heights["floor"], default=700) < 1100


def test_both_feet_of_the_standing_are_on_the_floor(body, poses):
    for _, pose in poses:
        if pose.legs == "stand":
            joints = joints_of(body, pose)
            for side in "LR":
                assert joints[f"{side}_Ankle"][2] < body.ankle_height_mm + 40


def test_a_hand_of_the_phoning_is_at_the_head(body):
    rng = np.random.default_rng(0)
    for _ in range(8):
        pose = draw_pose(body, "Phoning", rng=rng)
        joints = joints_of(body, pose)
        nearest = min(np.linalg.norm(joints[f"{s}_Wrist"] - joints["Nose"]) for s in "LR")
        assert nearest < 220 or "ear" not in pose.arms


def test_poses_differ_and_follow_from_the_generator(body):
    def draw(seed):
        pose = draw_pose(body, "Posing", rng=np.random.default_rng(seed))
        return body.joints_mm(body.pose(pose.local, np.zeros(3)))

    np.testing.assert_array_equal(draw(5), draw(5))
    assert np.abs(draw(5) - draw(6)).max() > 20


def test_an_arm_through_the_trunk_is_noticed(body):
    free = {f"{side}_upperarm": rotation_y(-sign * 0.5) for side, sign in (("l", 1), ("r", -1))}
    assert intersection_mm(body, body.pose(free, np.zeros(3))) == 0
    through = {**free, "l_upperarm": rotation_y(0.2), "l_forearm": rotation_y(0.9)}
    assert intersection_mm(body, body.pose(through, np.zeros(3))) > 40
    folded = {**free, "l_thigh": rotation_x(-1.5), "r_thigh": rotation_x(-1.5)}
    crossed = {**folded, "l_thigh": rotation_x(-1.5) @ rotation_y(0.4)}
    assert intersection_mm(body, body.pose(crossed, np.zeros(3))) > 20


def test_an_unknown_action_is_refused(body):
    with pytest.raises(ValueError, match="unknown action 'Dancing'"):
        draw_pose(body, "Dancing", rng=np.random.default_rng(0))
