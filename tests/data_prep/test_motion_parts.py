"""Curves, feet and what else motion is written with."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.motion_curves import (
    Channel,
    bump,
    ease,
    lower_envelope,
    smooth,
    smooth_noise,
)
from data_prep.synthetic.motion_repair import move_wrist, part_limbs
from data_prep.synthetic.motion_score import (
    AREA_CENTRE_MM,
    AREA_HALF_MM,
    Score,
    in_area,
)
from data_prep.synthetic.motion_solve import solve_carried
from data_prep.synthetic.motion_steps import FootTrack, foot_of
from data_prep.synthetic.motion_style import draw_style
from data_prep.synthetic.rotations import rotation_x, rotation_y, rotation_z

TIMES_S = np.arange(0.0, 6.0, 0.02)


@pytest.fixture(scope="module")
def body():
    return Body(load_body_model(), gender=0.2)


@pytest.fixture
def score(body):
    rng = np.random.default_rng(4)
    return Score(
        body=body, rng=rng, style=draw_style(rng, 860.0), place=np.array([0.0, 100.0, 2.0])
    )


def test_an_eased_move_begins_and_ends_at_rest():
    p = np.linspace(-0.2, 1.2, 1401)
    for order, limit in ((1, 2.0), (2, 7.0)):
        slope = np.diff(ease(p), order) / 0.001**order
        assert np.abs(slope).max() < limit
        assert np.abs(slope[[195, -200]]).max() < 0.1
    assert ease(np.array([-1.0, 0.5, 2.0])).tolist() == [0.0, 0.5, 1.0]
    assert bump(np.array([0.0, 0.5, 1.0])).tolist() == [0.0, 1.0, 0.0]


def test_moves_that_overlap_add_up_without_a_jump():
    channel = Channel(value=np.array([1.0, 0.0]))
    channel.move(np.array([3.0, -2.0]), 1.0, 3.0)
    channel.move(np.array([0.0, 5.0]), 2.0, 4.5)
    values = channel.at(TIMES_S)
    np.testing.assert_allclose(values[0], [1.0, 0.0])
    np.testing.assert_allclose(values[-1], [0.0, 5.0])
    assert np.abs(np.diff(values, axis=0)).max() < 0.15
    assert np.abs(np.diff(values, 2, axis=0)).max() < 0.01


def test_an_envelope_is_below_its_limit_and_smooth():
    rng = np.random.default_rng(0)
    limit = 100.0 + 5.0 * smooth(rng.normal(size=300), 0.06) + (TIMES_S > 3.0) * 4.0
    envelope = lower_envelope(limit, 0.05)
    assert (envelope <= limit + 1e-9).all()
    assert np.abs(np.diff(envelope)).max() < 1.0
    assert (limit - envelope).mean() < 4.0


def test_noise_is_smooth_and_of_unit_deviation():
    times_s = np.arange(0.0, 400.0, 0.02)
    noise = smooth_noise(np.random.default_rng(0), times_s, period_s=1.0, size=2)
    assert noise.shape == (len(times_s), 2)
    assert 0.7 < noise.std() < 1.3
    assert np.abs(np.diff(noise, axis=0)).max() < 0.3


def foot_track(body, place):
    return FootTrack(
        foot=foot_of(body), place=Channel(value=np.array(place)), pitch=Channel(value=np.zeros(()))
    )


def test_the_tip_of_the_toes_stays_while_the_heel_rises(body):
    track = foot_track(body, [100.0, 200.0, 0.0, 0.7, 0.0])
    track.pitch.move(0.8, 1.0, 2.0)
    ankle, turn = track.at(TIMES_S)
    foot = track.foot
    tip = ankle + turn @ [0.0, -foot.toe_mm, -foot.ankle_mm]
    np.testing.assert_allclose(tip, np.broadcast_to(tip[0], tip.shape), atol=1e-9)
    assert tip[0, 2] == pytest.approx(0.0)
    assert ankle[-1, 2] > ankle[0, 2] + 80.0


def test_the_heel_stays_while_the_foot_comes_down_on_it(body):
    track = foot_track(body, [0.0, 0.0, 0.0, -2.0, 0.0])
    track.pitch.move(-0.4, 1.0, 2.0)
    ankle, turn = track.at(TIMES_S)
    heel = ankle + turn @ [0.0, track.foot.heel_mm, -track.foot.ankle_mm]
    np.testing.assert_allclose(heel, np.broadcast_to(heel[0], heel.shape), atol=1e-9)


def test_a_step_ends_flat_at_its_place_and_never_under_the_floor(body):
    track = foot_track(body, [0.0, 0.0, 0.0, 0.0, 0.0])
    track.step(np.array([150.0, -600.0, 0.0, 0.4, 0.0]), 1.5, 2.0, lift_mm=40.0, roll_rad=0.6)
    ankle, turn = track.at(TIMES_S)
    np.testing.assert_allclose(ankle[-1], [150.0, -600.0, track.foot.ankle_mm], atol=1e-9)
    np.testing.assert_allclose(turn[-1], rotation_z(0.4), atol=1e-12)
    for y in (-track.foot.toe_mm, track.foot.heel_mm):
        assert (ankle + turn @ [0.0, y, -track.foot.ankle_mm])[:, 2].min() > -1e-9


def test_steps_take_both_feet_to_where_the_root_goes(score):
    score.step_to(np.array([300.0, 500.0, 3.2]))
    middle = np.mean([track.place.value[:2] for track in score.feet.values()], axis=0)
    assert np.linalg.norm(middle - [300.0, 500.0]) < 40.0
    for side, outward in (("l", 1.0), ("r", -1.0)):
        left = score.feet[side].place.value[:2] - [300.0, 500.0]
        assert outward * (left @ [np.cos(3.2), np.sin(3.2)]) > 60.0


def test_a_walk_ends_at_its_last_point_and_feet_alternate(score):
    score.walk(np.array([[400.0, -200.0], [100.0, -700.0], [-500.0, -300.0]]))
    np.testing.assert_allclose(score.place[:2], [-500.0, -300.0], atol=1.0)
    lifts = sorted((start, side) for side, track in score.feet.items() for start, *_ in track.lifts)
    sides = [side for _, side in lifts[-8:]]
    assert all(a != b for a, b in itertools.pairwise(sides))


def solved(score, num_frames):
    times_s = np.arange(num_frames) / 50.0
    return solve_carried(score, times_s, rng=np.random.default_rng(0)), times_s


def test_feet_are_where_the_score_has_them(body, score):
    score.walk(np.array([[500.0, -300.0], [0.0, -600.0]]))
    score.step_to(score.place + np.array([0.0, 100.0, 1.5]))
    carried, times_s = solved(score, int(50 * score.now_s) + 25)
    frames = body.pose_frames(carried.local, carried.root_mm)
    for side, track in score.feet.items():
        wanted, turn = track.at(times_s)
        np.testing.assert_allclose(body.point_mm(frames, f"{side}_foot"), wanted, atol=0.5)
        found = frames.rotations[:, body.index[f"{side}_foot"]]
        angle = Rotation.from_matrix(np.swapaxes(found, 1, 2) @ turn).magnitude()
        assert (angle > 1e-6).mean() < 0.05  # an ankle at its limit


def test_a_deep_squat_tilts_the_pelvis_rather_than_break_the_hips(score):
    score.lean(45.0, 20.0, 0.5, 1.0)
    score.move("height", 0.3 * score.leg_mm, 0.5, 1.5)
    score.move("offset", np.array([0.0, 0.25 * score.leg_mm]), 0.5, 1.5)
    carried, _ = solved(score, 200)
    for side in "lr":
        _, y, z = Rotation.from_matrix(carried.local[f"{side}_thigh"]).apply([0.0, 0.0, -1.0]).T
        flexion = np.degrees(np.arctan2(-y, -z))
        assert 100.0 < flexion.max() < 130.0


def test_points_outside_the_area_come_to_its_rim():
    inside = AREA_CENTRE_MM + np.array([100.0, -200.0])
    np.testing.assert_array_equal(in_area(inside), inside)
    rim = (in_area(np.array([9000.0, -4000.0])) - AREA_CENTRE_MM) / AREA_HALF_MM
    assert np.linalg.norm(rim) == pytest.approx(1.0)


def arms_beside(num_frames):
    """Arms off the trunk, a little bent."""
    local = {}
    for side, outward in (("l", 1.0), ("r", -1.0)):
        local[f"{side}_upperarm"] = np.tile(rotation_y(-0.4 * outward), (num_frames, 1, 1))
        local[f"{side}_forearm"] = np.tile(rotation_x(-0.5), (num_frames, 1, 1))
    return local


def test_a_wrist_comes_to_its_place_and_the_elbow_stays_on_its_side(body):
    local, root = arms_beside(4), np.zeros((4, 3))
    before = body.pose_frames(local, root)
    wrist = body.point_mm(before, "l_hand") + np.array([20.0, -60.0, 80.0])
    move_wrist(body, local, before, "l", wrist)
    after = body.pose_frames(local, root)
    np.testing.assert_allclose(body.point_mm(after, "l_hand"), wrist, atol=1e-6)
    moved = body.point_mm(after, "l_forearm") - body.point_mm(before, "l_forearm")
    assert np.linalg.norm(moved, axis=1).max() < 120.0
    np.testing.assert_allclose(body.point_mm(after, "r_hand"), body.point_mm(before, "r_hand"))


def test_an_arm_that_runs_into_the_trunk_is_led_round_it(body):
    num_frames = 120
    local, root = arms_beside(num_frames), np.tile([0.0, 0.0, 1000.0], (num_frames, 1))
    across = 0.75 * np.exp(-(((np.arange(num_frames) - 60.0) / 15.0) ** 2))
    local["l_upperarm"] = rotation_y(across - 0.4)
    local["l_forearm"] = np.tile(rotation_x(-0.05), (num_frames, 1, 1))

    def gap_mm():
        """From the wrist to the line through pelvis and neck."""
        frames = body.pose_frames(local, root)
        wrist, low, high = (body.point_mm(frames, n) for n in ("l_hand", "pelvis", "neck"))
        line = (high - low) / np.linalg.norm(high - low, axis=1)[:, None]
        away = wrist - low
        away = away - (away * line).sum(axis=1)[:, None] * line
        return np.linalg.norm(away, axis=1), wrist

    before, start = gap_mm()
    part_limbs(body, local, root)
    after, end = gap_mm()
    assert before.min() < 110.0
    assert after.min() > before.min() + 15.0
    np.testing.assert_allclose(end[[0, -1]], start[[0, -1]], atol=1.0)
    assert np.abs(np.diff(end, axis=0)).max() < 40.0
