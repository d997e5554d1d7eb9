"""What a body cannot do, and what arms reach for."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.synthetic.arms import TARGETS, draw_arms
from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.draft import Draft
from data_prep.synthetic.limits import intersection_mm, limit_excess, overlaps
from data_prep.synthetic.rotations import rotation_x, rotation_y, rotation_z


@pytest.fixture(scope="module")
def body():
    return Body(load_body_model(), gender=0.8)


def turned(axis, degrees):
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


@pytest.mark.parametrize(
    ("bone", "turn", "excess_deg"),
    [
        ("spine", turned("x", 44.0), 0.0),
        ("spine", turned("x", 55.0), 10.0),
        ("l_foot", turned("x", -80.0), 5.0),
        ("l_thigh", turned("x", -129.0), 0.0),
        ("l_thigh", turned("x", -140.0), 10.0),
        ("r_thigh", turned("x", 45.0), 10.0),
        ("l_thigh", turned("y", -75.0), 10.0),
        ("r_thigh", turned("y", -45.0), 10.0),
        ("l_thigh", turned("z", 85.0), 10.0),
        ("l_upperarm", turned("x", 75.0), 10.0),
        ("r_upperarm", turned("y", -65.0), 10.0),
        ("l_forearm", turned("x", -158.0), 10.0),
        ("l_forearm", turned("x", 10.0), 10.0),
        ("r_shank", turned("x", 162.0), 10.0),
        ("r_shank", turned("x", -10.0), 10.0),
    ],
)
def test_a_turn_beyond_its_limit_is_measured(bone, turn, excess_deg):
    assert np.degrees(limit_excess({bone: turn})) == pytest.approx(excess_deg, abs=1e-4)


def test_frames_are_judged_as_each_pose_alone(body):
    rng = np.random.default_rng(0)
    names = [*("spine", "head", "l_thigh", "r_thigh", "l_upperarm", "r_upperarm", "l_hand")]
    local = {n: Rotation.from_rotvec(rng.normal(0.0, 0.9, (6, 3))).as_matrix() for n in names}
    skeletons = body.pose_frames(local, np.zeros((6, 3)))
    excess, inside = limit_excess(local), intersection_mm(body, skeletons)
    for i in range(6):
        assert excess[i] == pytest.approx(float(limit_excess({n: t[i] for n, t in local.items()})))
        assert inside[i] == pytest.approx(float(intersection_mm(body, skeletons.frame(i))))
    assert excess.max() > 0
    assert inside.max() > 0


def test_an_arm_through_the_trunk_is_noticed(body):
    free = {f"{side}_upperarm": rotation_y(-sign * 0.5) for side, sign in (("l", 1), ("r", -1))}
    assert intersection_mm(body, body.pose(free, np.zeros(3))) == 0
    through = {**free, "l_upperarm": rotation_y(0.2), "l_forearm": rotation_y(0.9)}
    assert intersection_mm(body, body.pose(through, np.zeros(3))) > 40
    folded = {**free, "l_thigh": rotation_x(-1.5), "r_thigh": rotation_x(-1.5)}
    crossed = {**folded, "l_thigh": rotation_x(-1.5) @ rotation_y(0.4)}
    assert intersection_mm(body, body.pose(crossed, np.zeros(3))) > 20


def test_the_way_apart_leads_the_first_limb_away_from_the_second(body):
    inward = {"l_upperarm": rotation_y(0.1), "l_forearm": rotation_x(-0.3)}
    found = overlaps(body, body.pose(inward, np.zeros(3)))
    pair = found.pairs.index(("l_forearm", "l_trunk"))
    assert found.apart[pair, 0] > 0.3  # to the left, where the left arm came from
    np.testing.assert_allclose(np.linalg.norm(found.apart[pair]), 1.0)


def draft_of(body, seed):
    local = {
        "pelvis": rotation_x(0.05),
        "spine": rotation_x(0.05),
        "chest": rotation_z(0.1),
        "neck": rotation_x(0.1),
        "head": rotation_z(-0.1),
    }
    return Draft(body=body, rng=np.random.default_rng(seed), local=local)


@pytest.mark.parametrize("name", sorted(set(TARGETS) | {"hang"}))
def test_arms_bend_forward_and_keep_their_limits_mostly(body, name):
    excess = []
    for seed in range(12):
        draft = draft_of(body, seed)
        draw_arms(draft, (name, name))
        for side in "lr":
            bend = -Rotation.from_matrix(draft.local[f"{side}_forearm"]).as_rotvec()
            assert 0.0 <= bend[0] <= np.radians(148.0) + 1e-9
            np.testing.assert_allclose(bend[1:], 0.0, atol=1e-9)
        excess.append(float(limit_excess(draft.local)))
    assert np.mean(np.array(excess) < 0.02) >= 0.5


@pytest.mark.parametrize(
    ("name", "bone", "reach_mm"),
    [("ear", "head", 180.0), ("mouth", "head", 260.0), ("hip", "l_thigh", 220.0)],
)
def test_hands_are_where_their_name_says(body, name, bone, reach_mm):
    for seed in range(8):
        draft = draft_of(body, seed)
        draw_arms(draft, (name, name))
        skeleton = draft.skeleton()
        gap = body.point_mm(skeleton, "l_hand") - body.point_mm(skeleton, bone)
        assert np.linalg.norm(gap) < reach_mm


def test_hands_pick_from_below_however_the_trunk_is_bent(body):
    for seed in range(8):
        draft = draft_of(body, seed)
        draft.local["pelvis"] = rotation_x(1.1)
        draw_arms(draft, ("pick", "pick"))
        skeleton = draft.skeleton()
        down = body.point_mm(skeleton, "l_hand") - body.point_mm(skeleton, "l_upperarm")
        assert down[2] < -0.6 * np.linalg.norm(down)
