"""Augmentation: its randomness, its distributions, and that labels go where the pixels go."""

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from pose3d.data.augment import (
    AugmentConfig,
    AugmentParameters,
    Draw,
    RawBatch,
    draw_parameters,
    identity_parameters,
    make_batch,
    random_bits,
    random_unit,
)
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import HUMAN36M_17

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
FOCAL, CENTRE = 1100.0, 500.0
PARTNER = {1: 4, 2: 5, 3: 6, 14: 11, 15: 12, 16: 13}
PARTNER |= {right: left for left, right in PARTNER.items()}


def fields_of(parameters):
    return {name: getattr(parameters, name) for name in AugmentParameters.__slots__}


def make_raw(images, *, joints_mm=None, box=(500.0, 480.0, 400.0), margin=1.84, weight=None):
    """Records of one pinhole camera whose stored crop shows the box times the margin."""
    batch, size = images.shape[:2]
    if joints_mm is None:
        joints_mm = np.tile(np.array([0.0, 0.0, 5000.0], float), (batch, 17, 1))
    zoom = size / (box[2] * margin)
    store_from_image = np.array(
        [[zoom, 0, size / 2 - zoom * box[0]], [0, zoom, size / 2 - zoom * box[1]], [0, 0, 1]]
    )
    return RawBatch(
        images=torch.from_numpy(images),
        index=torch.arange(batch) * 5 + 2,
        joints_camera_mm=torch.from_numpy(np.asarray(joints_mm, np.float32)),
        weight=torch.ones(batch, 17, 3) if weight is None else weight,
        camera=Camera.from_parameters(
            focal_px=np.full((batch, 2), FOCAL), principal_point_px=np.full((batch, 2), CENTRE)
        ),
        store_from_image=torch.from_numpy(store_from_image).expand(batch, 3, 3).clone(),
        box_image_px=torch.tensor(box, dtype=torch.float64).expand(batch, 3).clone(),
    )


def make_images(raw, parameters, *, size, normalisation="imagenet"):
    batch = make_batch(
        raw,
        parameters,
        skeleton=HUMAN36M_17,
        input_size_px=size,
        normalisation=normalisation,
    )
    return batch, batch.images.numpy().transpose(0, 2, 3, 1)


def splitmix(word):
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def test_bits_are_splitmix64_of_each_number_in_turn():
    assert splitmix(0) == 0xE220A8397B1DCDAF  # the published generator's first output for seed 0
    expected = []
    for index in (0, 1, 2**40):
        state = 0
        for word in (11, 3, 7, index):
            state = splitmix(state ^ word)
        expected.append(state)
    indices = np.array([0, 1, 2**40])
    assert random_bits(indices, 7, seed=11, epoch=3).tolist() == expected


def test_parameters_do_not_depend_on_the_batch():
    config = AugmentConfig()
    together = draw_parameters(config, torch.arange(500), seed=4, epoch=9)
    chosen = torch.tensor([498, 3, 77])
    alone = draw_parameters(config, chosen, seed=4, epoch=9)
    for name, value in fields_of(alone).items():
        assert torch.equal(value, getattr(together, name)[chosen]), name


def test_parameters_change_with_seed_epoch_and_record():
    config = AugmentConfig()
    index = torch.arange(1000)
    base = draw_parameters(config, index, seed=0, epoch=0).colour.flatten().numpy()
    for seed, epoch, shift in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        other = draw_parameters(config, index + shift, seed=seed, epoch=epoch)
        assert abs(stats.spearmanr(base, other.colour.flatten().numpy()).statistic) < 0.06


def test_no_global_generator_is_used():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    raw = make_raw(np.zeros((2, 40, 40, 3), np.uint8))
    make_images(raw, draw_parameters(AugmentConfig(), raw.index, seed=0, epoch=0), size=32)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(("seed", "epoch", "draw"), [(0, 0, Draw.SCALE), (7, 31, Draw.MIRROR)])
def test_units_are_uniform_and_those_of_neighbours_independent(seed, epoch, draw):
    unit = random_unit(np.arange(40_001), draw, seed=seed, epoch=epoch)
    assert stats.kstest(unit, stats.uniform.cdf).pvalue > 0.01
    cells = np.histogram2d(unit[:-1], unit[1:], bins=8)[0]
    assert stats.chisquare(cells.ravel()).pvalue > 0.01


@pytest.fixture(scope="module")
def drawn():
    return draw_parameters(AugmentConfig(), torch.arange(30_000), seed=1, epoch=2)


