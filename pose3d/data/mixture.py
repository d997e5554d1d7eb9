"""Several stores that train together: whose records make up which batch, and their labels' weight.

The first store is the main one, and an epoch is one pass over it, in the order that it has alone.
The others are read on and on, pass after pass, each pass in an order of its own; an epoch goes on
where the one before it stopped, so that no record comes again before all others of its store. A
record's augmentation hangs on the pass over its store, so that it differs when it comes again.

Each batch holds its shares: wherever an epoch has come to, the records of each store differ from
its share by less than one (`batch_counts`). Everything hangs on (seed, epoch, batch) alone. Crops
of the stores may differ in size: a batch is read and augmented in parts, one per store and pass.

One store alone is a mixture too, with the batches that `BatchLoader` makes of it.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from pose3d.data import augment
from pose3d.data.augment import AugmentConfig, RawBatch, TrainingBatch, draw_parameters
from pose3d.data.dataset import (
    BadRecords,
    DataConfig,
    EpochLoader,
    PoseDataset,
    epoch_order,
    make_dataset,
)
from pose3d.data.store import Store
from pose3d.geometry.skeleton import Skeleton, skeleton_by_name


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Training records of one or more stores, in the joint set of the model.

    A record has one number over all stores: its row in its store, after the rows of the stores
    before it.

    Attributes:
        datasets: One per store, the main one first.
        shares: Of each store in the images of every batch; their sum is 1.
        weights: Factor on the label weights of each store.
    """

    datasets: tuple[PoseDataset, ...]
    shares: tuple[Fraction, ...]
    weights: tuple[float, ...]

    @property
    def main(self) -> PoseDataset:
        """The records of the first store."""
        return self.datasets[0]

    @property
    def skeleton(self) -> Skeleton:
        """The joint set of all labels."""
        return self.main.skeleton

    @property
    def num_records(self) -> int:
        """Training records of all stores."""
        return sum(map(len, self.datasets))

    @functools.cached_property
    def first_numbers(self) -> tuple[int, ...]:
        """Number over all stores of the first row of each store."""
        lengths = [len(dataset.store) for dataset in self.datasets]
        return tuple(sum(lengths[:place]) for place in range(len(lengths)))

    @functools.cached_property
    def store_names(self) -> tuple[str, ...]:
        """Folder of each store; its whole path where folders share a name."""
        return store_names([dataset.store for dataset in self.datasets])

    def record_name(self, number: int) -> str:
        """Name of a record; after its store's name if there are several stores."""
        place = sum(first <= number for first in self.first_numbers) - 1
        row = number - self.first_numbers[place]
        return self._name_in(place, self.datasets[place].store.record_name(row))

    def _name_in(self, place: int, name: str) -> str:
        return name if len(self.datasets) == 1 else f"{self.store_names[place]}: {name}"

    def depth_labels(self, place: int) -> Literal["all", "some", "none"]:
        """Which joints of this store with labels in the image have a depth from the root, too."""
        dataset = self.datasets[place]
        weight = dataset.store.records.weight[dataset.indices]
        has_depth = weight[..., 2] > 0
        has_depth &= has_depth[:, dataset.store.skeleton.root, None]
        has_image = (weight[..., :2] > 0).all(-1)
        if not (has_image & ~has_depth).any():
            return "all"
        return "some" if (has_image & has_depth).any() else "none"

    def describe(self) -> list[dict[str, Any]]:
        """What is told of each store: path, digest, source, records, share and so on; JSON."""
        return [
            {
                "path": str(dataset.store.path.resolve()),
                "name": name,
                "digest": dataset.store.digest,
                "source": dataset.store.header.source,
                "records": len(dataset),
                "subjects": np.unique(dataset.store.records.subject[dataset.indices]).tolist(),
                "depth_labels": self.depth_labels(place),
                "share": float(self.shares[place]),
                "weight": self.weights[place],
            }
            for place, (dataset, name) in enumerate(
                zip(self.datasets, self.store_names, strict=True)
            )
        ]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """Records of one batch that come from the same pass over the same store."""

    raw: RawBatch
    place: int
    """Of the store in its mixture."""
    epoch: int
    """The pass over that store, from 0."""


