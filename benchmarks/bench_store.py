"""Random access to stored JPEG bytes: one blob with a memory map against other layouts.

    blob    what the store does: contiguous bytes and offsets, read through a memory map
    vlen    one HDF5 dataset of variable-length byte strings
    h5blob  the blob read through HDF5 instead of a memory map
    files   one file per image

Every image is read once in random order, from the page cache (each layout is read through once
before), by one thread and by four. Seconds to write are given as well.

    python benchmarks/bench_store.py --out store.json
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from provenance import provenance


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--kilobytes", type=float, default=44.0, help="mean size of an image")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = provenance()
    rng = np.random.default_rng(0)
    sizes = (rng.uniform(0.5, 1.5, options.images) * options.kilobytes * 1000).astype(int)
    images = [rng.bytes(size) for size in sizes]
    order = rng.permutation(options.images)
    rows = []
    for name, (write, reader) in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds, _ = timed(lambda write=write, folder=folder: write(Path(folder), images))
            rows.append(measure(name, reader(Path(folder)), order, images, write_s=seconds))
    result |= {
        "images": options.images,
        "megabytes": sum(map(len, images)) / 1e6,
        "rows": rows,
    }
    print("| layout | 1 thread / µs per image | 4 threads / µs per image | write / s |")
    print("|---|---|---|---|")
    for row in rows:
        cells = [f"{row[key]:.1f}" for key in ("one_thread_us", "four_threads_us", "write_s")]
        print(f"| {row['layout']} | {' | '.join(cells)} |")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    name: str, read: Callable, order: np.ndarray, images: list[bytes], *, write_s: float
) -> dict:
    """Times to read all images in this order; the best of three."""
    if any(read(int(i)) != images[i] for i in order):
        raise RuntimeError(f"layout {name} does not give back what was written")
    one, four = [], []
    for _ in range(3):
        one.append(timed(lambda: [read(int(i)) for i in order])[0])
        with ThreadPoolExecutor(4) as pool:
            parts = np.array_split(order, 4)
            four.append(
                timed(
                    lambda pool=pool, parts=parts: list(
                        pool.map(lambda part: [read(int(i)) for i in part], parts)
                    )
                )[0]
            )
    return {
        "layout": name,
        "one_thread_us": 1e6 * min(one) / len(order),
        "four_threads_us": 1e6 * min(four) / len(order),
        "write_s": write_s,
    }


def timed(function: Callable) -> tuple[float, object]:
    """Seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def write_blob(folder: Path, images: list[bytes]) -> None:
    """One contiguous dataset and offsets."""
    with h5py.File(folder / "a.h5", "w") as file:
        file["bytes"] = np.frombuffer(b"".join(images), np.uint8)
        file["offsets"] = np.concatenate([[0], np.cumsum([len(image) for image in images])])


def read_blob(folder: Path) -> Callable[[int], bytes]:
    """Slices of a memory map."""
    with h5py.File(folder / "a.h5") as file:
        offsets = file["offsets"][()]
        start = file["bytes"].id.get_offset()
    blob = np.memmap(folder / "a.h5", np.uint8, mode="r", offset=start)
    return lambda i: blob[offsets[i] : offsets[i + 1]].tobytes()


def read_h5blob(folder: Path) -> Callable[[int], bytes]:
    """Slices of the HDF5 dataset."""
    file = h5py.File(folder / "a.h5")
    offsets = file["offsets"][()]
    return lambda i: file["bytes"][offsets[i] : offsets[i + 1]].tobytes()


def write_vlen(folder: Path, images: list[bytes]) -> None:
    """One dataset of variable-length strings."""
    with h5py.File(folder / "a.h5", "w") as file:
        data = file.create_dataset("bytes", len(images), h5py.vlen_dtype(np.uint8))
        for i, image in enumerate(images):
            data[i] = np.frombuffer(image, np.uint8)


def read_vlen(folder: Path) -> Callable[[int], bytes]:
    """Elements of the dataset."""
    data = h5py.File(folder / "a.h5")["bytes"]
    return lambda i: data[i].tobytes()


def write_files(folder: Path, images: list[bytes]) -> None:
    """One file each."""
    for i, image in enumerate(images):
        (folder / f"{i:06d}.jpg").write_bytes(image)


def read_files(folder: Path) -> Callable[[int], bytes]:
    """Whole files."""
    return lambda i: (folder / f"{i:06d}.jpg").read_bytes()


LAYOUTS = {
    "blob": (write_blob, read_blob),
    "vlen": (write_vlen, read_vlen),
    "h5blob": (write_blob, read_h5blob),
    "files": (write_files, read_files),
}


if __name__ == "__main__":
    main()
