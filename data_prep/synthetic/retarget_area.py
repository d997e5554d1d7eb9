"""Clips inside Human3.6M's capture area: turned, centred, and cut where they are too long."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.mocap_clips import Clip, Clips
from data_prep.synthetic.rotations import rotation_z

AREA_HALF_MM = np.array([1300.0, 1600.0])
"""The pelvis stays within this of the room's middle, in x and y."""
TURN_STEP_DEG = 15
LONGEST_LEG_MM = 1000.0
"""Legs of the tallest synthetic body: clips that fit with them fit with all."""
SHORTEST_PIECE_S = 1.0

Path2D = Float[np.ndarray, "frames 2"]


def best_turn_rad(path_mm: Path2D) -> float:
    """The least turn about z, in steps of 15 degrees, that brings a path into the area.

    Where none does, the one with the least overhang. Most clips are short enough to keep their
    heading, so that people face all ways.
    """
    steps = np.arange(0, 181, TURN_STEP_DEG)
    angles = np.radians(np.stack([steps, -steps], axis=1).ravel())
    overhang = [_overhang_mm(path_mm, angle) for angle in angles]
    return float(angles[int(np.argmin(overhang))])  # the first, so the least turn, of equals


def middle_mm(path_mm: Path2D) -> Float[np.ndarray, "2"]:
    """The middle of a path's extent."""
    return (path_mm.min(axis=0) + path_mm.max(axis=0)) / 2


def _overhang_mm(path_mm: Path2D, angle_rad: float) -> float:
    """By how much a path, turned and centred, leaves the area; 0 if it does not."""
    turned = path_mm @ rotation_z(angle_rad)[:2, :2].T
    return float(np.maximum(np.ptp(turned, axis=0) / 2 - AREA_HALF_MM, 0.0).max().round(1))


def cut_to_area(clips: Iterable[Clip]) -> Clips:
    """Cut clips that walk out of the area into the fewest equal pieces that stay in it.

    Pieces are never shorter than a second; where even those leave the area (a sprint), they do.
    They are named "recording/1", "recording/2", ... and keep their recording, so that
    `split_clips` leaves them together.
    """
    pieces: list[Clip] = []
    for clip in clips:
        pieces.extend(_pieces(clip))
    return Clips(pieces)


def _pieces(clip: Clip) -> list[Clip]:
    path = clip.joints_mm[:, 0, :2] * (LONGEST_LEG_MM / clip.leg_mm)
    most = max(1, int(clip.num_frames / clip.frames_per_s / SHORTEST_PIECE_S))
    edges = np.array([0, clip.num_frames])
    for count in range(1, most + 1):
        edges = np.linspace(0, clip.num_frames, count + 1).round().astype(int)
        parts = [path[start:stop] for start, stop in pairwise(edges)]
        if all(_overhang_mm(part, best_turn_rad(part)) == 0.0 for part in parts):
            break
    if len(edges) == 2:
        return [clip]
    return [
        clip.piece(int(start), int(stop), number)
        for number, (start, stop) in enumerate(pairwise(edges), 1)
    ]
