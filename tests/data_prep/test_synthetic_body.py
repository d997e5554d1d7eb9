"""The synthetic body: its asset, skeleton and skinning."""

import itertools
from importlib import resources

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.synthetic.body import JOINT_BONES, Body, load_body_model
from data_prep.synthetic.rotations import (
    reach,
    rotation_x,
    segment_gaps,
    shortest_rotation,
    twist_angle,
)
from data_prep.synthetic.subjects import PHENOTYPES
from pose3d.geometry.skeleton import HUMAN36M_17


@pytest.fixture(scope="module")
def model():
    return load_body_model()


@pytest.fixture(scope="module")
def body(model):
    return Body(model, **PHENOTYPES[1])


def random_turns(model, seed, angle_rad=0.4):
    turns = Rotation.from_rotvec(
        np.random.default_rng(seed).normal(0.0, angle_rad, (len(model.bone_names), 3))
    )
    return dict(zip(model.bone_names, turns.as_matrix(), strict=True))


def test_asset_is_small_and_its_licence_lies_beside_it():
    assets = resources.files("data_prep") / "assets"
    with resources.as_file(assets / "body.npz") as path:
        assert path.stat().st_size <= 2_000_000
    assert "CC0" in (assets / "body.LICENCE.md").read_text()


def test_mesh_is_closed_and_looks_outward(model, body):
    edges = np.concatenate([model.faces[:, [i, (i + 1) % 3]] for i in range(3)])
    forward = {tuple(edge) for edge in edges.tolist()}
    assert len(forward) == len(edges)
    assert all((b, a) in forward for a, b in forward)
    a, b, c = (body.rest_vertices_mm[model.faces[:, i]] for i in range(3))
    volume_litres = np.einsum("ij,ij->", a, np.cross(b, c)) / 6e6
    assert 35 < volume_litres < 120


def test_weights_are_a_partition_of_at_most_four_bones(model):
    np.testing.assert_allclose(model.weights.sum(axis=1), 1.0)
    assert ((model.weights > 0).sum(axis=1) <= 4).all()


@pytest.mark.parametrize("subject", PHENOTYPES)
def test_subjects_have_human_sizes(model, subject):
    body = Body(model, **PHENOTYPES[subject])
    height = np.ptp(body.rest_vertices_mm[:, 2])
    assert 1500 < height < 1950
    joints = body.joints_mm(body.pose({}, np.zeros(3)))
    index = HUMAN36M_17.index
    # Human3.6M's own subjects: neck to nose 107 to 121 mm, nose to head 115 mm.
    for start, end in (("Neck", "Nose"), ("Nose", "Head")):
        assert 100 < np.linalg.norm(joints[index(end)] - joints[index(start)]) < 130


def test_pelvis_is_the_midpoint_of_the_hips_in_every_pose(model, body):
    index = HUMAN36M_17.index
    for seed in range(5):
        joints = body.joints_mm(body.pose(random_turns(model, seed), np.array([10.0, 20.0, 30.0])))
        middle = (joints[index("R_Hip")] + joints[index("L_Hip")]) / 2
        np.testing.assert_allclose(joints[index("Pelvis")], middle, atol=1e-9)


def test_bone_lengths_do_not_depend_on_the_pose(model, body):
    def lengths(turns):
        joints = body.joints_mm(body.pose(turns, np.zeros(3)))
        return [np.linalg.norm(joints[c] - joints[p]) for p, c in HUMAN36M_17.bones]

    for seed in range(5):
        np.testing.assert_allclose(lengths(random_turns(model, seed)), lengths({}), rtol=1e-9)


def test_left_joints_are_on_the_left_of_a_body_that_faces_minus_y(body):
    joints = body.joints_mm(body.pose({}, np.zeros(3)))
    for name, joint in zip(HUMAN36M_17.joint_names, joints, strict=True):
        side = {"L": 1.0, "R": -1.0}.get(name.split("_")[0], 0.0)
        assert np.sign(np.round(joint[0], 0)) == side, name
    toes = body.point_mm(body.pose({}, np.zeros(3)), "l_toe")
    assert toes[1] < joints[HUMAN36M_17.index("L_Ankle")][1]  # toes point forward


def test_elbows_bend_forward_and_knees_backward(body):
    straight = body.joints_mm(body.pose({}, np.zeros(3)))
    turns = {f"{side}_forearm": rotation_x(-1.0) for side in "lr"}
    turns |= {f"{side}_shank": rotation_x(1.0) for side in "lr"}
    moved = body.joints_mm(body.pose(turns, np.zeros(3))) - straight
    for side in "LR":
        assert moved[HUMAN36M_17.index(f"{side}_Wrist")][1] < -100
        assert moved[HUMAN36M_17.index(f"{side}_Ankle")][1] > 100


def test_frames_are_posed_and_skinned_as_each_pose_alone(model, body):
    roots = np.random.default_rng(1).normal(0.0, 500.0, (4, 3))
    single = [random_turns(model, seed) for seed in range(4)]
    frames = body.pose_frames({n: np.stack([t[n] for t in single]) for n in single[0]}, roots)
    joints, vertices = body.joints_mm(frames), body.skin(frames)
    for i, (turns, root) in enumerate(zip(single, roots, strict=True)):
        alone = body.pose(turns, root)
        np.testing.assert_allclose(joints[i], body.joints_mm(alone), atol=1e-9)
        np.testing.assert_allclose(vertices[i], body.skin(alone), atol=1e-9)


