"""Performances that the synthetic data set films: its people, motion, rooms and light."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from data_prep.human36m import RAW_17, action_name
from data_prep.lookalike.world import Performance, World
from data_prep.pictures import Image
from data_prep.synthetic.renderers import open_renderer, resolve_renderer
from data_prep.synthetic.scene import Photograph, Studio

FOOT_MM, TOES_MM, HAND_MM = 130.0, 60.0, 80.0
HAND_ENDS = {19: (21, 22, 23), 27: (29, 30, 31)}
"""Of the release's 32 joints, those at the end of each hand, by its wrist."""


def photographed(world: World, *, seed: int) -> World:
    """The same subjects, actions and numbers of poses, with synthetic motion and photographs.

    A full frame takes about 0.4 s on one core, one with a figure of limbs 0.02 s.
    """
    painter = PhotographPainter(seed)
    performances = [
        replace(performance, joints32_world_mm=painter.joints32(performance))
        for performance in world.performances
    ]
    return replace(world, performances=tuple(performances), painter=painter)


class PhotographPainter:
    """Takes photographs in a studio; a `Painter`.

    Args:
        seed: Everything follows from it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __getstate__(self) -> dict[str, Any]:
        return {"_seed": self._seed}  # every process has a studio of its own

    @cached_property
    def _studio(self) -> Studio:
        renderer = open_renderer(resolve_renderer("auto"))
        return Studio(self._seed, crop_size_px=256, margin=1.0, renderer=renderer)

    @cached_property
    def _last(self) -> dict[tuple, Photograph]:
        return {}

    def joints32(self, performance: Performance) -> Float[np.ndarray, "n 32 3"]:
        """The release's 32 joints of the motion that is filmed, world, millimetres."""
        take = self._studio.take(
            performance.subject,
            action_name(performance.action),
            performance.subaction,
            num_frames=len(performance),
        )
        return raw_joints(take.joints_mm)

    def image(self, performance: Performance, camera_name: str, frame: int) -> Image:
        """The full image, BGR."""
        photograph = self._photograph(performance, camera_name, frame)
        return np.ascontiguousarray(photograph.image[..., ::-1])

    def mask(
        self, performance: Performance, camera_name: str, frame: int
    ) -> Bool[np.ndarray, "height width"]:
        """Where the person is seen."""
        return self._photograph(performance, camera_name, frame).mask

    def _photograph(self, performance: Performance, camera_name: str, frame: int) -> Photograph:
        """Draw a frame, unless it was the last one drawn."""
        key = (*performance.key, camera_name, frame)
        if key not in self._last:
            photograph = self._studio.photograph(
                performance.subject,
                action_name(performance.action),
                performance.subaction,
                camera_name,
                frame,
                num_frames=len(performance),
            )
            self._last.clear()
            self._last[key] = photograph
        return self._last[key]


def raw_joints(joints_mm: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "n 32 3"]:
    """The release's 32 joints: the 17, those that repeat others, and ends of feet and hands."""
    raw = np.zeros((len(joints_mm), 32, 3))
    raw[:, RAW_17] = joints_mm
    raw[:, 11] = raw[:, 0]
    raw[:, 16] = raw[:, 24] = raw[:, 13]
    left = _unit(raw[:, 6] - raw[:, 1])
    ahead = _unit(np.cross(left, [0.0, 0.0, 1.0]))
    for ankle in (3, 8):
        raw[:, ankle + 1] = raw[:, ankle] + FOOT_MM * ahead
        raw[:, ankle + 2] = raw[:, ankle + 1] + TOES_MM * ahead
    for elbow, wrist in ((18, 19), (26, 27)):
        end = raw[:, wrist] + HAND_MM * _unit(raw[:, wrist] - raw[:, elbow])
        raw[:, wrist + 1] = raw[:, wrist]
        for site in HAND_ENDS[wrist]:
            raw[:, site] = end
    return raw


def _unit(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
