"""From a store to raw batches: which records, in which order, decoded ahead by threads.

OpenCV decodes JPEGs outside Python's lock, so threads of one process keep the processors busy and
no worker process has to be started or fed. The order of an epoch and everything else hangs on
(seed, epoch) alone; a loader can start at any batch of an epoch, which is how a run resumes.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from pose3d.data.augment import Draw, Normalisation, RawBatch, random_bits
from pose3d.data.store import Store
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import Skeleton, convert_joints, skeleton_by_name
from pose3d.geometry.uvd import DEPTH_RANGE_MM

BadRecords = Literal["error", "skip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which records are used and how they are read."""

    skeleton: str = "human36m_18"
    """Joint set of the model; labels of the store are converted by name."""
    input_size_px: int = 256
    """Side of the square crops that the network sees."""
    depth_range_mm: float = DEPTH_RANGE_MM
    """Depth that the unit of d stands for."""
    normalisation: Normalisation = "imagenet"
    """Mean and standard deviation of the colours; released = those of the published weights."""
    train_split: str = "train"
    """Split of the store that is trained on."""
    test_split: str = "test"
    """Split of the store that is validated and tested on."""
    train_subjects: tuple[int, ...] | None = None
    """Only these subjects; null = all of the split. Of the main store; others train whole."""
    test_subjects: tuple[int, ...] | None = None
    """The same for testing."""
    train_every: int = 1
    """Only frames whose number is a multiple of this. Of the main store; others train whole."""
    test_every: int = 1
    """The same for testing."""
    store_shares: tuple[float, ...] | None = None
    """Of the images of every batch, in the order of the stores, over their sum: [1, 1] = half and
    half; null = in proportion to the stores' training records."""
    store_weights: tuple[float, ...] | None = None
    """Factor on the label weights of each store, hence on its images' loss and gradient; the mean
    over labelled joints still divides by their number. null = 1 each."""
    bad_records: BadRecords = "error"
    """error stops at a record that cannot be read; skip leaves it out and counts it."""
    num_threads: int = 2
    """Threads that decode images ahead; 0 decodes when a batch is asked for."""
    prefetch: int = 2
    """Batches that are kept ready, at least one per thread."""
    cache_gib: float = 0.0
    """Memory for each store's decoded crops, filled during the first epoch; for small stores."""

    def __post_init__(self) -> None:
        skeleton_by_name(self.skeleton)
        lowest = {"input_size_px": 32, "train_every": 1, "test_every": 1, "prefetch": 1}
        for name, low in {**lowest, "num_threads": 0, "cache_gib": 0}.items():
            if getattr(self, name) < low:
                raise ValueError(f"data.{name} must be >= {low}, got {getattr(self, name)}")
        if not self.depth_range_mm > 0:
            raise ValueError(f"data.depth_range_mm must be > 0, got {self.depth_range_mm}")
        for name in ("store_shares", "store_weights"):
            values = getattr(self, name)
            if values is not None and not all(0 < value < math.inf for value in values):
                words = ", ".join(f"{value:g}" for value in values)
                raise ValueError(f"data.{name} must be finite numbers > 0, got {words}")


