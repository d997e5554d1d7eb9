"""Write a synthetic Human3.6M to a store, shard by shard, in several processes.

A record depends on the seed, the number of images asked for, its split and its number alone; a run
that was stopped goes on with the shards that are missing, and its store has the digest of an
uninterrupted run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.progress import work_through
from data_prep.synthetic.chunks import Chunk, divide
from data_prep.synthetic.performances import ModelMotions, Motions
from data_prep.synthetic.records import record_of
from data_prep.synthetic.renderers import RENDERERS, open_renderer, resolve_renderer
from data_prep.synthetic.scene import BOX_DEFINITION, Studio
from data_prep.synthetic.slots import plan_sequences, views_of
from pose3d.data.store import (
    ShardWriter,
    StoreHeader,
    begin_store,
    finalise_store,
    read_plan,
)
from pose3d.geometry.skeleton import HUMAN36M_17

GENERATOR_VERSION = 3
"""Raised whenever the same seed gives other images or labels."""
SHARD_SIZE = 250
"""A shard gets whole takes up to about this many records."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What a process needs to write shards."""

    directory: Path
    header: StoreHeader
    seed: int
    renderer: str
    motions: Motions
    has_jitter: bool


def generate_synthetic(
    store_path: Path | str,
    *,
    num_train: int,
    num_test: int,
    crop_size_px: int = 256,
    margin: float = 1.84,
    jpeg_quality: int = 92,
    seed: int = 0,
    renderer: str = "auto",
    motions: Motions | None = None,
    has_jitter: bool = False,
    num_workers: int = 2,
    progress: bool = True,
    overwrite: bool = False,
) -> str:
    """Render a synthetic Human3.6M into a store.

    Seven subjects (1, 5, 6, 7, 8 for training, 9 and 11 for testing) act under Human3.6M's action
    names before its four cameras, in continuous takes at 50 frames a second. How images are spread
    over takes, cameras and time: see `slots`.

    Args:
        store_path: The store's folder; one that a stopped run with the same arguments left is
            finished.
        num_train: Training images.
        num_test: Test images.
        crop_size_px: Side of the stored crops, pixels.
        margin: What a crop shows over the side of the person's square.
        jpeg_quality: The best that occurs, 1 to 100; it varies up to 35 below that.
        seed: Every record follows from it, the numbers of images, its split and its number; at
            least 0.
        renderer: "opengl", "numpy", or "auto" for what the store in the folder was begun with,
            else OpenGL where it works.
        motions: Where motion comes from; the motion model if not given.
        has_jitter: Whether cameras are moved a little, anew for each take; labels follow.
        num_workers: Processes; with 1 everything happens in this one.
        progress: Show a progress bar on the standard error stream.
        overwrite: Make the store anew if there is one.

    Returns:
        The store's digest.

    Raises:
        ValueError: If a number is out of range, the renderer does not start, the folder holds
            something else, or a worker process dies.
        OSError: If the folder cannot be written.
    """
    if min(num_train, num_test) < 0 or num_train + num_test == 0:
        raise ValueError(f"need images to make, got num_train {num_train}, num_test {num_test}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    motions = motions or ModelMotions()
    jitter = ", camera jitter" if has_jitter else ""
    made = f"synthetic Human3.6M, version {GENERATOR_VERSION}, seed {seed}{jitter}"
    header = StoreHeader(
        skeleton=HUMAN36M_17.name,
        source=f"{made}, {motions.description}",
        box_definition=BOX_DEFINITION,
        crop_size_px=crop_size_px,
        margin=margin,
        jpeg_quality=jpeg_quality,
    )
    directory = Path(store_path)
    chunks = [
        chunk
        for split, count in (("train", num_train), ("test", num_test))
        for chunk in divide(
            plan_sequences(split, count, motions.performances(split)), shard_size=SHARD_SIZE
        )
    ]
    begun = None if overwrite or renderer != "auto" else _renderer_begun_with(directory, chunks)
    renderer = begun or resolve_renderer(renderer)
    job = _Job(
        directory=directory,
        header=header,
        seed=seed,
        renderer=renderer,
        motions=motions,
        has_jitter=has_jitter,
    )
    plan = _plan(job, num_train=num_train, num_test=num_test)
    finished = begin_store(directory, plan=plan, overwrite=overwrite)
    missing = [chunk for chunk in chunks if chunk.name not in finished]
    total = num_train + num_test
    work_through(
        missing,
        _work,
        jobs=num_workers,
        description="rendering",
        total=total,
        done=total - sum(chunk.count for chunk in missing),
        console=Console(stderr=True) if progress else None,
        prepare=partial(_prepare, job),
    )
    return finalise_store(directory, header)


def _plan(job: _Job, *, num_train: int, num_test: int) -> dict[str, Any]:
    """Everything the shards depend on."""
    return {
        "source": "synthetic",
        "version": GENERATOR_VERSION,
        "train": num_train,
        "test": num_test,
        "size": job.header.crop_size_px,
        "margin": job.header.margin,
        "quality": job.header.jpeg_quality,
        "seed": job.seed,
        "renderer": job.renderer,
        "motions": job.motions.description,
        "jitter": job.has_jitter,
        "shard_size": SHARD_SIZE,
    }


def _renderer_begun_with(directory: Path, chunks: list[Chunk]) -> str | None:
    """The renderer of the store in the folder, if it can go on with it here."""
    begun = read_plan(directory).get("renderer")
    if begun == "auto" or begun not in RENDERERS:
        return None
    if not all((directory / chunk.name).is_file() for chunk in chunks):
        try:
            open_renderer(begun)
        except ValueError:
            return None
    return begun


def _studio(job: _Job) -> Studio:
    return Studio(
        job.seed,
        crop_size_px=job.header.crop_size_px,
        margin=job.header.margin,
        renderer=open_renderer(job.renderer),
        motions=job.motions,
        has_jitter=job.has_jitter,
    )


def _write_shard(studio: Studio, job: _Job, chunk: Chunk, advance: Callable[[int], None]) -> None:
    with ShardWriter(job.directory / chunk.name, header=job.header) as shard:
        for part in chunk.parts:
            sequence, performance = part.sequence, part.sequence.performance
            take = studio.take(
                performance.subject,
                performance.action,
                performance.take,
                num_frames=sequence.num_frames,
            )
            views = views_of(sequence, take.fits_all)
            for index in range(part.start, part.stop):
                frame, camera_name = views[index]
                shot = studio.shoot(take, camera_name, frame)
                shard.add(
                    record_of(
                        shot,
                        split=chunk.split,
                        number=sequence.first_record + index,
                        jpeg_quality=job.header.jpeg_quality,
                    )
                )
                advance(1)


_worker: dict[str, Any] = {}
"""The job of this process and its studio, of which each process keeps one."""


def _prepare(job: _Job) -> None:
    """Build this process's studio."""
    _worker.update(job=job, studio=_studio(job))


def _work(chunk: Chunk, advance: Callable[[int], None]) -> None:
    """Write one shard with this process's studio."""
    _write_shard(_worker["studio"], _worker["job"], chunk, advance)
