"""Images per second of reading, of augmentation, and of both together; JSON to stdout or a file.

The rows `opencv_*` do the same work sample by sample with `cv2.warpAffine`, as a data loader's
worker would: the measure that the batched augmentation has to stand up to. `warp_*` is the warp
alone: `warp_whole_batch` in one piece, `warp_cached` in pieces that fit a CPU's cache.

    python benchmarks/bench_data.py --store stores/demo --input-size 256 --out data.json
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from provenance import provenance, write_result

from pose3d.data import augment
from pose3d.data.augment import (
    NORMALISATIONS,
    AugmentConfig,
    AugmentParameters,
    RawBatch,
    draw_parameters,
    identity_parameters,
    make_batch,
)
from pose3d.data.dataset import BatchLoader, PoseDataset
from pose3d.data.store import ShardWriter, StoreHeader, StoreRecord, finalise_store, open_store
from pose3d.geometry.camera import Camera
from pose3d.geometry.crop import crop_from_image

MARGIN = 1.84


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, help="default: random crops of margin 1.84")
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--loader-threads", type=int, default=2)
    parser.add_argument("--torch-threads", type=int, help="default: what torch chooses")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="time given to each row")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or write_random_store(
            Path(folder) / "store", size_px=round(MARGIN * options.input_size), count=256
        )
        result = describe(options) | measure(path, options)
    write_result(result, options.out)


def measure(path, options) -> dict:
    """All rows for one store."""
    store = open_store(path)
    dataset = PoseDataset(store, np.arange(len(store)), skeleton=store.skeleton)
    device = torch.device(options.device)
    batch_size = min(options.batch_size, len(dataset))
    host = dataset.raw_batch(np.arange(batch_size))
    raw = host.to(device)
    config = AugmentConfig()
    parameters = draw_parameters(config, host.index, seed=0, epoch=0)
    arguments = {"skeleton": dataset.skeleton, "input_size_px": options.input_size}

    def load(num_threads: int):
        return BatchLoader(
            dataset, batch_size=batch_size, seed=0, epoch=0, drop_last=True,
            num_threads=num_threads, pin_memory=device.type == "cuda",
        )  # fmt: skip

    def epoch(num_threads: int, *, with_augmentation: bool) -> None:
        for batch in load(num_threads):
            if with_augmentation:
                drawn = draw_parameters(config, batch.index, seed=0, epoch=0)
                make_batch(batch.to(device), drawn, **arguments)

    def augmentation() -> None:
        make_batch(raw, draw_parameters(config, raw.index, seed=0, epoch=0), **arguments)

    warp_only = draw_parameters(
        AugmentConfig(occlusion_probability=0.0, colour_limit=0.0), raw.index, seed=0, epoch=0
    )
    rows = {
        "augmentation": augmentation,
        "augmentation_identity": lambda: make_batch(
            raw, identity_parameters(batch_size), **arguments
        ),
        "warp_cached": lambda: make_batch(raw, warp_only, **arguments),
        "warp_whole_batch": lambda: in_one_piece(make_batch, raw, warp_only, **arguments),
        "opencv_augmentation": lambda: opencv_augment(host, parameters, options.input_size),
        "opencv_warp_only": lambda: opencv_warp(host, warp_only, options.input_size),
    }
    rates = {name: rate(row, batch_size, options.seconds, device) for name, row in rows.items()}
    size = len(load(0)) * batch_size
    for name, num_threads, with_augmentation in (
        ("loader", options.loader_threads, False),
        ("loader_in_turn", 0, False),
        ("loader_and_augmentation", options.loader_threads, True),
    ):
        rates[name] = rate(
            lambda n=num_threads, a=with_augmentation: epoch(n, with_augmentation=a),
            size,
            options.seconds,
            device,
        )
    return {
        "stored_size_px": store.header.crop_size_px,
        "batch_size": batch_size,
        "jpeg_bytes_mean": float(
            np.mean([len(store.image_bytes(i)) for i in range(min(len(store), 200))])
        ),
        "images_per_second": rates,
        "milliseconds_per_batch": {
            name: round(1e3 * batch_size / value, 2) for name, value in rates.items()
        },
    }


def rate(run: Callable[[], object], size: int, seconds: float, device: torch.device) -> float:
    """Images per second, the best of the repeats that fit the time, after one to warm up."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed()
    end = time.perf_counter() + seconds
    best = timed()
    while time.perf_counter() < end:
        best = min(best, timed())
    return round(size / best, 1)


