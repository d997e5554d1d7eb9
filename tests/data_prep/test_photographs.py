"""Look-alikes of the synthetic data set's people: joints, images and masks belong together."""

import pickle

import numpy as np
import pytest

from data_prep.human36m import RAW_17
from data_prep.lookalike.photographs import photographed, raw_joints
from data_prep.lookalike.world import make_world, world_points

CAMERA = "58860488"


def test_the_release_s_repeated_joints_are_repeated():
    joints = np.random.default_rng(0).normal(0, 300, (5, 17, 3))
    raw = raw_joints(joints)
    np.testing.assert_array_equal(raw[:, RAW_17], joints)
    for first, second in ((11, 0), (16, 13), (24, 13), (20, 19), (28, 27), (23, 22), (31, 30)):
        np.testing.assert_array_equal(raw[:, first], raw[:, second])


def test_toes_point_to_where_the_person_faces():
    joints = np.zeros((1, 17, 3))
    joints[0, 1], joints[0, 4] = [130, 0, 900], [-130, 0, 900]  # right hip east, left hip west
    joints[0, [3, 6]] = [[130, 0, 80], [-130, 0, 80]]
    joints[0, [13, 16]] = [[-200, 0, 800], [200, 0, 800]]
    raw = raw_joints(joints)
    assert (raw[0, [4, 9], 1] > 100).all()  # north


@pytest.mark.timeout(120)
def test_joints_lie_on_the_person_that_is_filmed():
    world = make_world(
        subjects=(9,), actions=(14,), subactions=(1,), num_poses=2, camera_names=(CAMERA,)
    )
    world = photographed(world, seed=5)
    (performance,) = world.performances
    assert len(performance) == 2
    image = world.painter.image(performance, CAMERA, 1)
    mask = world.painter.mask(performance, CAMERA, 1)
    assert image.shape == (1000, 1000, 3)
    assert 0.003 < mask.mean() < 0.2
    columns, rows = world_points(performance, CAMERA, 1).round().astype(int).T
    assert mask[rows, columns].mean() > 0.6
    again = pickle.loads(pickle.dumps(world.painter))
    np.testing.assert_array_equal(again.image(performance, CAMERA, 1), image)
