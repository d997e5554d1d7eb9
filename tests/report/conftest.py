"""Result files of a run that never was: a walking figure, noise of a known scale, drawn crops."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy import stats

from pose3d.evaluation.density import ResidualDensity
from pose3d.evaluation.predictions import Predictions, evaluate_predictions

LEGS = ("Hip", "Knee", "Ankle")
ARMS = ("Shoulder", "Elbow", "Wrist")
JOINTS = (
    "Pelvis",
    *(f"R_{name}" for name in LEGS),
    *(f"L_{name}" for name in LEGS),
    *("Torso", "Neck", "Nose", "Head"),
    *(f"L_{name}" for name in ARMS),
    *(f"R_{name}" for name in ARMS),
)
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
ACTIONS = ("Directions", "Eating", "Greeting", "Sitting", "Walking")
CROP_PX = 256
FOCAL_PX = 1145.0
CORRELATED = np.array([[1.0, 0.3, 0.45], [0.3, 0.8, 0.0], [0.45, 0.0, 1.4]])


def limb(angle_rad, length_mm, sideways_mm=0.0):
    """A bone that swings forward (z) by an angle from hanging straight down (y)."""
    return np.array(
        [
            np.broadcast_to(sideways_mm, np.shape(angle_rad)),
            length_mm * np.cos(angle_rad),
            -length_mm * np.sin(angle_rad),
        ]
    ).T


def walking_poses(rng, num_samples):
    """Root-relative joints (n, 17, 3) in mm, y down, facing a random direction."""
    phase = rng.uniform(0, 2 * np.pi, num_samples)
    swing = 0.5 * np.sin(phase)
    pose = np.zeros((num_samples, 17, 3))
    for hip, knee, ankle, side, sign in ((1, 2, 3, -130, 1), (4, 5, 6, 130, -1)):
        pose[:, hip] = [side, 0, 0]
        pose[:, knee] = pose[:, hip] + limb(sign * swing, 440)
        pose[:, ankle] = pose[:, knee] + limb(sign * swing - 0.35 * (1 + np.cos(phase)), 440)
    for joint, offset in ((7, -235), (8, -255), (9, -105), (10, -115)):
        pose[:, joint] = pose[:, PARENTS[joint]] + [0, offset, -25 if joint == 9 else 0]
    for shoulder, elbow, wrist, side, sign in ((11, 12, 13, 150, 1), (14, 15, 16, -150, -1)):
        pose[:, shoulder] = pose[:, 8] + [side, 20, 0]
        raised = rng.uniform(-0.2, 1.2, num_samples)
        pose[:, elbow] = pose[:, shoulder] + limb(sign * swing + 0.5 * raised, 280, side * 0.3)
        pose[:, wrist] = pose[:, elbow] + limb(sign * swing + 1.1 * raised + 0.3, 250)
    turn = rng.uniform(-np.pi, np.pi, num_samples)
    zero, one, c, s = np.zeros_like(turn), np.ones_like(turn), np.cos(turn), np.sin(turn)
    rotation = np.array([[c, zero, s], [zero, one, zero], [-s, zero, c]]).transpose(2, 0, 1)
    return pose @ rotation.transpose(0, 2, 1)


def residual_noise(rng, shape):
    """Draws of 0.7 N(0, CORRELATED) + 0.3 Laplace(0, 1)³."""
    gaussian = rng.standard_normal((*shape, 3)) @ np.linalg.cholesky(CORRELATED).T
    return np.where(rng.random(shape)[..., None] < 0.7, gaussian, rng.laplace(size=(*shape, 3)))


def residual_log_density(x):
    """Log density of `residual_noise`."""
    gaussian = stats.multivariate_normal(np.zeros(3), CORRELATED).logpdf(x)
    return np.logaddexp(np.log(0.7) + gaussian, np.log(0.3) + stats.laplace.logpdf(x).sum(-1))


def fabricated_predictions(*, num_samples=400, seed=0, metadata=None):
    """Predictions whose residuals follow `residual_noise`, decoded by a pinhole written here."""
    rng = np.random.default_rng(seed)
    target_mm = walking_poses(rng, num_samples)
    root = np.stack(
        [rng.normal(0, 300, num_samples), rng.normal(0, 100, num_samples),
         rng.uniform(4200, 5800, num_samples)], axis=1
    )  # fmt: skip
    camera = target_mm + root[:, None]
    image_px = 512 + FOCAL_PX * camera[..., :2] / camera[..., 2:]
    centre = (image_px.max(1) + image_px.min(1)) / 2
    side = 1.25 * np.ptp(image_px, axis=1).max(-1)
    zoom = CROP_PX / side
    uv = (image_px - centre[:, None]) / side[:, None, None]
    target = np.concatenate([uv, (camera[..., 2:] - root[:, None, 2:]) / 2000], axis=-1)
    difficulty = np.array([1, 1.1, 1.4, 2, 1.1, 1.4, 2, 1, 1.1, 1.3, 1.3, 1.3, 2, 3, 1.3, 2, 3])
    hard = rng.gamma(4, 0.25, (num_samples, 1, 1))
    scale = 0.006 * difficulty[:, None] * hard * np.array([1, 0.9, 1.9])
    scale = scale * rng.gamma(20, 0.05, (num_samples, 17, 3))
    mean = target - scale * residual_noise(rng, (num_samples, 17))
    mean[:, 0, 2] = 0
    depth = mean[..., 2:] * 2000 + root[:, None, 2:]
    predicted_px = mean[..., :2] * side[:, None, None] + centre[:, None]
    predicted = np.concatenate([(predicted_px - 512) * depth / FOCAL_PX, depth], axis=-1)
    sigma = np.concatenate(
        [scale[..., :2] * side[:, None, None] * depth / FOCAL_PX, scale[..., 2:] * 2000], axis=-1
    )
    crop = np.zeros((num_samples, 3, 3))
    crop[:, 0, 0] = crop[:, 1, 1] = zoom
    crop[:, :2, 2] = CROP_PX / 2 - zoom[:, None] * centre
    crop[:, 2, 2] = 1
    number = np.arange(num_samples)
    return Predictions(
        mean_uvd=mean.astype(np.float32),
        scale_uvd=scale.astype(np.float32),
        target_uvd=target.astype(np.float32),
        weight=np.ones((num_samples, 17, 3), np.float32),
        predicted_root_relative_mm=(predicted - predicted[:, :1]).astype(np.float32),
        target_root_relative_mm=target_mm.astype(np.float32),
        sigma_mm=sigma.astype(np.float32),
        predicted_image_px=predicted_px.astype(np.float32),
        target_image_px=image_px.astype(np.float32),
        root_depth_mm=root[:, 2].astype(np.float32),
        crop_from_image=crop,
        box_image_px=np.concatenate([centre, side[:, None]], axis=1),
        store_index=number,
        subject=np.where(number % 2 == 0, 9, 11),
        action=np.array(ACTIONS)[rng.choice(5, num_samples, p=[0.1, 0.15, 0.15, 0.2, 0.4])],
        subaction=number % 2 + 1,
        camera_name=np.array(["54138969", "60457274"])[number % 2],
        frame=64 * number,
        name=np.array([f"s_{9 + 2 * (i % 2):02d}_frame_{64 * i:06d}" for i in number]),
        source_file=np.array([f"frames/{i:06d}.jpg" for i in number]),
        metadata={
            "joint_names": list(JOINTS),
            "skeleton": "human36m_17",
            "root": 0,
            "protocol": "fabricated walking figure; S9 and S11, every 64th frame, all cameras",
            "root_depth": "ground truth",
            "flip_test": True,
            "box_definition": "tight box of the joints × 1.25, square",
            "crop_size_px": CROP_PX,
            "checkpoint": "none",
            **(metadata or {}),
        },
    )


def drawn_crop(predictions, row, rng):
    """A crop with a shaded background and the labelled figure as thick limbs."""
    ramp = np.linspace(150, 60, CROP_PX)[:, None, None] * np.array([0.9, 1.0, 1.1])
    image = ramp + rng.normal(0, 6, (CROP_PX, CROP_PX, 3))
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    points = (predictions.target_uvd[row, :, :2] + 0.5) * CROP_PX
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            ends = [tuple(int(v) for v in points[i].round()) for i in (joint, parent)]
            cv2.line(image, *ends, (196, 164, 138), 13, cv2.LINE_AA)
    return image


def write_run(
    run,
    predictions,
    *,
    config="train:\n  epochs: 12\n",
    extra=None,
    density=None,
    cases_per_kind=1,
):
    """Write the result files as a run would."""
    rng = np.random.default_rng(1)
    results = Path(run) / "results"
    predictions.save(results / "predictions.npz")
    metrics = evaluate_predictions(predictions)
    metrics |= {"baseline_mean_pose_mpjpe_mm": 173.4, "images_per_second": 212.0, **(extra or {})}
    (results / "metrics.json").write_text(json.dumps(metrics))
    if density is None:
        density = ResidualDensity.from_log_density(residual_log_density, num_cells=16)
    density.save(results / "density.npz")
    error = predictions.predicted_root_relative_mm - predictions.target_root_relative_mm
    order = np.linalg.norm(error, axis=-1).mean(-1).argsort()
    middle = len(order) // 2
    worst, best = order[::-1][:cases_per_kind], order[:cases_per_kind]
    rows = np.concatenate([best, order[middle : middle + cases_per_kind], worst])
    kind = np.repeat(["best", "typical", "worst"], cases_per_kind)
    images = np.stack([drawn_crop(predictions, row, rng) for row in rows])
    np.savez_compressed(results / "examples.npz", images=images, rows=rows, kind=kind)
    (Path(run) / "config.yaml").write_text(config)
    return Path(run)


@pytest.fixture(scope="session")
def fabricate():
    """The two functions that make up results: `.predictions(...)` and `.run(folder, ...)`."""
    return SimpleNamespace(predictions=fabricated_predictions, run=write_run)


@pytest.fixture(scope="session")
def predictions():
    """Predictions of 400 fabricated records."""
    return fabricated_predictions()


@pytest.fixture(scope="session")
def run(tmp_path_factory, predictions):
    """A folder with every result file of a finished run."""
    return write_run(tmp_path_factory.mktemp("walk") / "run", predictions)
