"""Read Human3.6M's poses from CDF files: one variable `Pose` of 32 joints per frame."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

NUM_JOINTS = 32
VARIABLE = "Pose"


def read_poses(path: Path, *, num_axes: int) -> Float[np.ndarray, "n 32 axes"]:
    """The poses of a sequence: millimetres, or pixels of D2_Positions.

    Args:
        path: A file of MyPoseFeatures, shape (1, n, 32 × axes).
        num_axes: 3, or 2 for D2_Positions.

    Raises:
        ValueError: Naming the file, if cdflib is missing, or it is missing, damaged or of another
            kind.
    """
    try:
        import cdflib
    except ImportError as error:
        raise ValueError(
            "reading CDF files needs cdflib; install it with pip install 'pose3d[human36m]'"
        ) from error
    if not path.is_file():
        raise ValueError(f"pose file {path} is missing")
    try:
        pose = np.asarray(cdflib.CDF(path).varget(VARIABLE))
    except Exception as error:  # at damaged bytes cdflib fails in whatever way it happens to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"pose file {path} cannot be read as CDF with a variable {VARIABLE} ({reason}); "
            "it is damaged or cut off: fetch it again"
        ) from error
    width = NUM_JOINTS * num_axes
    if pose.ndim < 2 or pose.shape[-1] != width or pose.size != pose.shape[-2] * width:
        raise ValueError(
            f"pose file {path} holds a {VARIABLE} of shape {pose.shape}, expected (1, poses, "
            f"{width}); it must be of the folder that it lies in"
        )
    return pose.reshape(-1, NUM_JOINTS, num_axes).astype(np.float64)
