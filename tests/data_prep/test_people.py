"""Takes become annotated people: lens, shift, plausible joints, boxes by their definitions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_prep.boxes import BOXES, box_definition
from data_prep.human36m_cameras import subject_camera
from data_prep.lookalike.world import direct_take, make_world
from data_prep.people import (
    camera_name_of,
    check_millimetres,
    decide_translation,
    flat_take_geometry,
    people_of,
    plausible_joints,
    with_lens,
    without_shift,
)
from data_prep.pictures import ImageFiles
from data_prep.takes import Take
from pose3d.geometry.camera import Camera, human36m_intrinsics
from pose3d.geometry.skeleton import HUMAN36M_17


@pytest.fixture(scope="module")
def take():
    """Five frames of one person before one of Human3.6M's cameras."""
    world = make_world(
        subjects=(9,), actions=(5,), subactions=(2,), num_poses=5, camera_names=("55011271",)
    )
    return direct_take(world, world.performances[0], "55011271")


def flat_take(points_px, **changes):
    """A take of people without depth whose joints lie at these pixels of a 400 × 300 image."""
    points = np.asarray(points_px, np.float64)
    count = len(points)
    size = np.tile([400, 300], (count, 1))
    joints, camera = flat_take_geometry(points, size.astype(np.float64))
    weight = np.ones((count, 17, 3)) * [1, 1, 0]
    return replace(
        Take(
            skeleton=HUMAN36M_17.name,
            joints_camera_mm=joints,
            camera=camera,
            camera_name="ca_01",
            image_size_px=size,
            frame=np.arange(count),
            pictures=ImageFiles(folder=None, names=("a.jpg",) * count),
            weight=weight,
        ),
        **changes,
    )


def person(left, top, right, bottom):
    """17 joints whose tight box this is."""
    points = np.tile([(left + right) / 2, (top + bottom) / 2], (17, 1))
    points[[2, 3]] = [[left, top], [right, bottom]]
    return points


BOX = [100.0, 60, 80, 120]  # left, top, width, height
SQUARES = {  # centre x, centre y, side; from the definitions in words, by hand
    "annotation": (140, 120, 120),
    "joints": (150, 150, 1.2 * 200),
    "posenet": (150, 150, 1.25 * 1.2 * 200),  # within the image: nothing is clipped
    "mask": (140, 120, 1.5 * 120),
}


@pytest.mark.parametrize("kind", SQUARES)
def test_boxes_follow_their_definitions(kind):
    take = flat_take([person(100, 50, 200, 250)], box_xywh_px=np.array([BOX]))
    expected = SQUARES[kind]
    square = people_of(take, box=kind, enlarge=1.0).square_box_px[0]
    np.testing.assert_allclose(square, expected, atol=1e-9)
    larger = people_of(take, box=kind, enlarge=1.1).square_box_px[0]
    np.testing.assert_allclose(larger, [*expected[:2], 1.1 * expected[2]], atol=1e-9)


def test_posenet_clips_its_box_to_the_image_before_it_grows():
    take = flat_take([person(10, 100, 210, 280)])
    # ×1.2: x from -10 to 230, y from 82 to 298; clipped: 0 to 230, 82 to 298; ×1.25
    square = people_of(take, box="posenet", enlarge=1.0).square_box_px[0]
    np.testing.assert_allclose(square, [115, 190, 1.25 * 230], atol=1e-9)
    take = flat_take([person(100, 150, 200, 300)])
    # ×1.2: y from 135 to 315; clipped to 299
    square = people_of(take, box="posenet", enlarge=1.0).square_box_px[0]
    np.testing.assert_allclose(square, [150, 217, 1.25 * 164], atol=1e-9)


def test_the_metric_box_is_two_metres_at_the_depth_of_the_root(take):
    people = people_of(take, box="metric", enlarge=1.0)
    focal = human36m_intrinsics("55011271").focal_px.numpy()
    expected = 2000 * focal.max() / take.joints_camera_mm[:, 0, 2]
    np.testing.assert_allclose(people.square_box_px[:, 2], expected, rtol=1e-9)
    root = take.camera.camera_to_image(torch.from_numpy(take.joints_camera_mm))[:, 0].numpy()
    np.testing.assert_allclose(people.square_box_px[:, :2], root, atol=1e-9)