def test_joints_follow_from_scipy_s_products_along_the_chain(model, body):
    turns, root = random_turns(model, 2), np.array([10.0, 20.0, 900.0])
    joints = body.joints_mm(body.pose(turns, root))
    for joint, chain in (
        ("L_Wrist", "pelvis spine chest l_clavicle l_upperarm l_forearm l_hand"),
        ("R_Ankle", "pelvis r_thigh r_shank r_foot"),
        ("Neck", "pelvis spine chest neck"),
    ):
        position, turn, bones = root, Rotation.identity(), chain.split()
        for bone, following in itertools.pairwise(bones):
            turn = turn * Rotation.from_matrix(turns[bone])
            position = position + turn.apply(body.offsets_mm[body.index[following]])
        np.testing.assert_allclose(joints[HUMAN36M_17.index(joint)], position, atol=1e-9)


def test_a_turn_of_the_whole_body_turns_every_vertex(body):
    turn = Rotation.from_euler("xyz", [0.3, -0.8, 2.0])
    start = np.array([100.0, -50.0, 900.0])
    plain = body.skin(body.pose({}, np.zeros(3)))
    turned = body.skin(body.pose({"pelvis": turn.as_matrix()}, start))
    np.testing.assert_allclose(turned, turn.apply(plain) + start, atol=1e-6)


def test_joints_lie_inside_the_skin(model, body):
    """The winding number of a closed mesh about a point inside it is at least 1 (Gauss)."""
    vertices = body.skin(body.pose(random_turns(model, 3, 0.1), np.zeros(3)))
    joints = body.joints_mm(body.pose(random_turns(model, 3, 0.1), np.zeros(3)))
    for name, joint in zip(JOINT_BONES, joints, strict=True):
        a, b, c = (vertices[model.faces[:, i]] - joint for i in range(3))
        la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
        dots = [np.einsum("ij,ij->i", u, v) for u, v in ((a, b), (b, c), (c, a))]
        triple = np.einsum("ij,ij->i", a, np.cross(b, c))
        angle = np.arctan2(triple, la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb)
        assert angle.sum() / (2 * np.pi) > 0.95, name  # 2 where skin overlaps at a joint


def test_unknown_and_outlying_phenotypes_are_refused(model):
    with pytest.raises(ValueError, match="unknown phenotypes"):
        model.rest_shape(size=0.5)
    with pytest.raises(ValueError, match=r"weight must be in \[0, 1\], got 1.5"):
        model.rest_shape(weight=1.5)


def test_another_file_is_refused_as_an_asset(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="not a body asset"):
        load_body_model(tmp_path / "other.npz")


def test_reach_brings_the_end_to_the_target():
    rng = np.random.default_rng(0)
    for bend_sign in (-1.0, 1.0):
        for _ in range(20):
            target = rng.normal(size=3)
            target *= rng.uniform(200, 540) / np.linalg.norm(target)
            pole = rng.normal(size=3)
            upper, bend = reach(target, 300.0, 250.0, pole=pole, bend_sign=bend_sign, limit_rad=2.6)
            np.testing.assert_allclose(upper @ upper.T, np.eye(3), atol=1e-9)
            assert np.linalg.det(upper) > 0
            elbow = upper @ [0.0, 0.0, -300.0]
            end = elbow + upper @ rotation_x(bend_sign * bend) @ [0.0, 0.0, -250.0]
            np.testing.assert_allclose(end, target, atol=1e-6)
            across = pole - target * (pole @ target) / (target @ target)
            assert elbow @ across > 0  # the elbow is on the pole's side
            assert 0 <= bend <= 2.6


def test_twist_angle_undoes_what_scipy_composes():
    swing = Rotation.from_rotvec([0.7, -0.9, 0.0])
    for twist in (-2.0, -0.3, 0.0, 1.4):
        rotation = (swing * Rotation.from_rotvec([0.0, 0.0, twist])).as_matrix()
        assert twist_angle(rotation) == pytest.approx(twist)


def test_shortest_rotation_turns_start_to_end():
    rng = np.random.default_rng(0)
    pairs = [*rng.normal(size=(10, 2, 3)), np.array([[0, 0, 1.0], [0, 0, -2.0]])]
    for start, end in pairs:
        rotation = shortest_rotation(start, end)
        np.testing.assert_allclose(
            rotation @ start / np.linalg.norm(start), end / np.linalg.norm(end), atol=1e-7
        )
        assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_gaps_between_segments_match_dense_sampling():
    rng = np.random.default_rng(0)
    a, b, c, d = rng.normal(size=(4, 30, 3))
    grid = np.linspace(0.0, 1.0, 201)
    first = a[:, None] + grid[:, None] * (b - a)[:, None]
    second = c[:, None] + grid[:, None] * (d - c)[:, None]
    dense = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1).min(axis=(1, 2))
    found = np.linalg.norm(segment_gaps(a, b, c, d), axis=-1)
    np.testing.assert_allclose(found, dense, atol=2e-2)
