"""The camera against NumPy, SciPy, OpenCV, autograd and published numbers of Human3.6M."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from pose3d.geometry.camera import (
    HUMAN36M_CAMERA_NAMES,
    Camera,
    human36m_intrinsics,
    rotation_from_angles,
)

S1_54138969 = {
    "rotation": [
        [-0.91536173, 0.40180837, 0.02574754],
        [0.05154812, 0.18037357, -0.98224649],
        [-0.39931903, -0.89778361, -0.18581953],
    ],
    "centre_world_mm": [1841.10702775, 4955.28462345, 1563.4453959],
    "translation_mm": [-346.0507814, 546.98077931, 5474.48108743],
}


def distort_with_numpy(rays, radial, tangential):
    """Human3.6M's formula, point by point, from its published form."""
    (k1, k2, k3), (p1, p2) = radial, tangential
    result = []
    for x, y in rays:
        r2 = x**2 + y**2
        gain = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
        result.append((x * gain + p2 * r2, y * gain + p1 * r2))
    return np.array(result)


def picture_grid(size=1000, margin=0, count=21):
    axis = np.linspace(-margin, size + margin, count)
    return torch.from_numpy(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))


def random_cameras(count, *, seed):
    generator = np.random.default_rng(seed)
    names = generator.choice(HUMAN36M_CAMERA_NAMES, count)
    lenses = [human36m_intrinsics(str(name)) for name in names]
    return Camera.from_parameters(
        Rotation.random(count, random_state=seed).as_matrix(),
        generator.normal(0, 3000, (count, 3)),
        focal_px=torch.stack([lens.focal_px for lens in lenses]),
        principal_point_px=torch.stack([lens.principal_point_px for lens in lenses]),
        radial=torch.stack([lens.radial for lens in lenses]),
        tangential=torch.stack([lens.tangential for lens in lenses]),
    )


def test_published_extrinsics_give_the_published_translation():
    camera = Camera.from_parameters(
        S1_54138969["rotation"],
        S1_54138969["centre_world_mm"],
        focal_px=[1.0, 1.0],
        principal_point_px=[0.0, 0.0],
    )
    origin = camera.world_to_camera(torch.zeros(1, 3, dtype=torch.float64))
    # The rotation is published to eight digits: at 5.5 m that is 1e-4 mm.
    np.testing.assert_allclose(origin[0], S1_54138969["translation_mm"], atol=1e-4)


def test_rotation_from_angles_is_the_product_of_three_elementary_rotations():
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (20, 3))
    expected = Rotation.from_euler("XYZ", angles).as_matrix()
    actual = rotation_from_angles(*torch.from_numpy(angles).unbind(-1))
    np.testing.assert_allclose(actual, expected, atol=1e-14)
    np.testing.assert_allclose(rotation_from_angles(*angles[0]), expected[0], atol=1e-14)


def test_a_published_rotation_is_reached_through_its_angles():
    published = np.array(S1_54138969["rotation"])
    angles = Rotation.from_matrix(published).as_euler("XYZ")
    np.testing.assert_allclose(rotation_from_angles(*angles), published, atol=2e-8)


def test_world_to_camera_is_a_rotation_about_the_centre():
    camera = random_cameras(3, seed=1)
    world = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0)).double() * 1000
    for index in range(3):
        turn = Rotation.from_matrix(camera.rotation[index].numpy())
        expected = turn.apply(world[index].numpy() - camera.centre_world_mm[index].numpy())
        np.testing.assert_allclose(camera.world_to_camera(world)[index], expected, atol=1e-9)
    torch.testing.assert_close(camera.camera_to_world(camera.world_to_camera(world)), world)


@pytest.mark.parametrize("name", HUMAN36M_CAMERA_NAMES)
def test_projection_is_the_published_distortion_formula(name):
    camera = human36m_intrinsics(name)
    rays = np.random.default_rng(0).uniform(-0.45, 0.45, (200, 2))
    points = torch.from_numpy(np.concatenate([rays, np.ones((200, 1))], 1)) * 5000
    expected = distort_with_numpy(rays, camera.radial.numpy(), camera.tangential.numpy())
    expected = expected * camera.focal_px.numpy() + camera.principal_point_px.numpy()
    np.testing.assert_allclose(camera.camera_to_image(points), expected, atol=1e-10)


def opencv_projection(camera, points):
    matrix = np.eye(3)
    matrix[[0, 1], [0, 1]] = camera.focal_px
    matrix[:2, 2] = camera.principal_point_px
    (k1, k2, k3), (p1, p2) = camera.radial.tolist(), camera.tangential.tolist()
    distortion = np.array([k1, k2, p1, p2, k3])
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, distortion)
    return pixels[:, 0]


