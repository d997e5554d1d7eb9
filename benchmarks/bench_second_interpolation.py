"""What training from stored crops costs in image quality, against warping the full frame once.

A training input of 256 px is made in three ways under the same random scale (0.7 to 1.3) and
rotation (up to 30 degrees, any of them within the stored margin):

    ideal   full frame -> input, averaged where it shrinks; what the others are held to
    direct  full frame -> input by one bilinear warp, as the released RLE code does
    stored  full frame -> stored crop -> JPEG -> input by one bilinear warp, as training here does

Measured inside the frame: PSNR and mean absolute difference to `ideal` in grey levels, and
`detail`, the energy of the Laplacian (the finest detail) over that of `ideal`: 1 = as sharp, below
1 = detail lost, above 1 = aliasing or noise. The pattern is a zone plate, whose frequency rises to
0.25 cycles per pixel.

    python benchmarks/bench_second_interpolation.py SOURCE --out second_interpolation.json
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from provenance import provenance

from data_prep.convert import ConversionConfig, select_jobs
from data_prep.crops import cut_crop
from data_prep.people import people_of
from data_prep.readers.rle_json import RleJsonReader
from pose3d.geometry.crop import crop_from_image

INPUT_PX, MARGIN = 256, 1.84
SIZES_PX = (256, 320, 384, 472, 600)
QUALITIES = (80, 92, 97, None)  # None: no JPEG in between


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", help="photographs in the RLE layout")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    frames = {"pattern": [zone_plate(seed) for seed in range(8)]}
    if options.source:
        frames["photographs"] = photographs(options.source, count=options.images)
    result = provenance(opencv=cv2.__version__, input_px=INPUT_PX, margin=MARGIN) | {
        kind: compare(examples) for kind, examples in frames.items()
    }
    for kind in frames:
        print(markdown(kind, result[kind]))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def photographs(source: Path, *, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames and nominal squares of photographs spread over the training set."""
    jobs = select_jobs(RleJsonReader(source), ConversionConfig()).jobs
    takes = [job.load() for job in jobs if job.split == "train"]
    frames = []
    for take in takes:
        rows = np.linspace(0, len(take) - 1, -(-count // len(takes))).round().astype(int)
        people = people_of(take.chosen(rows), box="annotation", enlarge=1.0)
        frames += zip(people.take.pictures.frames(), people.square_box_px, strict=True)
    return frames[:count]


def zone_plate(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame of 1000 px whose rings get finer outwards, and a square of 440 px in its middle."""
    y, x = np.mgrid[:1000, :1000].astype(float)
    centre = np.random.default_rng(seed).uniform(400, 600, 2)
    radius2 = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    rings = 127.5 + 100 * np.cos(np.pi * 0.25 * radius2 / 500)  # 0.25 cycles per px at 500 px
    frame = np.repeat(rings[..., None], 3, axis=2).round().astype(np.uint8)
    return frame, np.array([*centre, 440.0])


def compare(examples: list[tuple[np.ndarray, np.ndarray]]) -> list[dict]:
    """One row for `direct` and one for each size and quality of `stored`."""
    rng = np.random.default_rng(0)
    rows = {}
    sides = []
    for frame, square in examples:
        sides.append(square[2])
        input_from_image = random_map(square, rng)
        ideal = cut_crop(frame, input_from_image, crop_size_px=INPUT_PX)
        mask = inside(frame, input_from_image)
        direct = warp(frame, input_from_image)
        rows.setdefault(("direct", None, None), []).append(quality(direct, ideal, mask))
        for size_px in SIZES_PX:
            shown = torch.from_numpy(square * [1, 1, MARGIN])
            store_from_image = crop_from_image(shown, crop_size_px=size_px).numpy()
            crop = cut_crop(frame, store_from_image, crop_size_px=size_px)
            input_from_store = input_from_image @ np.linalg.inv(store_from_image)
            for jpeg_quality in QUALITIES:
                stored, cost = through_jpeg(crop, jpeg_quality)
                found = quality(warp(stored, input_from_store), ideal, mask)
                rows.setdefault(("stored", size_px, jpeg_quality), []).append(found | cost)
    mean_side = float(np.mean(sides))
    return [
        {"route": route, "crop_size_px": size_px, "jpeg_quality": jpeg_quality}
        | {name: float(np.mean([item[name] for item in items])) for name in items[0]}
        | {"images": len(items), "mean_square_px": mean_side}
        for (route, size_px, jpeg_quality), items in rows.items()
    ]


def random_map(square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random scale and rotation of the recipe, as a map from the frame to the input."""
    return crop_from_image(
        torch.from_numpy(square),
        crop_size_px=INPUT_PX,
        rotation_rad=torch.tensor(np.radians(rng.uniform(-30, 30))),
        scale=torch.tensor(rng.uniform(0.7, 1.3)),
    ).numpy()


def warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """One bilinear warp to the input."""
    return cv2.warpAffine(image, matrix[:2], (INPUT_PX, INPUT_PX), flags=cv2.INTER_LINEAR)


def inside(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Pixels of the input well inside the frame."""
    ones = np.full(frame.shape[:2], 255, np.uint8)
    return cv2.erode(warp(ones, matrix), np.ones((9, 9), np.uint8)) == 255


def through_jpeg(crop: np.ndarray, jpeg_quality: int | None) -> tuple[np.ndarray, dict]:
    """The crop as it comes out of the store, its size and the time to decode it."""
    if jpeg_quality is None:
        return crop, {"kilobytes": crop.nbytes / 1000, "decode_ms": 0.0}
    _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    times = []
    for _ in range(5):
        start = time.perf_counter()
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        times.append(time.perf_counter() - start)
    return decoded, {"kilobytes": len(data) / 1000, "decode_ms": 1000 * min(times)}


def quality(found: np.ndarray, ideal: np.ndarray, mask: np.ndarray) -> dict:
    """Differences within the mask, in grey levels."""
    error = found[mask].astype(float) - ideal[mask]
    energy = [
        np.square(cv2.Laplacian(image.astype(np.float32), cv2.CV_32F)[mask]).sum()
        for image in (found, ideal)
    ]
    return {
        "psnr_db": 10 * np.log10(255**2 / np.square(error).mean()),
        "mean_absolute_difference": np.abs(error).mean(),
        "detail": energy[0] / energy[1],
    }


def markdown(kind: str, rows: list[dict]) -> str:
    """The rows as a table."""
    names = ("route", "crop / px", "JPEG", "PSNR / dB", "mean abs. difference", "detail", "kB")
    lines = [
        f"{kind}: {rows[0]['images']} images, squares of {rows[0]['mean_square_px']:.0f} px",
        f"| {' | '.join(names)} | decode / ms |",
        "|---" * (len(names) + 1) + "|",
    ]
    for row in rows:
        stored = row["route"] == "stored"
        jpeg = row["jpeg_quality"] or "none"
        cells = [
            row["route"],
            str(row["crop_size_px"]) if stored else "",
            str(jpeg) if stored else "",
            f"{row['psnr_db']:.1f}",
            f"{row['mean_absolute_difference']:.2f}",
            f"{row['detail']:.2f}",
            f"{row['kilobytes']:.0f}" if stored else "",
            f"{row['decode_ms']:.2f}" if stored and row["jpeg_quality"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
