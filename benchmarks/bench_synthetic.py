"""Synthetic images per second: whole runs by renderer, and where the time of one image goes.

`images_per_s` is of a whole call of `generate_synthetic`: processes started (`start_s` is what two
images take), rendered, encoded, written. The stages are milliseconds per image in one process;
`all_cpu` is what remains of them when other programs take no time.

    python benchmarks/bench_synthetic.py --out benchmarks/results/synthetic.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import cv2
import torch

from data_prep.synthetic import scene
from data_prep.synthetic.generate import generate_synthetic, record_of
from data_prep.synthetic.renderers import open_renderer
from data_prep.synthetic.scene import Studio
from pose3d.data.store import open_store


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--renderers", nargs="+", default=["opengl", "numpy"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ.setdefault("LP_NUM_THREADS", "1")
    result = describe(options)
    for name in options.renderers:
        result[name] = whole(name, options) | {"stages_ms": stages(name, options)}
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def describe(options) -> dict:
    """What ran where."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    return {
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "command": " ".join(["python", "benchmarks/bench_synthetic.py", *sys.argv[1:]]),
        "load_average_before": round(os.getloadavg()[0], 2),
        "crop_size_px": options.size,
        "processes": options.jobs,
    }


def whole(name: str, options) -> dict:
    """A whole run, and how long it takes to start."""
    seconds = {}
    for count in (2, options.images):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            generate_synthetic(
                Path(folder) / "store",
                num_train=count // 2,
                num_test=count - count // 2,
                crop_size_px=options.size,
                renderer=name,
                num_workers=options.jobs,
                progress=False,
            )
            seconds[count] = time.perf_counter() - start
            store = open_store(Path(folder) / "store")
            size = sum(len(store.image_bytes(index)) for index in range(len(store)))
    return {
        "images": options.images,
        "images_per_s": round(options.images / seconds[options.images], 1),
        "start_s": round(seconds[2], 2),
        "jpeg_kB_per_image": round(size / options.images / 1e3, 1),
    }


def stages(name: str, options, count: int = 150) -> dict:
    """Milliseconds per image and stage in this process, CPU time beside the whole."""
    spent: defaultdict[str, float] = defaultdict(float)

    def timed(label, function):
        def wrapper(*arguments, **keywords):
            start = time.perf_counter()
            answer = function(*arguments, **keywords)
            spent[label] += time.perf_counter() - start
            return answer

        return wrapper

    studio = Studio(0, crop_size_px=options.size, margin=1.84, renderer=open_renderer(name))
    studio.shoot("train", 0)
    with (
        mock.patch.object(scene, "draw_pose", timed("pose", scene.draw_pose)),
        mock.patch.object(scene, "draw_triangles", timed("triangles", scene.draw_triangles)),
        mock.patch.object(studio, "_place", timed("skin_and_place", studio._place)),
        mock.patch.object(studio, "_background", timed("room_and_shadow", studio._background)),
        mock.patch.object(studio, "_develop", timed("develop", studio._develop)),
    ):
        start, cpu_start = time.perf_counter(), time.process_time()
        for index in range(count):
            shot = studio.shoot("train", index)
            timed("jpeg", record_of)(shot, jpeg_quality=92)
        total, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    spent["shade_and_rest"] = total - sum(spent.values())
    spent["all"] = total
    spent["all_cpu"] = cpu
    return {label: round(1e3 * value / count, 2) for label, value in spent.items()}


if __name__ == "__main__":
    main()
