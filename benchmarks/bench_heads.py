"""Time, peak memory and parameters of the location heads, forward and backward.

Every head runs on every network in a process of its own, so that peaks do not mix. On the CPU the
memory is the process's largest resident set less what it was once network and images were there;
on CUDA it is the most that was allocated beyond them. The time on the CPU is processor time, summed
over threads, so that what else the machine does hardly counts. JSON to stdout or a file.

    python benchmarks/bench_heads.py --out benchmarks/results/heads.json
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from provenance import provenance, write_result

from pose3d.model.regressor import LOCATION_HEADS, ModelConfig, PoseRegressor

NUM_JOINTS = 18
NETWORKS = {
    "resnet50_256px": ({"backbone": "resnet50"}, 256),
    "resnet18_quarter_128px": ({"backbone": "resnet18", "width_multiplier": 0.25}, 128),
}
BYTES_PER_RSS = 1 if sys.platform == "darwin" else 1024
MIB = 2**20


def main() -> None:
    """Parse, measure in processes, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--torch-threads", type=int, help="default: what torch chooses")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs=2, metavar=("NETWORK", "HEAD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    if options.only:
        print(json.dumps(measure(*options.only, options)))
        return
    is_cuda = options.device.startswith("cuda")
    described = provenance(
        benchmark="heads",
        **({"device": torch.cuda.get_device_name()} if is_cuda else {}),
        torch_threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        batch_size=options.batch_size,
        time="of the clock" if is_cuda else "of the processor",
        memory="allocated on the device" if is_cuda else "resident set of the process",
    )
    rows = {
        network: {head: measure_apart(network, head) for head in LOCATION_HEADS}
        for network in NETWORKS
    }
    write_result(described | {"forward_and_backward": rows}, options.out)


def measure_apart(network: str, head: str) -> dict[str, Any]:
    """Measure in a new process that gets the same options."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", network, head]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)


def measure(network: str, head: str, options: argparse.Namespace) -> dict[str, Any]:
    """Parameters, milliseconds per step and MiB beyond network and images."""
    settings, size_px = NETWORKS[network]
    torch.manual_seed(0)
    model = PoseRegressor(ModelConfig(location_head=head, **settings), NUM_JOINTS)
    model = model.to(options.device, memory_format=torch.channels_last)
    images = torch.randn(options.batch_size, 3, size_px, size_px, device=options.device)
    images = images.contiguous(memory_format=torch.channels_last)
    before = peak_bytes(options.device)
    is_cuda = options.device.startswith("cuda")
    clock = time.perf_counter if is_cuda else time.process_time
    times = []
    for _ in range(options.repeats + 1):
        start = clock()
        model.zero_grad(set_to_none=True)
        pose = model(images)
        (pose.mean.square().sum() + pose.scale.log().sum()).backward()
        if is_cuda:
            torch.cuda.synchronize()
        times.append(1e3 * (clock() - start))
    kept = sorted(times[1:])
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "milliseconds_median": round(kept[len(kept) // 2], 1),
        "milliseconds_fastest": round(kept[0], 1),
        "memory_mib": round((peak_bytes(options.device) - before) / MIB, 1),
    }


def peak_bytes(device: str) -> int:
    """The most memory that was in use so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_RSS


if __name__ == "__main__":
    main()