class PoseDataset:
    """Some records of a store, their labels in one joint set, read at any position.

    May be used from threads, after a fork and pickled: it holds no open file. It also serves
    `torch.utils.data.DataLoader(dataset, batch_size, collate_fn=concatenate)`.

    Args:
        store: The open store.
        indices: Rows of the store, in the order of positions.
        skeleton: Joint set of the labels.
        bad_records: Whether a record with labels that cannot be right is an error or left out.
        cache_gib: Memory for decoded crops, GiB; the first positions that fit are kept.

    Attributes:
        indices: Row in the store of each position.
        skipped_names: Names of the records left out because of their labels.

    Raises:
        ValueError: If there is no record at all, or, with bad_records="error", if one has a label,
            map or box that is not finite, or a depth that is not positive.
    """

    def __init__(
        self,
        store: Store,
        indices: Int64[np.ndarray, " n"],
        *,
        skeleton: Skeleton,
        bad_records: BadRecords = "error",
        cache_gib: float = 0.0,
    ) -> None:
        is_good = _has_usable_labels(store, indices)
        bad_names = [store.record_name(i) for i in indices[~is_good]]
        if bad_names and bad_records == "error":
            raise ValueError(
                f"store {store.path}: {len(bad_names)} records have a label, box or map that is "
                f"not finite or a depth that is not positive, the first is {bad_names[0]} (from "
                f"{store.source_file(indices[~is_good][0])}); convert again, or set "
                "data.bad_records=skip"
            )
        if not is_good.any():
            raise ValueError(f"store {store.path}: no records are selected")
        self.store = store
        self.skeleton = skeleton
        self.indices = indices[is_good]
        self.skipped_names = tuple(bad_names)
        size_px = store.header.crop_size_px
        num_cached = min(len(self.indices), int(cache_gib * 2**30 / (3 * size_px**2)))
        self._cache_shape = (num_cached, size_px, size_px, 3)
        self._make_cache()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> RawBatch:
        """A batch of one record; `concatenate` joins several."""
        return self.raw_batch(np.array([position]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None, "_is_cached": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_cache()

    def raw_batch(self, positions: Int64[np.ndarray, " batch"]) -> RawBatch:
        """Read the records at these positions.

        Raises:
            ValueError: Naming store, record and source file of the first JPEG that is bad.
        """
        raw, bad = self.read(positions)
        if bad:
            raise ValueError(next(iter(bad.values())))
        return raw

    def read(self, positions: Int64[np.ndarray, " batch"]) -> tuple[RawBatch, dict[str, str]]:
        """Read the records whose images decode, and the others' names with what is wrong."""
        bad: dict[str, str] = {}
        images = np.empty((len(positions), *self._cache_shape[1:]), np.uint8)
        is_good = np.ones(len(positions), bool)
        for slot, position in enumerate(positions):
            try:
                images[slot] = self._image(int(position))
            except ValueError as error:
                is_good[slot] = False
                bad[self.store.record_name(int(self.indices[position]))] = str(error)
        if bad:
            images = images[is_good]
        return self._label(images, self.indices[positions[is_good]]), bad

    def _image(self, position: int) -> UInt8[np.ndarray, "stored stored 3"]:
        if position < len(self._cache) and self._is_cached[position]:
            return self._cache[position]
        image = self.store.image(int(self.indices[position]))
        if position < len(self._cache):
            self._cache[position] = image
            self._is_cached[position] = True  # after the image: other threads read it
        return image

    def _make_cache(self) -> None:
        """Memory is taken by the system when a row is first written."""
        self._cache = np.empty(self._cache_shape, np.uint8)
        self._is_cached = np.zeros(len(self._cache), bool)

    def _label(
        self, images: UInt8[np.ndarray, "batch stored stored 3"], rows: Int64[np.ndarray, " batch"]
    ) -> RawBatch:
        """Put the labels of these rows of the store to their images."""
        records, source = self.store.records, self.store.skeleton
        joints = torch.from_numpy(records.joints_camera_mm[rows])
        weight = torch.from_numpy(records.weight[rows])
        return RawBatch(
            images=torch.from_numpy(images),
            index=torch.from_numpy(rows),
            joints_camera_mm=convert_joints(joints, source=source, target=self.skeleton),
            weight=_convert_weight(weight, source=source, target=self.skeleton),
            camera=self.store.cameras[torch.from_numpy(records.camera_index[rows])],
            store_from_image=torch.from_numpy(records.store_from_image[rows]),
            box_image_px=torch.from_numpy(records.box_image_px[rows]),
        )


def make_dataset(
    store: Store, config: DataConfig, *, role: Literal["train", "test"]
) -> PoseDataset:
    """The records that a configuration trains or tests on.

    Raises:
        ValueError: If there are none, or as `PoseDataset` does.
    """
    split, subjects, every = (
        getattr(config, f"{role}_{n}") for n in ("split", "subjects", "every")
    )
    indices = store.select(split=split, subjects=subjects, every=every)
    if not len(indices):
        counts = {str(name): int((store.records.split == name).sum()) for name in ("train", "test")}
        raise ValueError(
            f"store {store.path} has no records of split {split!r} with data.{role}_subjects="
            f"{subjects or 'all'} and data.{role}_every={every}; records per split: {counts}"
        )
    return PoseDataset(
        store,
        indices,
        skeleton=skeleton_by_name(config.skeleton),
        bad_records=config.bad_records,
        cache_gib=config.cache_gib,
    )


def concatenate(batches: Sequence[RawBatch]) -> RawBatch:
    """Join raw batches of the same store into one."""
    values = {f.name: [getattr(batch, f.name) for batch in batches] for f in fields(RawBatch)}
    cameras = values.pop("camera")
    camera = Camera(
        **{f.name: torch.cat([getattr(c, f.name) for c in cameras]) for f in fields(Camera)}
    )
    return RawBatch(camera=camera, **{name: torch.cat(parts) for name, parts in values.items()})


def epoch_order(
    num: int, *, seed: int, epoch: int, shuffle: bool = True, first: int = 0
) -> Int64[np.ndarray, " {num}"]:
    """Positions 0 to num − 1 in the order of an epoch, the same on every machine.

    Args:
        num: How many.
        seed: With `epoch`, fixes the order.
        epoch: The pass over the data.
        shuffle: False keeps the positions ascending.
        first: Number under which position 0 is drawn; sets with other numbers have other orders.
    """
    positions = np.arange(num, dtype=np.int64)
    if not shuffle:
        return positions
    bits = random_bits(first + positions, Draw.ORDER, seed=seed, epoch=epoch)
    return np.argsort(bits, kind="stable")


ReadT = TypeVar("ReadT")


def read_ahead(
    read: Callable[[int], ReadT], numbers: Iterable[int], *, num_threads: int, prefetch: int
) -> Iterator[ReadT]:
    """What `read` gives for each number, in their order, read by threads before it is asked for.

    Threads exist only while the iteration runs; they end with it, also when it is left early or an
    exception passes.

    Args:
        read: Is called once for each number.
        numbers: In the order of the answers.
        num_threads: 0 reads in the calling thread when an answer is asked for.
        prefetch: Answers that are kept ready, at least one per thread.
    """
    if num_threads == 0:
        yield from map(read, numbers)
        return
    pending: deque[Future[ReadT]] = deque()
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="pose3d-loader")
    try:
        for number in numbers:
            pending.append(executor.submit(read, number))
            if len(pending) > max(prefetch, num_threads):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


BatchT = TypeVar("BatchT", bound=Sized)


class EpochLoader(ABC, Generic[BatchT]):
    """Batches of one epoch in a fixed order, read ahead by threads.

    Threads exist only while an iteration runs; they end with it, also when it is left early or an
    exception passes. Iterating again repeats the epoch; the number of threads changes nothing in
    what is read. A batch without any readable record is left out altogether.

    Args:
        num_batches: Of the whole epoch.
        start_batch: Batch of the epoch to begin with.
        num_threads: Threads that read ahead; 0 reads in the calling thread.
        prefetch: Batches read ahead, at least one per thread.

    Attributes:
        num_batches: Batches of the whole epoch, start_batch or not.
        next_batch: The start_batch that continues after the batch handed out last.
        skipped_names: Records left out so far in this iteration.

    Raises:
        ValueError: If there is no such start_batch.
    """

    def __init__(
        self, num_batches: int, *, start_batch: int, num_threads: int, prefetch: int
    ) -> None:
        if not 0 <= start_batch <= num_batches:
            raise ValueError(f"start_batch must be 0 to {num_batches}, got {start_batch}")
        self.num_batches = num_batches
        self.start_batch = start_batch
        self.next_batch = start_batch
        self.skipped_names: list[str] = []
        self._num_threads = num_threads
        self._prefetch = prefetch

    @property
    def num_skipped(self) -> int:
        """Records left out so far in this iteration."""
        return len(self.skipped_names)

    def __len__(self) -> int:
        """Batches from start_batch to the end of the epoch."""
        return self.num_batches - self.start_batch

    def __iter__(self) -> Iterator[BatchT]:
        self.next_batch = self.start_batch
        self.skipped_names = []
        numbers = range(self.start_batch, self.num_batches)
        for batch, bad_names in read_ahead(
            self._read, numbers, num_threads=self._num_threads, prefetch=self._prefetch
        ):
            self.next_batch += 1
            self.skipped_names += bad_names
            if len(batch):
                yield batch

    @abstractmethod
    def _read(self, number: int) -> tuple[BatchT, list[str]]:
        """Read one batch of the epoch, with the names of what is left out; runs in a thread."""


class BatchLoader(EpochLoader[RawBatch]):
    """One epoch of a dataset as raw batches, see `EpochLoader`.

    Args:
        dataset: What is read.
        batch_size: Records per batch; the last one may be smaller.
        seed: With `epoch`, fixes the order.
        epoch: The pass over the data.
        shuffle: False keeps the order of the dataset.
        drop_last: Leave out an incomplete last batch.
        start_batch: Batch of the epoch to begin with.
        num_threads: See `EpochLoader`.
        prefetch: See `EpochLoader`.
        pin_memory: Hand out images in page-locked memory, for an asynchronous copy to CUDA.
        bad_records: Whether an image that does not decode raises or is left out of its batch.
    """

    def __init__(
        self,
        dataset: PoseDataset,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        shuffle: bool = True,
        drop_last: bool = False,
        start_batch: int = 0,
        num_threads: int = 2,
        prefetch: int = 2,
        pin_memory: bool = False,
        bad_records: BadRecords = "error",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        size = len(dataset)
        super().__init__(
            size // batch_size if drop_last else -(-size // batch_size),
            start_batch=start_batch,
            num_threads=num_threads,
            prefetch=prefetch,
        )
        self.dataset = dataset
        self._order = epoch_order(size, seed=seed, epoch=epoch, shuffle=shuffle)
        self._batch_size = batch_size
        self._pin_memory = pin_memory
        self._bad_records = bad_records

    def _read(self, number: int) -> tuple[RawBatch, list[str]]:
        start = number * self._batch_size
        positions = self._order[start : start + self._batch_size]
        raw, bad = self.dataset.read(positions)
        if bad and self._bad_records == "error":
            raise ValueError(next(iter(bad.values())))
        return (raw.pin_memory() if self._pin_memory else raw), list(bad)


def _has_usable_labels(store: Store, indices: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether what a label is made from is finite and in front of the camera.

    Joints without weight do not matter, apart from the root, from which depth is counted.
    """
    records = store.records
    joints = records.joints_camera_mm[indices]
    is_needed = (records.weight[indices] > 0).any(-1)
    is_needed[:, store.skeleton.root] = True
    with np.errstate(invalid="ignore"):
        is_good = np.isfinite(joints).all(-1) & (joints[..., 2] > 0)
        has_box = records.box_image_px[indices, 2] > 0
    return (
        (is_good | ~is_needed).all(-1)
        & has_box
        & np.isfinite(records.weight[indices]).all((1, 2))
        & np.isfinite(records.box_image_px[indices]).all(-1)
        & np.isfinite(records.store_from_image[indices]).all((1, 2))
    )


def _convert_weight(
    weight: Float[Tensor, "batch source 3"], *, source: Skeleton, target: Skeleton
) -> Float[Tensor, "batch target 3"]:
    """Weights in another joint set; a joint made of others counts only if all of them do."""
    converted = convert_joints(weight, source=source, target=target)
    share = convert_joints((weight > 0).to(weight.dtype), source=source, target=target)
    return converted * (share > 1 - 1e-6)
