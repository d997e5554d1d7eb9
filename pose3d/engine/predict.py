"""Judge a finished or running training: predict a split, and write everything that reports need.

RUN/results holds afterwards: predictions.npz, metrics.json, density.npz (the learnt density of the
standardised residual) and examples.npz (crops of the worst, typical, best and of random records).

A likelihood knows its scale and its residual density only together: training may halve the one and
double the other. σ is therefore written as the standard deviation that both predict, and the
density in units of it.
"""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pose3d.data.dataset import DataConfig, PoseDataset, make_dataset
from pose3d.data.store import Store, open_store
from pose3d.engine.checkpoint import (
    checkpoint_config,
    extra_stores_of,
    load_checkpoint,
    load_state,
)
from pose3d.engine.config import RunConfig, config_differences, load_config
from pose3d.engine.infer import choose_device, crop_images, infer, mean_pose, with_constant_pose
from pose3d.engine.network import Network
from pose3d.evaluation.density import ResidualDensity, reason_without_density
from pose3d.evaluation.npz import write_npz
from pose3d.evaluation.predictions import Predictions, evaluate_predictions
from pose3d.geometry.skeleton import skeleton_by_name
from pose3d.model.likelihood import Likelihood

CheckpointName = Literal["best", "last"]
SIGMA_IS_DEVIATION = (
    "predicted standard deviation: scale of the likelihood times the standard deviation of the "
    "learnt residual density (deviation_of_residual)"
)
SIGMA_WENT_THROUGH_FLOW = (
    "predicted standard deviation: that of the normal before the flow, carried through the flow to "
    "first order"
)
SIGMA_BEFORE_IMAGES = (
    "scale of the likelihood, whose residual density differs from image to image: no standard "
    "deviation"
)
SIGMA_IS_SCALE = "scale of the loss, which has no density: no standard deviation"
NO_DENSITY_OF_AXES = (
    "the scale is a full covariance, so that the residual of an axis in standard deviations has "
    "another density for every joint and image"
)
"""Why there is a density of L⁻¹(y − μ), but none of (y − μ)/σ, axis by axis, as results show it."""
BASELINE_METRICS = (
    *("mpjpe_mm", "pa_mpjpe_mm", "pa_mpjpe_rigid_mm", "n_mpjpe_mm"),
    *("pck150", "auc"),
)
"""Metrics that are also given for predicting the mean training pose."""
FIXED_SECTIONS = ("data", "model", "flow", "likelihood")
"""Sections that a trained network hangs on; the checkpoint has them as they were."""
FREE_SETTINGS = (
    *("data.test_split", "data.test_subjects", "data.test_every", "data.bad_records"),
    *("data.num_threads", "data.prefetch", "data.cache_gib"),
)
"""Settings of those sections that RUN/config.yaml may change after the training."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """A run's network as it is judged, in evaluation mode, with what it was trained on."""

    path: Path
    """Of the checkpoint."""
    original: RunConfig
    """As the network was trained and validated."""
    config: RunConfig
    """The same, but what may be changed later is as RUN/config.yaml has it."""
    network: Network
    checkpoint: CheckpointName
    store: str
    """Path of the store it was trained on, the main one of several."""
    digest: str
    """Of that store."""
    extra_stores: tuple[dict[str, Any], ...]
    """What the checkpoint says of the stores that trained beside it."""
    epochs_trained: int | None
    """Epochs that the best was chosen from; None where last.pt cannot tell."""
    mean_pose_mm: Float[Tensor, "joints 3"] | None
    """Mean training pose; None where the weights were imported."""
    epoch: int
    step: int
    commit: str
    """Of the code that trained it."""
    imported: str = ""
    """The file that the weights came from; empty where they were trained here. An imported run has
    no store, digest or mean pose."""


