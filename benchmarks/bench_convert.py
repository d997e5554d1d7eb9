"""What `pose3d-prep raw` costs per frame, beside decoding the same videos and nothing else.

A look-alike tree of one camera is written twice, with n and with 4 n poses, its videos encoded as
h264 with camera noise. The difference of the CPU times of their conversions over the difference of
their frames is the cost of a frame in a long sequence; the peak memories of two processes show
whether it grows with the number of frames. CPU time is measured, not waiting, so that other work on
the machine disturbs less. JSON to stdout or a file.

    python benchmarks/bench_convert.py --out benchmarks/results/convert.json
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from provenance import provenance, write_result

from data_prep.convert import ConversionConfig, convert
from data_prep.human36m import PROTOCOLS, expected_counts
from data_prep.lookalike.raw import write_raw
from data_prep.lookalike.world import FigurePainter, Performance, make_world
from data_prep.pictures import decode_video, video_image
from data_prep.readers.raw import RawReader

CAMERA = "54138969"
NUM_TRAIN, NUM_TEST = expected_counts(
    PROTOCOLS["full"], is_shifted_kept=True, has_unusable_video=True
).values()
RUN_AND_SAY_PEAK = """
import atexit, pathlib, re, sys, threading, time
from data_prep.cli import main
target, most = pathlib.Path(sys.argv.pop(1)), [0]
def watch():
    while True:
        status = pathlib.Path("/proc/self/status").read_text()
        most[0] = max(most[0], int(re.search(r"RssAnon:\\s+(\\d+)", status).group(1)))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
atexit.register(lambda: target.write_text(str(most[0])))
main()
"""
"""The verb, with the peak of its own memory in kilobytes to a file. Pages of files are not counted:
the crops of a shard are mapped from disk when it is closed."""


class Textured(FigurePainter):
    """The figure before a wall with texture, through a camera with noise of 2 grey levels."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        texture = rng.normal(0, 36, (1002, 1000)).astype(np.float32)
        self._texture = cv2.GaussianBlur(texture, (0, 0), 1.5)
        self._noise = rng.normal(0, 2, (1400, 1400)).astype(np.float32)

    def image(self, performance: Performance, camera_name: str, frame: int) -> np.ndarray:
        """The full image, BGR."""
        image = super().image(performance, camera_name, frame)
        height, width = image.shape[:2]
        top, left = np.random.default_rng(frame).integers(0, 390, 2)
        noise = self._noise[top : top + height, left : left + width]
        grain = self._texture[:height] + noise
        return np.clip(image + grain[..., None], 0, 255).astype(np.uint8)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--poses", type=int, default=160, help="of the shorter video")
    parser.add_argument("--crf", type=int, default=20, help="quality of the videos, as x264 has it")
    parser.add_argument("--crop-size", type=int, default=472)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = provenance()
    with tempfile.TemporaryDirectory() as folder:
        trees = {}
        for subject in (1, 9):  # trains, tests
            for times in (1, 4):
                tree = Path(folder) / f"tree-{subject}-{times}"
                write_tree(tree, subject, times * options.poses, crf=options.crf)
                trees[subject, times] = tree
        result |= measure(trees, options)
    write_result(result, options.out)


def write_tree(tree: Path, subject: int, num_poses: int, *, crf: int) -> None:
    """One sequence of one camera, its video as large as the release's may be."""
    world = make_world(
        subjects=(subject,),
        actions=(2,),
        subactions=(1,),
        num_poses=num_poses,
        camera_names=(CAMERA,),
        painter=Textured(),
    )
    write_raw(world, tree, has_masks=False, extra_frames=lambda *_: 0)
    (path,) = tree.glob(f"S{subject}/Videos/Directions*.mp4")
    old = path.with_suffix(".old")
    path.rename(old)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=50)
        stream.width, stream.height = world.image_size_px(subject, CAMERA)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf)}
        for frame in decode_video(old):
            again = av.VideoFrame.from_ndarray(video_image(frame), format="bgr24")
            container.mux(stream.encode(again))
        container.mux(stream.encode())
    old.unlink()


