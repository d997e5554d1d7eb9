"""Images per second of the regressor's training step, and milliseconds of flow and likelihood.

Every backbone runs forward and backward alone, in float32 and, where the device computes in it, in
bf16 autocast, with and without channels_last. Flows and likelihoods run forward and backward on
128 × 18 residuals of which one joint per sample lacks its depth. The flow runs in turns with a
plain loop over the couplings with separate scale and shift modules, and with the bare products of
the couplings' hidden layers, below which no implementation gets. Flow and exact likelihood are also
set against the training step of a ResNet-50 at 256 px of the same batch. The fastest repeat counts.
JSON to stdout or a file.

    python benchmarks/bench_model.py --backbones resnet18 resnet50 --out model.json
"""

import argparse
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import provenance, write_result
from torch import nn
from torch.profiler import ProfilerActivity, profile

from pose3d.engine.infer import has_bf16
from pose3d.model.flow import Flow, FlowConfig, ResidualFlow, build_flow
from pose3d.model.flow_base import KINDS
from pose3d.model.likelihood import Likelihood, LikelihoodConfig
from pose3d.model.regressor import ModelConfig, PoseRegressor

NUM_JOINTS = 18
LIKELIHOODS = {
    **{kind: {"kind": kind} for kind in ("l1", "l2", "laplace", "gaussian")},
    **{kind: {"kind": kind} for kind in ("flow", "flow_reparam")},
    **{
        f"rle_{base}_{form}": {"base": base, "form": form}
        for base in ("laplace", "gaussian")
        for form in ("paper", "released")
    },
}


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
    parser.add_argument("--zuko-flows", nargs="*", default=[k for k in KINDS if k != "realnvp"])
    parser.add_argument("--share-batch-sizes", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    torch.manual_seed(0)
    result = describe(options) | {
        "flow": measure_flows(options),
        "likelihoods": measure_likelihoods(options),
        "share_of_resnet50_256px_step": measure_share(options),
        "training_images_per_second": {
            name: measure_backbone(name, options) for name in options.backbones
        },
    }
    write_result(result, options.out)


def measure_backbone(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Images per second of forward and backward, by precision and memory format."""
    config = ModelConfig(backbone=name, width_multiplier=options.width_multiplier)
    size, device = options.input_size, torch.device(options.device)
    rates = {}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = PoseRegressor(config, NUM_JOINTS).to(options.device, memory_format=memory_format)
        images = torch.randn(options.batch_size, 3, size, size, device=options.device)
        images = images.to(memory_format=memory_format)
        for precision in (torch.float32, *([torch.bfloat16] if has_bf16(device) else [])):

            def step(model=model, images=images, precision=precision) -> None:
                model.zero_grad(set_to_none=True)
                enabled = precision != torch.float32
                with torch.autocast(options.device, dtype=torch.bfloat16, enabled=enabled):
                    pose = model(images)
                (pose.mean.square().sum() + pose.scale.log().sum()).backward()

            label = f"{precision}_{memory_format}".replace("torch.", "")
            milliseconds = fastest_in_turns({"step": step}, options)["step"]
            rates[label] = round(1e3 * options.batch_size / milliseconds, 2)
    return rates


def measure_flows(options: argparse.Namespace) -> dict[str, Any]:
    """The flow, the loop and the bare products in turns; then what each flow of zuko takes."""
    x = torch.randn(options.num_residuals, NUM_JOINTS, 3, device=options.device)
    x.requires_grad_()
    flow, loop = ResidualFlow().to(options.device), LoopFlow().to(options.device)
    steps = {
        "plain_loop": lambda: loop.log_prob(x).sum().backward(),
        "flow": lambda: flow.log_prob(x).sum().backward(),
        "hidden_products_alone": hidden_products(flow, x),
    }
    milliseconds = fastest_in_turns(steps, options)
    calls = {name: operator_calls(steps[name]) for name in ("plain_loop", "flow")}
    others = {}
    for kind in options.zuko_flows:
        other = build_flow(FlowConfig(kind=kind)).to(options.device)

        def step(other: Flow = other) -> None:
            other.log_prob(x).sum().backward()

        others[kind] = cost(step, options)
    return {
        "milliseconds": milliseconds,
        "operator_calls": calls,
        "times_faster_than_loop": round(milliseconds["plain_loop"] / milliseconds["flow"], 2),
        "times_fewer_calls_than_loop": round(calls["plain_loop"] / calls["flow"], 2),
        "zuko": others,
    }


def hidden_products(flow: ResidualFlow, x: torch.Tensor) -> Callable[[], None]:
    """The products of the hidden layers alone: forward, and for both gradients."""
    weight = flow.hidden_weight.detach()
    num_rows = x.shape[:-1].numel()
    read = torch.randn(*weight.shape[:3], num_rows, device=x.device)
    written = torch.empty_like(read)

    def step() -> None:
        for layer in range(len(weight)):
            torch.bmm(weight[layer], read[layer], out=written[layer])
            torch.bmm(weight[layer].mT, read[layer], out=written[layer])
        torch.bmm(written.flatten(0, 1), read.flatten(0, 1).mT)

    return step


def measure_likelihoods(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds and operator calls of every kind, forward and backward."""
    results = {}
    for name, settings in LIKELIHOODS.items():
        step = likelihood_step(settings, options.num_residuals, options.device)
        results[name] = cost(step, options)
    return results


def likelihood_step(
    settings: dict[str, str], batch_size: int, device: str, *, planar: bool = True
) -> Callable[[], None]:
    """A step in training mode; joint 0 of each sample lacks its depth where `planar`."""
    shape = (batch_size, NUM_JOINTS, 3)
    mean = torch.zeros(shape, device=device, requires_grad=True)
    scale = torch.full(shape, 0.5, device=device, requires_grad=True)
    target, weight = torch.randn(shape, device=device), torch.ones(shape, device=device)
    if planar:
        weight[:, 0, 2] = 0
    flow = ResidualFlow()
    likelihood = Likelihood(LikelihoodConfig(**settings), flow, planar_joints=(0,))  # type: ignore[arg-type]
    likelihood.to(device)
    return lambda: likelihood(mean, scale, target, weight).sum().backward()


def measure_share(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Flow and exact likelihood beside the rest of a ResNet-50's training step, float32."""
    device, results = options.device, {}
    model = PoseRegressor(ModelConfig(backbone="resnet50"), NUM_JOINTS)
    model = model.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters())
    for batch_size in options.share_batch_sizes:
        images = torch.randn(batch_size, 3, 256, 256, device=device)
        images = images.contiguous(memory_format=torch.channels_last)

        def network(images: torch.Tensor = images) -> None:
            optimiser.zero_grad(set_to_none=True)
            pose = model(images)
            (pose.mean.square().sum() + pose.scale.log().sum()).backward()
            optimiser.step()

        steps = {
            "network": network,
            "flow_and_likelihood": likelihood_step({"form": "paper"}, batch_size, device),
        }
        milliseconds = fastest_in_turns(steps, options)
        share = milliseconds["flow_and_likelihood"] / sum(milliseconds.values())
        results[f"batch_{batch_size}"] = {
            **{f"{name}_milliseconds": value for name, value in milliseconds.items()},
            "share_percent": round(100 * share, 2),
        }
    return results


def cost(step: Callable[[], None], options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds and operator calls."""
    milliseconds = fastest_in_turns({"step": step}, options)["step"]
    return {"milliseconds": milliseconds, "operator_calls": operator_calls(step)}


def fastest_in_turns(
    steps: dict[str, Callable[[], None]], options: argparse.Namespace
) -> dict[str, float]:
    """Fastest repeat of each, taken in turns, so that what else the machine does hits all."""
    fastest = dict.fromkeys(steps, math.inf)
    for repeat in range(options.repeats + 2):
        for name, step in steps.items():
            milliseconds = timed(step, options.device)
            if repeat >= 2:
                fastest[name] = min(fastest[name], milliseconds)
    return {name: round(value, 3) for name, value in fastest.items()}


def timed(step: Callable[[], None], device: str) -> float:
    """Milliseconds of one step."""
    start = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


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
