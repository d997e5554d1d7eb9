"""Checkpoints: one atomic file holds everything that a run needs to go on or to be judged.

A file is a flat dictionary of tensors, numbers and strings written by ``torch.save``; it is read
with ``weights_only=True``, so loading never runs code from the file. Its parts:

=================  ================================================================================
format, version    ``"pose3d-checkpoint"`` and the version of this layout
network            state of regressor and likelihood (with its flow), names ``regressor.…``, …
average            the same names, exponential moving average (None without one)
optimiser          its state dict
random             states of torch's, CUDA's and NumPy's generators
progress           epoch, batch, step, counters and the running sums of the epoch
config             all settings as JSON
store, digest      path and digest of the store it was trained on, the main one of several
extra_stores       of each further one: path, name, digest, source, records, subjects, depth_labels
                   (of all joints, some or none), share (of each batch), weight (of its labels)
skeleton           name of the joint set
mean_pose_mm       mean root-relative training pose (J, 3), camera axes, millimetres
imported           what file the weights came from, for a run that no training made (else absent);
                   store and digest are then empty and there is no mean_pose_mm
pose3d, commit     version and git commit of the code ("" outside its repository)
=================  ================================================================================
"""

import json
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pose3d.engine.config import RunConfig, config_from_dict, config_to_dict

FORMAT = "pose3d-checkpoint"
VERSION = 1


def save_checkpoint(
    path: str | Path, contents: Mapping[str, Any], *, also: str | Path | None = None
) -> None:
    """Write a checkpoint so that a reader sees the old file or the whole new one, never a part.

    Args:
        path: Where it goes; a neighbour of the name ``.NAME.tmp`` exists during the write.
        contents: Tensors, numbers, strings and dictionaries or lists of them.
        also: A second name in the same folder for the same file, put in place first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, "version": VERSION, **contents}, file)
        file.flush()
        os.fsync(file.fileno())
    if also is not None:
        second = temporary.with_name(f".{Path(also).name}.tmp")
        second.unlink(missing_ok=True)
        _link_or_copy(temporary, second)
        os.replace(second, also)
    os.replace(temporary, path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU without running code from it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is damaged, no checkpoint, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; train the run first")
    damaged = _damaged_part(path)
    if damaged is not None:
        raise ValueError(f"{path} is damaged ({damaged}); use another checkpoint or train again")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of pose3d")
    if contents["version"] != VERSION:
        raise ValueError(
            f"{path} has checkpoint version {contents['version']}, this release reads {VERSION}; "
            f"it was written by pose3d {contents.get('pose3d', '?')}"
        )
    return contents


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Copy a state into a module of exactly the same names and shapes.

    Raises:
        ValueError: Naming the parameters that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{source} is of another model: {'; '.join(problems[:3])}{more}")
    module.load_state_dict(dict(state))


def checkpoint_config(contents: Mapping[str, Any], *, source: str | Path) -> RunConfig:
    """The settings a checkpoint was written with; raises ValueError if this release differs."""
    try:
        return config_from_dict(json.loads(contents["config"]))
    except ValueError as error:
        raise ValueError(f"settings in {source}: {error}") from error


def extra_stores_of(contents: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """What a checkpoint says of the stores beside the main one; old files had no such thing."""
    return tuple(contents.get("extra_stores", ()))


def config_json(config: RunConfig) -> str:
    """All settings in one line of JSON."""
    return json.dumps(config_to_dict(config))


def random_state() -> dict[str, Any]:
    """The states of the global generators of torch (CPU and CUDA) and NumPy, as tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy_name": name,
        "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": [int(position), int(has_gauss), float(gauss)],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the global generators to the states of random_state."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    position, has_gauss, gauss = state["numpy_rest"]
    keys = state["numpy_keys"].numpy().astype(np.uint32)
    np.random.set_state((state["numpy_name"], keys, position, has_gauss, gauss))  # noqa: NPY002


def code_provenance() -> dict[str, str]:
    """Version of pose3d and, when it runs from its repository, the commit (+ if changed)."""
    return {"pose3d": version("pose3d"), "commit": _commit(Path(__file__).resolve().parents[2])}


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _commit(repository: Path) -> str:
    if not (repository / ".git").exists():
        return ""
    try:
        return _git(repository, "rev-parse", "HEAD") + (
            "+" if _git(repository, "status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()


def _damaged_part(path: Path) -> str | None:
    """What is wrong with the archive, by its own checksums; None if nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:  # of unknown packing, too
        return str(error)
    return None if part is None else f"checksum of {part} does not match"
