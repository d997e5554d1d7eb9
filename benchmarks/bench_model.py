"""Images per second of the regressor's training step, and milliseconds of flow and likelihood.

Every backbone runs forward and backward alone, in float32 and bf16 autocast, with and without
channels_last. Flow and likelihood run forward and backward on 128 × 18 residuals of which one joint
per sample lacks its depth, beside a plain loop over the couplings with separate scale and shift
modules. JSON to stdout or a file.

    python benchmarks/bench_model.py --backbones resnet18 resnet50 --out model.json
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from provenance import provenance, write_result
from torch import nn
from torch.profiler import ProfilerActivity, profile

from pose3d.model.flow import ResidualFlow
from pose3d.model.likelihood import Likelihood, LikelihoodConfig
from pose3d.model.regressor import ModelConfig, PoseRegressor

NUM_JOINTS = 18


class LoopFlow(nn.Module):
    """RealNVP as a plain loop: one module per network, the mask multiplied in at every step."""

    def __init__(self, num_layers: int = 6, hidden_dim: int = 64) -> None:
        super().__init__()
        masks = [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]] * (num_layers // 2)
        self.register_buffer("masks", torch.tensor(masks))
        self.scales = nn.ModuleList(network(hidden_dim, nn.Tanh()) for _ in masks)
        self.shifts = nn.ModuleList(network(hidden_dim, nn.Identity()) for _ in masks)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log density of residuals."""
        log_det = x.new_zeros(x.shape[:-1])
        for layer in reversed(range(len(self.masks))):
            mask = self.masks[layer]
            kept = mask * x
            log_scale = self.scales[layer](kept) * (1 - mask)
            shift = self.shifts[layer](kept) * (1 - mask)
            x = (1 - mask) * (x - shift) * torch.exp(-log_scale) + kept
            log_det = log_det - log_scale.sum(-1)
        return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1) + log_det


def network(hidden_dim: int, last: nn.Module) -> nn.Sequential:
    """One scale or shift network."""
    return nn.Sequential(
        nn.Linear(3, hidden_dim), nn.LeakyReLU(), nn.Linear(hidden_dim, hidden_dim),
        nn.LeakyReLU(), nn.Linear(hidden_dim, 3), last,
    )  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", nargs="*", default=["resnet18", "resnet34", "resnet50"])
    parser.add_argument("--width-multiplier", type=float, default=1.0)
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-residuals", type=int, default=128, help="samples of 18 joints")
    parser.add_argument("--torch-threads", type=int, help="default: what torch chooses")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    torch.manual_seed(0)
    result = describe(options) | {
        "flow_and_likelihood": measure_likelihood(options),
        "training_images_per_second": {
            name: measure_backbone(name, options) for name in options.backbones
        },
    }
    write_result(result, options.out)


def measure_backbone(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Images per second of forward and backward, by precision and memory format."""
    config = ModelConfig(backbone=name, width_multiplier=options.width_multiplier)
    size = options.input_size
    rates = {}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = PoseRegressor(config, NUM_JOINTS).to(options.device, memory_format=memory_format)
        images = torch.randn(options.batch_size, 3, size, size, device=options.device)
        images = images.to(memory_format=memory_format)
        for precision in (torch.float32, torch.bfloat16):

            def step(model=model, images=images, precision=precision) -> None:
                model.zero_grad(set_to_none=True)
                enabled = precision != torch.float32
                with torch.autocast(options.device, dtype=torch.bfloat16, enabled=enabled):
                    pose = model(images)
                (pose.mean.square().sum() + pose.scale.log().sum()).backward()

            label = f"{precision}_{memory_format}".replace("torch.", "")
            milliseconds = median_milliseconds(step, options)
            rates[label] = round(1e3 * options.batch_size / milliseconds, 2)
    return rates


def measure_likelihood(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median milliseconds and operator calls, forward and backward."""
    shape = (options.num_residuals, NUM_JOINTS, 3)
    device = options.device
    mean = torch.zeros(shape, device=device, requires_grad=True)
    scale = torch.full(shape, 0.5, device=device, requires_grad=True)
    target, weight = torch.randn(shape, device=device), torch.ones(shape, device=device)
    planar = weight.clone()
    planar[:, 0, 2] = 0
    flow, loop = ResidualFlow().to(device), LoopFlow().to(device)
    rows = {
        "loop_flow": lambda: loop.log_prob((target - mean) / scale),
        "flow": lambda: flow.log_prob((target - mean) / scale),
    }
    for name, settings, labels in (
        ("likelihood_paper_depth_everywhere", {"form": "paper"}, weight),
        ("likelihood_paper", {"form": "paper"}, planar),
        ("likelihood_released", {"form": "released"}, planar),
        ("likelihood_laplace", {"kind": "laplace"}, planar),
    ):
        likelihood = Likelihood(LikelihoodConfig(**settings), ResidualFlow(), planar_joints=(0,))
        likelihood.to(device)
        rows[name] = lambda call=likelihood, labels=labels: call(mean, scale, target, labels)
    results = {}
    for name, row in rows.items():

        def step(row=row) -> None:
            row().sum().backward()

        results[name] = {
            "milliseconds": round(median_milliseconds(step, options), 3),
            "operator_calls": operator_calls(step),
        }
    return results


def median_milliseconds(step: Callable[[], None], options: argparse.Namespace) -> float:
    """Median over repeats, after two to warm up."""
    times = []
    for _ in range(options.repeats + 2):
        start = time.perf_counter()
        step()
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[2:])[options.repeats // 2]


def operator_calls(step: Callable[[], None]) -> int:
    """Calls of ATen operators in one step, views included."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    return sum(row.count for row in profiler.key_averages() if row.key.startswith("aten::"))


def describe(options: argparse.Namespace) -> dict[str, object]:
    """Where, when and how this was measured."""
    is_cuda = options.device.startswith("cuda")
    return provenance(
        benchmark="model",
        **({"device": torch.cuda.get_device_name()} if is_cuda else {}),
        torch_threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        input_size_px=options.input_size,
        batch_size=options.batch_size,
        residuals=[options.num_residuals, NUM_JOINTS],
    )


if __name__ == "__main__":
    main()