def test_the_metric_box_takes_each_frames_own_camera(take):
    many = Camera.from_parameters(
        focal_px=np.array([[1000.0, 900], [2000, 900], [500, 400], [500, 600], [1, 1]]),
        principal_point_px=np.tile([500.0, 500], (5, 1)),
    )
    joints = take.joints_camera_mm.copy()
    joints[1] = np.nan
    broken = replace(take, camera=many, joints_camera_mm=joints)
    people = people_of(broken, box="metric", enlarge=1.0)
    expected = 2000 * np.array([1000, 2000, 500, 600, 1]) / joints[:, 0, 2]
    np.testing.assert_allclose(people.square_box_px[:, 2], expected, rtol=1e-9)


def test_a_frame_without_its_box_is_a_fault_of_that_frame_only():
    boxes = np.array([BOX, [np.nan] * 4, [5, 5, 0, 9]])
    take = flat_take([person(100, 50, 200, 250)] * 3, box_xywh_px=boxes)
    for kind in ("annotation", "mask"):
        people = people_of(take, box=kind, enlarge=1.0)
        assert people.faults[1] == f"has no {kind} box; choose --box joints, posenet or metric"
        assert set(people.faults) == ({1, 2} if kind == "annotation" else {1})
        np.testing.assert_allclose(people.square_box_px[0], SQUARES[kind])
        assert np.isnan(people.square_box_px[1]).all()
    people = people_of(take, box="annotation", enlarge=1.0)
    assert people.faults[2] == "its annotation box [5.0, 5.0, 0.0, 9.0] px has no area"
    assert not people_of(take, box="joints", enlarge=1.0).faults


def test_unlabelled_joints_count_for_nothing():
    points = np.stack([person(100, 50, 200, 250)] * 2)
    points[0, 16] = [-900, 900]
    weight = np.ones((2, 17, 3)) * [1, 1, 0]
    weight[0, 16] = 0
    weight[1] = 0
    people = people_of(flat_take(points, weight=weight), box="joints", enlarge=1.0)
    np.testing.assert_allclose(people.square_box_px[0], SQUARES["joints"], atol=1e-9)
    assert people.faults == {1: "no joint is labelled"}
    assert not people.visibility[0, 16]
    assert people.visibility[0, :16].all()


def test_visibility_is_what_lies_in_the_image_and_is_not_known_to_be_hidden():
    points = np.stack([person(100, 50, 200, 250)])
    points[0, 5:9] = [[-0.6, 50], [-0.4, 50], [399.4, 50], [399.6, 50]]
    hidden = np.ones((1, 17))
    hidden[0, 1] = 0
    people = people_of(flat_take(points, visibility=hidden), box="joints", enlarge=1.0)
    expected = np.ones(17, bool)
    expected[[1, 5, 8]] = False
    np.testing.assert_array_equal(people.visibility[0], expected)


def test_every_kind_of_box_has_its_words():
    for kind in BOXES:
        assert "× 1.1" in box_definition(kind, enlarge=1.1)
    with pytest.raises(ValueError, match="box must be one of annotation, joints, posenet, metric"):
        box_definition("tight", enlarge=1.0)


def undistort(image_px, name, depth_mm):
    """Camera-frame points by a fixed-point iteration of the documented distortion."""
    camera = human36m_intrinsics(name)
    (k1, k2, k3), (p1, p2) = camera.radial.tolist(), camera.tangential.tolist()
    seen = (image_px - camera.principal_point_px.numpy()) / camera.focal_px.numpy()
    ray = seen.copy()
    for _ in range(60):
        x, y = ray[..., 0], ray[..., 1]
        r2 = x * x + y * y
        gain = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
        ray = (seen - np.stack([p2 * r2, p1 * r2], -1)) / gain[..., None]
    return np.concatenate([ray, np.ones_like(ray[..., :1])], -1) * depth_mm[..., None]


