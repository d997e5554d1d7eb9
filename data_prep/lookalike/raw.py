"""Write performances as Human3.6M's original archives: CDF, mp4, metadata.xml, masks."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float

from data_prep.human36m import SHIFT_MM, SHIFTED, UNUSABLE_VIDEO
from data_prep.lookalike.raw_metadata import metadata_xml
from data_prep.lookalike.video import film
from data_prep.lookalike.world import Performance, World
from data_prep.readers.raw_tree import KINDS
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

ARRANGEMENTS = ("native", "extracted")
UNIVERSAL_SCALE = 1.04
"""How much larger the look-alike's universal skeleton is about its pelvis."""


def write_raw(
    world: World,
    folder: Path,
    *,
    arrangement: str = "native",
    has_masks: bool = True,
    is_shifted: bool = False,
    extra_frames: Callable[[Performance, str], int] | None = None,
) -> None:
    """Write a tree that `pose3d-prep raw` reads.

    As in the release, videos have 1 to 4 frames more than there are poses, S1's files of
    TakingPhoto and WalkingDog have names of their own, files of _ALL belong to nothing, and S11's
    unusable video is none.

    Args:
        world: What to write.
        folder: Where to; with "native" it holds S1, S5, ... and Release-v1.2/metadata.xml, with
            "extracted" metadata.xml and extracted/S1, ..., as h36m-fetch unpacks the archives.
        arrangement: One of `ARRANGEMENTS`.
        has_masks: Write the masks of boxes as well, the slowest part.
        is_shifted: Put the three faulty sequences of S9 200 mm off, as they are in the release;
            their masks as well.
        extra_frames: Frames that a camera's video has more than poses, or, below 0, less.
    """
    assert arrangement in ARRANGEMENTS, arrangement
    is_native = arrangement == "native"
    root = folder if is_native else folder / "extracted"
    extra_frames = extra_frames or _usual_extra_frames
    num_frames = {}
    for number, performance in enumerate(world.performances):
        frames = [len(performance) + extra_frames(performance, c) for c in HUMAN36M_CAMERA_NAMES]
        num_frames[performance.key] = (*frames, 4 * len(performance) + number % 4)
        labelled = shifted(performance) if is_shifted else performance
        _write_poses(world, labelled, root, is_native=is_native)
        for name in world.camera_names:
            count = frames[HUMAN36M_CAMERA_NAMES.index(name)]
            _write_video(world, performance, name, root, count=count)
            if has_masks:
                path = _path(root, performance, "masks", name, is_native=is_native)
                _write_masks(path, _masks(world, labelled, name))
    metadata = (folder / "Release-v1.2" if is_native else folder) / "metadata.xml"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_bytes(metadata_xml(num_frames))


def shifted(performance: Performance) -> Performance:
    """The performance as the release has it: three of S9's lie 200 mm off along the world's x."""
    if performance.key not in SHIFTED:
        return performance
    moved = performance.joints32_world_mm + np.array(SHIFT_MM)
    return replace(performance, joints32_world_mm=moved)


def _usual_extra_frames(performance: Performance, camera_name: str) -> int:
    """1 to 4."""
    return 1 + (len(performance) + HUMAN36M_CAMERA_NAMES.index(camera_name)) % 4


def _path(
    root: Path, performance: Performance, kind: str, camera_name: str = "", *, is_native: bool
) -> Path:
    """A file of a performance, its folder made."""
    place = KINDS[kind].folders[0 if is_native or kind == "video" else 1]
    folder = root / f"S{performance.subject}" / place
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{performance.file_name}.{camera_name}" if camera_name else performance.file_name
    return folder / f"{stem}{KINDS[kind].suffix}"


def _write_poses(world: World, performance: Performance, root: Path, *, is_native: bool) -> None:
    """The files of MyPoseFeatures: world, and per camera mono, mono_universal and 2-D."""
    joints_world = performance.joints32_world_mm
    write_cdf(_path(root, performance, "world", is_native=is_native), joints_world)
    for name in world.camera_names:
        camera = world.camera(performance.subject, name)
        mono = camera.world_to_camera(torch.from_numpy(joints_world))
        pelvis = mono[:, :1]
        poses = {
            "mono": mono,
            "universal": pelvis + UNIVERSAL_SCALE * (mono - pelvis),
            "labels": camera.camera_to_image(mono),
        }
        for kind, values in poses.items():
            path = _path(root, performance, kind, name, is_native=is_native)
            write_cdf(path, values.numpy())
            _write_all(path.parent, KINDS[kind].suffix, name)


def write_cdf(path: Path, pose: Float[np.ndarray, "n joints axes"]) -> None:
    """Write the variable `Pose`, (1, n, joints × axes), as a CDF file.

    Raises:
        ValueError: If cdflib is missing.
    """
    try:
        from cdflib.cdfwrite import CDF
    except ImportError as error:
        raise ValueError(
            "writing CDF files needs cdflib; install it with pip install 'pose3d[human36m]'"
        ) from error
    flat = pose.reshape(1, len(pose), -1).astype(np.float32)
    file = CDF(path, delete=True)
    variable = {
        "Variable": "Pose",
        "Data_Type": CDF.CDF_FLOAT,
        "Num_Elements": 1,
        "Rec_Vary": True,
        "Dim_Sizes": list(flat.shape[1:]),
        "Compress": 6,
    }
    file.write_var(variable, var_data=flat)
    file.close()


def _write_all(folder: Path, suffix: str, camera_name: str) -> None:
    """The files of no action that lie beside the others."""
    for base in ("_ALL", "_ALL 1"):
        (folder / f"{base}.{camera_name}{suffix}").write_bytes(b"of no action")


def _write_video(
    world: World, performance: Performance, camera_name: str, root: Path, *, count: int
) -> None:
    path = _path(root, performance, "video", camera_name, is_native=True)
    if (*performance.key, camera_name) == UNUSABLE_VIDEO:
        path.write_bytes(bytes(4096))
    else:
        film(path, world, performance, camera_name, count=count)
    _write_all(path.parent, ".mp4", camera_name)


def _masks(world: World, performance: Performance, camera_name: str) -> Iterator[np.ndarray]:
    """Masks, (height, width)."""
    for frame in range(len(performance)):
        yield world.painter.mask(performance, camera_name, frame)


def _write_masks(path: Path, masks: Iterator[np.ndarray]) -> None:
    """A MATLAB v7.3 file: a cell array of masks, which HDF5 sees transposed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        references = []
        for number, mask in enumerate(masks):
            stored = np.ascontiguousarray(mask.T, np.uint8)
            options = {"compression": "gzip", "compression_opts": 1}
            dataset = file.create_dataset(f"#refs#/{number:06d}", data=stored, **options)
            dataset.attrs["MATLAB_class"] = np.bytes_("logical")
            references.append(dataset.ref)
        column = np.array(references, dtype=h5py.ref_dtype)[:, None]
        file.create_dataset("Masks", data=column).attrs["MATLAB_class"] = np.bytes_("cell")
    header = b"MATLAB 7.3 MAT-file, Platform: look-alike, HDF5 schema 1.00 .".ljust(124)
    with path.open("r+b") as raw:
        raw.write(header + b"\x00\x02IM")