def check_cut_normal(values, *, std, limit):
    """Atoms at ± limit as large as the tails of the normal, and the normal between them."""
    at_limit = np.isclose(np.abs(values), limit)
    tail = 2 * stats.norm.sf(limit / std)
    assert stats.binomtest(int(at_limit.sum()), len(values), tail).pvalue > 0.01
    between = stats.truncnorm(-limit / std, limit / std, scale=std)
    assert stats.kstest(values[~at_limit], between.cdf).pvalue > 0.01


def test_scale_is_the_released_cut_normal(drawn):
    check_cut_normal(drawn.scale.numpy() - 1, std=0.3, limit=0.3)


def test_rotation_is_the_released_cut_normal_for_three_in_five(drawn):
    degrees = np.rad2deg(drawn.rotation_rad.numpy())
    is_rotated = degrees != 0
    assert stats.binomtest(int(is_rotated.sum()), len(degrees), 0.6).pvalue > 0.01
    check_cut_normal(degrees[is_rotated], std=30, limit=60)


def test_half_of_the_images_are_mirrored(drawn):
    assert stats.binomtest(int(drawn.mirror.sum()), len(drawn.mirror), 0.5).pvalue > 0.01


def test_colour_factors_are_uniform_and_independent(drawn):
    colour = drawn.colour.numpy()
    assert stats.kstest(colour.ravel(), stats.uniform(0.8, 0.4).cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(colour.T) - np.eye(3)).max() < 0.03


def test_occlusion_area_is_uniform_and_the_rectangle_inside_the_box(drawn):
    left, top, right, bottom = drawn.occlusion_box.numpy().T
    width, height = right - left, bottom - top
    assert stats.kstest(width * height, stats.uniform(0, 0.7).cdf).pvalue > 0.01
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 1 + 1e-12
    assert max((width / height).max(), (height / width).max()) <= 3.33 + 1e-9
    assert stats.ks_2samp(width, height).pvalue > 0.01
    assert stats.kstest(left / (1 - width), stats.uniform.cdf).pvalue > 0.01


def test_probabilities_and_limits_can_be_switched_off():
    config = AugmentConfig(
        scale_std=0.0, rotation_probability=0.0, mirror_probability=0.0, colour_limit=0.0,
        occlusion_probability=0.0,
    )  # fmt: skip
    off = fields_of(draw_parameters(config, torch.arange(50), seed=0, epoch=0))
    not_enabled = draw_parameters(AugmentConfig(enabled=False), torch.arange(50), seed=0, epoch=0)
    identity = fields_of(identity_parameters(50))
    for name in set(identity) - {"noise_start"}:
        torch.testing.assert_close(off[name], identity[name], rtol=0, atol=0)
        assert torch.equal(getattr(not_enabled, name), identity[name])


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"augment\.mirror_probability must be 0 to 1, got 1\.5"):
        AugmentConfig(mirror_probability=1.5)


@pytest.mark.parametrize(("stored", "size"), [(236, 128), (471, 256), (151, 64), (200, 224)])
def test_a_dot_at_each_joint_is_found_at_the_transformed_joint(stored, size):
    """One joint and one dot per image; the dot's centroid after the warp is the joint's label."""
    rng = np.random.default_rng(stored)
    batch = 2 * 17 * 2
    joint = np.arange(batch) % 17
    around = rng.uniform([-500, -500, -600], [500, 500, 600], (batch, 17, 3))
    joints_mm = np.float32(np.add(around, [0, -90, 5200]))
    raw = make_raw(np.zeros((batch, stored, stored, 3), np.uint8), joints_mm=joints_mm)
    image_px = FOCAL * joints_mm[..., :2].astype(float) / joints_mm[..., 2:] + CENTRE
    matrix = raw.store_from_image[0].numpy()
    dots_px = image_px[np.arange(batch), joint] @ matrix[:2, :2].T + matrix[:2, 2]
    sigma = 2.5 / 1.84 * stored / size  # 2.5 px in a crop of scale 1
    rows, columns = np.mgrid[:stored, :stored]
    for image, (x, y) in zip(raw.images.numpy(), dots_px, strict=True):
        dot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        image[:] = np.round(dot)[..., None]
    config = AugmentConfig(occlusion_probability=0.0, rotation_probability=1.0, colour_limit=0.0)
    parameters = draw_parameters(config, raw.index, seed=3, epoch=0)
    result, images = make_images(raw, parameters, size=size)
    shown = (images * STD + MEAN)[..., 1]
    slot = [PARTNER.get(j, j) if m else j for j, m in zip(joint, parameters.mirror, strict=True)]
    label_px = (result.target.numpy()[np.arange(batch), slot, :2].astype(float) + 0.5) * size
    rows, columns = np.mgrid[:size, :size]
    mass = shown.sum((1, 2))
    found_px = np.stack([(shown * axis).sum((1, 2)) / mass for axis in (columns, rows)], -1)
    reach_px = 4 * 2.5 / parameters.scale.numpy()[:, None]  # so far a dot is not black
    whole = ((label_px > reach_px) & (label_px < size - 1 - reach_px)).all(-1)
    whole &= ((dots_px > 4 * sigma) & (dots_px < stored - 1 - 4 * sigma)).all(-1)
    assert whole.sum() > batch // 2
    assert (parameters.mirror.numpy() & whole).any()
    assert np.abs(found_px - label_px)[whole].max() < 0.02


