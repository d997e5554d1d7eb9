"""What the training loop works on: built from settings and a store, saved, and put back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pose3d.data.dataset import PoseDataset, epoch_order, make_dataset
from pose3d.data.mixture import Mixture, batch_counts, make_mixture
from pose3d.data.store import Store
from pose3d.engine.bounded import BoundedRecords
from pose3d.engine.checkpoint import (
    checkpoint_config,
    code_provenance,
    config_json,
    extra_stores_of,
    load_checkpoint,
    load_state,
    random_state,
    restore_random_state,
)
from pose3d.engine.config import RunConfig, config_differences
from pose3d.engine.infer import choose_device, has_bf16, mean_pose
from pose3d.engine.network import Network
from pose3d.engine.optimise import StepGuard, WeightAverage, build_optimiser
from pose3d.geometry.skeleton import skeleton_by_name

FREE_SETTINGS = (
    *("train.log_every_steps", "train.checkpoint_every_steps", "train.figure_every_epochs"),
    *("data.num_threads", "data.prefetch", "data.cache_gib", "evaluate.num_examples"),
    "evaluate.density_cells",
)
"""Settings that may change when a run is resumed, since they do not change what it learns."""


@dataclass(kw_only=True)
class Progress:
    """How far a run has come; all that changes besides tensors."""

    epoch: int = 0
    """Whole epochs done."""
    batch: int = 0
    """Batches of the next epoch done."""
    step: int = 0
    """Batches done in all."""
    skipped: int = 0
    """Steps skipped because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    bounded: int = 0
    """Joints whose residual was bounded before it entered the flow."""
    bounded_by_row: dict[int, int] = field(default_factory=dict)
    """The same over the running epoch, by the record's number over all stores (see Mixture);
    records without any do not appear."""
    best_mpjpe_mm: float = math.inf
    best_epoch: int = 0
    last_mpjpe_mm: float = math.nan
    mean_pose_mpjpe_mm: float = math.nan
    sums: dict[str, float] = field(default_factory=dict)
    """Over the good steps of the running epoch: steps, loss and its parts, gradient norm."""


@dataclass(kw_only=True)
class Session:
    """What the loop works on."""

    config: RunConfig
    run: Path
    store: Store
    device: torch.device
    mixture: Mixture
    """All records that are trained on, of the main store and further ones."""
    validation: PoseDataset
    network: Network
    average: WeightAverage[Network] | None
    optimiser: torch.optim.Optimizer
    guard: StepGuard
    mean_pose_mm: Float[Tensor, "joints 3"]
    steps_per_epoch: int
    progress: Progress
    bounded: BoundedRecords
    """Of the steps whose counts are not yet in the progress."""

    @property
    def training(self) -> PoseDataset:
        """The main store's training records."""
        return self.mixture.main

    @property
    def uses_bf16(self) -> bool:
        """Whether the backbone runs under autocast."""
        precision = self.config.train.precision
        return precision == "bf16" or (precision == "auto" and has_bf16(self.device))

    @property
    def judged_network(self) -> Network:
        """The network that is validated and used later: the average where there is one."""
        return self.network if self.average is None else self.average.network

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.config.train.epochs * self.steps_per_epoch


def build_session(
    config: RunConfig,
    store: Store,
    *,
    run: Path,
    extra_stores: Sequence[Store] = (),
    load_pretrained: bool = True,
) -> Session:
    """Everything a training needs, at its beginning; seeds the global generators.

    Args:
        config: All settings.
        store: The open store, which also validates; the main one if there are several.
        run: Folder of the run.
        extra_stores: Open stores that train beside it.
        load_pretrained: False where a checkpoint follows, which holds the weights.

    Raises:
        ValueError: As `make_mixture` does.
    """
    if config.train.num_threads:
        torch.set_num_threads(config.train.num_threads)
    torch.manual_seed(config.train.seed)
    device = choose_device(config.train.device)
    skeleton = skeleton_by_name(config.data.skeleton)
    mixture = make_mixture([store, *extra_stores], config.data)
    validation = _thin(make_dataset(store, config.data, role="test"), config)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    network = Network(
        config,
        planar_joints=_planar_joints(mixture),
        load_pretrained=load_pretrained,
    )
    network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    decay = config.train.ema_decay
    num_main, limit = len(mixture.main), config.train.limit_train_batches
    counts = batch_counts(mixture.shares, num_main=num_main, batch_size=config.train.batch_size)
    return Session(
        config=config,
        run=run,
        store=store,
        device=device,
        mixture=mixture,
        validation=validation,
        network=network,
        average=WeightAverage(network, decay=decay) if decay else None,
        optimiser=build_optimiser(network, config.train, device=device),
        guard=StepGuard(network),
        mean_pose_mm=mean_pose(store, mixture.main.indices, skeleton=skeleton),
        steps_per_epoch=min(len(counts), limit or len(counts)),
        progress=Progress(),
        bounded=BoundedRecords(),
    )