def in_one_piece(function: Callable, *arguments, **keywords) -> object:
    """Call with the cache's limit on the pieces of a batch switched off."""
    limit, augment._CHUNK_VALUES = augment._CHUNK_VALUES, 2**62
    try:
        return function(*arguments, **keywords)
    finally:
        augment._CHUNK_VALUES = limit


def opencv_maps(raw: RawBatch, parameters: AugmentParameters, size_px: int) -> np.ndarray:
    """Maps from the stored crop to the network's crop."""
    crop_map = crop_from_image(
        raw.box_image_px.double(),
        crop_size_px=size_px,
        rotation_rad=parameters.rotation_rad,
        scale=parameters.scale,
        mirror=parameters.mirror,
    )
    return (crop_map @ torch.linalg.inv(raw.store_from_image))[:, :2].numpy()


def opencv_warp(raw: RawBatch, parameters: AugmentParameters, size_px: int) -> np.ndarray:
    """The warp alone, uint8, sample by sample."""
    maps = opencv_maps(raw, parameters, size_px)
    images = raw.images.numpy()
    return np.stack(
        [cv2.warpAffine(i, m, (size_px, size_px)) for i, m in zip(images, maps, strict=True)]
    )


def opencv_augment(raw: RawBatch, parameters: AugmentParameters, size_px: int) -> torch.Tensor:
    """Noise, warp, colour and normalisation, sample by sample."""
    maps = opencv_maps(raw, parameters, size_px)
    mean, std = np.array(NORMALISATIONS["imagenet"], np.float32)
    rng = np.random.default_rng(0)
    stored_px = raw.images.shape[1]
    result = np.empty((len(raw), 3, size_px, size_px), np.float32)
    for k, image in enumerate(raw.images.numpy()):
        box = (parameters.occlusion_box[k].numpy() - 0.5) / MARGIN + 0.5
        left, top, right, bottom = np.round(box * stored_px).astype(int)
        image = image.copy()
        image[top:bottom, left:right] = rng.integers(
            0, 256, (bottom - top, right - left, 3), np.uint8
        )
        shown = cv2.warpAffine(image, maps[k], (size_px, size_px)).astype(np.float32)
        shown = np.minimum(shown * np.float32(parameters.colour[k].numpy()), 255) / 255
        result[k] = ((shown - mean) / std).transpose(2, 0, 1)
    return torch.from_numpy(result)


def write_random_store(path: Path, *, size_px: int, count: int) -> Path:
    """A store of blurred noise with poses in front of one camera."""
    rng = np.random.default_rng(0)
    header = StoreHeader(
        skeleton="human36m_17", source="random", box_definition="random", crop_size_px=size_px,
        margin=MARGIN, jpeg_quality=92,
    )  # fmt: skip
    camera = Camera.from_parameters(focal_px=[1145.0, 1145.0], principal_point_px=[512.0, 512.0])
    box = torch.tensor([512.0, 512.0, 420.0], dtype=torch.float64)
    store_map = crop_from_image(box * torch.tensor([1, 1, MARGIN]), crop_size_px=size_px).numpy()
    path.mkdir()
    with ShardWriter(path / "shard-000.h5", header=header) as writer:
        for number in range(count):
            noise = rng.normal(128, 700, (size_px, size_px, 3)).astype(np.float32)
            image = np.clip(cv2.GaussianBlur(noise, (0, 0), 4), 0, 255).astype(np.uint8)
            jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
            writer.add(
                StoreRecord(
                    image_jpeg=jpeg,
                    joints_camera_mm=rng.uniform([-400, -800, 4600], [400, 800, 5400], (17, 3)),
                    weight=np.ones((17, 3)),
                    visibility=np.ones(17, np.uint8),
                    camera=camera,
                    camera_name="random",
                    store_from_image=store_map,
                    box_image_px=box.numpy(),
                    subject=1,
                    action="Walking",
                    subaction=1,
                    frame=number,
                    split="train",
                    source_file=f"{number}.jpg",
                    image_size_px=(1024, 1024),
                )
            )
    finalise_store(path, header)
    return path


def describe(options) -> dict:
    """Where, when, from which commit and how the numbers were made."""
    is_cuda = options.device.startswith("cuda")
    return provenance(
        benchmark="data",
        **({"device": torch.cuda.get_device_name()} if is_cuda else {}),
        python=platform.python_version(),
        torch=torch.__version__,
        opencv=cv2.__version__,
        torch_threads=torch.get_num_threads(),
        loader_threads=options.loader_threads,
        input_size_px=options.input_size,
    )


if __name__ == "__main__":
    main()
