"""Train, judge and trust a 3-D human pose regressor.

Joints are in the camera frame (x right, y down, z forward) in millimetres, images in pixels with
centres at integers; inside the network joints are (u, v, d): u = x_crop/W − ½, v = y_crop/H − ½,
d = (Z − Z_root)/2000 mm.

Example:
    >>> import torch, pose3d
    >>> config = pose3d.load_config(overrides=["model.backbone=resnet18"])
    >>> regressor = pose3d.PoseRegressor(config.model, 18)
    >>> pose = regressor(torch.zeros(2, 3, 64, 64))
    >>> tuple(pose.mean.shape), tuple(pose.scale.shape)
    ((2, 18, 3), (2, 18, 3))
    >>> likelihood = pose3d.Likelihood(config.likelihood, pose3d.ResidualFlow(config.flow))
    >>> loss = likelihood(pose.mean, pose.scale, torch.zeros(2, 18, 3))  # nats per joint
    >>> tuple(loss.shape)
    (2, 18)
    >>> pose3d.mpjpe(torch.zeros(1, 17, 3), torch.tensor([3.0, 4.0, 0.0]).expand(1, 17, 3)).item()
    5.0

A training and its judgement, with a store made by ``pose3d-prep``::

    records = pose3d.open_store("stores/demo").records
    print(records.joints_camera_mm.shape, "joints in millimetres")
    result = pose3d.train(config, store="stores/demo", run="runs/demo")
    predictions = pose3d.predict("runs/demo")
    print(pose3d.mpjpe(predictions.predicted_root_relative_mm,
                       predictions.target_root_relative_mm).mean(), "mm")
    print(predictions.sigma_mm.mean(axis=(0, 1)), "mm along x, y, z")
"""

from importlib.metadata import version

from pose3d.data.store import open_store
from pose3d.engine.config import load_config
from pose3d.engine.predict import predict
from pose3d.engine.train import train
from pose3d.evaluation.metrics import mpjpe, n_mpjpe, pa_mpjpe
from pose3d.geometry.camera import Camera
from pose3d.geometry.uvd import decode_uvd, encode_uvd
from pose3d.model.flow import ResidualFlow
from pose3d.model.likelihood import Likelihood
from pose3d.model.regressor import PoseDistribution, PoseRegressor

__version__ = version("pose3d")

__all__ = [
    "Camera",
    "Likelihood",
    "PoseDistribution",
    "PoseRegressor",
    "ResidualFlow",
    "decode_uvd",
    "encode_uvd",
    "load_config",
    "mpjpe",
    "n_mpjpe",
    "open_store",
    "pa_mpjpe",
    "predict",
    "train",
]