def test_depth_follows_the_joint_through_the_mirror():
    joints_mm = np.tile(np.array([0, 0, 5000.0], float), (2, 17, 1))
    joints_mm[:, 13, 2] += 400  # left wrist, 400 mm behind the root
    raw = make_raw(np.zeros((2, 40, 40, 3), np.uint8), joints_mm=joints_mm)
    raw.weight[:, 12] = 0.25  # left elbow
    parameters = replace(identity_parameters(2), mirror=torch.tensor([False, True]))
    result, _ = make_images(raw, parameters, size=32)
    assert result.target[0, 13, 2].item() == pytest.approx(0.2)
    assert result.target[1, 16, 2].item() == pytest.approx(0.2)
    assert result.target[1, 13, 2].item() == 0
    assert result.weight[0, 12, 0] == result.weight[1, 15, 0] == 0.25
    assert result.weight[0, 15, 0] == result.weight[1, 12, 0] == 1


def replace(parameters, **values):
    return AugmentParameters(**{**fields_of(parameters), **values})


def test_a_joint_outside_the_range_loses_all_its_weights_and_the_root_its_depth():
    joints_mm = np.tile(np.array([0, -90, 5000.0], float), (1, 17, 1))
    joints_mm[0, 3] = [0, -90, 6001]  # d just above a half
    joints_mm[0, 6] = [0, -90, 5999]
    joints_mm[0, 8] = [2000, -90, 5000]  # far right of the crop
    joints_mm[0, 9] = np.nan
    raw = make_raw(np.zeros((1, 40, 40, 3), np.uint8), joints_mm=joints_mm)
    raw.weight[0, 9] = 0  # no label, so what stands there does not matter
    result, _ = make_images(raw, identity_parameters(1), size=32)
    expected = torch.ones(17, 3)
    expected[[3, 8, 9]] = 0
    expected[0, 2] = 0
    assert torch.equal(result.weight[0], expected)
    assert torch.isfinite(result.target).all()
    assert result.target.dtype == result.weight.dtype == torch.float32


def test_warp_agrees_with_opencv():
    rng = np.random.default_rng(5)
    stored, size = 150, 96
    images = np.stack([cv2.GaussianBlur(im, (0, 0), 2) for im in
                       rng.integers(0, 256, (9, stored, stored, 3), np.uint8)])  # fmt: skip
    raw = make_raw(images)
    config = AugmentConfig(occlusion_probability=0.0, colour_limit=0.0)
    result, actual = make_images(
        raw, draw_parameters(config, raw.index, seed=1, epoch=1), size=size
    )
    for k in range(len(images)):
        matrix = result.crop_from_image[k].numpy() @ np.linalg.inv(raw.store_from_image[k].numpy())
        expected = cv2.warpAffine(images[k].astype(np.float32), matrix[:2], (size, size))
        inside = (
            cv2.warpAffine(np.ones((stored, stored), np.float32), matrix[:2], (size, size)) == 1
        )
        difference = np.abs((actual[k] * STD + MEAN) * 255 - expected)[inside]
        assert difference.max() < 1.5  # OpenCV rounds positions to 1/32 px


@pytest.mark.parametrize("normalisation", ["imagenet", "released"])
def test_colour_and_normalisation_in_closed_form(normalisation):
    images = np.full((1, 64, 64, 3), (100, 220, 7), np.uint8)
    raw = make_raw(images)
    parameters = replace(
        identity_parameters(1), colour=torch.tensor([[0.8, 1.2, 1.1]], dtype=torch.float64)
    )
    _, actual = make_images(raw, parameters, size=32, normalisation=normalisation)
    mean, std = (MEAN, STD) if normalisation == "imagenet" else (
        (0.406, 0.457, 0.480), (0.225, 0.224, 0.229))  # fmt: skip
    expected = (np.array([80, 255, 7.7]) / 255 - mean) / std  # 220 x 1.2 is cut at white
    np.testing.assert_allclose(actual[0], np.broadcast_to(expected, (32, 32, 3)), atol=2e-6)