def test_a_distorted_lens_and_a_pinhole_each_lead_back_to_the_joints(take):
    joints = take.joints_camera_mm
    for lens in ("source", "distorted", "pinhole"):
        camera = people_of(take, box="joints", enlarge=1.0, lens=lens).take.camera
        image_px = camera.camera_to_image(torch.from_numpy(joints))
        again = camera.image_to_camera(image_px, torch.from_numpy(joints[..., 2])).numpy()
        np.testing.assert_allclose(again, joints, atol=1e-6)
        if lens == "pinhole":
            focal, point = camera.focal_px.numpy(), camera.principal_point_px.numpy()
            expected = joints[..., :2] / joints[..., 2:] * focal + point
            np.testing.assert_allclose(image_px.numpy(), expected, atol=1e-9)
        else:
            found = undistort(image_px.numpy(), "55011271", joints[..., 2])
            np.testing.assert_allclose(found, joints, atol=1e-3)


def test_a_pinhole_source_gets_the_lens_of_its_camera(take):
    bare = with_lens(take.camera, "55011271", lens="pinhole")
    assert not bare.radial.any()
    again = with_lens(bare, "55011271", lens="distorted")
    np.testing.assert_array_equal(again.radial.numpy(), take.camera.radial.numpy())
    np.testing.assert_array_equal(again.tangential.numpy(), take.camera.tangential.numpy())
    many = Camera.from_parameters(
        focal_px=np.full((3, 2), 900.0), principal_point_px=np.full((3, 2), 500.0)
    )
    assert with_lens(many, "55011271", lens="distorted").radial.shape == (3, 3)


def test_a_lens_that_is_not_known_is_refused(take):
    with pytest.raises(ValueError, match=r"knows Human3\.6M's cameras only, not ca_01"):
        with_lens(take.camera, "ca_01", lens="distorted")
    with pytest.raises(ValueError, match="lens must be one of source, distorted, pinhole"):
        with_lens(take.camera, "55011271", lens="fisheye")


def test_the_shift_is_taken_off_along_the_worlds_x_axis(take):
    moved = without_shift(take)
    camera = subject_camera(9, "55011271")
    rotation, centre = camera.rotation.numpy(), camera.centre_world_mm.numpy()
    before = take.joints_camera_mm @ rotation + centre  # world = Rᵀ X + C
    after = moved.joints_camera_mm @ rotation + centre
    expected = np.broadcast_to([-200.0, 0, 0], before.shape)
    np.testing.assert_allclose(after - before, expected, atol=1e-9)


def test_boxes_move_with_the_person_and_shrink_as_it_goes_away(take):
    """A box that lies around a 1 m square about the root lies around it after the move too."""

    def around(joints_mm):
        half = 500 * 1147.0 / joints_mm[:, :1, 2]
        root = take.camera.camera_to_image(torch.from_numpy(joints_mm))[:, 0].numpy()
        return np.concatenate([root - half + [30, -20] * half / 100, 2 * half, 2 * half], axis=1)

    moved = without_shift(replace(take, box_xywh_px=around(take.joints_camera_mm)))
    np.testing.assert_allclose(moved.box_xywh_px, around(moved.joints_camera_mm), atol=1e-6)


def test_a_corrected_take_is_corrected_in_people_too(take):
    people = people_of(take, box="joints", enlarge=1.0, is_shifted=True)
    np.testing.assert_array_equal(
        people.take.joints_camera_mm, without_shift(take).joints_camera_mm
    )


def test_a_joint_far_off_is_taken_out_and_no_other(take):
    everything = np.ones(17, bool)
    body = take.joints_camera_mm[0]
    assert plausible_joints(body, HUMAN36M_17, counted=everything).all()
    for joint in (3, 8, 13):
        broken = body.copy()
        broken[joint] += [0, 3000, 0]
        found = plausible_joints(broken, HUMAN36M_17, counted=everything)
        assert np.flatnonzero(~found).tolist() == [joint]
        unknown = everything.copy()
        unknown[joint] = False
        assert plausible_joints(broken, HUMAN36M_17, counted=unknown).all()


