"""Images to a distribution of joints: backbone, location head and scale head."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pose3d.geometry.skeleton import Skeleton
from pose3d.geometry.uvd import mirror_scale, mirror_scale_tril, mirror_uvd
from pose3d.model.backbone import STAGE_BLOCKS, ResNet, load_imagenet_weights
from pose3d.model.heads import (
    CholeskyScale,
    DepthClassifier,
    DiagonalScale,
    IntegralHead,
    LocationHead,
)
from pose3d.model.timm_backbone import PREFIX, TimmBackbone

BACKBONES = tuple(f"resnet{depth}" for depth in STAGE_BLOCKS)
LOCATION_HEADS = ("released", "plain", "integral")
DEPTH_HEADS = ("regression", "classification")
SCALE_HEADS = ("diagonal", "cholesky")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The regressor: backbone and heads."""

    backbone: str = "resnet50"
    """resnet18, resnet34, resnet50, resnet101, resnet152, or timm:NAME with the extra timm."""
    width_multiplier: float = 1.0
    """Factor on the channel counts of a resnet, for small runs."""
    pretrained: str | None = None
    """Local .pth or .safetensors file of ImageNet weights: a resnet's with torchvision's names,
    timm's with timm's."""
    location_head: str = "released"
    """released: y = W f/|f| + b, from the direction of the pooled feature; plain: W f + b;
    integral: expectation of a volumetric heatmap made from the last map."""
    integral_layers: int = 3
    """Transposed convolutions of location_head integral; each doubles the map's sides."""
    integral_width: int = 256
    """Channels of each."""
    depth_head: str = "regression"
    """How released and plain find d: like u and v, or as the expectation over depth_bins bins.
    The volume of integral has depth_bins slices in any case."""
    depth_bins: int = 64
    """Bins over d from -1/2 to 1/2."""
    scale_head: str = "diagonal"
    """diagonal: σ of each axis; cholesky: a full covariance of u, v, d per joint."""
    scale_floor: float = 1e-3
    """Smallest σ, in units of the crop (u, v) and of the depth range (d)."""

    def __post_init__(self) -> None:
        is_timm = self.backbone.startswith(PREFIX) and self.backbone != PREFIX
        if self.backbone not in BACKBONES and not is_timm:
            raise ValueError(
                f"model.backbone must be one of {', '.join(BACKBONES)} or {PREFIX}NAME, got "
                f"{self.backbone!r}"
            )
        if is_timm and self.width_multiplier != 1:
            raise ValueError(
                f"model.width_multiplier must be 1 for {self.backbone}, got "
                f"{self.width_multiplier}; choose a smaller model of timm"
            )
        if not self.width_multiplier > 0:
            raise ValueError(f"model.width_multiplier must be > 0, got {self.width_multiplier}")
        if not 0 < self.scale_floor < 1:
            raise ValueError(
                f"model.scale_floor must lie in (0, 1), got {self.scale_floor}; without a floor "
                "the likelihood of a constant target is unbounded"
            )
        for name, allowed in (
            ("location_head", LOCATION_HEADS),
            ("depth_head", DEPTH_HEADS),
            ("scale_head", SCALE_HEADS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"model.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name, smallest in (("integral_layers", 0), ("integral_width", 1), ("depth_bins", 2)):
            if getattr(self, name) < smallest:
                raise ValueError(f"model.{name} must be >= {smallest}, got {getattr(self, name)}")
        if self.location_head == "integral" and self.depth_head == "classification":
            raise ValueError(
                "model.depth_head=classification is for location_head released and plain; "
                "integral finds depth in a volume of depth_bins slices by itself: leave depth_head "
                "at regression"
            )


@dataclass(frozen=True, eq=False)
class PoseDistribution:
    """Location and scale of every joint in (u, v, d); the residual's shape is the likelihood's.

    The scale is that of the likelihood's residual along each axis. It becomes a standard deviation
    once the residual's density is known, see ``Likelihood.residual_log_prob``.

    Raises:
        ValueError: By ``mirrored``, if the skeleton has another number of joints. The constructor
            checks nothing.

    Source:
        Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021.
    """

    mean: Float[Tensor, "batch joints 3"]
    """μ, uvd."""
    scale: Float[Tensor, "batch joints 3"]
    """σ of each axis, uvd, > 0; the row norms of `scale_tril` where there is one."""
    scale_tril: Float[Tensor, "batch joints 3 3"] | None = None
    """Lower-triangular L, axes u, v, d, with L Lᵀ the squared scale; None where it is diagonal."""
    feature: Float[Tensor, "batch features"] | None = None
    """Pooled feature of the image, for what is conditioned on it."""

    @classmethod
    def from_spread(
        cls,
        mean: Float[Tensor, "batch joints 3"],
        spread: Float[Tensor, "batch joints 3"] | Float[Tensor, "batch joints 3 3"],
        feature: Float[Tensor, "batch features"] | None = None,
    ) -> "PoseDistribution":
        """From μ and either σ or its triangular factor, as `spread` gives them back."""
        if spread.ndim == mean.ndim:
            return cls(mean, spread, None, feature)
        return cls(mean, torch.linalg.vector_norm(spread, dim=-1), spread, feature)

    @property
    def spread(self) -> Float[Tensor, "batch joints 3"] | Float[Tensor, "batch joints 3 3"]:
        """What a likelihood divides the residual by: `scale_tril` where there is one, else σ."""
        return self.scale if self.scale_tril is None else self.scale_tril

    def mirrored(self, skeleton: Skeleton, *, crop_size_px: int) -> "PoseDistribution":
        """The same people in the mirrored image: left and right swap, in μ and in σ.

        Correlations of u with v and d change their sign. The feature is left out: nothing says what
        it would be.

        Args:
            skeleton: Whose joints these are.
            crop_size_px: Side of the crop, pixels; mirroring pixel centres needs it.

        Raises:
            ValueError: If the skeleton has another number of joints.
        """
        tril = self.scale_tril
        return PoseDistribution(
            mirror_uvd(self.mean, skeleton, crop_size_px=crop_size_px),
            mirror_scale(self.scale, skeleton),
            None if tril is None else mirror_scale_tril(tril, skeleton),
        )

    def float(self) -> "PoseDistribution":
        """All tensors in float32."""
        return self._each(Tensor.float)

    def cpu(self) -> "PoseDistribution":
        """All tensors on the CPU."""
        return self._each(Tensor.cpu)

    def detach(self) -> "PoseDistribution":
        """All tensors without their gradient history."""
        return self._each(Tensor.detach)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "PoseDistribution":
        values = (self.mean, self.scale, self.scale_tril, self.feature)
        return PoseDistribution(*(None if v is None else change(v) for v in values))  # type: ignore[arg-type]


class PoseRegressor(nn.Module):
    """Predict μ and σ of every joint from an image. Labels never enter.

    Args:
        config: Backbone and heads.
        num_joints: Joints of the skeleton.
        load_pretrained: Whether to read `config.pretrained`; false where a checkpoint follows.

    Example:
        >>> model = PoseRegressor(ModelConfig(backbone="resnet18", width_multiplier=0.25), 18)
        >>> model(torch.zeros(2, 3, 64, 64)).mean.shape
        torch.Size([2, 18, 3])

    Raises:
        FileNotFoundError: If the pretrained file is missing.
        ValueError: If it does not fit the backbone, or the configuration makes no sense.

    Source:
        Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021; the
        normalised feature follows the released code. Its floor of 1e-9 on σ is configurable here.
    """

    def __init__(
        self, config: ModelConfig, num_joints: int, *, load_pretrained: bool = True
    ) -> None:
        super().__init__()
        if num_joints < 1:
            raise ValueError(f"num_joints must be >= 1, got {num_joints}")
        self.config = config
        self.num_joints = num_joints
        self.backbone = _build_backbone(config)
        num_features = self.backbone.num_features
        self.location_head: LocationHead | IntegralHead
        self.depth_head: DepthClassifier | None = None
        if config.location_head == "integral":
            self.location_head = IntegralHead(
                self.backbone.num_map_channels,
                num_joints,
                depth_bins=config.depth_bins,
                num_layers=config.integral_layers,
                width=config.integral_width,
            )
        else:
            is_classified = config.depth_head == "classification"
            self.location_head = LocationHead(
                num_features,
                num_joints,
                num_axes=2 if is_classified else 3,
                normalise=config.location_head == "released",
            )
            if is_classified:
                bins = config.depth_bins
                self.depth_head = DepthClassifier(num_features, num_joints, num_bins=bins)
        scale_head = CholeskyScale if config.scale_head == "cholesky" else DiagonalScale
        self.scale_head = scale_head(num_features, num_joints, floor=config.scale_floor)
        for head in (self.location_head, self.depth_head, self.scale_head):
            if isinstance(head, nn.Linear):
                nn.init.xavier_uniform_(head.weight, gain=0.01)
                nn.init.zeros_(head.bias)
        if load_pretrained and config.pretrained is not None:
            if isinstance(self.backbone, TimmBackbone):
                self.backbone.load_pretrained(config.pretrained)
            else:
                load_imagenet_weights(self.backbone, config.pretrained)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> PoseDistribution:
        """Predict the distribution of every joint.

        Args:
            images: RGB crops, channels in [0, 1] less a mean and divided by a deviation. Which
                ones, the run's ``data.normalisation`` says: ``imagenet``, for weights trained here
                or on ImageNet, is (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225); ``released``,
                for the published RLE weights, is (0.406, 0.457, 0.480) and (0.225, 0.224, 0.229).

        Returns:
            μ and σ in uvd with the pooled feature; float32, also under autocast.
        """
        mean = None
        if isinstance(self.location_head, IntegralHead):
            last_map = self.backbone.forward_map(images)
            feature = self.backbone.pool(last_map)
            height_px, width_px = images.shape[-2:]
            mean = self.location_head(last_map, crop_size_px=(height_px, width_px))
        else:
            feature = self.backbone(images)
        with torch.autocast(device_type=feature.device.type, enabled=False):
            feature = feature.to(self.scale_head.weight.dtype)
            if mean is None:
                mean = self.location_head(feature)
            if self.depth_head is not None:
                mean = torch.cat([mean, self.depth_head(feature)], dim=-1)
            return PoseDistribution.from_spread(mean, self.scale_head(feature), feature)


def _build_backbone(config: ModelConfig) -> ResNet | TimmBackbone:
    if config.backbone.startswith(PREFIX):
        return TimmBackbone(config.backbone.removeprefix(PREFIX))
    depth = int(config.backbone.removeprefix("resnet"))
    return ResNet(depth, width_multiplier=config.width_multiplier)
