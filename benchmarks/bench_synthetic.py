"""Synthetic images per second: whole runs by renderer, and where the time of one image goes.

Some takes of the motion model get as many images each as in `make demo` (53) and in the preset
benchmark (200): what is drawn once for a take counts the less the more images it has.
`images_per_s` is of a whole call of `generate_synthetic`, start of the processes included, less
what two images take in this process (`start_s`). The stages are milliseconds of CPU time per image
in one process, `all_wall` what the clock says; `two_cores_images_per_s` is what two idle cores
would draw.

    python benchmarks/bench_synthetic.py --out benchmarks/results/synthetic.json
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

import cv2
import torch
from provenance import provenance, write_result

from data_prep.synthetic import drawing
from data_prep.synthetic.generate import generate_synthetic
from data_prep.synthetic.performances import ModelMotions
from data_prep.synthetic.records import record_of
from data_prep.synthetic.renderers import open_renderer
from data_prep.synthetic.scene import Studio
from data_prep.synthetic.slots import model_performances, plan_sequences, views_of
from pose3d.data.store import open_store

TAKE_STEP = 19  # prime to actions and takes: all kinds of motion are met


class SomeTakes(ModelMotions):
    """Every nineteenth take of the motion model."""

    def __init__(self, count: int) -> None:
        self.count = count

    def performances(self, split: str) -> list:
        """Some takes of a split."""
        return model_performances(split)[::TAKE_STEP][: self.count]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--takes", type=int, default=8)
    parser.add_argument("--per-take", type=int, nargs="+", default=[53, 200])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--renderers", nargs="+", default=["opengl", "numpy"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ.setdefault("LP_NUM_THREADS", "1")
    result = provenance(crop_size_px=options.size, processes=options.jobs)
    for name in options.renderers:
        result[name] = {
            f"{per_take} images a take": whole(name, per_take, options)
            | {"stages_ms": stages(name, per_take, options)}
            for per_take in options.per_take
        }
    write_result(result, options.out)


def whole(name: str, per_take: int, options) -> dict:
    """A whole run, and how long it takes to start."""
    seconds, sizes = {}, {}
    for count in (2, per_take * options.takes):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            generate_synthetic(
                Path(folder) / "store",
                num_train=count,
                num_test=0,
                crop_size_px=options.size,
                renderer=name,
                motions=SomeTakes(options.takes),
                num_workers=options.jobs,
                progress=False,
            )
            seconds[count] = time.perf_counter() - start
            store = open_store(Path(folder) / "store")
            sizes[count] = sum(len(store.image_bytes(index)) for index in range(len(store)))
    return {
        "images": count,
        "images_per_s": round((count - 2) / max(seconds[count] - seconds[2], 1e-9), 1),
        "start_s": round(seconds[2], 2),
        "jpeg_kB_per_image": round(sizes[count] / count / 1e3, 1),
    }


def stages(name: str, per_take: int, options) -> dict:
    """Milliseconds of CPU time per image and stage in this process."""
    spent: defaultdict[str, float] = defaultdict(float)

    def timed(label, function):
        def wrapper(*arguments, **keywords):
            start = time.process_time()
            answer = function(*arguments, **keywords)
            spent[label] += time.process_time() - start
            return answer

        return wrapper

    motions = SomeTakes(options.takes)
    studio = Studio(
        0, crop_size_px=options.size, margin=1.84, renderer=open_renderer(name), motions=motions
    )
    sequences = plan_sequences("train", per_take * options.takes, motions.performances("train"))
    draw = timed("motion", motions.motion)
    paint = timed("paint_room", studio._stage._painter.paint)
    artist = studio._crop_artist
    draw_view = timed("scenery", artist._scenery.view)
    cpu_of_takes = 0.0
    with (
        mock.patch.object(motions, "motion", draw),
        mock.patch.object(studio._stage._painter, "paint", paint),
        mock.patch.object(artist._scenery, "view", draw_view),
        mock.patch.object(drawing, "rasterise", timed("rasterise", drawing.rasterise)),
        mock.patch.object(drawing, "shade_tile", timed("shade", drawing.shade_tile)),
        mock.patch.object(artist, "_cast_shadow", timed("shadow", artist._cast_shadow)),
        mock.patch.object(drawing, "_compose", timed("compose", drawing._compose)),
        mock.patch.object(artist._darkroom, "develop", timed("develop", artist._darkroom.develop)),
    ):
        start, cpu_start = time.perf_counter(), time.process_time()
        count = 0
        for sequence in sequences:
            before = time.process_time()
            who = sequence.performance
            take = studio.take(who.subject, who.action, who.take, num_frames=sequence.num_frames)
            cpu_of_takes += time.process_time() - before
            for number, (frame, camera_name) in enumerate(views_of(sequence, take.fits_all)):
                shot = studio.shoot(take, camera_name, frame)
                timed("jpeg", record_of)(shot, split="train", number=number, jpeg_quality=92)
                count += 1
        total, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    spent["rest"] = cpu - sum(spent.values())
    spent["all"] = cpu
    spent["all_wall"] = total
    spent["of_which_takes"] = cpu_of_takes
    result = {label: round(1e3 * value / count, 2) for label, value in spent.items()}
    return result | {"two_cores_images_per_s": round(2 * count / cpu)}


if __name__ == "__main__":
    main()