def test_people_with_an_implausible_joint_get_weight_zero_there_and_a_box_of_the_others(take):
    joints = take.joints_camera_mm.copy()
    joints[2, 13] += [0, 1500, 0]
    boxes = np.tile([1.0, 2, 3, 4], (5, 1))
    people = people_of(
        replace(take, joints_camera_mm=joints, box_xywh_px=boxes), box="annotation", enlarge=1.0
    )
    assert people.implausible == {"L_Wrist": 1}
    zero = (people.weight == 0).all(-1)
    assert np.argwhere(zero).tolist() == [[2, 13]]
    assert not people.visibility[2, 13]
    others = np.delete(take.camera.camera_to_image(torch.from_numpy(joints[2])).numpy(), 13, axis=0)
    side = 1.2 * np.ptp(others, axis=0).max()
    np.testing.assert_allclose(people.square_box_px[2, 2], side, rtol=1e-9)
    np.testing.assert_allclose(people.square_box_px[[0, 1, 3, 4], 2], 4)


def test_joints_that_cannot_be_are_faults_of_their_frames(take):
    joints = take.joints_camera_mm.copy()
    joints[1, 3] = np.nan
    joints[2, :, 2] -= 9000
    people = people_of(replace(take, joints_camera_mm=joints), box="joints", enlarge=1.0)
    assert set(people.faults) == {1, 2}
    assert people.faults[1] == "the position of R_Ankle is not finite"
    assert "(behind the camera); camera and joints must belong together" in people.faults[2]
    assert np.isfinite(people.square_box_px[[0, 3, 4]]).all()


def test_flat_labels_project_onto_themselves():
    points = np.random.default_rng(0).uniform(0, 300, (3, 17, 2))
    joints, camera = flat_take_geometry(points, np.tile([640.0, 480], (3, 1)))
    image_px = camera.camera_to_image(torch.from_numpy(joints)).numpy()
    np.testing.assert_allclose(image_px, points, atol=1e-9)


@pytest.mark.parametrize("meant", ["centre", "minus-rc"])
def test_the_translation_that_puts_people_into_the_images_is_chosen(meant):
    cameras = [subject_camera(1, name) for name in ("54138969", "55011271", "60457274")]
    world = np.random.default_rng(0).normal([0, 0, 900], 300, (3, 17, 3))
    rotation = np.stack([camera.rotation.numpy() for camera in cameras])
    centre = np.stack([camera.centre_world_mm.numpy() for camera in cameras])
    given = centre if meant == "centre" else -np.einsum("nij,nj->ni", rotation, centre)
    arguments = (
        rotation,
        given,
        np.full((3, 2), 1145.0),
        np.full((3, 2), 512.0),
        world,
        np.full((3, 2), 1000),
    )
    found, why = decide_translation(*arguments, asked="auto", name="t")
    assert found == meant
    assert "100%" in why
    assert decide_translation(*arguments, asked="centre", name="t")[0] == "centre"
    with pytest.raises(ValueError, match="no reading of t puts the people before the cameras"):
        decide_translation(*arguments[:1], given + 1e6, *arguments[2:], asked="auto", name="t")
    with pytest.raises(ValueError, match="translation must be auto, centre or minus-rc"):
        decide_translation(*arguments, asked="c", name="t")


def test_metres_are_refused(take):
    check_millimetres(take.joints_camera_mm, name="joints")
    with pytest.raises(ValueError, match=r"people are 1\.\d+ units large in S; expected milli"):
        check_millimetres(take.joints_camera_mm / 1000, name="S")


def test_cameras_are_named_by_the_size_of_their_images():
    assert camera_name_of(1, image_size_px=(1000, 1002)) == "54138969"
    assert camera_name_of(4, image_size_px=(1000, 1000)) == "60457274"
    assert camera_name_of(1, image_size_px=(540, 960)) == "ca_01"
    assert camera_name_of(5, image_size_px=(1000, 1000)) == "ca_05"
