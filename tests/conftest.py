"""Fixtures that several rooms share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real photographs in the layout of the released RLE code; skips where missing."""
    default = REPOSITORY.parent / "shared" / "data" / "real_multiview"
    folder = Path(os.environ.get("POSE3D_REAL_DATA", default))
    if not (folder / "annotations").is_dir():
        pytest.skip(
            f"no real photographs at {folder}; set POSE3D_REAL_DATA to a folder with "
            "annotations/ and images/ in the layout of the released RLE code"
        )
    return folder


@pytest.fixture(scope="session")
def draw_released() -> Callable[..., dict[str, Tensor]]:
    """A function that draws weights under the names and in the order of the published ones."""
    return draw_released_weights


RESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def draw_released_weights(depth: int, *, num_joints: int = 18, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of the published Human3.6M network over a ResNet."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def normal(name: str, *shape: int, std: float, mean: float = 0) -> None:
        weights[name] = mean + std * torch.randn(*shape, generator=generator)

    def convolution(name: str, num_out: int, num_in: int, size: int) -> None:
        normal(f"{name}.weight", num_out, num_in, size, size, std=(2 / num_in / size**2) ** 0.5)

    def norm(name: str, width: int, gain: float = 1) -> None:
        normal(f"{name}.weight", width, mean=gain, std=0.1 * gain)
        normal(f"{name}.bias", width, std=0.1)
        normal(f"{name}.running_mean", width, std=0.1)
        weights[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=generator)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(name: str, num_out: int, num_in: int, std: float) -> None:
        normal(f"{name}.weight", num_out, num_in, std=std)
        normal(f"{name}.bias", num_out, std=0.1)

    convolution("preact.conv1", 64, 3, 7)
    norm("preact.bn1", 64)
    expansion, width = (4, 64) if depth >= 50 else (1, 64)
    for stage, count in enumerate(RESNET_BLOCKS[depth]):
        planes = 64 * 2**stage
        for block in range(count):
            name, wide = f"preact.layer{stage + 1}.{block}", planes * expansion
            sizes = (1, 3, 1) if expansion == 4 else (3, 3)
            widths = (width, *[planes] * (len(sizes) - 1), wide)
            for i, size in enumerate(sizes):
                convolution(f"{name}.conv{i + 1}", widths[i + 1], widths[i], size)
                norm(f"{name}.bn{i + 1}", widths[i + 1], 0.2 if i + 1 == len(sizes) else 1)
            if block == 0 and (stage > 0 or expansion == 4):
                convolution(f"{name}.downsample.0", wide, width, 1)
                norm(f"{name}.downsample.1", wide)
            width = wide
    linear("fc_coord.linear", 3 * num_joints, width, std=0.2)
    linear("fc_sigma", 3 * num_joints, width, std=0.3 / width**0.5)
    for axes, rows in ((2, [[0, 1], [1, 0]]), (3, [[0, 0, 1], [1, 1, 0]])):
        weights[f"flow{axes}d.mask"] = torch.tensor(rows * 3, dtype=torch.float32)
        for kind in "ts":
            for layer in range(6):
                for place, (out, into) in {0: (64, axes), 2: (64, 64), 4: (axes, 64)}.items():
                    linear(f"flow{axes}d.{kind}.{layer}.{place}", out, into, std=0.5 / into**0.5)
    return weights
