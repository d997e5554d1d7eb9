"""From a network and the records of a store to Predictions.

Validation during training and the predict verb both run this code, so that they agree.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from pose3d.data.augment import (
    NORMALISATIONS,
    RawBatch,
    TrainingBatch,
    identity_parameters,
    make_batch,
)
from pose3d.data.dataset import BatchLoader, DataConfig, PoseDataset
from pose3d.data.store import Store
from pose3d.engine.config import RunConfig
from pose3d.engine.network import Network
from pose3d.evaluation.predictions import Predictions
from pose3d.geometry.crop import invert_map, transform_points
from pose3d.geometry.skeleton import Skeleton, convert_joints, skeleton_by_name
from pose3d.geometry.uvd import decode_scale, decode_uvd
from pose3d.model.regressor import PoseDistribution

ROOT_DEPTH = "ground truth"


def choose_device(name: str) -> torch.device:
    """The device of a setting: auto takes cuda where there is one.

    Raises:
        ValueError: If the name is no device, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"device {name} cannot be used: {reason}") from error
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 itself, rather than by conversion to float32 and back."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.10
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def plain_batch(raw: RawBatch, data: DataConfig) -> TrainingBatch:
    """The upright nominal crops and their labels, without augmentation."""
    return make_batch(
        raw,
        identity_parameters(len(raw.index)),
        skeleton=skeleton_by_name(data.skeleton),
        input_size_px=data.input_size_px,
        depth_range_mm=data.depth_range_mm,
        normalisation=data.normalisation,
    )


def predict_batch(
    network: Network,
    images: Float[Tensor, "batch 3 size size"],
    *,
    skeleton: Skeleton,
    flip_test: bool,
    residual_covariance: Float[np.ndarray, "3 3"] | None = None,
) -> PoseDistribution:
    """Location and scale of each joint, as the network estimates them.

    Args:
        network: Is used as it is; put it into evaluation mode first.
        images: Normalised crops.
        skeleton: Says which joints trade places in a mirror image.
        flip_test: Average location and scale with those of the mirror image, mirrored back: σ where
            the axes are independent, else the covariances. The feature stays that of the image.
        residual_covariance: See infer.
    """
    seen = in_deviations(network.predict(images), residual_covariance)
    if not flip_test:
        return seen
    mirrored = in_deviations(network.predict(images.flip(-1)), residual_covariance)
    mirrored = mirrored.mirrored(skeleton, crop_size_px=images.shape[-1])
    mean = (seen.mean + mirrored.mean) / 2
    if seen.scale_tril is None or mirrored.scale_tril is None:
        spread = (seen.scale + mirrored.scale) / 2
    else:
        spread = mean_covariance_factor(seen.scale_tril, mirrored.scale_tril)
    return PoseDistribution.from_spread(mean, spread, seen.feature)


def in_deviations(
    pose: PoseDistribution, residual_covariance: Float[np.ndarray, "3 3"] | None
) -> PoseDistribution:
    """The same distribution, its scale the standard deviation of the label; see infer.

    With Σ = A·Aᵀ the covariance of x̄, the label μ + L·x̄ has the factor L·A, and the label μ + σ·x̄
    the deviation σ·√Σ_aa on each axis a.
    """
    if residual_covariance is None:
        return pose
    if pose.scale_tril is None:
        spread = pose.scale * pose.scale.new_tensor(np.sqrt(np.diag(residual_covariance)))
    else:
        factor = pose.scale_tril.new_tensor(np.linalg.cholesky(residual_covariance))
        spread = pose.scale_tril.tril() @ factor
    return PoseDistribution.from_spread(pose.mean, spread, pose.feature)


