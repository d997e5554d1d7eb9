"""Inference: the mirror image, decoding, the mean pose."""

import shutil

import numpy as np
import pytest
import torch

from pose3d.data.dataset import make_dataset
from pose3d.data.store import open_store
from pose3d.engine.infer import (
    choose_device,
    crop_images,
    evaluation_bones,
    infer,
    mean_covariance_factor,
    mean_pose,
    plain_batch,
    predict_batch,
    with_constant_pose,
)
from pose3d.engine.network import Network
from pose3d.evaluation.predictions import evaluate_predictions
from pose3d.geometry.skeleton import HUMAN36M_17, HUMAN36M_18
from pose3d.model.regressor import PoseDistribution

CPU = torch.device("cpu")


@pytest.fixture
def data(dots, small):
    config = small("data.skeleton=human36m_17")
    return config, make_dataset(open_store(dots), config.data, role="test")


class Oracle(Network):
    """Answers every batch with the labels, in order."""

    def __init__(self, config, dataset, *, root_depth: float = 0.0):
        super().__init__(config)
        batch = plain_batch(dataset.raw_batch(np.arange(len(dataset))), config.data)
        self.target = batch.target.clone()
        self.target[:, 0, 2] += root_depth
        self.place = 0

    def predict(self, images):
        start, self.place = self.place, self.place + len(images)
        mean = self.target[start : self.place]
        return PoseDistribution(mean, torch.full_like(mean, 0.01))


def predict_with(network, config, dataset):
    return infer(network, dataset, config, flip_test=False, batch_size=3, device=CPU)


def test_the_right_answer_has_no_error_in_millimetres_and_pixels(data):
    config, dataset = data
    predictions = predict_with(Oracle(config, dataset), config, dataset)
    records = dataset.store.records
    joints = records.joints_camera_mm[dataset.indices]
    relative = joints - joints[:, :1]
    np.testing.assert_allclose(predictions.target_root_relative_mm, relative, atol=1e-3)
    np.testing.assert_allclose(predictions.predicted_root_relative_mm, relative, atol=0.01)
    np.testing.assert_allclose(
        predictions.predicted_image_px, predictions.target_image_px, atol=1e-3
    )
    focal, centre = np.array([1145.0, 1144.0]), np.array([512.0, 515.0])
    pinhole = joints[..., :2] / joints[..., 2:] * focal + centre
    np.testing.assert_allclose(predictions.target_image_px, pinhole, atol=1e-2)
    assert evaluate_predictions(predictions)["mpjpe_mm"] < 0.01


def test_unreadable_records_are_left_out_named_and_counted(dots, small, tmp_path):
    store = open_store(shutil.copytree(dots, tmp_path / "store"))
    first, second = store.select(split="test")[:2]
    store.records.joints_camera_mm[first, 3] = np.nan
    jpeg = store.image_bytes(second)
    shard = tmp_path / "store" / "shard-00000.h5"
    shard.write_bytes(shard.read_bytes().replace(jpeg, bytes(len(jpeg))))

    config = small("data.bad_records=skip", "data.skeleton=human36m_17")
    dataset = make_dataset(store, config.data, role="test")
    predictions = predict_with(Network(config), config, dataset)
    names = [store.record_name(row) for row in (first, second)]
    assert predictions.metadata["unreadable_records"] == names
    assert len(predictions) == 2
    assert not set(names) & set(predictions.name)
    counts = evaluate_predictions(predictions)["counts"]
    assert (counts["samples"], counts["unreadable"]) == (2, 2)


def test_the_depth_predicted_for_the_root_does_not_matter(data):
    config, dataset = data
    plain = predict_with(Oracle(config, dataset), config, dataset)
    shifted = predict_with(Oracle(config, dataset, root_depth=0.3), config, dataset)
    assert np.array_equal(plain.predicted_root_relative_mm, shifted.predicted_root_relative_mm)
    assert np.array_equal(plain.sigma_mm, shifted.sigma_mm)