def make_mixture(stores: Sequence[Store], config: DataConfig) -> Mixture:
    """The records that a configuration trains on.

    data.train_subjects and data.train_every choose among the main store's records; the people and
    frames of other stores have numbers of their own, and all of their data.train_split is taken.

    Args:
        stores: Open stores, the main one first.
        config: Chooses records, shares and weights.

    Raises:
        ValueError: If a store has no records to train on or stands twice, if shares or weights are
            not as many as the stores, or as `PoseDataset` does.
    """
    names = store_names(stores)
    for setting in ("store_shares", "store_weights"):
        values = getattr(config, setting)
        if values is not None and len(values) != len(stores):
            raise ValueError(
                f"data.{setting} must have one number for each of the {len(stores)} stores "
                f"({', '.join(names)}), the main one first; got {len(values)}"
            )
    of_digest: dict[str, Store] = {}
    for store in stores:
        if store.digest in of_digest:
            raise ValueError(
                f"store {store.path} holds the very records of store {of_digest[store.digest].path}"
                ": name each once, and let data.store_shares say how often its images come"
            )
        of_digest[store.digest] = store
    whole = replace(config, train_subjects=None, train_every=1)
    datasets = tuple(
        make_dataset(store, whole if place else config, role="train")
        for place, store in enumerate(stores)
    )
    if config.store_shares is None:
        given = [Fraction(len(dataset)) for dataset in datasets]
    else:
        given = [Fraction(str(share)) for share in config.store_shares]  # 0.1 is one tenth
    return Mixture(
        datasets=datasets,
        shares=tuple(share / sum(given) for share in given),
        weights=tuple(config.store_weights or (1.0,) * len(stores)),
    )


