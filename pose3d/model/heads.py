"""Heads: features to locations and scales of joints in (u, v, d).

What a cell's centre is. Column x of a crop of W pixels has u = x/W − 1/2, so the crop itself spans
u from −1/2 − 1/(2W) to 1/2 − 1/(2W), and cell k of a map of n columns that share it has its centre
at u = (k + 1/2)/n − 1/2 − 1/(2W); for v likewise. So the mirror image of a map has the mirrored
expectation, u' = −u − 1/W. Depth has no pixels: bin k of n has its centre at (k + 1/2)/n − 1/2.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class LocationHead(nn.Linear):
    """μ by one affine map of the pooled feature, y = W f/|f| + b or y = W f + b.

    Args:
        num_features: Of the pooled feature.
        num_joints: Joints of the skeleton.
        num_axes: 3 for u, v, d; 2 where depth has its own head.
        normalise: Whether only the feature's direction enters, as released.

    Source:
        Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021; the
        normalised feature follows the released code.
    """

    def __init__(
        self, num_features: int, num_joints: int, *, num_axes: int = 3, normalise: bool = True
    ) -> None:
        super().__init__(num_features, num_joints * num_axes)
        self.shape = (num_joints, num_axes)
        self.normalise = normalise

    def forward(
        self, feature: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch joints axes"]:
        """Locations of all joints."""
        direction = functional.normalize(feature) if self.normalise else feature
        return super().forward(direction).unflatten(-1, self.shape)


class DepthClassifier(nn.Linear):
    """d by soft classification: the expectation of the centres of bins that share [−1/2, 1/2].

    The logits are an affine map of the feature itself, whatever the location head does with it: of
    its direction alone they could not grow sharp.

    Args:
        num_features: Of the pooled feature.
        num_joints: Joints of the skeleton.
        num_bins: Bins over the depth range.
    """

    def __init__(self, num_features: int, num_joints: int, *, num_bins: int = 64) -> None:
        super().__init__(num_features, num_joints * num_bins)
        self.shape = (num_joints, num_bins)

    def forward(self, feature: Float[Tensor, "batch features"]) -> Float[Tensor, "batch joints 1"]:
        """Expected depth of all joints."""
        share = super().forward(feature).unflatten(-1, self.shape).softmax(-1)
        return (share @ bin_centres(share.shape[-1], like=share))[..., None]


class DiagonalScale(nn.Linear):
    """σ of independent axes, floor + (1 − floor) · sigmoid(V f + c).

    Args:
        num_features: Of the pooled feature.
        num_joints: Joints of the skeleton.
        floor: Smallest σ.
    """

    def __init__(self, num_features: int, num_joints: int, *, floor: float) -> None:
        super().__init__(num_features, num_joints * 3)
        self.num_joints = num_joints
        self.floor = floor

    def forward(self, feature: Float[Tensor, "batch features"]) -> Float[Tensor, "batch joints 3"]:
        """σ of all joints."""
        raw = super().forward(feature).unflatten(-1, (self.num_joints, 3))
        return self.floor + (1 - self.floor) * torch.sigmoid(raw)


class CholeskyScale(nn.Linear):
    """Cholesky factor L of the squared scale over u, v, d, so that axes may be correlated.

    L = diag(s)·(I + T), with s above its floor as in DiagonalScale and T strictly lower triangular
    and free: what it says of correlations does not depend on the size of the scale, and T = 0,
    where training starts, is DiagonalScale. |det L| is at least the floor cubed.

    Args:
        num_features: Of the pooled feature.
        num_joints: Joints of the skeleton.
        floor: Smallest diagonal entry of L.
    """

    def __init__(self, num_features: int, num_joints: int, *, floor: float) -> None:
        super().__init__(num_features, num_joints * 6)
        self.num_joints = num_joints
        self.floor = floor

    def forward(
        self, feature: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch joints 3 3"]:
        """L of all joints."""
        raw = super().forward(feature).unflatten(-1, (self.num_joints, 6))
        size, (vu, du, dv) = raw[..., :3], raw[..., 3:].unbind(-1)
        zero, one = torch.zeros_like(vu), torch.ones_like(vu)
        rows = ([one, zero, zero], [vu, one, zero], [du, dv, one])
        shape = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
        diagonal = self.floor + (1 - self.floor) * torch.sigmoid(size)
        return diagonal[..., None] * shape


class IntegralHead(nn.Module):
    """μ as the expectation of a volumetric heatmap: the heatmap rival of regression.

    Transposed convolutions (kernel 4, stride 2, batch norm, ReLU) enlarge the backbone's last map,
    a 1×1 convolution makes `depth_bins` maps of it for every joint, and their softmax over depth,
    height and width is the density whose expectation is taken. Convolutions run in the precision of
    the backbone, the softmax in float32.

    Args:
        num_channels: Of the backbone's last map.
        num_joints: Joints of the skeleton.
        depth_bins: Slices of the volume over the depth range.
        num_layers: Transposed convolutions; each doubles the map's sides.
        width: Channels of each.

    Source:
        Sun et al., Integral Human Pose Regression, ECCV 2018: three layers of 256 channels, 64
        slices, and weights that start normal with deviation 0.001.
    """

    def __init__(
        self,
        num_channels: int,
        num_joints: int,
        *,
        depth_bins: int = 64,
        num_layers: int = 3,
        width: int = 256,
    ) -> None:
        super().__init__()
        self.shape = (num_joints, depth_bins)
        layers: list[nn.Module] = []
        for layer in range(num_layers):
            num_in = width if layer else num_channels
            layers += [
                nn.ConvTranspose2d(num_in, width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.enlarge = nn.Sequential(*layers)
        num_last = width if num_layers else num_channels
        self.volume = nn.Conv2d(num_last, num_joints * depth_bins, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.001)
        assert self.volume.bias is not None
        nn.init.zeros_(self.volume.bias)

    def forward(
        self,
        last_map: Float[Tensor, "batch channels height width"],
        *,
        crop_size_px: tuple[int, int],
    ) -> Float[Tensor, "batch joints 3"]:
        """Locations of all joints.

        Args:
            last_map: Of the backbone.
            crop_size_px: Height and width of the crop that it was made from, pixels.
        """
        logits = self.volume(self.enlarge(last_map)).unflatten(1, self.shape)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            dtype = torch.promote_types(logits.dtype, torch.float32)
            return soft_argmax(logits.to(dtype), crop_size_px=crop_size_px)


def soft_argmax(
    logits: Float[Tensor, "batch joints depth height width"], *, crop_size_px: tuple[int, int]
) -> Float[Tensor, "batch joints 3"]:
    """Expected (u, v, d) under the softmax of a volume; see the module's docstring for its cells.

    Args:
        logits: Unnormalised log shares of the cells.
        crop_size_px: Height and width of the crop that the volume's front spans, pixels.
    """
    height_px, width_px = crop_size_px
    share = logits.flatten(2).softmax(-1).unflatten(-1, logits.shape[2:])
    plane = share.sum(2)  # [batch joints height width]
    *_, depth, height, width = share.shape
    u = plane.sum(-2) @ bin_centres(width, like=share) - 0.5 / width_px
    v = plane.sum(-1) @ bin_centres(height, like=share) - 0.5 / height_px
    d = share.sum((-2, -1)) @ bin_centres(depth, like=share)
    return torch.stack([u, v, d], dim=-1)


def bin_centres(count: int, *, like: Tensor) -> Float[Tensor, " count"]:
    """Centres of equal bins that share [−1/2, 1/2], in another tensor's dtype and on its device."""
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count - 0.5
