"""The MPJPE family against SciPy, brute force and hand-made poses."""

import doctest

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from pose3d.evaluation import metrics
from pose3d.evaluation.metrics import (
    axis_errors,
    joint_errors,
    mpjpe,
    n_mpjpe,
    pa_mpjpe,
    pck,
    pck_auc,
    root_relative,
    similarity_align,
)


def random_poses(count=50, *, noise_mm=60.0, seed=0):
    """Targets and predictions that are turned, scaled, moved and noisy copies."""
    generator = np.random.default_rng(seed)
    target = generator.normal(0, 400, (count, 17, 3))
    turn = Rotation.random(count, random_state=seed).as_matrix()
    scale = generator.uniform(0.5, 2, (count, 1, 1))
    predicted = target @ turn * scale + generator.normal(0, 900, (count, 1, 3))
    return predicted + generator.normal(0, noise_mm, predicted.shape), target


def scipy_aligned(predicted, target, *, allow_scale):
    """Pose by pose: rotation by align_vectors, scale as a ratio of projections."""
    aligned = []
    for p, t in zip(predicted, target, strict=True):
        p_centred, t_centred = p - p.mean(0), t - t.mean(0)
        turned = Rotation.align_vectors(t_centred, p_centred)[0].apply(p_centred)
        scale = (turned * t_centred).sum() / (turned**2).sum() if allow_scale else 1.0
        aligned.append(turned * scale + t.mean(0))
    return np.array(aligned)


@pytest.mark.parametrize("allow_scale", [True, False])
@pytest.mark.parametrize("noise_mm", [60.0, 2000.0])
def test_alignment_agrees_with_scipys_rotation(allow_scale, noise_mm):
    predicted, target = random_poses(noise_mm=noise_mm)
    expected = scipy_aligned(predicted, target, allow_scale=allow_scale)
    actual = similarity_align(predicted, target, allow_scale=allow_scale)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    error = np.linalg.norm(expected - target, axis=-1).mean(-1)
    np.testing.assert_allclose(
        pa_mpjpe(predicted, target, allow_scale=allow_scale), error, atol=1e-6
    )


def test_alignment_agrees_with_scipys_procrustes():
    """SciPy standardises both poses, and may mirror; with little noise it never gains by that."""
    predicted, target = random_poses()
    for p, t, error in zip(predicted, target, pa_mpjpe(predicted, target), strict=True):
        standard_target, standard_predicted, _ = procrustes(t, p)
        size_mm = np.linalg.norm(t - t.mean(0))
        distances = np.linalg.norm(standard_target - standard_predicted, axis=-1) * size_mm
        assert abs(distances.mean() - error) < 1e-6


def test_similar_poses_align_perfectly():
    predicted, target = random_poses(noise_mm=0)
    assert pa_mpjpe(predicted, target).max() < 1e-9
    assert mpjpe(predicted, target).min() > 100


def test_congruent_poses_align_without_scale():
    _, target = random_poses()
    moved = Rotation.random(random_state=5).apply(target.reshape(-1, 3)).reshape(target.shape) + 50
    assert pa_mpjpe(moved, target, allow_scale=False).max() < 1e-9
    assert pa_mpjpe(2 * moved, target, allow_scale=False).min() > 100


def test_a_mirrored_pose_is_not_mirrored_back():
    _, target = random_poses()
    mirrored = target * np.array([-1.0, 1, 1])
    expected = scipy_aligned(mirrored, target, allow_scale=True)
    error = np.linalg.norm(expected - target, axis=-1).mean(-1)
    np.testing.assert_allclose(pa_mpjpe(mirrored, target), error, atol=1e-6)
    assert error.min() > 50
    handedness = np.linalg.det(
        np.linalg.lstsq(
            mirrored[0] - mirrored[0].mean(0),
            similarity_align(mirrored, target)[0] - target[0].mean(0),
            rcond=None,
        )[0]
    )
    assert handedness > 0


def test_a_flat_pose_may_be_turned_over():
    _, target = random_poses()
    target[..., 2] = 0
    assert pa_mpjpe(target * np.array([-1.0, 1, 1]), target).max() < 1e-9


@pytest.mark.parametrize("kind", ["equal joints", "zero", "line", "zero target", "one joint"])
@pytest.mark.parametrize("allow_scale", [True, False])
def test_degenerate_poses_give_numbers(kind, allow_scale):
    predicted, target = random_poses(3)
    if kind == "equal joints":
        predicted = predicted[:, :1].repeat(17, 1)
    elif kind == "zero":
        predicted = predicted * 0
    elif kind == "line":
        predicted = predicted[:, :1] * np.arange(17.0)[:, None]
    elif kind == "zero target":
        target = target * 0
    else:
        predicted, target = predicted[:, :1], target[:, :1]
    spread = np.linalg.norm(target - target.mean(1, keepdims=True), axis=-1).mean(-1)
    error = pa_mpjpe(predicted, target, allow_scale=allow_scale)
    assert np.isfinite(error).all()
    if kind in ("equal joints", "zero", "one joint"):
        np.testing.assert_allclose(error, spread, atol=1e-9)
    for metric in (mpjpe, n_mpjpe, pck, pck_auc, joint_errors, axis_errors):
        assert np.isfinite(metric(predicted, target)).all()


def test_an_all_zero_prediction_costs_the_size_of_the_target():
    _, target = random_poses()
    np.testing.assert_allclose(
        n_mpjpe(np.zeros_like(target), target), mpjpe(np.zeros_like(target), target)
    )


