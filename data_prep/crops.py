"""Annotated full frames become a store of person crops: cut, encode, write shards, resume.

Every reader of a data set yields `AnnotatedPerson`s and `Rejection`s; `write_store` does the rest.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pose3d.data.store import (
    ShardWriter,
    StoreHeader,
    StoreRecord,
    begin_store,
    check_jpeg,
    finalise_store,
    open_store,
)
from pose3d.geometry.camera import Camera
from pose3d.geometry.crop import crop_from_image, transform_points

ON_ERROR = ("error", "skip")
MIN_SHARE_IN_CROP = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedPerson:
    """One person in one full frame; fields as in `pose3d.data.store.StoreRecord`.

    Attributes:
        image_path: The full frame's file.
        square_box_px: Nominal person square in the frame: centre x, centre y, side, pixels.
    """

    image_path: Path
    source_file: str
    image_size_px: tuple[int, int]
    joints_camera_mm: Float[np.ndarray, "joints 3"]
    weight: Float[np.ndarray, "joints 3"]
    visibility: Shaped[np.ndarray, " joints"]
    camera: Camera
    camera_name: str
    square_box_px: Float[np.ndarray, " 3"]
    subject: int
    action: str
    subaction: int
    frame: int
    split: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A source record that cannot be converted."""

    name: str
    reason: str
    split: str


