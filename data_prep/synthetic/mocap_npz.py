"""Motion capture as Human3.6M's 17 joints in one NPZ file.

Arrays: `poses` (frames, 17, 3) from the pelvis, `root_world` (frames, 3), both in millimetres with
x to the right, y down and z forward; `clip` and `action` (frames,) text; `fps`; `source` (frames,)
text if several rigs are mixed ("amc": every subject's own bones). All clips lie one after another.
"""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.mocap_clips import Clip

OWN_BONES = "amc"
"""The source whose every subject is a rig of its own."""
_NEEDED = {"poses": (17, 3), "root_world": (3,), "clip": (), "action": ()}


def read_npz(path: Path) -> list[Clip]:
    """Read all clips; the floor is still where the file has it.

    Raises:
        ValueError: If the file is no NPZ, holds Python objects, or lacks or misshapes an array.
    """
    arrays = _arrays(path)
    y_down = arrays["poses"].astype(np.float64) + arrays["root_world"][:, None]
    joints_mm = np.stack([y_down[..., 0], y_down[..., 2], -y_down[..., 1]], axis=-1)
    frames_per_s = _frames_per_s(arrays, path)
    names = arrays["clip"].astype(str)
    edges = np.flatnonzero(names[1:] != names[:-1]) + 1
    clips = []
    for start, stop in zip([0, *edges], [*edges, len(names)], strict=True):
        name = str(names[start])
        subject = name.partition("_")[0]
        source = str(arrays["source"][start]) if "source" in arrays else "npz"
        clips.append(
            Clip(
                joints_mm=joints_mm[start:stop],
                frames_per_s=frames_per_s,
                name=name,
                action=str(arrays["action"][start]),
                subject=subject,
                rig=f"{source} {subject}" if source == OWN_BONES else source,
                recording=name,
            )
        )
    return clips


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays, checked."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise ValueError(
                f"{path} holds Python objects, which are never unpickled: expected plain arrays "
                f"{', '.join(_NEEDED)} and fps; save text as a string array (dtype U)"
            ) from error
        raise ValueError(f"{path} is not a readable NPZ file: {error}") from error
    for name, shape in _NEEDED.items():
        if name not in arrays:
            raise ValueError(f"{path} has no array {name!r}; it has {', '.join(sorted(arrays))}")
        expected = (len(arrays["poses"]), *shape)
        if arrays[name].shape != expected or not len(arrays[name]):
            raise ValueError(
                f"{path}: array {name!r} must have shape (frames, {', '.join(map(str, shape))}) "
                f"with at least one frame, got {arrays[name].shape}"
            )
    for name in ("poses", "root_world"):
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{path}: array {name!r} must hold finite numbers")
    return arrays


def _frames_per_s(arrays: dict[str, np.ndarray], path: Path) -> float:
    rate: Float[np.ndarray, "..."] = arrays.get("fps", np.zeros(0))
    if rate.size != 1 or rate.dtype.kind not in "fiu" or not 0 < float(rate.ravel()[0]) < 1e4:
        raise ValueError(f"{path}: array 'fps' must be one number of frames per second, got {rate}")
    return float(rate.ravel()[0])