def enter_run(
    run: Path,
    config: RunConfig,
    store: Store,
    *,
    resume: bool,
    extra_stores: Sequence[Store] = (),
) -> dict[str, Any] | None:
    """Make the run's folder or enter an old one; the checkpoint to go on from, if any."""
    last = run / "checkpoints" / "last.pt"
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run} is a file; name a folder for the run")
    if run.is_dir() and any(run.iterdir()) and not resume:
        raise ValueError(
            f"{run} is not empty; add --resume to go on with the run there, or name another folder"
        )
    run.mkdir(parents=True, exist_ok=True)
    if not last.exists():
        return None
    contents = load_checkpoint(last)
    if contents.get("imported"):
        raise ValueError(
            f"cannot resume {run}: it holds imported weights and no training; name another folder"
        )
    changed = config_differences(
        checkpoint_config(contents, source=last), config, ignore=FREE_SETTINGS
    )
    if changed:
        words = ", ".join(f"{name} was {old} and is now {new}" for name, old, new in changed)
        raise ValueError(f"cannot resume {run}: {words}; keep the settings or start a new run")
    trained = [(contents["store"], contents["digest"])]
    trained += [(extra["path"], extra["digest"]) for extra in extra_stores_of(contents)]
    stores = [store, *extra_stores]
    if len(trained) != len(stores):
        raise ValueError(
            f"cannot resume {run}: it was trained on {_in_words([path for path, _ in trained])}, "
            f"not on {_in_words([str(store.path) for store in stores])}; name the same stores in "
            "the same order"
        )
    for (path, digest), given in zip(trained, stores, strict=True):
        if digest != given.digest:
            order = ", in this order" if len(stores) > 1 else ""
            raise ValueError(
                f"cannot resume {run}: it was trained on store {path} with digest "
                f"{digest[:12]}…{order}, {given.path} has {given.digest[:12]}…"
            )
    return contents


def fetch_counters(session: Session) -> None:
    """Bring the progress up to date, which waits for a GPU and so is not done every step."""
    counter = session.network.likelihood.num_bounded
    session.progress.bounded = int(counter)
    session.bounded.move_to(session.progress.bounded_by_row)


def checkpoint_contents(session: Session) -> dict[str, Any]:
    """All that a checkpoint holds, see the checkpoint module."""
    fetch_counters(session)
    return {
        "network": session.network.state_dict(),
        "average": None if session.average is None else session.average.network.state_dict(),
        "optimiser": session.optimiser.state_dict(),
        "random": random_state(),
        "progress": asdict(session.progress),
        "config": config_json(session.config),
        "store": str(Path(session.store.path).resolve()),
        "digest": session.store.digest,
        "extra_stores": session.mixture.describe()[1:],
        "skeleton": session.config.data.skeleton,
        "mean_pose_mm": session.mean_pose_mm,
        **code_provenance(),
    }


def restore_session(session: Session, contents: Mapping[str, Any]) -> None:
    """Put a session where the checkpoint left off."""
    source = session.run / "checkpoints" / "last.pt"
    load_state(session.network, contents["network"], source=source)
    if session.average is not None:
        load_state(session.average.network, contents["average"], source=source)
    session.optimiser.load_state_dict(contents["optimiser"])
    session.progress = Progress(**contents["progress"])
    session.network.likelihood.num_bounded.fill_(session.progress.bounded)
    restore_random_state(contents["random"])


def _thin(dataset: PoseDataset, config: RunConfig) -> PoseDataset:
    """One record in so many, drawn once: a stride would lose cameras, which stores interleave."""
    every = config.evaluate.validation_every
    if every == 1:
        return dataset
    order = epoch_order(len(dataset), seed=0, epoch=0, shuffle=True)
    kept = np.sort(order[: math.ceil(len(dataset) / every)])
    return PoseDataset(
        dataset.store,
        dataset.indices[kept],
        skeleton=dataset.skeleton,
        bad_records=config.data.bad_records,
        cache_gib=config.data.cache_gib,
    )


def _planar_joints(mixture: Mixture) -> tuple[int, ...] | None:
    """The root alone where all other labels have a depth; None where the likelihood must look.

    What it then looks for, the joints without depth of a batch, is known on the host before the
    batch goes to its device (`TrainingBatch.weight`).
    """
    places = range(len(mixture.datasets))
    is_whole = all(mixture.depth_labels(place) == "all" for place in places)
    return (mixture.skeleton.root,) if is_whole else None


def _in_words(stores: Sequence[str]) -> str:
    return f"{'store' if len(stores) == 1 else 'stores'} {', '.join(stores)}"
