"""The codec: identity over random cameras and crops, closed forms, autograd, mirror laws."""

import math

import numpy as np
import pytest
import torch

from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera, human36m_intrinsics
from pose3d.geometry.crop import crop_from_image
from pose3d.geometry.skeleton import HUMAN36M_17, HUMAN36M_18
from pose3d.geometry.uvd import (
    decode_covariance,
    decode_samples,
    decode_scale,
    decode_uvd,
    encode_uvd,
    mirror_scale,
    mirror_uvd,
    uvd_in_range,
)

SIZE_PX = 256


def stacked_cameras(count):
    lenses = [human36m_intrinsics(HUMAN36M_CAMERA_NAMES[i % 4]) for i in range(count)]
    return Camera.from_parameters(
        focal_px=torch.stack([lens.focal_px for lens in lenses]),
        principal_point_px=torch.stack([lens.principal_point_px for lens in lenses]),
        radial=torch.stack([lens.radial for lens in lenses]),
        tangential=torch.stack([lens.tangential for lens in lenses]),
    )


def random_scene(count, *, seed, dtype=torch.float64):
    """People across the whole picture at 3 to 7 m, with any rotation, zoom and mirror."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    camera = stacked_cameras(count)
    depth = uniform(3000, 7000, count)
    root_px = uniform(100, 900, count, 1, 2)
    root = camera.image_to_camera(root_px, depth[:, None])
    joints = root + uniform(-900, 900, count, 17, 3)
    joints[:, :1] = root
    side = 2500 * 1147 / depth
    box = torch.cat([root_px[:, 0] + uniform(-50, 50, count, 2), side[:, None]], -1)
    crop = crop_from_image(
        box,
        crop_size_px=SIZE_PX,
        rotation_rad=uniform(-math.pi, math.pi, count),
        scale=uniform(0.7, 1.3, count),
        mirror=uniform(0, 1, count) < 0.5,
    )
    return joints.to(dtype), camera.to(dtype=dtype), crop.to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance_mm"), [(torch.float64, 1e-6), (torch.float32, 1e-2)])
def test_decoding_undoes_encoding(dtype, tolerance_mm):
    joints, camera, crop = random_scene(400, seed=0, dtype=dtype)
    uvd = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    assert uvd.dtype == dtype
    back = decode_uvd(uvd, camera, crop, crop_size_px=SIZE_PX, root_depth_mm=joints[:, 0, 2])
    assert back.dtype == dtype
    assert (back - joints).abs().max() < tolerance_mm


def test_float32_costs_no_more_than_rounding_the_answer():
    """At 5 m, float32 pixels on the way would cost a hundred times as much."""
    joints, camera, crop = random_scene(400, seed=8, dtype=torch.float32)
    wide_joints, wide_crop = joints.double(), crop.double()
    uvd = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    exact = encode_uvd(wide_joints, camera, wide_crop, crop_size_px=SIZE_PX)
    torch.testing.assert_close(uvd.double(), exact, rtol=1e-7, atol=0)
    root_depth_mm = joints[:, 0, 2]
    back = decode_uvd(uvd, camera, crop, crop_size_px=SIZE_PX, root_depth_mm=root_depth_mm)
    exact = decode_uvd(
        uvd.double(),
        camera,
        wide_crop,
        crop_size_px=SIZE_PX,
        root_depth_mm=root_depth_mm.double(),
    )
    torch.testing.assert_close(back.double(), exact, rtol=1e-7, atol=0)


def test_another_root_range_and_size_are_undone_too():
    joints, camera, crop = random_scene(8, seed=1)
    units = {"crop_size_px": 192, "depth_range_mm": 1500.0}
    uvd = encode_uvd(joints, camera, crop, root=8, **units)
    assert (uvd[:, 8, 2] == 0).all()
    back = decode_uvd(uvd, camera, crop, root_depth_mm=joints[:, 8, 2], **units)
    torch.testing.assert_close(back, joints, rtol=0, atol=1e-6)


def test_a_metre_behind_the_root_is_exactly_half_a_unit():
    camera = human36m_intrinsics("54138969")
    joints = torch.tensor([[[0.0, 0.0, 5000.0], [0.0, 0.0, 6000.0], [0.0, 0.0, 4000.0]]])
    centre_x, centre_y = camera.principal_point_px.tolist()
    crop = crop_from_image(torch.tensor([[centre_x, centre_y, 400.0]]), crop_size_px=SIZE_PX)
    uvd = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    assert uvd[0, :, 2].tolist() == [0.0, 0.5, -0.5]
    # The box centre is the crop's middle, half a pixel short of W/2.
    torch.testing.assert_close(uvd[0, :, :2], torch.full((3, 2), -0.5 / SIZE_PX), atol=1e-6, rtol=0)


def test_u_and_v_are_the_projection_in_units_of_the_crop():
    """By similar triangles, without a lens: du = f X / Z · W / side / W."""
    camera = Camera.from_parameters(focal_px=[1000, 1000], principal_point_px=[500, 400])
    joints = torch.tensor([[0.0, 0.0, 4000.0], [400.0, -200.0, 5000.0]], dtype=torch.float64)
    crop = crop_from_image(torch.tensor([500.0, 400.0, 320.0]).double(), crop_size_px=SIZE_PX)
    uvd = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    torch.testing.assert_close(
        uvd[1] - uvd[0],
        torch.tensor([1000 * 400 / 5000 / 320, -1000 * 200 / 5000 / 320, 0.5]).double(),
    )


def test_the_lens_is_part_of_the_codec():
    joints, camera, crop = random_scene(50, seed=2)
    uvd = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    blind = decode_uvd(
        uvd,
        camera.without_distortion(),
        crop,
        crop_size_px=SIZE_PX,
        root_depth_mm=joints[:, 0, 2],
    )
    assert (blind - joints).abs().max() > 10  # millimetres


def test_decoded_scale_is_the_jacobian_of_the_decoding():
    joints, camera, crop = random_scene(3, seed=3)
    root_depth_mm = joints[:, 0, 2]
    mean = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    generator = torch.Generator().manual_seed(0)
    scale = 0.001 + 0.1 * torch.rand(mean.shape, generator=generator, dtype=torch.float64)
    actual = decode_scale(
        mean, scale, camera, crop, crop_size_px=SIZE_PX, root_depth_mm=root_depth_mm
    )
    for pose, joint in [(0, 0), (1, 5), (2, 16)]:

        def decode_one(point, pose=pose):
            return decode_uvd(
                point[None],
                camera[pose],
                crop[pose],
                crop_size_px=SIZE_PX,
                root_depth_mm=root_depth_mm[pose],
            )[0]

        jacobian = torch.autograd.functional.jacobian(decode_one, mean[pose, joint])
        covariance = jacobian @ torch.diag(scale[pose, joint] ** 2) @ jacobian.T
        torch.testing.assert_close(actual[pose, joint], covariance.diagonal().sqrt())


def test_decoded_scale_is_the_spread_of_decoded_samples():
    joints, camera, crop = random_scene(1, seed=4)
    mean = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)[0]
    scale = torch.tensor([0.004, 0.008, 0.02], dtype=torch.float64).expand_as(mean)
    units = {"crop_size_px": SIZE_PX, "root_depth_mm": joints[0, 0, 2]}
    predicted = decode_scale(mean, scale, camera[0], crop[0], **units)
    noise = np.random.default_rng(0).normal(size=(20000, *mean.shape))
    samples = decode_uvd(
        mean + scale * torch.from_numpy(noise),
        camera[0],
        crop.expand(20000, 3, 3),
        crop_size_px=SIZE_PX,
        root_depth_mm=joints[0, 0, 2].expand(20000),
    )
    np.testing.assert_allclose(predicted, samples.std(0), rtol=0.03)


@pytest.fixture
def factor():
    """Of a covariance with strong correlations of every pair of axes."""
    rows = [[0.004, 0, 0], [-0.006, 0.003, 0], [0.012, 0.009, 0.007]]
    return torch.tensor(rows, dtype=torch.float64)


def test_decoded_full_covariance_is_that_of_the_jacobian(factor):
    joints, camera, crop = random_scene(2, seed=6)
    depth = joints[:, 0, 2]
    mean = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    factors = factor * torch.linspace(0.5, 2, mean.shape[1])[:, None, None].expand(2, -1, 1, 1)
    units = {"crop_size_px": SIZE_PX}
    actual = decode_scale(mean, factors, camera, crop, root_depth_mm=depth, **units)
    for pose, joint in [(0, 0), (1, 9)]:

        def decode_one(point, pose=pose):
            lens, square, root = camera[pose], crop[pose], depth[pose]
            return decode_uvd(point[None], lens, square, root_depth_mm=root, **units)[0]

        jacobian = torch.autograd.functional.jacobian(decode_one, mean[pose, joint])
        covariance = jacobian @ factors[pose, joint] @ factors[pose, joint].T @ jacobian.T
        torch.testing.assert_close(actual[pose, joint], covariance.diagonal().sqrt())


def test_decoded_full_covariance_is_the_spread_of_decoded_samples(factor):
    joints, camera, crop = random_scene(1, seed=7)
    mean = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)[0, [0, 6, 12]]
    units = {"crop_size_px": SIZE_PX}
    predicted, diagonal = (
        decode_scale(mean, spread, camera[0], crop[0], root_depth_mm=joints[0, 0, 2], **units)
        for spread in (factor.expand(len(mean), 3, 3), factor.norm(dim=-1).expand_as(mean))
    )
    noise = np.random.default_rng(0).normal(size=(20000, *mean.shape))
    samples = decode_uvd(
        mean + torch.from_numpy(noise) @ factor.T,
        camera[0],
        crop.expand(20000, 3, 3),
        root_depth_mm=joints[0, 0, 2].expand(20000),
        **units,
    )
    np.testing.assert_allclose(predicted, samples.std(0), rtol=0.03)
    assert (predicted - diagonal).abs().max() > 0.1 * diagonal.max()  # correlations matter


@pytest.mark.parametrize("is_full", [False, True], ids=["σ", "L"])
def test_decoded_covariance_is_that_of_the_jacobian(factor, is_full):
    joints, camera, crop = random_scene(2, seed=8)
    depth = joints[:, 0, 2]
    mean = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    spread = factor if is_full else factor.norm(dim=-1)
    spread = spread.expand(*mean.shape[:2], *spread.shape)
    units = {"crop_size_px": SIZE_PX}
    actual = decode_covariance(mean, spread, camera, crop, root_depth_mm=depth, **units)
    for pose, joint in [(0, 3), (1, 16)]:

        def decode_one(point, pose=pose):
            lens, square, root = camera[pose], crop[pose], depth[pose]
            return decode_uvd(point[None], lens, square, root_depth_mm=root, **units)[0]

        jacobian = torch.autograd.functional.jacobian(decode_one, mean[pose, joint])
        within = factor @ factor.T if is_full else torch.diag((factor @ factor.T).diagonal())
        torch.testing.assert_close(actual[pose, joint], jacobian @ within @ jacobian.T)


def test_decoded_samples_are_what_decoding_each_gives(factor):
    """To a fiftieth of what they deviate; for a small deviation much closer."""
    joints, camera, crop = random_scene(3, seed=9)
    depth = joints[:, 0, 2]
    mean = encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(50, *mean.shape)))
    for size, tolerance in ((4.0, 0.02), (0.04, 2e-4)):
        deviations = size * noise @ factor.T
        units = {"crop_size_px": SIZE_PX, "root_depth_mm": depth}
        actual = decode_samples(mean, deviations, camera, crop, **units)
        exact = torch.stack([decode_uvd(mean + each, camera, crop, **units) for each in deviations])
        moved = (exact - joints).norm(dim=-1)
        wrong = (actual - exact).norm(dim=-1)
        assert (wrong / moved).median() < tolerance
        assert (wrong / moved).max() < 5 * tolerance
    assert actual.dtype == torch.float64
    single = decode_samples(mean, deviations.float(), camera, crop, **units)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), actual, atol=2e-2, rtol=0)


def test_wild_predictions_are_decoded_to_finite_numbers():
    camera = stacked_cameras(4)
    crop = crop_from_image(torch.tensor([[500.0, 500.0, 400.0]]).expand(4, 3), crop_size_px=SIZE_PX)
    generator = torch.Generator().manual_seed(0)
    uvd = torch.randn(4, 17, 3, generator=generator) * torch.logspace(-1, 20, 17)[:, None]
    units = {"crop_size_px": SIZE_PX, "root_depth_mm": torch.full((4,), 5000.0)}
    assert torch.isfinite(decode_uvd(uvd.double(), camera, crop.double(), **units)).all()
    tame = uvd.clamp(-1e4, 1e4)
    assert torch.isfinite(decode_uvd(tame, camera, crop, **units)).all()
    scale = torch.full_like(tame, 0.1)
    assert torch.isfinite(decode_scale(tame, scale, camera, crop, **units)).all()


def test_gradients_pass_through_the_codec():
    joints, camera, crop = random_scene(2, seed=5)
    joints = joints[:, :2].clone().requires_grad_()

    def there_and_back(j):
        uvd = encode_uvd(j, camera, crop, crop_size_px=SIZE_PX)
        return decode_uvd(uvd, camera, crop, crop_size_px=SIZE_PX, root_depth_mm=j[:, 0, 2])

    jacobian = torch.autograd.functional.jacobian(there_and_back, joints)
    identity = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(jacobian.reshape(12, 12), identity, atol=1e-8, rtol=0)


def test_labels_beyond_the_crop_or_depth_range_are_out_of_range():
    uvd = torch.tensor(
        [
            [0.0, 0, 0],
            [0.5, -0.5, 0.5],
            [0.51, 0, 0],
            [0, -0.51, 0],
            [0, 0, 0.51],
            [0, 0, torch.nan],
        ]
    )
    assert uvd_in_range(uvd).tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("skeleton", [HUMAN36M_17, HUMAN36M_18], ids=lambda s: s.name)
def test_mirroring_twice_changes_nothing(skeleton):
    uvd = torch.rand(2, skeleton.num_joints, 3, generator=torch.Generator().manual_seed(0)).double()
    twice = mirror_uvd(
        mirror_uvd(uvd, skeleton, crop_size_px=SIZE_PX), skeleton, crop_size_px=SIZE_PX
    )
    torch.testing.assert_close(twice, uvd, rtol=0, atol=1e-15)
    assert mirror_scale(mirror_scale(uvd, skeleton), skeleton).equal(uvd)


def test_mirrored_labels_are_the_labels_of_the_mirrored_crop():
    joints, camera, _ = random_scene(6, seed=6)
    box = torch.tensor([480.0, 510.0, 500.0], dtype=torch.float64).expand(6, 3)
    plain, mirrored = (
        crop_from_image(box, crop_size_px=SIZE_PX, mirror=torch.full((6,), flag))
        for flag in (False, True)
    )
    uvd = encode_uvd(joints, camera, plain, crop_size_px=SIZE_PX)
    seen = encode_uvd(joints, camera, mirrored, crop_size_px=SIZE_PX)
    renamed = seen[:, [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]]
    torch.testing.assert_close(mirror_uvd(uvd, HUMAN36M_17, crop_size_px=SIZE_PX), renamed)


def test_mirrored_scales_change_places_but_no_sign():
    scale = torch.arange(17.0)[:, None].expand(17, 3)
    image = mirror_scale(scale, HUMAN36M_17)[:, 0].tolist()
    assert image == [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]
    with pytest.raises(ValueError, match="17 joints of human36m_17"):
        mirror_scale(torch.zeros(18, 3), HUMAN36M_17)


def test_impossible_input_is_refused():
    joints, camera, crop = random_scene(2, seed=7)
    for bad in (0.0, -1.0, float("nan")):
        broken = joints.clone()
        broken[1, 3, 2] = bad
        with pytest.raises(ValueError, match="depth of joints_camera_mm must be finite and > 0 mm"):
            encode_uvd(broken, camera, crop, crop_size_px=SIZE_PX)
    with pytest.raises(ValueError, match="root_depth_mm must be finite and > 0 mm"):
        decode_uvd(
            joints, camera, crop, crop_size_px=SIZE_PX, root_depth_mm=torch.zeros(2).double()
        )
    with pytest.raises(ValueError, match="crop_size_px must be > 0"):
        encode_uvd(joints, camera, crop, crop_size_px=0)
    with pytest.raises(ValueError, match="depth_range_mm must be > 0 mm"):
        encode_uvd(joints, camera, crop, crop_size_px=SIZE_PX, depth_range_mm=0.0)
