"""The published weights as a run on disk, and a run's weights as a file of the published form."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pose3d.data.dataset import DataConfig
from pose3d.engine.checkpoint import (
    code_provenance,
    config_json,
    load_state,
    random_state,
    save_checkpoint,
)
from pose3d.engine.config import EvaluateConfig, RunConfig, save_config
from pose3d.engine.network import Network
from pose3d.engine.predict import CheckpointName, load_run
from pose3d.engine.session import Progress
from pose3d.geometry.uvd import DEPTH_RANGE_MM
from pose3d.model.released import (
    RELEASED_SKELETON,
    load_released,
    released_settings,
    save_released,
)

FIXED_DATA = ("skeleton", "input_size_px", "depth_range_mm", "normalisation")
"""Settings of section data that give the weights their meaning."""


def released_config(backbone: str = "resnet50") -> RunConfig:
    """All settings of a run of published weights: data, network and loss as the released code's."""
    model, flow, likelihood = released_settings(backbone)
    return RunConfig(
        data=DataConfig(
            skeleton=RELEASED_SKELETON.name,
            input_size_px=256,
            depth_range_mm=DEPTH_RANGE_MM,
            normalisation="released",
        ),
        model=model,
        flow=flow,
        likelihood=likelihood,
        evaluate=EvaluateConfig(subtract_root_depth=True),
    )


def import_released(file: str | Path, run: str | Path) -> RunConfig:
    """Make a run of a file of published weights, which predict, evaluate and report accept.

    No training made such a run: it knows neither a store nor a mean training pose, so a store must
    be named to predict, and it cannot be resumed.

    Args:
        file: Published weights, see `load_released`.
        run: Folder for the run; new or empty.

    Returns:
        The settings of the run, as in RUN/config.yaml.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the file does not fit, see `load_released`, or the run is there already.
    """
    file, run = Path(file), Path(run)
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run} is a file; name a folder for the run")
    if run.is_dir() and any(run.iterdir()):
        raise ValueError(f"{run} is not empty; name another folder for the run")
    regressor, likelihood = load_released(file)
    config = released_config(regressor.config.backbone)
    with torch.random.fork_rng(devices=[]):
        network = Network(config, load_pretrained=False)
    parts = {"regressor": regressor, "likelihood": likelihood}
    state = {
        f"{room}.{name}": value
        for room, part in parts.items()
        for name, value in part.state_dict().items()
    }
    load_state(network, state, source=file)
    run.mkdir(parents=True, exist_ok=True)
    save_config(config, run / "config.yaml")
    contents = _contents(network, config, imported=f"{file.name} (SHA-256 {_sha256(file)})")
    checkpoints = run / "checkpoints"
    save_checkpoint(checkpoints / "last.pt", contents, also=checkpoints / "best.pt")
    return config


def export_released(
    run: str | Path, file: str | Path, *, checkpoint: CheckpointName = "best"
) -> None:
    """Write the weights of a run under the released names, for code that reads the published file.

    What the released code fixes must be as `released_config` has it: joints, crop size, colours,
    depth range, heads, the floor of σ, the flows and the form of the loss.

    Args:
        run: Folder of the run.
        file: Where the weights go; must not be there yet. Written whole or not at all.
        checkpoint: best or last.

    Raises:
        FileNotFoundError: If the run or the checkpoint is not there.
        FileExistsError: If the file is there already.
        ValueError: If the run does not fit the released form, naming the settings that differ.
    """
    trained = load_run(run, checkpoint=checkpoint)
    needed, data = released_config().data, trained.original.data
    changed = [
        f"data.{name} is {getattr(data, name)} and must be {getattr(needed, name)}"
        for name in FIXED_DATA
        if getattr(data, name) != getattr(needed, name)
    ]
    if changed:
        raise ValueError(f"{run} does not fit the released form: {'; '.join(changed)}")
    try:
        save_released(file, trained.network.regressor, trained.network.likelihood)
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from error


def _contents(network: Network, config: RunConfig, *, imported: str) -> dict[str, Any]:
    """What a checkpoint holds, for weights that no training here made."""
    return {
        "network": network.state_dict(),
        "average": None,
        "optimiser": {},
        "random": random_state(),
        "progress": asdict(Progress()),
        "config": config_json(config),
        "store": "",
        "digest": "",
        "extra_stores": [],
        "skeleton": config.data.skeleton,
        "mean_pose_mm": None,
        "imported": imported,
        **code_provenance(),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