def test_opencv_differs_by_up_to_seven_tenths_of_a_pixel():
    """Within 500 px of the principal point, by the cross term once more: f xy (p1 y + p2 x)."""
    largest_px = []
    for name in HUMAN36M_CAMERA_NAMES:
        camera = human36m_intrinsics(name)
        image_px = picture_grid(count=81)
        distance_px = torch.linalg.vector_norm(image_px - camera.principal_point_px, dim=-1)
        rays = camera.image_to_rays(image_px[distance_px < 500])
        points = torch.cat([rays, torch.ones_like(rays[:, :1])], -1)
        difference_px = (
            opencv_projection(camera, points.numpy()) - camera.camera_to_image(points).numpy()
        )
        x, y = rays.numpy().T
        p1, p2 = camera.tangential.tolist()
        expected = camera.focal_px.numpy() * rays.numpy() * (p1 * y + p2 * x)[:, None]
        np.testing.assert_allclose(difference_px, expected, atol=1e-9)
        largest_px.append(np.linalg.norm(difference_px, axis=-1).max())
    assert 0.6 < max(largest_px) < 0.75
    assert min(largest_px) > 0.3


def test_without_the_tangential_part_opencv_agrees():
    camera = human36m_intrinsics("54138969")
    camera = Camera.from_parameters(
        focal_px=camera.focal_px,
        principal_point_px=camera.principal_point_px,
        radial=camera.radial,
    )
    points = np.random.default_rng(0).uniform([-2000, -2000, 4500], [2000, 2000, 6000], (50, 3))
    ours = camera.camera_to_image(torch.from_numpy(points))
    np.testing.assert_allclose(ours, opencv_projection(camera, points), atol=1e-9)


@pytest.mark.parametrize(("radius_px", "shift_px"), [(115, 0.3), (230, 2), (345, 6), (460, 13)])
def test_the_lens_moves_points_by_the_published_amounts(radius_px, shift_px):
    camera = human36m_intrinsics("54138969")
    angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    offset = radius_px * np.stack([np.cos(angles), np.sin(angles)], -1)
    rays = torch.from_numpy(offset) / camera.focal_px
    points = torch.cat([rays, torch.ones_like(rays[:, :1])], -1)
    bent, straight = (c.camera_to_image(points) for c in (camera, camera.without_distortion()))
    mean_shift = torch.linalg.vector_norm(bent - straight, dim=-1).mean()
    assert abs(mean_shift - shift_px) < 0.15 * shift_px + 0.1


@pytest.mark.parametrize("name", HUMAN36M_CAMERA_NAMES)
@pytest.mark.parametrize(("dtype", "tolerance_px"), [(torch.float64, 1e-10), (torch.float32, 3e-4)])
def test_back_projection_undoes_projection_over_the_whole_picture(name, dtype, tolerance_px):
    camera = human36m_intrinsics(name).to(dtype=dtype)
    image_px = picture_grid(margin=200).to(dtype)
    depth_mm = torch.linspace(500, 9000, len(image_px), dtype=dtype)
    joints = camera.image_to_camera(image_px, depth_mm)
    assert joints.dtype == dtype
    torch.testing.assert_close(joints[:, 2], depth_mm)
    again = camera.camera_to_image(joints)
    torch.testing.assert_close(again, image_px, rtol=0, atol=tolerance_px)