def batch_counts(
    shares: Sequence[Fraction], *, num_main: int, batch_size: int
) -> Int64[np.ndarray, "batches stores"]:
    """How many records of each store make up each batch of an epoch, one pass over the main store.

    After every batch each store has had its share of all records so far, rounded up or down. A
    batch that would need more records of the main store than there are is made smaller as a whole.
    The last batch of the main store is left out if it is incomplete.

    Args:
        shares: Of the stores, the main one first; their sum is 1.
        num_main: Records of the main store.
        batch_size: Records per batch.
    """
    batch_size = min(batch_size, math.floor(num_main / shares[0]))
    unit = math.lcm(*(share.denominator for share in shares))  # counts below are in 1/unit records
    dues = [int(share * unit) * batch_size for share in shares]
    had = [0] * len(shares)
    rows: list[list[int]] = []
    for number in range(1, math.floor(num_main / (shares[0] * batch_size)) + 1):
        open_dues = [due * number - unit * count for due, count in zip(dues, had, strict=True)]
        counts = [max(0, due // unit) for due in open_dues]
        places = range(len(counts))
        while sum(counts) < batch_size:
            counts[max(places, key=lambda i: open_dues[i] - unit * counts[i])] += 1
        while sum(counts) > batch_size:
            full = [i for i in places if counts[i]]
            counts[min(full, key=lambda i: open_dues[i] - unit * counts[i])] -= 1
        had = [old + new for old, new in zip(had, counts, strict=True)]
        if had[0] > num_main:
            break
        rows.append(counts)
    return np.array(rows, np.int64).reshape(-1, len(shares))


class MixtureLoader(EpochLoader[tuple[Part, ...]]):
    """One epoch of a mixture as batches of parts, see `EpochLoader`.

    Args:
        mixture: What is read.
        batch_size: Records per batch.
        seed: With `epoch`, fixes the order.
        epoch: The pass over the main store.
        start_batch: Batch of the epoch to begin with.
        max_batches: Cuts every epoch to so many batches; None = one pass over the main store.
        num_threads: See `EpochLoader`.
        prefetch: See `EpochLoader`.
        pin_memory: Hand out images in page-locked memory, for an asynchronous copy to CUDA.
        bad_records: Whether an image that does not decode raises or is left out of its batch.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        start_batch: int = 0,
        max_batches: int | None = None,
        num_threads: int = 2,
        prefetch: int = 2,
        pin_memory: bool = False,
        bad_records: BadRecords = "error",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        counts = batch_counts(mixture.shares, num_main=len(mixture.main), batch_size=batch_size)
        counts = counts[:max_batches]
        super().__init__(
            len(counts), start_batch=start_batch, num_threads=num_threads, prefetch=prefetch
        )
        self.mixture = mixture
        # Places in the endless sequence of passes: every epoch takes the same number of records.
        ends = counts.cumsum(0)
        self._starts = ends - counts
        self._counts = counts
        if self.num_batches:
            taken = ends[-1].copy()
            taken[0] = len(mixture.main)  # each epoch is a new pass over the main store
            self._starts += epoch * taken
        self._seed = seed
        self._pin_memory = pin_memory
        self._bad_records = bad_records
        self._order = functools.lru_cache(maxsize=4 * len(mixture.datasets))(self._order_of_pass)

    def _read(self, number: int) -> tuple[tuple[Part, ...], list[str]]:
        parts, bad_names = [], []
        for place, dataset in enumerate(self.mixture.datasets):
            start, left = int(self._starts[number, place]), int(self._counts[number, place])
            while left:
                epoch, first = divmod(start, len(dataset))
                positions = self._order(place, epoch)[first : first + left]
                start, left = start + len(positions), left - len(positions)
                raw, bad = dataset.read(positions)
                if bad and self._bad_records == "error":
                    raise ValueError(next(iter(bad.values())))
                bad_names += [self.mixture._name_in(place, name) for name in bad]
                if len(raw):
                    raw = raw.pin_memory() if self._pin_memory else raw
                    parts.append(Part(raw=raw, place=place, epoch=epoch))
        return tuple(parts), bad_names

    def _order_of_pass(self, place: int, epoch: int) -> Int64[np.ndarray, " records"]:
        """Stores of the same length have different orders: their records meet by chance."""
        first, num = self.mixture.first_numbers[place], len(self.mixture.datasets[place])
        return epoch_order(num, seed=self._seed, epoch=epoch, first=first)


def make_batch(
    parts: Sequence[Part],
    mixture: Mixture,
    *,
    augmentation: AugmentConfig,
    data: DataConfig,
    seed: int,
    device: torch.device | str,
) -> TrainingBatch:
    """Augment the parts of a batch, each by its own pass, and join them.

    Args:
        parts: From `MixtureLoader`; at least one.
        mixture: What they are parts of.
        augmentation: How they are augmented.
        data: How crops and labels are encoded.
        seed: The run's seed.
        device: Where the images are warped.

    Returns:
        One batch, in the order of the parts. Its index numbers records over all stores, see
        `Mixture`, and its weights hold the factor of each store.

    Raises:
        ValueError: As `pose3d.data.augment.make_batch` does.
    """
    made = []
    for part in parts:
        number = part.raw.index + mixture.first_numbers[part.place]
        batch = augment.make_batch(
            part.raw.to(device),
            draw_parameters(augmentation, number, seed=seed, epoch=part.epoch),
            skeleton=skeleton_by_name(data.skeleton),
            input_size_px=data.input_size_px,
            depth_range_mm=data.depth_range_mm,
            normalisation=data.normalisation,
        )
        weight = batch.weight * mixture.weights[part.place]
        made.append(replace(batch, index=number, weight=weight))
    if len(made) == 1:
        return made[0]
    joined: dict[str, Tensor] = {
        field.name: torch.cat([getattr(batch, field.name) for batch in made])
        for field in fields(TrainingBatch)
    }
    return TrainingBatch(**joined)


def store_names(stores: Sequence[Store]) -> tuple[str, ...]:
    """Folder of each store; its whole path where folders share a name."""
    folders = [store.path.name for store in stores]
    return tuple(
        folder if folders.count(folder) == 1 else str(store.path)
        for folder, store in zip(folders, stores, strict=True)
    )
