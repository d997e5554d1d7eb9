"""The result files of a run, read together; everything a report draws comes from here."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from pose3d.evaluation.density import ResidualDensity
from pose3d.evaluation.npz import read_npz
from pose3d.evaluation.predictions import Predictions
from pose3d.geometry.skeleton import skeleton_by_name

SIDES = {"L_": "left", "R_": "right"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Input crops of chosen records."""

    images: UInt8[np.ndarray, "examples height width 3"]
    """Crops as the network saw them, RGB."""
    rows: Int[np.ndarray, " examples"]
    """Row of each in the predictions."""
    kind: Shaped[np.ndarray, " examples"]
    """worst, typical, best or random."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResults:
    """What a finished run left behind; the parts that may be missing are None or empty."""

    name: str
    predictions: Predictions
    metrics: dict[str, Any]
    density: ResidualDensity | None
    examples: Examples | None
    config: str | None
    log: list[dict[str, Any]]

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """Pairs (parent, child) among the evaluation joints."""
        return evaluation_bones(self.predictions)

    @property
    def sides(self) -> tuple[str, ...]:
        """left, right or centre for every evaluation joint."""
        return tuple(SIDES.get(name[:2], "centre") for name in self.predictions.joint_names)


def read_results(run_dir: str | os.PathLike[str]) -> RunResults:
    """Read RUN/results, and RUN/config.yaml and RUN/log.jsonl where they exist.

    Raises:
        FileNotFoundError: If there are no predictions or no metrics.
        ValueError: If a file is damaged or of another schema version.
    """
    run = Path(run_dir)
    results = run / "results"
    for name in ("predictions.npz", "metrics.json"):
        if not (results / name).is_file():
            raise FileNotFoundError(
                f"{results / name} is missing: run `pose3d evaluate {run}` before the report"
            )
    density, config = results / "density.npz", run / "config.yaml"
    return RunResults(
        name=run.resolve().name,
        predictions=Predictions.load(results / "predictions.npz"),
        metrics=read_metrics(results / "metrics.json"),
        density=ResidualDensity.load(density) if density.is_file() else None,
        examples=read_examples(results / "examples.npz"),
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
        log=read_log(run / "log.jsonl"),
    )


def read_metrics(path: Path) -> dict[str, Any]:
    """The metrics, as `evaluate_predictions` gives them.

    Raises:
        ValueError: If the file is no JSON object with the metrics of an evaluation.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); evaluate again") from error
    if not isinstance(metrics, dict) or "mpjpe_mm" not in metrics:
        raise ValueError(f"{path}: not the metrics of an evaluation, mpjpe_mm is missing")
    return metrics


def read_examples(path: Path) -> Examples | None:
    """The example crops, or None where there is no such file.

    Raises:
        ValueError: If arrays are missing or of different lengths.
    """
    if not path.is_file():
        return None
    arrays = read_npz(path)
    missing = [name for name in ("images", "rows", "kind") if name not in arrays]
    if missing:
        raise ValueError(f"{path}: not a file of examples, it lacks {', '.join(missing)}")
    if len({len(arrays[name]) for name in ("images", "rows", "kind")}) != 1:
        raise ValueError(f"{path}: images, rows and kind must have the same length")
    return Examples(images=arrays["images"], rows=arrays["rows"], kind=arrays["kind"])


def read_log(path: Path) -> list[dict[str, Any]]:
    """The training log, one JSON object a line; a last line cut off by a stop is left out."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    entries = []
    for number, line in enumerate(lines):
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            if number == len(lines) - 1:
                break
            raise ValueError(f"{path}, line {number + 1}: not valid JSON ({error})") from error
    return [entry for entry in entries if isinstance(entry, dict)]


def evaluation_bones(predictions: Predictions) -> tuple[tuple[int, int], ...]:
    """Bones between evaluation joints: each joint and its nearest ancestor that is one.

    Raises:
        ValueError: If a joint's name is not of the skeleton that the metadata name.
    """
    skeleton = skeleton_by_name(str(predictions.metadata["skeleton"]))
    names, bones = predictions.joint_names, []
    for child, name in enumerate(names):
        ancestor = skeleton.parents[skeleton.index(name)]
        while ancestor >= 0 and skeleton.joint_names[ancestor] not in names:
            ancestor = skeleton.parents[ancestor]
        if ancestor >= 0:
            bones.append((names.index(skeleton.joint_names[ancestor]), child))
    return tuple(bones)
