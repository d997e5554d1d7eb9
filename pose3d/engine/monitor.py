"""What the loop tells the journal: greeting, curves, skipped steps, epochs, figures."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pose3d.data.augment import TrainingBatch
from pose3d.engine.infer import crop_images, crop_pixels, evaluation_bones, has_bf16
from pose3d.engine.journal import Journal, prediction_figure
from pose3d.engine.session import Session, fetch_counters
from pose3d.evaluation.predictions import WORDS_FOR_DEPTH, Predictions
from pose3d.geometry.skeleton import skeleton_by_name
from pose3d.model.regressor import PoseDistribution

NUM_FIGURE_CROPS = 8
NUM_BOUNDED_NAMED = 20
"""Records that an epoch's line about bounded residuals names."""


def greet(session: Session, journal: Journal, *, resume: bool, found: bool) -> None:
    """Say what is about to be trained, and from where."""
    progress = session.progress
    if resume and not found:
        journal.say("no checkpoint yet, starting afresh")
    if found:
        journal.say(f"resuming after step {progress.step} of {session.num_steps}")
    journal.say(
        f"{session.mixture.num_records} training and {len(session.validation)} validation records, "
        f"{session.steps_per_epoch} steps per epoch on {session.device} in "
        f"{'bf16' if session.uses_bf16 else 'float32'}"
    )
    for store in session.mixture.describe() if len(session.mixture.datasets) > 1 else ():
        journal.say(
            f"store {store['path']}: {store['records']} training records"
            f"{WORDS_FOR_DEPTH[store['depth_labels']]}, {store['share']:.1%} of each batch, weight "
            f"of its labels {store['weight']:g}"
        )
    if session.uses_bf16 and not has_bf16(session.device):
        journal.say(
            f"note: this {session.device.type} only emulates bf16, many times slower than float32; "
            "train.precision=auto chooses by the device"
        )


def note_step(
    session: Session,
    journal: Journal,
    *,
    batch: TrainingBatch,
    pose: PoseDistribution,
    values: dict[str, float],
    speed: float,
) -> None:
    """Count the step, log it, and stop the training after too many bad ones in a row."""
    progress = session.progress
    is_good = math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
    if is_good:
        progress.skipped_in_a_row = 0
        session.bounded.note(batch.index, session.network.likelihood.last_bounded)
        for name, value in {**values, "steps": 1.0}.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
    else:
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        report_skipped(session, journal, batch=batch, values=values)
    journal.advance(
        step=progress.step,
        epoch=progress.epoch + 1,
        images_per_second=speed,
        loss=values["loss"],
    )
    if is_good and _is_logged(session):
        fetch_counters(session)
        scalars = {
            **{f"loss/{_CURVE.get(n, n)}": v for n, v in values.items() if n not in _TRAIN_SCALARS},
            **{f"train/{name}": values[name] for name in _TRAIN_SCALARS},
            "train/images_per_second": speed,
            _SKIPPED: progress.skipped,
            "train/bounded_residuals": progress.bounded,
            "train/bounded_records": len(progress.bounded_by_row),
            **_scale_statistics(pose, batch),
        }
        journal.scalars(scalars, step=progress.step)


def _is_logged(session: Session) -> bool:
    """Every so many steps, and an epoch's first good one, so that short runs have curves too."""
    progress, every = session.progress, session.config.train.log_every_steps
    return progress.step % every == 0 or progress.sums["steps"] == 1


_TRAIN_SCALARS = ("gradient_norm", "learning_rate")
_CURVE = {"loss": "total"}
_SKIPPED = "train/skipped_steps"


def report_skipped(
    session: Session, journal: Journal, *, batch: TrainingBatch, values: dict[str, float]
) -> None:
    """Log which records were in a skipped step; raise after too many."""
    progress, limit = session.progress, session.config.train.max_skipped_in_a_row
    names = [session.mixture.record_name(int(index)) for index in batch.index]
    journal.record(
        "skipped_step",
        {
            "step": progress.step,
            "epoch": progress.epoch + 1,
            "loss": values["loss"],
            "gradient_norm": values["gradient_norm"],
            "records": names,
        },
    )
    journal.scalars({_SKIPPED: progress.skipped}, step=progress.step)
    if progress.skipped_in_a_row >= limit:
        raise ValueError(
            f"loss or gradient was not finite in {limit} steps in a row up to step "
            f"{progress.step}; the last one held {', '.join(names[:3])} …; see "
            f"{session.run / 'log.jsonl'}, check these labels and lower train.learning_rate"
        )


