"""The layouts that look-alike trees can be written in, by the name of the verb that reads them."""

from collections.abc import Callable
from pathlib import Path

from data_prep.lookalike.flat_json import write_coco_json, write_mpii_json
from data_prep.lookalike.h36m_fetch import write_h36m_fetch
from data_prep.lookalike.h36m_toolbox import write_h36m_toolbox
from data_prep.lookalike.learnable_triangulation import write_learnable_triangulation
from data_prep.lookalike.martinez import write_martinez
from data_prep.lookalike.metro import write_metro
from data_prep.lookalike.mmpose import write_mmpose
from data_prep.lookalike.own import write_own_csv, write_own_json
from data_prep.lookalike.posenet_json import write_posenet_json
from data_prep.lookalike.raw import write_raw
from data_prep.lookalike.rle_json import write_rle_json
from data_prep.lookalike.videopose3d import write_videopose3d
from data_prep.lookalike.world import World

Writer = Callable[[World, Path], None]
"""Writes performances to a folder, which is made."""

FORMATS: dict[str, Writer] = {
    "raw": write_raw,
    "h36m-fetch": write_h36m_fetch,
    "mmpose": write_mmpose,
    "learnable-triangulation": write_learnable_triangulation,
    "h36m-toolbox": write_h36m_toolbox,
    "metro": write_metro,
    "posenet-json": write_posenet_json,
    "rle-json": write_rle_json,
    "videopose3d": write_videopose3d,
    "martinez": write_martinez,
    "coco-json": write_coco_json,
    "mpii-json": write_mpii_json,
    "csv": write_own_csv,
    "json": write_own_json,
}


def write_lookalike(name: str, world: World, folder: Path) -> None:
    """Write performances in a layout.

    Args:
        name: One of `FORMATS`.
        world: The performances.
        folder: A new or empty folder.

    Raises:
        ValueError: If the layout is unknown, or the folder holds something.
    """
    if name not in FORMATS:
        raise ValueError(f"no look-alike of {name!r} is known; known: {', '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    FORMATS[name](world, folder)
