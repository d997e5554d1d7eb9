"""Residual networks with torchvision's parameter names, so that ImageNet weights load strictly."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

STAGE_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _convolution(num_in: int, num_out: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def _shortcut(num_in: int, num_out: int, stride: int) -> nn.Sequential | None:
    """Projection of a block's input, where its shape differs from the output's."""
    if stride == 1 and num_in == num_out:
        return None
    return nn.Sequential(
        _convolution(num_in, num_out, kernel=1, stride=stride), nn.BatchNorm2d(num_out)
    )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, num_in: int, planes: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _convolution(num_in, planes, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _convolution(planes, planes, kernel=3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(num_in, planes, stride)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch planes out_height out_width"]:
        """Add the residual branch to the (projected) input."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3 (strided, as in torchvision), 1×1 convolutions and a shortcut (ResNet-50 and up)."""

    expansion = 4

    def __init__(self, num_in: int, planes: int, *, stride: int = 1) -> None:
        super().__init__()
        num_out = planes * self.expansion
        self.conv1 = _convolution(num_in, planes, kernel=1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _convolution(planes, planes, kernel=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _convolution(planes, num_out, kernel=1)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.downsample = _shortcut(num_in, num_out, stride)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch planes out_height out_width"]:
        """Add the residual branch to the (projected) input."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        return functional.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


class ResNet(nn.Module):
    """Residual network without its classifier: images to globally pooled features.

    Parameter and buffer names and shapes are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, ...,
    `downsample.0`), less `fc`. Convolutions start Kaiming-normal (fan out).

    Args:
        depth: 18, 34, 50, 101 or 152.
        width_multiplier: Factor on every channel count, rounded to multiples of 8; 1 is standard.

    Raises:
        ValueError: If the depth is unknown or the multiplier is not positive.

    Source:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the stride sits on the
        3×3 convolution of a bottleneck.
    """

    def __init__(self, depth: int = 50, *, width_multiplier: float = 1.0) -> None:
        super().__init__()
        if depth not in STAGE_BLOCKS:
            raise ValueError(f"depth must be one of {sorted(STAGE_BLOCKS)}, got {depth}")
        if not width_multiplier > 0:
            raise ValueError(f"width_multiplier must be > 0, got {width_multiplier}")
        planes = [max(8, 8 * round(8 * width_multiplier * 2**stage)) for stage in range(4)]
        block = BasicBlock if depth < 50 else Bottleneck
        counts = STAGE_BLOCKS[depth]
        self.depth = depth
        self.conv1 = _convolution(3, planes[0], kernel=7, stride=2)
        self.bn1 = nn.BatchNorm2d(planes[0])
        widths = [planes[0], *(width * block.expansion for width in planes)]
        self.layer1 = _stage(block, widths[0], planes[0], count=counts[0], stride=1)
        self.layer2 = _stage(block, widths[1], planes[1], count=counts[1], stride=2)
        self.layer3 = _stage(block, widths[2], planes[2], count=counts[2], stride=2)
        self.layer4 = _stage(block, widths[3], planes[3], count=counts[3], stride=2)
        self.num_features = widths[4]
        self.num_map_channels = widths[4]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch features"]:
        """Features of normalised RGB images, averaged over the last map."""
        return self.pool(self.forward_map(images))

    def forward_map(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch features map_height map_width"]:
        """The last map of normalised RGB images, of stride 32."""
        x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def pool(
        self, last_map: Float[Tensor, "batch features map_height map_width"]
    ) -> Float[Tensor, "batch features"]:
        """Features of a last map."""
        return last_map.mean(dim=(2, 3))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    num_in: int,
    planes: int,
    *,
    count: int,
    stride: int,
) -> nn.Sequential:
    first = block(num_in, planes, stride=stride)
    rest = [block(planes * block.expansion, planes) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


def load_imagenet_weights(backbone: ResNet, path: str | Path) -> None:
    """Load a local file of torchvision weights into a backbone, strictly.

    Args:
        backbone: Changed in place; untouched if the file does not fit.
        path: A `.pth` or `.pt` file (read without unpickling code) or a `.safetensors` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or names or shapes differ. `fc.*` is ignored, and
            the batch counters (`num_batches_tracked`), which older files lack, may be missing.
    """
    load_strictly(
        backbone,
        path,
        ignored=("fc.",),
        name=f"a ResNet-{backbone.depth} of this width",
        advice="choose the file of this depth and width_multiplier 1",
    )


def load_strictly(
    module: nn.Module, path: str | Path, *, ignored: tuple[str, ...], name: str, advice: str
) -> None:
    """Load a local file of weights into a module; every name and shape must be there, and no other.

    Args:
        module: Changed in place; untouched if the file does not fit.
        path: A `.pth` or `.pt` file (read without unpickling code) or a `.safetensors` file.
        ignored: Beginnings of names in the file that are passed over, those of a classifier.
        name: What the module is, for the error.
        advice: What to do about a file that does not fit, for the error.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or names or shapes differ. The batch counters
            (`num_batches_tracked`), which older files lack, may be missing.
    """
    weights = _read_weights(Path(path))
    expected = module.state_dict()
    weights = {key: value for key, value in weights.items() if not key.startswith(ignored)}
    required = {key for key in expected if not key.endswith("num_batches_tracked")}
    problems = {
        "missing": sorted(required - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            f"{key} (got {tuple(weights[key].shape)}, expected {tuple(value.shape)})"
            for key, value in expected.items()
            if key in weights and weights[key].shape != value.shape
        ],
    }
    listed = "; ".join(f"{_shortened(keys)} {kind}" for kind, keys in problems.items() if keys)
    if listed:
        raise ValueError(f"{path} does not fit {name}: {listed}; {advice}")
    module.load_state_dict(expected | weights)


def _shortened(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """State dict of a weights file; only tensors are read."""
    if not path.is_file():
        raise FileNotFoundError(f"pretrained weights not found: {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, safetensors.SafetensorError, RuntimeError, EOFError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a readable weights file: {first_line}") from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise ValueError(f"{path} must hold a state dict of tensors, got {type(weights).__name__}")
    return weights