def test_unknown_normalisation_is_named():
    raw = make_raw(np.zeros((1, 40, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"imagenet, released, got 'caffe'"):
        make_images(raw, identity_parameters(1), size=32, normalisation="caffe")


def test_noise_fills_the_rectangle_and_nothing_else():
    size = 128
    raw = make_raw(np.zeros((3, 236, 236, 3), np.uint8))
    box = torch.tensor([[0.25, 0.5, 0.5, 0.75], [0, 0, 0, 0], [0, 0, 1, 1]], dtype=torch.float64)
    start = torch.tensor([5, 6, 7000])
    parameters = replace(identity_parameters(3), occlusion_box=box, noise_start=start)
    _, images = make_images(raw, parameters, size=size)
    grey = (images * STD + MEAN) * 255
    is_noise = grey.max(-1) > 2
    rows, columns = np.nonzero(is_noise[0])
    bounds = [columns.min(), columns.max(), rows.min(), rows.max()]
    np.testing.assert_allclose(bounds, [32, 63, 64, 95], atol=1)
    assert is_noise[0, 66:94, 34:62].mean() > 0.99
    assert not is_noise[1].any()
    assert is_noise[2, 2:-2, 2:-2].mean() > 0.99
    inner = grey[2, 2:-2, 2:-2]
    assert abs(inner.mean() - 127.5) < 3
    assert np.abs(np.corrcoef(inner.reshape(-1, 3).T) - np.eye(3)).max() < 0.05


def test_a_box_partly_or_wholly_outside_the_stored_crop_stays_finite():
    raw = make_raw(np.full((3, 60, 60, 3), 50, np.uint8))
    raw.box_image_px[:, 0] += torch.tensor([250.0, 5000.0, -700.0])
    parameters = replace(
        draw_parameters(AugmentConfig(), raw.index, seed=0, epoch=0),
        occlusion_box=torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64).expand(3, 4),
    )
    _, images = make_images(raw, parameters, size=48)
    assert np.isfinite(images).all()
    np.testing.assert_allclose((images * STD + MEAN)[1], 0, atol=1e-6)


def test_images_do_not_depend_on_the_batch_or_the_number_of_threads():
    rng = np.random.default_rng(0)
    raw = make_raw(rng.integers(0, 256, (11, 236, 236, 3), np.uint8))
    parameters = draw_parameters(AugmentConfig(), raw.index, seed=0, epoch=0)
    together, _ = make_images(raw, parameters, size=64)
    one = slice(7, 8)
    values = {n: getattr(raw, n)[one] for n in RawBatch.__slots__ if n != "camera"}
    alone, _ = make_images(
        RawBatch(camera=raw.camera[one], **values),
        AugmentParameters(**{n: v[one] for n, v in fields_of(parameters).items()}),
        size=64,
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads == 1 else 1)
        again, _ = make_images(raw, parameters, size=64)
    finally:
        torch.set_num_threads(threads)
    for name in ("images", "target", "weight", "crop_from_image"):
        assert torch.equal(getattr(together, name)[one], getattr(alone, name)), name
        assert torch.equal(getattr(together, name), getattr(again, name)), name


def test_the_stored_images_are_left_as_they_are():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 60, 60, 3), np.uint8)
    raw = make_raw(images.copy())
    make_images(raw, draw_parameters(AugmentConfig(), raw.index, seed=0, epoch=0), size=48)
    assert np.array_equal(raw.images.numpy(), images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_and_never_waits():
    rng = np.random.default_rng(0)
    raw = make_raw(rng.integers(0, 256, (8, 236, 236, 3), np.uint8))
    parameters = draw_parameters(AugmentConfig(), raw.index, seed=0, epoch=0)
    expected, _ = make_images(raw, parameters, size=128)
    there = raw.pin_memory().to("cuda")
    arguments = {"skeleton": HUMAN36M_17, "input_size_px": 128}
    make_batch(there, parameters, **arguments)  # fills the noise table
    torch.cuda.set_sync_debug_mode("error")
    try:
        actual = make_batch(there, parameters, **arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(actual.images.cpu(), expected.images, rtol=0, atol=2e-3)
    assert torch.equal(actual.target.cpu(), expected.target)
