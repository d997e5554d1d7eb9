"""Crops against OpenCV's own affine maps, drawn dots and closed forms."""

import math

import cv2
import numpy as np
import pytest
import torch

from pose3d.geometry.crop import (
    box_from_joints,
    compose,
    crop_from_image,
    invert_map,
    square_box,
    transform_points,
)


def random_maps(count, *, seed, crop_size_px=256, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    box = torch.tensor([500.0, 480.0, 300.0]) + 200 * torch.rand(count, 3, generator=generator)
    return crop_from_image(
        box.to(dtype),
        crop_size_px=crop_size_px,
        rotation_rad=(torch.rand(count, generator=generator) * 2 - 1).to(dtype) * math.pi,
        scale=(torch.rand(count, generator=generator) * 0.6 + 0.7).to(dtype),
        mirror=torch.rand(count, generator=generator) < 0.5,
    )


def test_the_box_is_squared_about_its_centre():
    box = square_box(torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 8.0, 4.0]]), enlarge=1.5)
    assert box.tolist() == [[25.0, 50.0, 90.0], [4.0, 2.0, 12.0]]


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [float("nan"), 0, 5, 5]])
def test_boxes_without_area_are_refused(box):
    with pytest.raises(ValueError, match="finite with width and height > 0 px, got"):
        square_box(torch.tensor([[1.0, 2.0, 3.0, 4.0], box]))


def test_the_box_of_joints_holds_them_and_grows_about_its_centre():
    joints = torch.tensor([[0.0, 10.0], [100.0, 30.0], [40.0, 50.0]])
    assert box_from_joints(joints, enlarge=1.0).tolist() == [0.0, 10.0, 100.0, 40.0]
    np.testing.assert_allclose(box_from_joints(joints, enlarge=1.2), [-10, 6, 120, 48], rtol=1e-5)
    with pytest.raises(ValueError, match="finite"):
        box_from_joints(joints * float("nan"), enlarge=1.0)


def test_edges_of_the_box_become_edges_of_the_crop():
    """Pixel centres are integers, so a crop of W pixels spans -1/2 to W - 1/2."""
    crop = crop_from_image(torch.tensor([100.0, 60.0, 50.0]), crop_size_px=200)
    corners = torch.tensor([[75.0, 35.0], [125.0, 85.0]])
    assert transform_points(crop, corners).tolist() == [[-0.5, -0.5], [199.5, 199.5]]


def test_rotation_and_zoom_are_those_of_opencv():
    """OpenCV's angle turns anticlockwise on the screen, ours clockwise."""
    for angle, scale in [(0.0, 1.0), (0.4, 1.0), (-1.1, 0.7), (2.5, 1.3)]:
        crop = crop_from_image(
            torch.tensor([310.0, 220.0, 400.0], dtype=torch.float64),
            crop_size_px=256,
            rotation_rad=torch.tensor(angle, dtype=torch.float64),
            scale=torch.tensor(scale, dtype=torch.float64),
        )
        zoom = 256 / (400 * scale)
        expected = cv2.getRotationMatrix2D((310.0, 220.0), -math.degrees(angle), zoom)
        expected[:, 2] += 127.5 - np.array([310.0, 220.0])
        np.testing.assert_allclose(crop[:2], expected, atol=1e-10)
        assert crop[2].tolist() == [0, 0, 1]


def test_a_larger_scale_shows_a_larger_region():
    box = torch.tensor([0.0, 0.0, 100.0])
    crop = crop_from_image(box, crop_size_px=100, scale=torch.tensor(2.0))
    corner = transform_points(invert_map(crop), torch.tensor([[99.5, 99.5]]))
    torch.testing.assert_close(corner, torch.tensor([[100.0, 100.0]]))


def test_the_mirror_reverses_the_pixels_of_the_finished_crop():
    box = torch.tensor([51.0, 47.0, 60.0], dtype=torch.float64)
    angle = torch.tensor(0.5, dtype=torch.float64)
    plain, mirrored = (
        crop_from_image(box, crop_size_px=64, rotation_rad=angle, mirror=torch.tensor(flag))
        for flag in (False, True)
    )
    image = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2).astype(np.float32)
    seen, reversed_ = (cv2.warpAffine(image, m[:2].numpy(), (64, 64)) for m in (plain, mirrored))
    np.testing.assert_allclose(reversed_, seen[:, ::-1], atol=1.0)


def test_a_drawn_dot_is_found_where_the_map_says():
    joints = np.array([[300.0, 250.0], [350.0, 310.0], [280.0, 200.0]])
    maps = random_maps(6, seed=0)
    box_centre = transform_points(invert_map(maps), torch.full((6, 1, 2), 127.5).double())
    for crop, centre in zip(maps, box_centre, strict=True):
        points = joints - joints.mean(0) + centre.numpy()
        for point in points:
            rows, columns = np.mgrid[:900, :900]
            dot = np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / (2 * 9.0))
            seen = cv2.warpAffine(dot.astype(np.float32), crop[:2].numpy(), (256, 256))
            rows, columns = np.mgrid[:256, :256]
            found = np.array([(columns * seen).sum(), (rows * seen).sum()]) / seen.sum()
            said = transform_points(crop, torch.from_numpy(point)[None])[0]
            np.testing.assert_allclose(said, found, atol=0.05)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 2e-3)])
def test_the_inverse_map_undoes_the_map(dtype, atol):
    maps = random_maps(20, seed=1, dtype=dtype)
    points = torch.rand(20, 7, 2, generator=torch.Generator().manual_seed(0)).to(dtype) * 1000
    back = transform_points(invert_map(maps), transform_points(maps, points))
    torch.testing.assert_close(back, points, rtol=0, atol=atol)
    expected = np.linalg.inv(maps.double().numpy())
    np.testing.assert_allclose(invert_map(maps), expected, atol=atol, rtol=1e-5)


def test_composition_is_one_map_after_the_other():
    first, second = random_maps(5, seed=2), random_maps(5, seed=3)
    points = torch.rand(5, 4, 2, generator=torch.Generator().manual_seed(0)).double() * 100
    torch.testing.assert_close(
        transform_points(compose(second, first), points),
        transform_points(second, transform_points(first, points)),
    )
    np.testing.assert_allclose(compose(second, first), second.numpy() @ first.numpy(), rtol=1e-12)


def test_maps_are_exact_inside_reduced_precision_regions():
    maps = random_maps(3, seed=4, dtype=torch.float32)
    points = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0)) * 1000
    outside = transform_points(compose(maps, invert_map(maps)), points)
    with torch.autocast("cpu", torch.bfloat16):
        inside = transform_points(compose(maps, invert_map(maps)), points)
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)


def test_crop_size_must_be_positive():
    with pytest.raises(ValueError, match="crop_size_px must be > 0, got 0"):
        crop_from_image(torch.ones(3), crop_size_px=0)