def read_frame(
    path: Path, *, image_size_px: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a full frame, BGR as OpenCV has it.

    Args:
        path: The image file.
        image_size_px: Width and height that the annotation states.

    Raises:
        ValueError: If the file is missing, truncated, no image, or of another size.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"image {path} cannot be read: {error.strerror}") from error
    try:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            check_jpeg(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except (ValueError, cv2.error) as error:
        raise ValueError(f"image {path} is bad: {error}; fetch it again") from error
    if image is None:
        raise ValueError(f"image {path} cannot be decoded; fetch it again")
    found = (image.shape[1], image.shape[0])
    if found != tuple(image_size_px):
        raise ValueError(
            f"image {path} has {found[0]}×{found[1]} px, its annotation states "
            f"{image_size_px[0]}×{image_size_px[1]} px; both must be of one release"
        )
    return image


def cut_crop(
    image: UInt8[np.ndarray, "height width 3"],
    store_from_image: Float[np.ndarray, "3 3"],
    *,
    crop_size_px: int,
) -> UInt8[np.ndarray, "size size 3"]:
    """Warp a frame to a square crop; what lies outside the frame is black.

    Where the crop is smaller than what it shows by a factor f > 1, the frame is warped to ceil(f)
    times the crop's size and averaged down, since warping straight would alias.
    """
    shrink = 1 / math.sqrt(abs(np.linalg.det(store_from_image[:2, :2])))
    factor = min(max(math.ceil(shrink - 0.05), 1), 8)
    offset = (factor - 1) / 2  # pixel centres are at integers
    large_from_store = np.array([[factor, 0, offset], [0, factor, offset], [0, 0, 1.0]])
    size = crop_size_px * factor
    interpolation = cv2.INTER_LINEAR if factor > 1 else cv2.INTER_CUBIC
    matrix = (large_from_store @ store_from_image)[:2]
    crop = cv2.warpAffine(image, matrix, (size, size), flags=interpolation)
    if factor > 1:
        crop = cv2.resize(crop, (crop_size_px, crop_size_px), interpolation=cv2.INTER_AREA)
    return crop


def make_record(person: AnnotatedPerson, header: StoreHeader) -> StoreRecord:
    """Cut and encode the crop of one person.

    Raises:
        ValueError: If the image is bad, or most joints miss the crop (a wrong box or camera).
    """
    size = header.crop_size_px
    shown = torch.from_numpy(person.square_box_px * [1, 1, header.margin])
    matrix = crop_from_image(shown, crop_size_px=size)
    image_px = person.camera.camera_to_image(torch.from_numpy(person.joints_camera_mm))
    crop_px = transform_points(matrix, image_px)
    share = ((crop_px >= -0.5) & (crop_px < size - 0.5)).all(-1).double().mean().item()
    if share < MIN_SHARE_IN_CROP:
        raise ValueError(
            f"only {share:.0%} of the joints fall into the crop of box centre and side "
            f"{person.square_box_px.round(1).tolist()} px; boxes must be x, y, width, height and "
            "belong to the joints"
        )
    image = read_frame(person.image_path, image_size_px=person.image_size_px)
    crop = cut_crop(image, matrix.numpy(), crop_size_px=size)
    _, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, header.jpeg_quality])
    return StoreRecord(
        image_jpeg=jpeg.tobytes(),
        joints_camera_mm=person.joints_camera_mm,
        weight=person.weight,
        visibility=person.visibility,
        camera=person.camera,
        camera_name=person.camera_name,
        store_from_image=matrix.numpy(),
        box_image_px=person.square_box_px,
        subject=person.subject,
        action=person.action,
        subaction=person.subaction,
        frame=person.frame,
        split=person.split,
        source_file=person.source_file,
        image_size_px=person.image_size_px,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What a conversion made.

    Attributes:
        path: The store's folder.
        digest: The store's digest.
        num_records: Records in the store.
        num_resumed: Shards that were there already.
        skipped: Name and reason of each source record that was left out.
    """

    path: Path
    digest: str
    num_records: int
    num_resumed: int
    skipped: tuple[tuple[str, str], ...]


def write_store(
    directory: Path | str,
    entries: Sequence[AnnotatedPerson | Rejection],
    *,
    header: StoreHeader,
    plan: dict[str, Any],
    on_error: str = "error",
    num_threads: int = 1,
    shard_size: int = 512,
    overwrite: bool = False,
    console: Console | None = None,
) -> Conversion:
    """Convert every entry, a shard of `shard_size` entries of one split after the other.

    A run that was interrupted goes on with the first missing shard; the store's digest is that of
    an uninterrupted run.

    Args:
        directory: The store's folder.
        entries: People and rejected records, in the source's order.
        header: The store's header.
        plan: What the entries depend on besides the header, see `begin_store`.
        on_error: "error" ends at the first record that cannot be converted, "skip" leaves it out.
        num_threads: Threads that decode, warp and encode.
        shard_size: Entries per shard.
        overwrite: Make the store anew if there is one.
        console: Where the progress bar goes; nowhere if None.

    Raises:
        ValueError: Naming the record, if one cannot be converted and `on_error` is "error".
        OSError: If the folder cannot be written.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {ON_ERROR}, got {on_error!r}")
    if num_threads < 1 or shard_size < 1:
        raise ValueError(f"threads and shard size must be >= 1, got {num_threads}, {shard_size}")
    directory = Path(directory)
    full_plan = {**plan, **_header_plan(header), "shard_size": shard_size}
    finished = begin_store(directory, plan=full_plan, overwrite=overwrite)
    with (
        _progress(console) as progress,
        ThreadPoolExecutor(num_threads) as pool,
    ):
        task = progress.add_task("cutting crops", total=len(entries))
        for name, chunk in _chunks(entries, shard_size=shard_size):
            if name not in finished:
                with ShardWriter(directory / name, header=header) as shard:
                    futures = [pool.submit(_convert, entry, header) for entry in chunk]
                    try:
                        for future in futures:
                            _take(future.result(), shard, on_error=on_error)
                            progress.advance(task)
                    finally:
                        for future in futures:
                            future.cancel()
            else:
                if on_error == "error":
                    _refuse_skipped(directory / name)
                progress.advance(task, len(chunk))
    digest = finalise_store(directory, header)
    store = open_store(directory)
    return Conversion(
        path=directory,
        digest=digest,
        num_records=len(store),
        num_resumed=len(finished),
        skipped=tuple(store.skipped),
    )


def _convert(entry: AnnotatedPerson | Rejection, header: StoreHeader) -> StoreRecord | Rejection:
    """A record, or why there is none."""
    if isinstance(entry, Rejection):
        return entry
    try:
        return make_record(entry, header)
    except ValueError as error:
        return Rejection(name=entry.source_file, reason=str(error), split=entry.split)


def _take(result: StoreRecord | Rejection, shard: ShardWriter, *, on_error: str) -> None:
    """Add a record to the shard, or deal with its rejection."""
    if isinstance(result, StoreRecord):
        shard.add(result)
    elif on_error == "skip":
        shard.skip(result.name, reason=result.reason)
    else:
        raise rejected(result)


def _refuse_skipped(path: Path) -> None:
    """End at what an earlier run, which was to skip, left out of a shard."""
    for name, reason in open_store(path).skipped:
        raise ValueError(
            f"{path}, made earlier with --on-error skip, lacks record {name}: {reason}; "
            "go on with --on-error skip, or mend the record and pass --overwrite"
        )


def rejected(rejection: Rejection) -> ValueError:
    """The error that a rejection is where skipping was not asked for."""
    return ValueError(
        f"{rejection.split} record {rejection.name}: {rejection.reason} "
        "(--on-error skip leaves such records out)"
    )


def _chunks(
    entries: Sequence[AnnotatedPerson | Rejection], *, shard_size: int
) -> Iterator[tuple[str, Sequence[AnnotatedPerson | Rejection]]]:
    """Shards' names and their entries; a shard holds one split, in the source's order."""
    for split in sorted({entry.split for entry in entries}, reverse=True):  # train before test
        chosen = [entry for entry in entries if entry.split == split]
        for number, start in enumerate(range(0, len(chosen), shard_size)):
            yield f"shard-{split}-{number:05d}.h5", chosen[start : start + shard_size]


def _header_plan(header: StoreHeader) -> dict[str, Any]:
    """The header's fields that change what shards hold."""
    return {
        "skeleton": header.skeleton,
        "source": header.source,
        "box": header.box_definition,
        "size": header.crop_size_px,
        "margin": header.margin,
        "quality": header.jpeg_quality,
    }


class _SpeedColumn(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """Draw the speed once it is known."""
        return Text("" if task.speed is None else f"{task.speed:.0f} images/s")


def _progress(console: Console | None) -> Progress:
    """A bar with records per second and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=console is None,
    )
