"""Motion capture on the body: joints, hinges, feet and floor, against motions that are known."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.mocap import load_clips
from data_prep.synthetic.mocap_clips import Clip, Clips
from data_prep.synthetic.retarget import retarget
from data_prep.synthetic.retarget_area import AREA_HALF_MM, cut_to_area
from data_prep.synthetic.retarget_report import retargeting_report
from pose3d.geometry.skeleton import HUMAN36M_17

MAN = {"gender": 0.1, "muscle": 0.6, "weight": 0.6, "height": 0.42, "proportions": 0.3}
WOMAN = {"gender": 0.9, "height": 0.4}
CMU = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cmu_h36m17.npz"


@pytest.fixture(scope="module")
def model():
    return load_body_model()


@pytest.fixture(scope="module")
def man(model):
    return Body(model, **MAN)


def turns(order, *angles_deg):
    return Rotation.from_euler(order, np.stack(angles_deg, axis=-1), degrees=True).as_matrix()


def known_motion(body, num_frames=150, frames_per_s=50.0):
    """Rotations of somebody who sways, turns, waves and steps on the spot, lowest foot flat."""
    t = np.arange(num_frames) / frames_per_s

    def wave(size_deg, per_s, start=0.0):
        return size_deg * np.sin(2 * np.pi * per_s * t + start)

    local = {
        "pelvis": turns("zxy", 40 * t, 8 + wave(6, 0.5), wave(4, 0.7)),
        "spine": turns("zy", wave(6, 0.4), wave(5, 0.6)),
        "chest": turns("zxy", wave(8, 0.4), 5 + wave(8, 0.3), wave(6, 0.5)),
        "neck": turns("xy", wave(20, 0.5), wave(15, 0.4)),
        "head": turns("xy", wave(15, 0.3), wave(10, 0.6)),
    }
    for side, out, start in (("l", 1, 0.0), ("r", -1, np.pi)):
        local[f"{side}_clavicle"] = turns("zy", wave(6, 0.5, start), -out * (6 + wave(6, 0.4)))
        arm = (-35 + wave(40, 0.6, start), -out * (30 + wave(20, 0.5)), out * wave(30, 0.4))
        local[f"{side}_upperarm"] = turns("xyz", *arm)
        local[f"{side}_forearm"] = turns("x", -60 + wave(40, 0.8, start))
        leg = (-25 + wave(15, 0.7, start), -out * (8 + wave(4, 0.5)), out * (8 + wave(6, 0.5)))
        local[f"{side}_thigh"] = turns("xyz", *leg)
        local[f"{side}_shank"] = turns("x", 40 + wave(20, 0.7, start + 1.0))
    root = np.zeros((num_frames, 3))
    ankles = body.joints_mm(body.pose_frames(local, root))[:, [3, 6], 2]
    root[:, 2] = body.ankle_height_mm - ankles.min(axis=1)
    root[:, 0] = 200 * np.sin(t)
    return local, root


def clip_of(body, local, root, *, rate=50.0, upright_mm=None):
    joints = body.joints_mm(body.pose_frames(local, root))
    return Clip(
        joints_mm=joints,
        frames_per_s=rate,
        name="01_01",
        action="known",
        subject="01",
        rig="body",
        recording="01_01",
        upright_mm=upright_mm,
    )


def posed(body, result):
    skeleton = body.pose_frames(result.motion.local, result.motion.root_mm)
    return skeleton, body.joints_mm(skeleton)


def from_pelvis(joints):
    return joints - joints[:, :1]


def test_a_motion_of_the_body_comes_back_joint_by_joint(man):
    local, root = known_motion(man)
    clip = clip_of(man, local, root)
    result = retarget(clip, man)
    _, joints = posed(man, result)
    away = np.linalg.norm(from_pelvis(joints) - from_pelvis(clip.joints_mm), axis=-1)
    assert away.max() < 5.0
    np.testing.assert_allclose(result.raw_error_mm, away, atol=1e-6)
    assert np.abs(joints[..., 2] - clip.joints_mm[..., 2]).max() < 8.0  # in the room as well


def test_elbows_and_knees_turn_about_x_alone_and_never_the_wrong_way(man):
    result = retarget(clip_of(man, *known_motion(man)), man)
    for side in ("l", "r"):
        for bone, sign in ((f"{side}_forearm", -1.0), (f"{side}_shank", 1.0)):
            vectors = Rotation.from_matrix(result.motion.local[bone]).as_rotvec()
            np.testing.assert_allclose(vectors[:, 1:], 0.0, atol=1e-6)
            assert (sign * vectors[:, 0] >= -1e-9).all()


def test_every_rotation_is_one(man):
    local, root = known_motion(man, 40)
    for name, turn in retarget(clip_of(man, local, root), man).motion.local.items():
        np.testing.assert_allclose(
            turn @ np.swapaxes(turn, 1, 2), np.tile(np.eye(3), (40, 1, 1)), atol=1e-9, err_msg=name
        )
        assert (np.linalg.det(turn) > 0.999).all()


def test_on_another_body_bones_keep_their_directions(model, man):
    """Against the clip's poses walked with the other body's bone lengths, written here."""
    woman = Body(model, **WOMAN)
    clip = clip_of(man, *known_motion(man))
    _, joints = posed(woman, retarget(clip, woman))
    neutral = woman.joints_mm(woman.pose_frames({}, np.zeros((1, 3))))[0]
    parents = HUMAN36M_17.parents
    expected = np.zeros_like(joints)
    for joint in range(1, 17):
        bone = clip.joints_mm[:, joint] - clip.joints_mm[:, parents[joint]]
        length = np.linalg.norm(neutral[joint] - neutral[parents[joint]])
        unit = bone / np.linalg.norm(bone, axis=1, keepdims=True)
        expected[:, joint] = expected[:, parents[joint]] + length * unit
    away = np.linalg.norm(from_pelvis(joints) - expected, axis=-1)
    assert away.mean() < 6.0
    assert away[:, [7, 8]].max() < 3.0
    assert np.linalg.norm(joints[:, 13] - joints[:, 12], axis=1) == pytest.approx(
        woman.length_mm("l_hand")
    )


def test_a_clip_at_12_frames_a_second_becomes_50(man):
    local, root = known_motion(man, 25, frames_per_s=12.0)
    result = retarget(clip_of(man, local, root, rate=12.0), man)
    assert result.motion.frames_per_s == 50.0
    assert result.motion.num_frames == 101  # two seconds and the last frame
    assert result.error_mm.shape == (101, 17)
    fine, _ = known_motion(man, 101, frames_per_s=50.0)
    _, joints = posed(man, result)
    true = man.joints_mm(man.pose_frames(fine, np.zeros((101, 3))))
    away = np.linalg.norm(from_pelvis(joints) - from_pelvis(true), axis=-1)
    assert away.max() < 12.0


def stepping(body, num_frames=100):
    """A left leg that lifts and comes down twice; the right one stands."""
    lift = 0.5 - 0.5 * np.cos(np.arange(num_frames) / num_frames * 4 * np.pi)
    local = {
        "l_thigh": turns("x", -40 * lift),
        "l_shank": turns("x", 70 * lift),
        "r_thigh": turns("x", np.full(num_frames, -4.0)),
        "r_shank": turns("x", np.full(num_frames, 8.0)),
    }
    root = np.zeros((num_frames, 3))
    ankle = body.joints_mm(body.pose_frames(local, root))[:, 3, 2]
    root[:, 2] = body.ankle_height_mm - ankle
    return local, root


@pytest.mark.parametrize("phenotypes", [MAN, WOMAN], ids=["own", "another"])
def test_a_standing_foot_stands_still_and_flat_on_the_floor(model, man, phenotypes):
    body = Body(model, **phenotypes)
    clip = clip_of(man, *stepping(man))
    result = retarget(clip, body)
    skeleton, joints = posed(body, result)
    standing = joints[:, 3]
    assert np.linalg.norm(np.diff(standing, axis=0), axis=1).max() < 0.5
    assert standing[:, 2] == pytest.approx(body.ankle_height_mm, abs=5.0)
    sole = skeleton.rotations[:, body.index["r_foot"]]
    assert np.degrees(np.arccos(sole[:, 2, 2])).max() < 5.0  # the foot's up is the room's


@pytest.mark.parametrize("phenotypes", [MAN, WOMAN], ids=["own", "another"])
def test_no_skin_is_below_the_floor(model, man, phenotypes):
    body = Body(model, **phenotypes)
    for motion in (stepping(man), known_motion(man)):
        result = retarget(clip_of(man, *motion), body)
        some = {name: turn[::8] for name, turn in result.motion.local.items()}
        skin = body.skin(body.pose_frames(some, result.motion.root_mm[::8]))
        assert skin[..., 2].min() > -10.0


def test_hands_on_a_floor_that_is_too_high_for_them_raise_the_person(man):
    """A clip whose floor is wrong by 20 cm does not push hands through the floor."""
    bent = {"pelvis": turns("x", np.full(60, 100.0))}
    bent |= {f"{side}_thigh": turns("x", np.full(60, -100.0)) for side in "lr"}
    root = np.tile([0.0, 0.0, 480.0], (60, 1))
    _, joints = posed(man, retarget(clip_of(man, bent, root), man))
    assert joints[..., 2].min() > -5.0


def walking_path(man, metres, num_frames):
    local, root = known_motion(man, num_frames)
    path = np.linspace(0.0, 1e3 * metres, num_frames)
    root[:, :2] = np.stack([path * np.cos(0.3), path * np.sin(0.3)], axis=1)
    return clip_of(man, local, root)


def test_a_clip_is_turned_and_centred_into_the_area(man):
    clip = walking_path(man, 3.0, 150)  # 2.9 m along x, where there are 2.6
    path = retarget(clip, man).motion.root_mm[:, :2]
    assert (np.abs(path) <= AREA_HALF_MM + 1.0).all()
    np.testing.assert_allclose(path.min(axis=0), -path.max(axis=0), atol=1e-6)
    step = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert step.sum() == pytest.approx(3000.0, rel=1e-3)


def test_a_clip_that_fits_keeps_its_heading(man):
    clip = clip_of(man, *known_motion(man))
    _, joints = posed(man, retarget(clip, man))
    for pose in (joints, clip.joints_mm):
        assert abs((pose[0, 4] - pose[0, 1])[1]) < 5.0
        assert (pose[0, 4] - pose[0, 1])[0] > 100.0


def test_long_walks_are_cut_into_pieces_that_fit(man):
    clip = walking_path(man, 9.0, 400)
    pieces = cut_to_area(Clips([clip]))
    assert len(pieces) >= 3
    assert pieces.names[:2] == ("01_01/1", "01_01/2")
    assert {piece.recording for piece in pieces} == {"01_01"}
    joined = np.concatenate([piece.joints_mm for piece in pieces])
    np.testing.assert_array_equal(joined, clip.joints_mm)
    for piece in pieces:
        path = retarget(piece, man).motion.root_mm[:, :2]
        assert (np.abs(path) <= AREA_HALF_MM + 1.0).all()


def test_who_sits_gets_a_seat_under_them(man):
    """Thighs level for two seconds: the seat is below the pelvis and faces as the sitter does."""
    facing = 60.0
    count = 100
    local = {"pelvis": turns("z", np.full(count, facing))}
    for side in ("l", "r"):
        local[f"{side}_thigh"] = turns("x", np.full(count, -85.0))
        local[f"{side}_shank"] = turns("x", np.full(count, 85.0))
    root = np.zeros((count, 3))
    ankle = man.joints_mm(man.pose_frames(local, root))[0, 3, 2]
    root[:, 2] = man.ankle_height_mm - ankle
    seat = retarget(clip_of(man, local, root), man).motion.seat
    assert seat is not None
    assert np.degrees(seat.heading_rad) == pytest.approx(facing, abs=2.0)
    assert 60.0 < root[0, 2] - seat.size_mm[2] < 120.0
    assert np.linalg.norm(seat.centre_mm) < seat.size_mm[1] / 2
    assert retarget(clip_of(man, *known_motion(man)), man).motion.seat is None


def test_the_report_counts_every_frame_the_same(man):
    results = [retarget(clip_of(man, *known_motion(man, count)), man) for count in (30, 90)]
    report = retargeting_report(results)
    errors = np.concatenate([result.error_mm for result in results])
    assert (report.num_clips, report.num_frames) == (2, 120)
    np.testing.assert_allclose(report.mean_mm, errors.mean(axis=0), rtol=1e-4)
    stored = report.to_json()
    assert stored["p95_mm"] == pytest.approx(np.percentile(errors, 95), abs=0.01)
    assert set(stored["joints"]) == set(HUMAN36M_17.joint_names)
    assert f"{report.mean_mm.mean():.1f} mm" in report.text()
    with pytest.raises(ValueError, match="nothing to report"):
        retargeting_report([])


@pytest.fixture(scope="module")
def cmu():
    path = Path(os.environ.get("POSE3D_CMU_POSES", CMU))
    if not path.is_file():
        pytest.skip(f"no CMU poses at {path}; set POSE3D_CMU_POSES to the NPZ file")
    return load_clips(path)


def test_cmu_clips_are_read_and_sorted_out(cmu):
    assert len(cmu) == 155
    assert 20_000 < cmu.num_frames <= 20_395
    usable = cmu.usable()
    assert len(usable) > 100
    assert "playground_climb" not in {c.action for c in usable if c.name != "01_01"}
    assert {"walk", "run", "jump", "dance", "drink", "laugh"} <= set(usable.actions)


def test_cmu_clips_fit_the_body(cmu, man):
    pieces = cut_to_area(cmu.usable())
    results = [retarget(pieces[i], man) for i in range(0, len(pieces), 8)]
    report = retargeting_report(results)
    assert report.mean_mm.mean() < 5.0
    assert report.percentile95_mm.max() < 40.0
    assert report.beyond_limits_share < 0.05
    for result in results:
        assert (np.abs(result.motion.root_mm[:, :2]) < AREA_HALF_MM + 100.0).all()
        some = {name: turn[::40] for name, turn in result.motion.local.items()}
        skin = man.skin(man.pose_frames(some, result.motion.root_mm[::40]))
        assert skin[..., 2].min() > -30.0


def turning_about_a_foot(body, num_frames=100):
    """Somebody who stands on the right foot and turns about its ankle."""
    angle = np.linspace(0.0, 70.0, num_frames)
    local = {"pelvis": turns("z", angle)}
    local["l_thigh"] = turns("x", np.full(num_frames, -50.0))
    local["l_shank"] = turns("x", np.full(num_frames, 80.0))
    local["r_thigh"] = turns("xy", np.full(num_frames, -12.0), np.full(num_frames, 6.0))
    local["r_shank"] = turns("x", np.full(num_frames, 18.0))
    root = np.zeros((num_frames, 3))
    ankle = body.joints_mm(body.pose_frames(local, root))[:, 3]
    return local, [0.0, 0.0, body.ankle_height_mm] - ankle


def test_a_foot_that_others_turn_about_does_not_slide(model, man):
    """Hips of another width would drag it along."""
    woman = Body(model, **WOMAN)
    _, joints = posed(woman, retarget(clip_of(man, *turning_about_a_foot(man)), woman))
    assert np.ptp(joints[:, 3, :2], axis=0).max() < 2.0
    assert woman.length_mm("l_thigh") != pytest.approx(man.length_mm("l_thigh"), abs=3.0)


def test_paths_scale_with_the_legs(model, man):
    woman = Body(model, **WOMAN)
    clip = walking_path(man, 2.0, 100)
    path = retarget(clip, woman).motion.root_mm[:, :2]
    legs = [b.length_mm("l_shank") + b.length_mm("l_foot") for b in (woman, man)]
    assert np.linalg.norm(path[-1] - path[0]) == pytest.approx(2000.0 * legs[0] / legs[1], rel=1e-3)


def test_knees_bend_as_the_clip_s_do_whatever_thigh_and_shank_share(man):
    """A crouch with short thighs and long shanks: the pelvis sinks to keep the knees' angle."""
    pose = man.joints_mm(man.pose_frames({}, np.zeros((1, 3))))[0]
    thigh, shank = np.array([0.0, -0.9, -0.436]), np.array([0.0, 0.436, -0.9])
    for hip, knee, ankle in ((1, 2, 3), (4, 5, 6)):
        pose[knee] = pose[hip] + 340.0 * thigh
        pose[ankle] = pose[knee] + 540.0 * shank
    pose[:, 2] += man.ankle_height_mm - pose[3, 2]
    clip = clip_of(man, *known_motion(man, 60))
    crouch = dataclasses.replace(clip, joints_mm=np.tile(pose, (60, 1, 1)))
    assert retarget(crouch, man).error_mm[:, [2, 5]].max() < 10.0