def mean_covariance_factor(
    first: Float[Tensor, "*batch 3 3"], second: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """Cholesky factor of the mean of two covariances that are given by theirs.

    From the QR decomposition of the factors on top of each other, in float64: no covariance is
    formed that could lose its positive definiteness to rounding.
    """
    stacked = torch.cat([first.mT, second.mT], dim=-2).double() / math.sqrt(2)
    upper = torch.linalg.qr(stacked, mode="r").R
    diagonal = upper.diagonal(dim1=-2, dim2=-1)
    return (upper * diagonal.sign()[..., None]).mT.to(first.dtype)


@torch.inference_mode()
def infer(
    network: Network,
    dataset: PoseDataset,
    config: RunConfig,
    *,
    flip_test: bool,
    batch_size: int,
    device: torch.device,
    residual_covariance: Float[np.ndarray, "3 3"] | None = None,
    metadata: dict[str, Any] | None = None,
) -> Predictions:
    """Predict every record of a dataset and decode it to millimetres.

    The labelled root depth places the prediction in front of the camera, and the root's own d is
    set to 0, which it is by definition. With data.bad_records=skip, records that cannot be read are
    left out and named in the metadata under ``unreadable_records``.

    Args:
        network: Its mode is put back afterwards.
        dataset: Records in the configured joint set.
        config: Of the run.
        flip_test: See predict_batch.
        batch_size: Images per forward pass.
        device: Where the network lives.
        residual_covariance: Of the axes of the standardised residual, with which the scale becomes
            the standard deviation, or the factor of the covariance, of the label; None leaves it as
            the network gives it.
        metadata: More of it for the result.

    Raises:
        ValueError: If no record is left, or one cannot be read and is not to be skipped.
    """
    skeleton = skeleton_by_name(config.data.skeleton)
    was_training = network.training
    network.eval()
    parts: list[tuple[Tensor, ...]] = []
    loader = BatchLoader(
        dataset,
        batch_size=batch_size,
        seed=0,
        epoch=0,
        shuffle=False,
        num_threads=config.data.num_threads,
        prefetch=config.data.prefetch,
        pin_memory=device.type == "cuda",
        bad_records=config.data.bad_records,
    )
    for raw in loader:
        batch = plain_batch(raw.to(device), config.data)
        images = batch.images
        if config.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        pose = predict_batch(
            network,
            images,
            skeleton=skeleton,
            flip_test=flip_test,
            residual_covariance=residual_covariance,
        ).cpu()
        target = batch.target.cpu()
        parts.append((pose.mean, pose.spread, target, batch.crop_from_image.cpu(), batch.index))
    network.train(was_training)
    unreadable = [*dataset.skipped_names, *loader.skipped_names]
    if not parts:
        raise ValueError(
            f"no record of {dataset.store.path} is left to predict: "
            f"all {len(unreadable)} are unreadable"
        )
    mean, spread, target, crop_from_image, index = (
        torch.cat(part) for part in zip(*parts, strict=True)
    )
    return build_predictions(
        PoseDistribution.from_spread(mean, spread),
        target,
        crop_from_image,
        store=dataset.store,
        store_index=index.cpu().numpy(),
        config=config,
        metadata={
            "flip_test": flip_test,
            "unreadable_records": unreadable,
            **(metadata or {}),
        },
    )


def build_predictions(
    pose: PoseDistribution,
    target_uvd: Float[Tensor, "samples joints 3"],
    crop_from_image: Float[Tensor, "samples 3 3"],
    *,
    store: Store,
    store_index: Int64[np.ndarray, " samples"],
    config: RunConfig,
    metadata: dict[str, Any],
) -> Predictions:
    """Decode to millimetres and add what the store knows of the records.

    Args:
        pose: Of all joints of the configured joint set, on the CPU.
        target_uvd: The labels in the same units.
        crop_from_image: Map from full-image pixels to pixels of the network's crop.
        store: Where the records come from.
        store_index: Row of each record in the store.
        config: Of the run.
        metadata: ``flip_test`` and whatever else should be kept.
    """
    skeleton = skeleton_by_name(config.data.skeleton)
    records, joints = store.records, list(skeleton.evaluation_joints)
    camera = store.cameras[torch.from_numpy(records.camera_index[store_index])]
    target_camera_mm, weight = labels(store, store_index, skeleton=skeleton)
    root_depth_mm = target_camera_mm[:, skeleton.root, 2]
    mean, spread = pose.mean.double().clone(), pose.spread.double().clone()
    if config.evaluate.subtract_root_depth:
        mean[..., 2] -= mean[:, skeleton.root, 2, None].clone()
    mean[:, skeleton.root, 2] = 0
    decoding: dict[str, Any] = {
        "crop_size_px": config.data.input_size_px,
        "root_depth_mm": root_depth_mm,
        "depth_range_mm": config.data.depth_range_mm,
    }
    predicted_camera_mm = decode_uvd(mean, camera, crop_from_image.double(), **decoding)
    spread[:, skeleton.root, 2] = 0  # given, not predicted
    sigma_mm = decode_scale(mean, spread, camera, crop_from_image.double(), **decoding)
    image_from_crop = invert_map(crop_from_image.double())
    predicted_crop_px = crop_pixels(mean, crop_size_px=config.data.input_size_px)

    def kept(values: Tensor) -> np.ndarray:
        return values[:, joints].float().numpy()

    def relative(values: Tensor) -> np.ndarray:
        return kept(values - values[:, skeleton.root, None])

    return Predictions(
        mean_uvd=kept(mean),
        scale_uvd=kept(pose.scale),
        target_uvd=kept(target_uvd),
        weight=kept(weight),
        predicted_root_relative_mm=relative(predicted_camera_mm),
        target_root_relative_mm=relative(target_camera_mm),
        sigma_mm=kept(sigma_mm),
        predicted_image_px=kept(transform_points(image_from_crop, predicted_crop_px)),
        target_image_px=kept(camera.camera_to_image(target_camera_mm)),
        root_depth_mm=root_depth_mm.float().numpy(),
        crop_from_image=crop_from_image.double().numpy(),
        box_image_px=records.box_image_px[store_index],
        store_index=store_index,
        subject=records.subject[store_index],
        action=records.action[store_index],
        subaction=records.subaction[store_index],
        camera_name=records.camera_name[store_index],
        frame=records.frame[store_index],
        name=np.array([store.record_name(int(i)) for i in store_index]),
        source_file=np.array([store.source_file(int(i)) for i in store_index]),
        metadata={**_describe(store, skeleton, config, metadata), **metadata},
    )


def labels(
    store: Store, store_index: Int64[np.ndarray, " samples"], *, skeleton: Skeleton
) -> tuple[Float[Tensor, "samples joints 3"], Float[Tensor, "samples joints 3"]]:
    """Joints in camera millimetres and label weights of records, in another joint set, float64.

    A joint without any label stands at the root, so that it can be projected like the others.
    """
    joints = torch.from_numpy(store.records.joints_camera_mm[store_index]).double()
    weight = torch.from_numpy(store.records.weight[store_index]).double()
    is_labelled = (weight > 0).any(-1, keepdim=True)
    joints = torch.where(is_labelled, joints, joints[:, store.skeleton.root, None])
    return (
        convert_joints(joints, source=store.skeleton, target=skeleton),
        convert_joints(weight, source=store.skeleton, target=skeleton),
    )


def mean_pose(
    store: Store, store_index: Int64[np.ndarray, " samples"], *, skeleton: Skeleton
) -> Float[Tensor, "joints 3"]:
    """Mean root-relative pose of fully labelled joints, camera axes, millimetres, float64."""
    joints, weight = labels(store, store_index, skeleton=skeleton)
    counts = (weight > 0).all(-1, keepdim=True).double()
    counts = counts * counts[:, skeleton.root, None]
    relative = torch.where(counts > 0, joints - joints[:, skeleton.root, None], 0)
    return relative.sum(0) / counts.sum(0).clamp_min(1)


def crop_pixels(
    uvd: Float[Tensor, "samples joints 3"], *, crop_size_px: int
) -> Float[Tensor, "samples joints 2"]:
    """Pixels in the network's crop of normalised joints."""
    return (uvd[..., :2] + 0.5) * crop_size_px


def crop_images(
    dataset: PoseDataset, store_index: Int64[np.ndarray, " samples"], data: DataConfig
) -> UInt8[np.ndarray, "samples size size 3"]:
    """The crops that the network sees of some records of the dataset, as RGB images."""
    position_of = {int(row): position for position, row in enumerate(dataset.indices)}
    raw = dataset.raw_batch(np.array([position_of[int(row)] for row in store_index], np.int64))
    mean, std = (torch.tensor(v)[:, None, None] for v in NORMALISATIONS[data.normalisation])
    images = (plain_batch(raw, data).images * std + mean) * 255
    return images.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def evaluation_bones(skeleton: Skeleton) -> list[tuple[int, int]]:
    """Bones between evaluation joints, as positions among them: each to its nearest ancestor."""
    joints, bones = skeleton.evaluation_joints, []
    for place, joint in enumerate(joints):
        ancestor = skeleton.parents[joint]
        while ancestor >= 0 and ancestor not in joints:
            ancestor = skeleton.parents[ancestor]
        if ancestor >= 0:
            bones.append((joints.index(ancestor), place))
    return bones


def with_constant_pose(
    predictions: Predictions, pose_mm: Float[Tensor, "joints 3"], *, skeleton: Skeleton
) -> Predictions:
    """The same records, each predicted as one root-relative pose: what every model must beat."""
    pose = pose_mm[list(skeleton.evaluation_joints)].float().numpy()
    repeated = np.repeat(pose[None], len(predictions), axis=0)
    return dataclasses.replace(predictions, predicted_root_relative_mm=repeated)


def _describe(
    store: Store, skeleton: Skeleton, config: RunConfig, metadata: dict[str, Any]
) -> dict[str, Any]:
    joints = skeleton.evaluation_joints
    flip = "averaged with its mirror image" if metadata["flip_test"] else "of the image alone"
    if config.evaluate.subtract_root_depth:
        flip += ", less the predicted depth of the root"
    return {
        "skeleton": skeleton.name,
        "joint_names": [skeleton.joint_names[joint] for joint in joints],
        "root": joints.index(skeleton.root),
        "axes": "x right, y down, z forward (camera); u right, v down, d forward",
        "units": "mm, px; uvd in crop sides (u, v) and depth ranges (d)",
        "protocol": (
            f"root-relative errors over {len(joints)} joints; prediction {flip}; depth of the root "
            f"for decoding: {ROOT_DEPTH}; box: {store.header.box_definition}"
        ),
        "root_depth": ROOT_DEPTH,
        "source": store.header.source,
        "box_definition": store.header.box_definition,
        "store_digest": store.digest,
        "crop_size_px": config.data.input_size_px,
        "depth_range_mm": config.data.depth_range_mm,
    }