def load_run(
    run: str | Path,
    *,
    checkpoint: CheckpointName = "best",
    device: torch.device | str = "cpu",
) -> TrainedRun:
    """Load the network of a run: the moving average of the weights where there is one.

    The checkpoint says what the network is. RUN/config.yaml may change which records are tested,
    how they are read and everything of section evaluate; the run can do without the file.

    Args:
        run: Folder of the run.
        checkpoint: best (lowest validation MPJPE) or last.
        device: Where the network goes.

    Raises:
        FileNotFoundError: If the run or the checkpoint is not there.
        ValueError: If the checkpoint is damaged or of another model, or RUN/config.yaml changes
            what the network was trained with.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"no run at {run}")
    path = run / "checkpoints" / f"{checkpoint}.pt"
    contents = load_checkpoint(path)
    original = checkpoint_config(contents, source=path)
    config = _settings(run, original, source=path)
    network = Network(config, load_pretrained=False)
    load_state(network, contents["average"] or contents["network"], source=path)
    network.requires_grad_(False).eval()
    if config.train.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedRun(
        path=path,
        original=original,
        config=config,
        network=network.to(device),
        checkpoint=checkpoint,
        store=contents["store"],
        digest=contents["digest"],
        extra_stores=extra_stores_of(contents),
        epochs_trained=_epochs_trained(run),
        mean_pose_mm=contents["mean_pose_mm"],
        epoch=contents["progress"]["epoch"],
        step=contents["progress"]["step"],
        commit=contents["commit"],
        imported=contents.get("imported", ""),
    )


def predict(
    run: str | Path,
    *,
    store: str | Path | Store | None = None,
    split: str | None = None,
    checkpoint: CheckpointName = "best",
    flip_test: bool | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
) -> Predictions:
    """Predict a split with a trained run and write the results.

    Args:
        run: Folder of the run.
        store: Folder of the store, or an open one; None takes the one the run was trained on, the
            main one of several.
        split: "train" or "test"; None takes data.test_split of the run.
        checkpoint: best or last.
        flip_test: Average with the mirror image's prediction; None takes evaluate.flip_test.
        batch_size: Images per forward pass; None takes evaluate.batch_size.
        device: auto, cpu, cuda, …
        out: Folder for the results; None is RUN/results.

    Returns:
        The predictions, as written to predictions.npz.

    Raises:
        ValueError: If run, checkpoint or store cannot be used.
        FileNotFoundError: If one of them is not there.
    """
    chosen = choose_device(device)
    trained = load_run(run, checkpoint=checkpoint, device=chosen)
    config = trained.config
    opened = _store(trained, store)
    data, role = _selection(config.data, split)
    dataset = make_dataset(opened, data, role=role)
    request = _request(trained, digest=opened.digest, split=split, flip_test=flip_test)
    density = ResidualDensity.from_likelihood(
        trained.network.likelihood, num_cells=config.evaluate.density_cells
    )
    started = time.perf_counter()
    predictions = infer(
        trained.network,
        dataset,
        config,
        flip_test=request["flip_test"],
        batch_size=batch_size or config.evaluate.batch_size,
        device=chosen,
        residual_covariance=density.covariance if density.available else None,
        metadata={
            "sigma": sigma_in_words(trained.network.likelihood),
            "deviation_of_residual": density.deviation.tolist(),
            "checkpoint": _checkpoint_in_words(trained),
            "checkpoint_choice": _checkpoint_choice(trained, request),
            "split": request["split"],
            "request": request,
            "frames": _frames(request["every"]),
            "test_subjects": _subjects(opened, dataset.indices),
            **_training_records(trained, opened),
            "extra_stores": list(trained.extra_stores),
            "commit": trained.commit,
        },
    )
    speed = len(predictions) / (time.perf_counter() - started)
    folder = Path(run) / "results" if out is None else Path(out)
    if density.available and config.model.scale_head == "cholesky":
        density = ResidualDensity.unavailable(NO_DENSITY_OF_AXES)
    _write_results(
        folder,
        predictions,
        trained,
        dataset=dataset,
        density=density.standardised(),
        images_per_second=speed,
    )
    return predictions


def results_are_current(
    run: str | Path,
    *,
    store: str | Path | Store | None = None,
    split: str | None = None,
    checkpoint: CheckpointName = "best",
    flip_test: bool | None = None,
) -> bool:
    """Whether RUN/results are what `predict` would make of the same arguments.

    Raises:
        ValueError: If run, checkpoint or store cannot be used.
        FileNotFoundError: If the store that is asked for is not there.
    """
    results, weights = Path(run) / "results", Path(run) / "checkpoints" / f"{checkpoint}.pt"
    files = [results / "predictions.npz", results / "metrics.json"]
    if not all(file.is_file() for file in (weights, *files)):
        return False
    if any(file.stat().st_mtime < weights.stat().st_mtime for file in files):
        return False
    trained = load_run(run, checkpoint=checkpoint)
    is_gone = store is None and not trained.imported and not Path(trained.store).exists()
    digest = trained.digest if is_gone else _store(trained, store).digest
    wanted = _request(trained, digest=digest, split=split, flip_test=flip_test)
    return read_metrics(run).get("request") == wanted


def read_metrics(run: str | Path) -> dict[str, Any]:
    """RUN/results/metrics.json.

    Raises:
        FileNotFoundError: If nothing was predicted yet.
        ValueError: If the file is not JSON.
    """
    path = Path(run) / "results" / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run `pose3d evaluate {run}` first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); predict again") from error


def _epochs_trained(run: Path) -> int | None:
    try:
        return load_checkpoint(run / "checkpoints" / "last.pt")["progress"]["epoch"]
    except (ValueError, OSError):  # what was asked for is not this file
        return None


def _settings(run: Path, trained: RunConfig, *, source: Path) -> RunConfig:
    """The settings of the training with what RUN/config.yaml may change of them."""
    path = run / "config.yaml"
    if not path.is_file():
        return trained
    written = load_config(path)
    changed = [
        f"{name} is {new} there and {old} in {source}"
        for name, old, new in config_differences(trained, written, ignore=FREE_SETTINGS)
        if name.partition(".")[0] in FIXED_SECTIONS
    ]
    if changed:
        raise ValueError(
            f"{path} does not belong to the trained network: {'; '.join(changed)}; put back the "
            "values of the checkpoint, or remove the file: the checkpoint holds all settings"
        )
    return dataclasses.replace(trained, data=written.data, evaluate=written.evaluate)


def _store(trained: TrainedRun, store: str | Path | Store | None) -> Store:
    """The given store or the one trained on, open."""
    if isinstance(store, Store):
        return store
    if store is None and trained.imported:
        raise ValueError(
            f"{trained.path} holds imported weights, trained on no store that is known; name one "
            "by --store"
        )
    if store is None and not Path(trained.store).exists():
        raise FileNotFoundError(
            f"the store the run was trained on, {trained.store}, is not there; name one by --store"
        )
    return open_store(trained.store if store is None else store)


def _selection(data: DataConfig, split: str | None) -> tuple[DataConfig, Literal["train", "test"]]:
    """The settings and the role under which they choose the records of a split."""
    if split is None or split == data.test_split:
        return data, "test"
    if split == data.train_split:
        return data, "train"
    return dataclasses.replace(data, test_split=split), "test"


def _request(
    trained: TrainedRun, *, digest: str, split: str | None, flip_test: bool | None
) -> dict[str, Any]:
    """All that decides the metrics, as JSON has it: equal requests have equal results."""
    data, role = _selection(trained.config.data, split)
    subjects = getattr(data, f"{role}_subjects")
    return {
        "checkpoint": trained.checkpoint,
        "epoch": trained.epoch,
        "step": trained.step,
        "epochs_trained": trained.epochs_trained,
        "store_digest": digest,
        "split": getattr(data, f"{role}_split"),
        "subjects": None if subjects is None else list(subjects),
        "every": getattr(data, f"{role}_every"),
        "bad_records": data.bad_records,
        "subtract_root_depth": trained.config.evaluate.subtract_root_depth,
        "flip_test": trained.config.evaluate.flip_test if flip_test is None else flip_test,
    }


def _checkpoint_in_words(trained: TrainedRun) -> str:
    if trained.imported:
        return f"imported from {trained.imported}"
    return f"{trained.checkpoint} (epoch {trained.epoch}, step {trained.step})"


def _checkpoint_choice(trained: TrainedRun, request: Mapping[str, Any]) -> str:
    """How the checkpoint was chosen, and whether by the records that it is judged on."""
    epochs = trained.epochs_trained
    if trained.imported:
        return "imported weights; how they were chosen is not known"
    if trained.checkpoint == "last":
        return f"last, of epoch {trained.epoch}"
    number = {None: "all epochs", 1: "1 epoch"}.get(epochs, f"{epochs} epochs")
    split, every = trained.original.data.test_split, trained.original.evaluate.validation_every
    part = "" if every == 1 else f" (one in {every} of its records)"
    if (request["store_digest"], request["split"]) == (trained.digest, split):
        return f"best of {number} by MPJPE on this same split{part}"
    return f"best of {number} by MPJPE on split {split} of the store it was trained on{part}"


def _frames(every: int) -> str:
    if every == 1:
        return "every record given"
    suffixes = {1: "st", 2: "nd", 3: "rd"}
    suffix = "th" if every // 10 % 10 == 1 else suffixes.get(every % 10, "th")
    return f"every {every}{suffix} frame"


def _training_records(trained: TrainedRun, opened: Store) -> dict[str, Any]:
    """Subjects and number of the records that were selected for training, if they can be seen."""
    data = trained.config.data
    store: Store | None = None if trained.imported else opened
    if store is not None and opened.digest != trained.digest:
        try:
            store = open_store(trained.store)
        except (ValueError, OSError):
            store = None
    if store is None or store.digest != trained.digest:
        return {"train_subjects": None, "train_records": None}
    rows = store.select(
        split=data.train_split, subjects=data.train_subjects, every=data.train_every
    )
    return {"train_subjects": _subjects(store, rows), "train_records": len(rows)}


def _subjects(store: Store, rows: Int64[np.ndarray, " rows"]) -> list[int]:
    return np.unique(store.records.subject[rows]).tolist()


def _write_results(
    folder: Path,
    predictions: Predictions,
    trained: TrainedRun,
    *,
    dataset: PoseDataset,
    density: ResidualDensity,
    images_per_second: float,
) -> None:
    config = trained.config
    metrics = {
        **evaluate_predictions(predictions),
        **_baseline(predictions, trained, dataset.store),
        "images_per_second": images_per_second,
        "checkpoint": predictions.metadata["checkpoint"],
        "split": predictions.metadata["split"],
        "request": predictions.metadata["request"],
    }
    rows, kind = choose_examples(predictions, count=config.evaluate.num_examples)
    images = crop_images(dataset, predictions.store_index[rows], config.data)
    (folder / "metrics.json").unlink(missing_ok=True)  # comes back when all else is there
    density.save(folder / "density.npz")
    write_npz(folder / "examples.npz", {"images": images, "rows": rows, "kind": kind})
    predictions.save(folder / "predictions.npz")
    _write_json(folder / "metrics.json", metrics)


def _baseline(predictions: Predictions, trained: TrainedRun, store: Store) -> dict[str, float]:
    """Metrics of always predicting the mean pose of the training records; empty without such.

    For imported weights these are the training records of the store that is predicted.
    """
    data, pose = trained.config.data, trained.mean_pose_mm
    skeleton = skeleton_by_name(data.skeleton)
    if pose is None:
        rows = store.select(
            split=data.train_split, subjects=data.train_subjects, every=data.train_every
        )
        if not (store.records.weight[rows] > 0).all(-1).any():
            return {}
        pose = mean_pose(store, rows, skeleton=skeleton)
    constant = evaluate_predictions(with_constant_pose(predictions, pose, skeleton=skeleton))
    return {f"baseline_mean_pose_{name}": constant[name] for name in BASELINE_METRICS}


def sigma_in_words(likelihood: Likelihood) -> str:
    """What the σ of the predictions is, once multiplied by the residual density's deviation."""
    if not reason_without_density(likelihood):
        return SIGMA_IS_DEVIATION
    if likelihood.config.kind == "flow":
        return SIGMA_WENT_THROUGH_FLOW
    return SIGMA_BEFORE_IMAGES if likelihood.is_likelihood else SIGMA_IS_SCALE


def choose_examples(predictions: Predictions, *, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the worst, typical, best and of random judged records by MPJPE, and their kinds."""
    difference = predictions.predicted_root_relative_mm - predictions.target_root_relative_mm
    labelled = predictions.labelled
    error = (np.linalg.norm(difference, axis=-1) * labelled).sum(-1)
    judged = np.flatnonzero(labelled.any(-1))
    order = judged[np.argsort(error[judged] / labelled[judged].sum(-1), kind="stable")]
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    rows = {
        "worst": order[::-1][:count],
        "typical": order[middle : middle + count],
        "best": order[:count],
        "random": np.random.default_rng(0).permutation(order)[:count],
    }
    kinds = np.repeat(list(rows), count)
    return np.concatenate(list(rows.values())), kinds


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