def test_mpjpe_is_a_mean_of_lengths():
    predicted = np.zeros((1, 2, 3))
    target = np.array([[[3.0, 4, 0], [0, 0, 12]]])
    assert joint_errors(predicted, target).tolist() == [[5, 12]]
    assert axis_errors(predicted, target).tolist() == [[[3, 4, 0], [0, 0, 12]]]
    assert mpjpe(predicted, target).tolist() == [8.5]


def test_the_scale_of_n_mpjpe_is_the_best_one():
    predicted, target = (root_relative(poses) for poses in random_poses(5))
    for p, t, error in zip(predicted, target, n_mpjpe(predicted, target), strict=True):
        best = minimize_scalar(lambda s, p=p, t=t: ((s * p - t) ** 2).sum()).x
        assert abs(np.linalg.norm(best * p - t, axis=-1).mean() - error) < 1e-3
    np.testing.assert_allclose(n_mpjpe(3 * predicted, target), n_mpjpe(predicted, target))
    assert n_mpjpe(0.5 * target, target).max() < 1e-9


def test_pck_counts_joints_below_the_threshold():
    target = np.zeros((1, 4, 3))
    predicted = target.copy()
    predicted[0, :, 0] = [0, 149.9, 150, 400]
    assert pck(predicted, target).tolist() == [0.5]
    assert pck(predicted, target, threshold_mm=151).tolist() == [0.75]
    assert pck(predicted, target, threshold_mm=0).tolist() == [0]


def test_the_area_is_the_mean_of_the_curve():
    predicted, target = random_poses(4, noise_mm=40)
    target = similarity_align(predicted, target) * 0.98
    predicted = similarity_align(predicted, target)
    curve = [pck(predicted, target, threshold_mm=t) for t in np.linspace(0, 150, 31)]
    np.testing.assert_allclose(pck_auc(predicted, target), np.mean(curve, 0))
    np.testing.assert_allclose(pck_auc(target, target), 30 / 31)


def test_the_root_goes_to_the_origin_and_nothing_else_changes():
    poses, _ = random_poses(3)
    for root in (0, 5):
        centred = root_relative(poses, root)
        assert (centred[:, root] == 0).all()
        np.testing.assert_allclose(np.diff(centred, axis=1), np.diff(poses, axis=1), atol=1e-9)
    assert root_relative(torch.zeros(2, 3, 4, 3), 3).shape == (2, 3, 4, 3)


@pytest.mark.parametrize(
    "metric", [mpjpe, pa_mpjpe, n_mpjpe, pck, pck_auc, joint_errors, axis_errors, similarity_align]
)
def test_tensors_and_arrays_get_the_same_answer_in_their_own_kind(metric):
    predicted, target = (poses.astype(np.float32) for poses in random_poses(4))
    from_arrays = metric(predicted, target)
    from_tensors = metric(torch.from_numpy(predicted), torch.from_numpy(target))
    assert isinstance(from_arrays, np.ndarray)
    assert isinstance(from_tensors, torch.Tensor)
    assert from_arrays.dtype == np.float64
    assert from_tensors.dtype == torch.float64
    np.testing.assert_array_equal(from_arrays, from_tensors.numpy())
    assert metric(predicted[:0], target[:0]).shape == (0, *from_arrays.shape[1:])


def test_whole_numbers_and_views_are_accepted():
    target = np.arange(24).reshape(2, 4, 3)
    np.testing.assert_allclose(mpjpe(target[:, ::-1], target[:, ::-1]), 0)
    read_only = target.astype(np.float64)
    read_only.flags.writeable = False
    np.testing.assert_allclose(mpjpe(read_only, target + 1.0), np.sqrt(3))


def test_float32_input_far_from_the_origin_is_judged_in_float64():
    generator = np.random.default_rng(0)
    target = generator.normal([0, 0, 5000], 400, (20, 17, 3)).astype(np.float32)
    predicted = (target + generator.normal(0, 30, target.shape)).astype(np.float32)
    expected = scipy_aligned(predicted.astype(float), target.astype(float), allow_scale=True)
    np.testing.assert_allclose(similarity_align(predicted, target), expected, atol=1e-6)


@pytest.mark.parametrize(
    "metric", [mpjpe, pa_mpjpe, n_mpjpe, pck, pck_auc, joint_errors, axis_errors, similarity_align]
)
def test_wrong_input_is_refused(metric):
    poses = np.zeros((5, 17, 3))
    with pytest.raises(ValueError, match="same shape"):
        metric(poses, poses[:, :16])
    with pytest.raises(ValueError, match="same shape"):
        metric(poses, poses[:1])  # would broadcast
    with pytest.raises(ValueError, match=r"must be \(n, joints, 3\)"):
        metric(poses[0], poses[0])
    with pytest.raises(ValueError, match=r"must be \(n, joints, 3\)"):
        metric(poses[..., :2], poses[..., :2])
    with pytest.raises(ValueError, match="both be tensors or both arrays"):
        metric(poses, torch.from_numpy(poses))
    for bad in (np.nan, np.inf):
        broken = poses.copy()
        broken[3, 2, 1] = bad
        with pytest.raises(ValueError, match=r"target_mm must be finite.*first at index 3"):
            metric(poses, broken)


def test_wrong_roots_shapes_and_thresholds_are_refused():
    poses = np.zeros((5, 17, 3))
    with pytest.raises(ValueError, match=r"root must be in 0\.\.16, got 17"):
        root_relative(poses, 17)
    with pytest.raises(ValueError, match=r"\(\.\.\., joints, 3\)"):
        root_relative(poses[..., :2])
    with pytest.raises(ValueError, match="threshold_mm must be >= 0 mm"):
        pck(poses, poses, threshold_mm=-1)


def test_examples_hold():
    result = doctest.testmod(metrics)
    assert result.attempted > 0
    assert result.failed == 0