def measure(trees: dict[tuple[int, int], Path], options: argparse.Namespace) -> dict:
    """Costs per frame, memory, and what the whole data set would take."""
    (video,) = trees[1, 4].glob("S1/Videos/Directions*.mp4")
    count = 4 * options.poses
    decode_s = best(lambda: sum(1 for _ in decode_video(video)), options.repeats) / count
    pixels_s = best(
        lambda: sum(video_image(frame).size > 0 for frame in decode_video(video)), options.repeats
    )
    rows = {"decode": {"cpu_ms_per_frame": 1e3 * decode_s}}
    rows["decode_and_turn_into_bgr"] = {"cpu_ms_per_frame": 1e3 * pixels_s / count}
    for name, subject, protocol in (
        ("convert_every_frame", 1, "full"),
        ("convert_every_5th", 1, "rle-2"),
        ("convert_every_64th", 9, "rle-2"),
    ):
        rows[name] = compare(trees, subject, protocol, options)
    for row in rows.values():
        row["times_decoding"] = row["cpu_ms_per_frame"] / (1e3 * decode_s)
        row["frames_per_s_and_core"] = 1e3 / row["cpu_ms_per_frame"]
    hours = {
        "decoding alone": (NUM_TRAIN + NUM_TEST) * decode_s / 3600,
        "full": (NUM_TRAIN + NUM_TEST) * rows["convert_every_frame"]["cpu_ms_per_frame"] / 3.6e6,
        "rle-2": (
            NUM_TRAIN * rows["convert_every_5th"]["cpu_ms_per_frame"]
            + NUM_TEST * rows["convert_every_64th"]["cpu_ms_per_frame"]
        )
        / 3.6e6,
    }
    return {
        "video": {
            "size_px": [1000, 1002],
            "kilobytes_per_frame": video.stat().st_size / count / 1000,
            "frames": [options.poses, count],
        },
        "crop_size_px": options.crop_size,
        "rows": rows,
        "whole_human36m": {
            "frames_train": NUM_TRAIN,
            "frames_test": NUM_TEST,
            "core_hours": hours,
        },
    }


def best(work: Callable[[], int], repeats: int) -> float:
    """The least CPU time of a few runs in this process, seconds."""
    found = []
    for _ in range(repeats):
        start_s = time.process_time()
        work()
        found.append(time.process_time() - start_s)
    return min(found)


def compare(
    trees: dict[tuple[int, int], Path], subject: int, protocol: str, options: argparse.Namespace
) -> dict:
    """The cost of a frame and the peak memory of a conversion of n and of 4 n frames."""
    cpu_s, peak_mb = {}, {}
    for times in (1, 4):
        tree = trees[subject, times]
        cpu_s[times] = best(partial(convert_here, tree, protocol, options), options.repeats)
        peak_mb[times] = peak_of_convert(tree, protocol, options)
    return {
        "cpu_ms_per_frame": 1e3 * (cpu_s[4] - cpu_s[1]) / (3 * options.poses),
        "cpu_s": [cpu_s[1], cpu_s[4]],
        "peak_own_memory_mb": [peak_mb[1], peak_mb[4]],
    }


def convert_here(tree: Path, protocol: str, options: argparse.Namespace) -> int:
    """Convert in this process; how many records there are."""
    config = ConversionConfig(protocol=protocol, crop_size_px=options.crop_size)
    with tempfile.TemporaryDirectory() as folder:
        return convert(RawReader(tree), Path(folder) / "store", config=config).num_records


def peak_of_convert(tree: Path, protocol: str, options: argparse.Namespace) -> float:
    """Peak memory of a conversion in a process of its own, megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["raw", str(tree), f"{folder}/store", "--jobs", "1", "--protocol", protocol]
        arguments += ["--size", str(options.crop_size)]
        peak = Path(folder) / "peak"
        command = [sys.executable, "-c", RUN_AND_SAY_PEAK, str(peak), *arguments]
        subprocess.run(command, check=True, capture_output=True)
        return int(peak.read_text()) / 1024


if __name__ == "__main__":
    main()
