"""What a comparison keeps of a finished run: one small JSON and one small npz.

A run is judged once, by its last checkpoint (the average weights where there are such), through
`predict`, so that the numbers are those of `pose3d evaluate --checkpoint last`. Kept are, per
record, what the comparison's tables and their intervals need; the run itself may then be deleted.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from pose3d.data.dataset import BatchLoader, PoseDataset, make_dataset
from pose3d.data.store import Store
from pose3d.engine.checkpoint import load_checkpoint
from pose3d.engine.config import RunConfig, config_to_dict
from pose3d.engine.infer import choose_device, plain_batch
from pose3d.engine.journal import read_log
from pose3d.engine.network import Network
from pose3d.engine.predict import load_run, predict, read_metrics
from pose3d.evaluation import tables
from pose3d.evaluation.bootstrap import sequence_numbers
from pose3d.evaluation.density import ResidualDensity
from pose3d.evaluation.predictions import Predictions, judged_poses
from pose3d.geometry.uvd import decode_uvd

COVERAGE_LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Probabilities of the central intervals whose coverage is counted."""
KINDS_WITHOUT_SCALE = ("l1", "l2")
"""Losses that leave σ untrained."""


def judge_run(
    run: str | Path, *, store: Store, device: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Predict the test records of a finished run and keep what a comparison needs.

    Args:
        run: Folder of the run; its results/ are written by the way.
        store: The store it was trained on, open.
        device: As in predict.

    Returns:
        What JSON holds, and arrays with one row per record: mpjpe_mm and pa_mpjpe_mm; both with the
        suffix _centred, and covered [records, axes, levels] out of coverable [records, axes], where
        one residual density holds for all axes; nats and nats_joints, summed over the labelled
        joints, where the loss is a likelihood; error_mm and sigma_radius_mm per joint, where it has
        a scale (NaN: no label); store_index, sequence and the sequences' names.
    """
    predictions = predict(run, store=store, checkpoint="last", device=device)
    trained = load_run(run, checkpoint="last", device=choose_device(device))
    density = ResidualDensity.load(Path(run) / "results" / "density.npz")
    config, likelihood = trained.config, trained.network.likelihood
    sequence, names = sequence_numbers(
        predictions.subject, predictions.action, predictions.subaction
    )
    arrays = {"store_index": predictions.store_index, "sequence": sequence, "names": names}
    arrays |= record_errors(predictions)
    if density.available and describes_axes(trained.network):
        centred = centred_predictions(
            predictions, density, store=store, depth_range_mm=config.data.depth_range_mm
        )
        arrays |= {f"{name}_centred": v for name, v in record_errors(centred).items()}
        arrays |= coverage_counts(predictions, density)
    if likelihood.config.kind not in KINDS_WITHOUT_SCALE:
        arrays |= joint_arrays(predictions)
    if likelihood.is_likelihood:
        dataset = make_dataset(store, config.data, role="test")
        arrays |= record_nats(trained.network, dataset, config, device=choose_device(device))
    metrics = read_metrics(run)
    last = load_checkpoint(trained.path)["progress"]
    summary = {
        "config": config_to_dict(trained.original),
        "store_digest": store.digest,
        "commit": trained.commit,
        "epoch": trained.epoch,
        "step": trained.step,
        "parameters": sum(p.numel() for p in trained.network.parameters()),
        "parameters_of_likelihood": sum(p.numel() for p in likelihood.parameters()),
        "joint_names": list(predictions.joint_names),
        "root": predictions.root,
        "geometric_median": density.geometric_median.tolist() if density.available else None,
        "mpjpe_mm": metrics["mpjpe_mm"],
        "pa_mpjpe_mm": metrics["pa_mpjpe_mm"],
        "sigma_error_spearman": metrics["sigma_error_spearman"]["within_joint"],
        "baseline_mean_pose_mpjpe_mm": metrics["baseline_mean_pose_mpjpe_mm"],
        "best_mpjpe_mm": last["best_mpjpe_mm"],
        "best_epoch": last["best_epoch"],
        "skipped_steps": last["skipped"],
        "bounded_residuals": last["bounded"],
        "protocol": metrics["protocol"],
        "curve": learning_curve(run),
    }
    return summary, arrays


def describes_axes(network: Network) -> bool:
    """Whether label = μ + σ·x̄ on each axis, with one density of x̄ for all joints and images.

    Not so where the scale is a full covariance, or the flow is conditioned on joint or image: there
    the table of the residual density says nothing of single axes of a joint.
    """
    is_diagonal = network.regressor.config.scale_head == "diagonal"
    return is_diagonal and network.likelihood.contexts is None


def record_errors(predictions: Predictions) -> dict[str, Float[np.ndarray, " records"]]:
    """MPJPE and PA-MPJPE of each record, mm, NaN where it is not judged."""
    values = tables.sample_values(judged_poses(predictions)).metrics
    return {name: values[name] for name in ("mpjpe_mm", "pa_mpjpe_mm")}


def centred_predictions(
    predictions: Predictions, density: ResidualDensity, *, store: Store, depth_range_mm: float
) -> Predictions:
    """The same predictions moved to μ + σ·c, c the residual density's geometric median.

    The label is μ + σ·x̄; where x̄ is skewed, μ is not the best guess under the distribution that
    is predicted. With a flip test the mirror image would move the other way in u, and by the same
    amount on average, so that c is 0 there.

    Args:
        predictions: With σ in standard deviations, as predict writes them.
        density: Of the residual in the same unit.
        store: Has the cameras.
        depth_range_mm: Of the run.
    """
    centre = density.geometric_median.copy()
    if predictions.metadata["flip_test"]:
        centre[0] = 0
    uvd = predictions.mean_uvd.astype(np.float64) + predictions.scale_uvd * centre
    uvd[:, predictions.root, 2] = 0
    rows = torch.from_numpy(predictions.store_index)
    camera = store.cameras[torch.from_numpy(store.records.camera_index)[rows]]
    camera_mm = decode_uvd(
        torch.from_numpy(uvd),
        camera,
        torch.from_numpy(predictions.crop_from_image),
        crop_size_px=predictions.metadata["crop_size_px"],
        root_depth_mm=torch.from_numpy(predictions.root_depth_mm).double(),
        depth_range_mm=depth_range_mm,
    ).numpy()
    relative = camera_mm - camera_mm[:, predictions.root, None]
    return dataclasses.replace(predictions, predicted_root_relative_mm=relative.astype(np.float32))


def coverage_counts(
    predictions: Predictions, density: ResidualDensity
) -> dict[str, Int[np.ndarray, "records ..."]]:
    """Labels within the predicted central intervals, per record, axis and level, and their number.

    Returns:
        covered [records, axes, levels] and coverable [records, axes].
    """
    residual = predictions.standardised_residual
    levels = np.array(COVERAGE_LEVELS)
    covered = np.empty((len(residual), 3, len(levels)), np.int16)
    for axis in range(3):
        low, high = (density.quantile(axis, (1 + sign * levels) / 2) for sign in (-1, 1))
        value = residual[:, :, axis, None]
        covered[:, axis] = ((value >= low) & (value <= high)).sum(1)
    return {"covered": covered, "coverable": np.isfinite(residual).sum(1).astype(np.int16)}


def joint_arrays(predictions: Predictions) -> dict[str, Float[np.ndarray, "records joints"]]:
    """Error and radius of σ of every joint, mm; NaN without a label, and for the root."""
    poses = judged_poses(predictions)
    known = poses.labelled_without_root
    error = np.linalg.norm(poses.signed_errors_mm, axis=-1)
    radius = np.linalg.norm(poses.sigma_mm.astype(np.float64), axis=-1)
    return {
        "error_mm": np.where(known, error, np.nan).astype(np.float32),
        "sigma_radius_mm": np.where(known, radius, np.nan).astype(np.float32),
    }


@torch.inference_mode()
def record_nats(
    network: Network, dataset: PoseDataset, config: RunConfig, *, device: torch.device
) -> dict[str, np.ndarray]:
    """−log density of the labels in uvd, summed over the labelled joints of each record.

    From what the regressor gives for the image alone (no flip test, no estimate), all labelled axes
    weighing 1: a joint without depth label, such as the root, has the density of its (u, v).

    Args:
        network: A likelihood, in evaluation mode.
        dataset: The test records.
        config: Of the run.
        device: Where the network lives.

    Returns:
        nats and nats_joints, the number of joints they are summed over.
    """
    loader = BatchLoader(
        dataset,
        batch_size=config.evaluate.batch_size,
        seed=0,
        epoch=0,
        shuffle=False,
        num_threads=config.data.num_threads,
        prefetch=config.data.prefetch,
        bad_records=config.data.bad_records,
    )
    nats, joints = [], []
    for raw in loader:
        batch = plain_batch(raw.to(device), config.data)
        images = batch.images
        if config.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        pose = network.regressor(images)
        weight = (batch.weight > 0).to(batch.target)
        loss = network.likelihood(
            pose.mean, pose.spread, batch.target, weight, feature=pose.feature
        )
        nats.append(loss.double().sum(-1).cpu().numpy())
        joints.append((weight > 0).any(-1).sum(-1).cpu().numpy())
    return {"nats": np.concatenate(nats), "nats_joints": np.concatenate(joints)}


def learning_curve(run: str | Path) -> dict[str, list[Any]]:
    """Epoch, validation MPJPE in mm and images/s in training of every epoch in the run's log."""
    log = read_log(run)
    names = ("epoch", "mpjpe_mm", "images_per_second")
    return {name: [line.get(name) for line in log] for name in names}