def _scale_statistics(pose: PoseDistribution, batch: TrainingBatch) -> dict[str, float]:
    """Smallest, median and largest σ of the labelled joints, per axis."""
    scale, weight = pose.scale.detach().float().cpu(), batch.weight.cpu()
    statistics = {}
    for axis, name in enumerate("uvd"):
        values = scale[..., axis][weight[..., axis] > 0]
        if len(values):
            statistics[f"sigma_{name}/min"] = float(values.min())
            statistics[f"sigma_{name}/median"] = float(values.median())
            statistics[f"sigma_{name}/max"] = float(values.max())
    return statistics


def report_epoch(session: Session, journal: Journal, metrics: Mapping[str, Any]) -> None:
    """One line for the log, one for the terminal, points for the curves."""
    progress = session.progress
    fetch_counters(session)
    sums, speed = dict(progress.sums), progress.sums.get("images_per_second", 0.0)
    steps = sums.pop("steps", 0.0)
    means = {n: s / steps for n, s in sums.items() if steps and n != "images_per_second"}
    judged = {
        "mpjpe_mm": metrics["mpjpe_mm"],
        "pa_mpjpe_mm": metrics["pa_mpjpe_mm"],
        "mean_pose_mpjpe_mm": progress.mean_pose_mpjpe_mm,
        **{f"sigma_{axis}_median": metrics[f"sigma_{axis}_median"] for axis in "uvd"},
    }
    journal.record(
        "epoch",
        {
            "step": progress.step,
            "epoch": progress.epoch,
            **means,
            **judged,
            "best_mpjpe_mm": progress.best_mpjpe_mm,
            "best_epoch": progress.best_epoch,
            "skipped_steps": progress.skipped,
            "bounded_residuals": progress.bounded,
            "images_per_second": speed,
        },
    )
    points = {f"validation/{name}": v for name, v in judged.items()}
    journal.scalars(points, step=progress.step)
    best = " (best)" if progress.best_epoch == progress.epoch else ""
    journal.say(
        f"epoch {progress.epoch}/{session.config.train.epochs}: loss "
        f"{means.get('loss', math.nan):.3f}, MPJPE {metrics['mpjpe_mm']:.1f} mm{best}, PA-MPJPE "
        f"{metrics['pa_mpjpe_mm']:.1f} mm, mean pose {progress.mean_pose_mpjpe_mm:.1f} mm, "
        f"{speed:.0f} images/s"
    )
    if progress.bounded_by_row:
        _report_bounded(session, journal)


def _report_bounded(session: Session, journal: Journal) -> None:
    """Name the records of the epoch whose residuals were bounded most."""
    progress = session.progress
    joints, records = sum(progress.bounded_by_row.values()), len(progress.bounded_by_row)
    most = sorted(progress.bounded_by_row.items(), key=lambda item: (-item[1], item[0]))
    named = [
        {"record": session.mixture.record_name(row), "joints": count}
        for row, count in most[:NUM_BOUNDED_NAMED]
    ]
    journal.record(
        "bounded_records",
        {
            "step": progress.step,
            "epoch": progress.epoch,
            "num_joints": joints,
            "num_records": records,
            "most": named,
        },
    )
    worst = ", ".join(f"{line['record']} ({line['joints']})" for line in named[:3])
    journal.say(f"bounded residuals of {joints} joints in {records} records, most: {worst}")


def draw_predictions(session: Session, journal: Journal, predictions: Predictions) -> None:
    """A TensorBoard figure of predictions on some validation crops, the same every epoch."""
    config = session.config
    count = min(NUM_FIGURE_CROPS, len(predictions))
    rows = np.linspace(0, len(predictions) - 1, count).round().astype(np.int64)
    size = config.data.input_size_px
    figure = prediction_figure(
        crop_images(session.validation, predictions.store_index[rows], config.data),
        crop_pixels(torch.from_numpy(predictions.mean_uvd[rows]), crop_size_px=size).numpy(),
        crop_pixels(torch.from_numpy(predictions.target_uvd[rows]), crop_size_px=size).numpy(),
        bones=evaluation_bones(skeleton_by_name(config.data.skeleton)),
        titles=[str(name) for name in predictions.name[rows]],
    )
    journal.figure(figure, name="predictions", step=session.progress.step)