def test_sigma_on_the_optical_axis_follows_the_pinhole(data):
    config, dataset = data
    predictions = predict_with(Oracle(config, dataset), config, dataset)
    root = predictions.sigma_mm[:, 0]  # its depth is given, so x follows from u alone
    side_px, depth_mm = predictions.box_image_px[:, 2], predictions.root_depth_mm
    np.testing.assert_allclose(root[:, 0], 0.01 * side_px * depth_mm / 1145, rtol=1e-4)
    assert np.allclose(root[:, 2], 0)
    np.testing.assert_allclose(predictions.sigma_mm[:, 1:, 2], 0.01 * 2000, rtol=1e-4)


def mirrored_by_hand(values: np.ndarray, *, is_mean: bool, size: int) -> np.ndarray:
    result = np.empty_like(values)
    for joint, name in enumerate(HUMAN36M_17.joint_names):
        other = {"L_": "R_", "R_": "L_"}.get(name[:2], name[:2]) + name[2:]
        result[:, HUMAN36M_17.joint_names.index(other)] = values[:, joint]
    if is_mean:
        result[..., 0] = -result[..., 0] - 1 / size
    return result


def test_a_mirrored_image_has_the_mirrored_location_and_scale(small):
    torch.manual_seed(0)
    network = Network(small("data.skeleton=human36m_17")).eval()
    for head in (network.regressor.location_head, network.regressor.scale_head):
        torch.nn.init.normal_(head.weight)  # so that joints differ
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pose, mirrored = (
            predict_batch(network, x, skeleton=HUMAN36M_17, flip_test=True)
            for x in (images, images.flip(-1))
        )
    expected = mirrored_by_hand(pose.mean.numpy(), is_mean=True, size=32)
    np.testing.assert_allclose(mirrored.mean.numpy(), expected, atol=1e-5)
    expected = mirrored_by_hand(pose.scale.numpy(), is_mean=False, size=32)
    np.testing.assert_allclose(mirrored.scale.numpy(), expected, atol=1e-5)
    left, right = (HUMAN36M_17.index(name) for name in ("L_Hip", "R_Hip"))
    assert not np.allclose(pose.scale[:, left], pose.scale[:, right], atol=1e-3)


def test_the_flip_test_averages_full_covariances(small):
    torch.manual_seed(0)
    network = Network(small("data.skeleton=human36m_17", "model.scale_head=cholesky")).eval()
    torch.nn.init.normal_(network.regressor.scale_head.weight)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pose = predict_batch(network, images, skeleton=HUMAN36M_17, flip_test=True)
        seen, other = (network.predict(x) for x in (images, images.flip(-1)))
    covariances = [(p.scale_tril @ p.scale_tril.mT).double().numpy() for p in (seen, other)]
    reflected = covariances[1] * np.outer([-1, 1, 1], [-1, 1, 1])
    swapped = mirrored_by_hand(reflected.reshape(2, 17, 9), is_mean=False, size=32)
    expected = (covariances[0] + swapped.reshape(2, 17, 3, 3)) / 2
    factor = pose.scale_tril.double().numpy()
    assert not np.triu(factor, 1).any()
    assert (np.diagonal(factor, axis1=-2, axis2=-1) > 0).all()
    np.testing.assert_allclose(factor @ factor.swapaxes(-1, -2), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        pose.scale, np.sqrt(np.diagonal(expected, axis1=-2, axis2=-1)), rtol=1e-4
    )
    assert torch.equal(pose.feature, seen.feature)


def test_the_flip_test_averages_covariances_of_labels_not_of_scales(small):
    """Of y = μ + L x̄ with correlated x̄: the mean of L Σ Lᵀ and its mirror image's, mirrored."""
    torch.manual_seed(0)
    network = Network(small("data.skeleton=human36m_17", "model.scale_head=cholesky")).eval()
    torch.nn.init.normal_(network.regressor.scale_head.weight)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    residual = np.array([[4.0, 1.5, -2.0], [1.5, 1.0, 0.3], [-2.0, 0.3, 25.0]])
    with torch.no_grad():
        pose = predict_batch(
            *(network, images),
            skeleton=HUMAN36M_17, flip_test=True, residual_covariance=residual,
        )  # fmt: skip
        seen, other = (
            network.predict(x).scale_tril.double().numpy() for x in (images, images.flip(-1))
        )
    covariances = [factor @ residual @ factor.swapaxes(-1, -2) for factor in (seen, other)]
    reflected = covariances[1] * np.outer([-1, 1, 1], [-1, 1, 1])
    swapped = mirrored_by_hand(reflected.reshape(2, 17, 9), is_mean=False, size=32)
    expected = (covariances[0] + swapped.reshape(2, 17, 3, 3)) / 2
    factor = pose.scale_tril.double().numpy()
    np.testing.assert_allclose(factor @ factor.swapaxes(-1, -2), expected, rtol=1e-3, atol=1e-4)