def test_undistortion_agrees_with_an_independent_solver():
    camera = human36m_intrinsics("60457274")
    radial, tangential = camera.radial.numpy(), camera.tangential.numpy()
    image_px = picture_grid(count=4)
    wanted = ((image_px - camera.principal_point_px) / camera.focal_px).numpy()
    for target, ray in zip(wanted, camera.image_to_rays(image_px), strict=True):
        solution = least_squares(
            lambda r, target=target: distort_with_numpy([r], radial, tangential)[0] - target,
            target,
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        np.testing.assert_allclose(ray, solution.x, atol=1e-9)


@pytest.mark.parametrize("radial", [(-0.2, 0.25, 0.0), (-0.6, 0.0, 0.0), (-1.0, 0.3, -0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_that_no_ray_reaches_stay_finite(radial, dtype):
    camera = Camera.from_parameters(
        focal_px=[1000, 1000],
        principal_point_px=[500, 500],
        radial=radial,
        tangential=[0.01, -0.02],
        dtype=dtype,
    )
    sizes = [0.0, 1.0, 1e3, 1e4, 1e6, 1e12, 1e30]
    image_px = torch.tensor([[s * a, s * b] for s in sizes for a in (-1, 1) for b in (-1, 0.3)])
    image_px = image_px.to(dtype).requires_grad_()
    joints = camera.image_to_camera(image_px, torch.full((len(image_px),), 5000.0, dtype=dtype))
    assert torch.isfinite(joints).all()
    joints.sum().backward()
    assert torch.isfinite(image_px.grad).all()


def test_a_search_that_starts_on_the_fold_stays_finite():
    """At r = 1 this lens turns back: its Jacobian is exactly singular there."""
    camera = Camera.from_parameters(
        focal_px=[1000, 1000], principal_point_px=[0, 0], radial=[-0.75, 0.25, 0]
    )
    fold = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert torch.linalg.det(camera.image_from_ray_jacobian(fold)).item() == 0
    assert torch.isfinite(camera.image_to_rays(fold * 1000)).all()


def test_gradients_of_back_projection_match_finite_differences():
    camera = human36m_intrinsics("55011271")
    image_px = picture_grid(count=3).requires_grad_()
    assert torch.autograd.gradcheck(camera.image_to_rays, (image_px,), atol=1e-7)


def test_the_projection_jacobian_is_what_autograd_finds():
    camera = human36m_intrinsics("58860488")
    ray = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(camera.rays_to_image, ray)[0, :, 0]
    torch.testing.assert_close(camera.image_from_ray_jacobian(ray)[0], expected)


def test_a_batch_of_cameras_answers_as_its_members_do():
    cameras = random_cameras(4, seed=2)
    joints = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(0)).double() + 2
    together = cameras.camera_to_image(joints)
    assert cameras.batch_shape == (4,)
    for index in range(4):
        assert cameras[index].batch_shape == ()
        torch.testing.assert_close(cameras[index].camera_to_image(joints[index]), together[index])
    chosen = cameras[torch.tensor([2, 0, 2])]
    torch.testing.assert_close(chosen.centre_world_mm, cameras.centre_world_mm[[2, 0, 2]])
    mask = cameras[torch.tensor([True, False, False, True])]
    assert mask.batch_shape == (2,)
    assert cameras[1:].batch_shape == (3,)


def test_one_camera_serves_a_batch_of_poses():
    camera = human36m_intrinsics("54138969")
    joints = torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(0)).double() + 2
    together = camera.camera_to_image(joints)
    for index in range(3):
        torch.testing.assert_close(together[index], camera.camera_to_image(joints[index]))


def test_cameras_survive_pickling_and_change_dtype():
    cameras = pickle.loads(pickle.dumps(random_cameras(2, seed=3)))
    assert cameras.to(dtype=torch.float32).radial.dtype == torch.float32
    assert cameras.to("cpu").radial.dtype == torch.float64


@pytest.mark.parametrize("depth_mm", [0.0, -5.0, float("nan"), float("inf")])
def test_depths_not_in_front_of_the_camera_are_refused(depth_mm):
    camera = human36m_intrinsics("54138969")
    joints = torch.tensor([[0.0, 0.0, 100.0], [0.0, 0.0, depth_mm]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"depth of joints_camera_mm .* in 1 of 2 places"):
        camera.camera_to_image(joints)
    with pytest.raises(ValueError, match="depth_mm must be finite and > 0 mm"):
        camera.image_to_camera(joints[:, :2], joints[:, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focal_px": [0.0, 1.0]}, "focal_px must be > 0"),
        ({"focal_px": [1.0]}, r"focal_px must end in \(2,\)"),
        ({"radial": [0.0, float("nan"), 0.0]}, "radial must be finite"),
        ({"rotation": np.eye(3) * 2}, "orthonormal"),
        ({"rotation": np.diag([1.0, 1.0, -1.0])}, "determinant"),
        ({"rotation": np.ones((2, 3, 3))}, "does not fit focal_px"),
        ({"centre_world_mm": [0.0, 0.0]}, r"centre_world_mm must end in \(3,\)"),
    ],
)
def test_impossible_cameras_are_refused(changes, message):
    good = {"focal_px": [1000.0, 1000.0], "principal_point_px": [500.0, 500.0]}
    with pytest.raises(ValueError, match=message):
        Camera.from_parameters(**(good | changes))


def test_unknown_cameras_are_refused_and_single_ones_not_indexed():
    with pytest.raises(ValueError, match="known: 54138969"):
        human36m_intrinsics("54138968")
    with pytest.raises(ValueError, match="single camera"):
        human36m_intrinsics("54138969")[0]
