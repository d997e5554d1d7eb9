"""Fit a regressor and its likelihood to stores: one straight loop that can stop and go on.

A run is a folder. Everything random hangs on (seed, epoch, record) or on generators whose states
are in the checkpoint, so a run that was stopped at any moment, even by loss of power, and resumed
equals the uninterrupted one: bit for bit on the CPU with the same number of threads.
"""

import math
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from pose3d.data.augment import TrainingBatch
from pose3d.data.mixture import MixtureLoader, make_batch
from pose3d.data.store import Store, open_store
from pose3d.engine.checkpoint import save_checkpoint
from pose3d.engine.config import RunConfig, save_config
from pose3d.engine.infer import infer, labels, with_constant_pose
from pose3d.engine.journal import Journal
from pose3d.engine.monitor import draw_predictions, greet, note_step, report_epoch
from pose3d.engine.optimise import batch_loss, learning_rate_at, location_share
from pose3d.engine.session import (
    Session,
    build_session,
    checkpoint_contents,
    enter_run,
    restore_session,
)
from pose3d.evaluation.predictions import (
    MINIMUM_LABELLED_JOINTS,
    Predictions,
    evaluate_predictions,
)
from pose3d.geometry.skeleton import skeleton_by_name
from pose3d.model.regressor import PoseDistribution


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What came of a training."""

    run: Path
    is_complete: bool
    """False if it was asked to stop before its last epoch."""
    epoch: int
    step: int
    mpjpe_mm: float
    """Of the last validation."""
    best_mpjpe_mm: float
    best_epoch: int
    mean_pose_mpjpe_mm: float
    """Of predicting the mean pose of the main store's training records for every validation
    record."""
    skipped_steps: int


def train(
    config: RunConfig,
    *,
    store: str | Path | Store | Sequence[str | Path | Store],
    run: str | Path,
    resume: bool = False,
    is_shown: bool = True,
) -> TrainResult:
    """Train a pose regressor; write checkpoints, curves and a log into the run's folder.

    Args:
        config: All settings, see load_config.
        store: Folder of the store, or an open one. Several train together, 2-D and 3-D ones: the
            first is the main one, whose test split validates and whose training split is an epoch;
            data.store_shares and data.store_weights say how much the others count.
        run: Folder for the run; must be new or empty unless ``resume``.
        resume: Go on from checkpoints/last.pt; start afresh if there is none yet.
        is_shown: False keeps the terminal silent.

    Returns:
        Where it ended. SIGINT and SIGTERM end it after the step in progress, with a checkpoint.

    Raises:
        ValueError: If the run's folder is in use, the checkpoint belongs to other settings,
            another model or other stores, the stores do not fit the settings, the validation
            records have no 3-D labels, or too many steps in a row were not finite.
        OSError: If a file is missing or cannot be written.

    Source:
        Loss and recipe: Li et al., "Human Pose Regression with Residual Log-likelihood
        Estimation", ICCV 2021.
    """
    run = Path(run)
    stores = [store] if isinstance(store, str | Path | Store) else list(store)
    if not stores:
        raise ValueError("no store is named; name one or more, the main one first")
    main, *extra = (one if isinstance(one, Store) else open_store(one) for one in stores)
    previous = enter_run(run, config, main, extra_stores=extra, resume=resume)
    session = build_session(
        config, main, extra_stores=extra, run=run, load_pretrained=previous is None
    )
    _require_validation_labels(session)
    if previous is not None:
        restore_session(session, previous)
    else:
        save_config(config, run / "config.yaml")
    step = session.progress.step
    with (
        Journal(
            run,
            num_steps=session.num_steps,
            step=step,
            epoch=session.progress.epoch,
            is_shown=is_shown,
        ) as journal,
        StopSignals() as stop,
    ):
        greet(session, journal, resume=resume, found=previous is not None)
        while session.progress.epoch < config.train.epochs and not stop.is_requested:
            _train_epoch(session, journal, stop)
            if session.progress.batch == session.steps_per_epoch and not stop.is_requested:
                _finish_epoch(session, journal)
        is_complete = session.progress.epoch == config.train.epochs
        if not is_complete:
            save_checkpoint(run / "checkpoints" / "last.pt", checkpoint_contents(session))
            journal.say(f"stopped after step {session.progress.step}; go on with --resume")
    return _result(session, is_complete=is_complete)


class StopSignals:
    """Notes SIGINT and SIGTERM instead of dying of them; the second one has its usual effect."""

    def __init__(self) -> None:
        self.is_requested = False
        self._usual: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._usual[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_requested = True
        self._restore()

    def _restore(self) -> None:
        for number, usual in self._usual.items():
            signal.signal(number, usual)
        self._usual = {}


def _train_epoch(session: Session, journal: Journal, stop: StopSignals) -> None:
    """Take the steps that are left of the running epoch, or fewer if asked to stop."""
    config, progress = session.config, session.progress
    loader = MixtureLoader(
        session.mixture,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        epoch=progress.epoch,
        start_batch=progress.batch,
        max_batches=session.steps_per_epoch,
        num_threads=config.data.num_threads,
        prefetch=config.data.prefetch,
        pin_memory=session.device.type == "cuda",
        bad_records=config.data.bad_records,
    )
    session.network.train()
    started, num_images = time.perf_counter(), 0
    for parts in loader:
        if progress.batch == session.steps_per_epoch or stop.is_requested:
            break
        batch = make_batch(
            parts,
            session.mixture,
            augmentation=config.augment,
            data=config.data,
            seed=config.train.seed,
            device=session.device,
        )
        pose, values = take_step(session, batch)
        progress.batch = loader.next_batch
        progress.step = progress.epoch * session.steps_per_epoch + progress.batch
        num_images += len(batch.index)
        speed = num_images / (time.perf_counter() - started)
        note_step(session, journal, batch=batch, pose=pose, values=values, speed=speed)
        every = config.train.checkpoint_every_steps
        if every and progress.step % every == 0:
            save_checkpoint(session.run / "checkpoints" / "last.pt", checkpoint_contents(session))
    if not stop.is_requested:
        progress.batch = session.steps_per_epoch  # also when the last batches were all unreadable
        progress.step = (progress.epoch + 1) * session.steps_per_epoch
    if loader.skipped_names:
        names = ", ".join(loader.skipped_names[:3])
        journal.say(f"left out {loader.num_skipped} unreadable records: {names} …")
        journal.record(
            "unreadable_records", {"step": progress.step, "records": loader.skipped_names}
        )
    progress.sums["images_per_second"] = num_images / (time.perf_counter() - started)


def _require_validation_labels(session: Session) -> None:
    """Tell at the beginning, not after the first epoch, that nothing can be validated."""
    skeleton = skeleton_by_name(session.config.data.skeleton)
    _, weight = labels(session.store, session.validation.indices, skeleton=skeleton)
    has_label = (weight > 0).all(-1)
    if not (has_label[:, skeleton.root] & (has_label.sum(-1) >= MINIMUM_LABELLED_JOINTS)).any():
        raise ValueError(
            f"store {session.store.path}: none of its {len(session.validation)} records of split "
            f"{session.config.data.test_split!r} has 3-D labels, of the root and some joints, to "
            "validate with; name a store that has first, and this one after it"
        )


def take_step(session: Session, batch: TrainingBatch) -> tuple[PoseDistribution, dict[str, float]]:
    """One optimiser step, undone as a whole if loss or gradient is not finite.

    Returns:
        The prediction, and loss, gradient_norm, learning_rate and the loss's parts by name.
    """
    config, progress = session.config.train, session.progress
    session.guard.remember()
    rate = learning_rate_at(config, progress.step, steps_per_epoch=session.steps_per_epoch)
    for group in session.optimiser.param_groups:
        group["lr"] = rate
    session.optimiser.zero_grad(set_to_none=True)
    images = batch.images
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=session.uses_bf16):
        pose = session.network.regressor(images)
    parts = batch_loss(
        pose,
        batch,
        session.network.likelihood,
        location_share=location_share(config, progress.step, num_steps=session.num_steps),
        location_scale=config.location_scale,
        location_beta=config.location_beta,
        reduction=config.loss_reduction,
    )
    loss = torch.stack(list(parts.values())).sum()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(session.network.parameters(), config.gradient_clip or math.inf)
    numbers = torch.stack([loss.detach(), norm, *(part.detach() for part in parts.values())])
    values = dict(zip(("loss", "gradient_norm", *parts), numbers.tolist(), strict=True))
    if math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"]):
        session.optimiser.step()
        if session.average is not None:
            session.average.update(session.network, step=progress.step)
    else:
        session.guard.restore()
    return pose, {**values, "learning_rate": rate}


def _finish_epoch(session: Session, journal: Journal) -> None:
    """Validate, log, and write the checkpoints."""
    progress = session.progress
    predictions, metrics = _validate(session)
    medians = np.median(predictions.scale_uvd, axis=(0, 1))
    metrics |= {f"sigma_{axis}_median": float(medians[i]) for i, axis in enumerate("uvd")}
    progress.epoch += 1
    progress.batch = 0
    progress.last_mpjpe_mm = metrics["mpjpe_mm"]
    is_best = progress.last_mpjpe_mm < progress.best_mpjpe_mm
    if is_best:
        progress.best_mpjpe_mm, progress.best_epoch = progress.last_mpjpe_mm, progress.epoch
    report_epoch(session, journal, metrics)
    every = session.config.train.figure_every_epochs
    if every and progress.epoch % every == 0:
        draw_predictions(session, journal, predictions)
    journal.flush()
    progress.sums, progress.bounded_by_row = {}, {}
    folder = session.run / "checkpoints"
    save_checkpoint(
        folder / "last.pt",
        checkpoint_contents(session),
        also=folder / "best.pt" if is_best else None,
    )


def _validate(session: Session) -> tuple[Predictions, dict[str, Any]]:
    """Predict and judge the validation records; the mean pose once."""
    config, progress = session.config, session.progress
    predictions = infer(
        session.judged_network,
        session.validation,
        config,
        flip_test=config.evaluate.flip_test,
        batch_size=config.evaluate.batch_size,
        device=session.device,
    )
    if math.isnan(progress.mean_pose_mpjpe_mm):
        skeleton = skeleton_by_name(config.data.skeleton)
        constant = with_constant_pose(predictions, session.mean_pose_mm, skeleton=skeleton)
        progress.mean_pose_mpjpe_mm = evaluate_predictions(constant)["mpjpe_mm"]
    return predictions, evaluate_predictions(predictions)


def _result(session: Session, *, is_complete: bool) -> TrainResult:
    progress = session.progress
    return TrainResult(
        run=session.run,
        is_complete=is_complete,
        epoch=progress.epoch,
        step=progress.step,
        mpjpe_mm=progress.last_mpjpe_mm,
        best_mpjpe_mm=progress.best_mpjpe_mm,
        best_epoch=progress.best_epoch,
        mean_pose_mpjpe_mm=progress.mean_pose_mpjpe_mm,
        skipped_steps=progress.skipped,
    )