def test_the_mean_of_nearly_singular_covariances_keeps_a_factor():
    """Its smallest deviation, 1e-4 of the largest, is beyond a Cholesky of float32 products."""
    rows = [[1, 0, 0], [1, 1e-4, 0], [1, 1, 1e-4]]
    factor = torch.tensor(rows, dtype=torch.float32)
    mean = mean_covariance_factor(factor, factor)
    torch.testing.assert_close(mean, factor, atol=1e-6, rtol=0)


def test_sigma_of_a_full_covariance_takes_that_of_the_residual(data):
    """y = μ + L x̄, x̄ with correlated axes; the root's x and y follow from u and v."""
    config, dataset = data
    factor = torch.tensor([[0.01, 0, 0], [0.006, 0.008, 0], [-0.02, 0.01, 0.015]])

    class Correlated(Oracle):
        def predict(self, images):
            mean = super().predict(images).mean
            return PoseDistribution.from_spread(mean, factor.expand(*mean.shape, 3))

    deviation = np.array([2.0, 3.0, 5.0])
    correlation = np.array([[1, 0.5, -0.4], [0.5, 1, 0.2], [-0.4, 0.2, 1]])
    residual = correlation * np.outer(deviation, deviation)
    predictions = infer(
        *(Correlated(config, dataset), dataset, config),
        flip_test=False, batch_size=3, device=CPU, residual_covariance=residual,
    )  # fmt: skip
    scale_uvd = np.sqrt(np.diag(factor.numpy() @ residual @ factor.numpy().T))
    np.testing.assert_allclose(predictions.scale_uvd[0, 0], scale_uvd, rtol=1e-5)
    side_px, depth_mm = predictions.box_image_px[:, 2:], predictions.root_depth_mm[:, None]
    expected = scale_uvd[:2] * side_px * depth_mm / [1145, 1144]
    np.testing.assert_allclose(predictions.sigma_mm[:, 0, :2], expected, rtol=1e-4)
    assert np.allclose(predictions.sigma_mm[:, 0, 2], 0)
    np.testing.assert_allclose(predictions.sigma_mm[:, 1:, 2], 2000 * scale_uvd[2], rtol=1e-4)


def test_mean_pose_is_the_mean_of_root_relative_joints(data):
    _, dataset = data
    joints = dataset.store.records.joints_camera_mm[dataset.indices].astype(np.float64)
    expected = np.mean([pose - pose[0] for pose in joints], axis=0)
    pose = mean_pose(dataset.store, dataset.indices, skeleton=HUMAN36M_17)
    np.testing.assert_allclose(pose.numpy(), expected, atol=1e-4)


def test_a_constant_pose_is_judged_like_a_prediction(data):
    config, dataset = data
    predictions = predict_with(Oracle(config, dataset), config, dataset)
    zero = with_constant_pose(predictions, torch.zeros(17, 3), skeleton=HUMAN36M_17)
    expected = np.linalg.norm(predictions.target_root_relative_mm, axis=-1).mean()
    assert evaluate_predictions(zero)["mpjpe_mm"] == pytest.approx(expected, rel=1e-6)


def test_crops_show_a_dot_where_the_label_is(data):
    config, dataset = data
    crops = crop_images(dataset, dataset.indices[[2]], config.data)
    target = plain_batch(dataset.raw_batch(np.array([2])), config.data).target[0]
    x, y = ((target[16, :2] + 0.5) * 32).round().int().tolist()
    background = 60
    assert abs(crops[0, y, x].astype(int) - background).max() > 60
    assert abs(crops[0, 0, 0].astype(int) - background).max() < 20


def test_bones_pass_over_joints_that_are_not_judged():
    bones = evaluation_bones(HUMAN36M_18)
    assert sorted(child for _, child in bones) == list(range(1, 17))


def test_an_impossible_device_is_named():
    with pytest.raises(ValueError, match="device toaster cannot be used"):
        choose_device("toaster")
