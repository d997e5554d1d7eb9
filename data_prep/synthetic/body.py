"""The synthetic body: shapes from the baked asset, posed and skinned.

Axes: x to the subject's left, y backward, z up, millimetres. A pose gives every bone a rotation
in the frame of its parent, in the axes of a neutral stance with arms and legs straight down, so
that an elbow or a knee turns about x alone. `Body` knows how far the asset's rest stance is from
that neutral one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from data_prep.synthetic.rotations import (
    apply,
    frame_of,
    rotation_z,
    shortest_rotation,
    twist_angle,
)

ASSET_NAME = "body.npz"
ASSET_FORMAT = "pose3d-body 1"

JOINT_BONES = (
    "pelvis",
    "r_thigh",
    "r_shank",
    "r_foot",
    "l_thigh",
    "l_shank",
    "l_foot",
    "chest",
    "neck",
    "head",
    "head_top",
    "l_upperarm",
    "l_forearm",
    "l_hand",
    "r_upperarm",
    "r_forearm",
    "r_hand",
)
"""Bone whose head, or landmark that, is each joint of `HUMAN36M_17`, in its order."""

LANDMARK_BONES = {
    "head_top": "head",
    "l_knuckle": "l_hand",
    "r_knuckle": "r_hand",
    "l_toe": "l_foot",
    "r_toe": "r_foot",
}
TWIST_HELPERS = {
    "l_shoulder_twist": "l_upperarm",
    "r_shoulder_twist": "r_upperarm",
    "l_hip_twist": "l_thigh",
    "r_hip_twist": "r_thigh",
}
STANDARD_LEG_MM = 850.0
"""Legs of the body for which sizes that go with the body are given."""
_DOWN = np.array([0.0, 0.0, -1.0])


@dataclass(frozen=True, kw_only=True, eq=False)
class BodyModel:
    """The asset's contents: one mesh and skeleton for all shapes."""

    faces: Int[np.ndarray, "faces 3"]
    bone_names: tuple[str, ...]
    bone_parents: tuple[int, ...]
    landmark_names: tuple[str, ...]
    weights: Float[np.ndarray, "vertices bones"]
    mean_mm: Float[np.ndarray, "points 3"]
    blendshapes_mm: Float[np.ndarray, "shapes points 3"]
    coefficients: np.ndarray
    """Blendshape coefficients at every combination of the phenotypes' anchors."""
    phenotype_names: tuple[str, ...]

    def rest_shape(
        self, **phenotypes: float
    ) -> tuple[Float[np.ndarray, "vertices 3"], dict[str, Float[np.ndarray, "3"]]]:
        """Vertices and named joint centres of one shape at rest, millimetres.

        Args:
            **phenotypes: Any of gender, muscle, weight, height, proportions, in [0, 1];
                0.5 where left out.

        Raises:
            ValueError: If a phenotype is unknown or outside [0, 1].
        """
        unknown = set(phenotypes) - set(self.phenotype_names)
        if unknown:
            raise ValueError(f"unknown phenotypes {sorted(unknown)}, known: {self.phenotype_names}")
        table = self.coefficients.astype(np.float64)
        for name in self.phenotype_names:
            value = float(phenotypes.get(name, 0.5))
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"phenotype {name} must be in [0, 1], got {value}")
            position = value * (len(table) - 1)
            low = min(int(position), len(table) - 2)
            table = table[low] + (position - low) * (table[low + 1] - table[low])
        points = self.mean_mm + np.einsum("k,kpc->pc", table, self.blendshapes_mm)
        num_vertices = len(self.weights)
        names = (*self.bone_names, *self.landmark_names)
        return points[:num_vertices], dict(zip(names, points[num_vertices:], strict=True))


def load_body_model(path: Path | None = None) -> BodyModel:
    """Read the baked asset; the one in the package where no path is given.

    Raises:
        ValueError: If the file is not an asset of this release.
    """
    source: Any = path or resources.files("data_prep") / "assets" / ASSET_NAME
    with source.open("rb") as file, np.load(file, allow_pickle=False) as asset:
        if "format" not in asset or str(asset["format"]) != ASSET_FORMAT:
            raise ValueError(f"{source} is not a body asset of format {ASSET_FORMAT!r}; bake again")
        quantum = float(asset["quantum_mm"])
        indices, values = asset["weight_indices"].astype(int), asset["weights"] / 65535.0
        dense = np.zeros((len(indices), len(asset["bone_names"])))
        np.put_along_axis(dense, indices, values, axis=1)
        return BodyModel(
            faces=asset["faces"].astype(np.int64),
            bone_names=tuple(str(name) for name in asset["bone_names"]),
            bone_parents=tuple(int(parent) for parent in asset["bone_parents"]),
            landmark_names=tuple(str(name) for name in asset["landmark_names"]),
            weights=dense / dense.sum(axis=1, keepdims=True),
            mean_mm=asset["mean"] * quantum,
            blendshapes_mm=asset["blendshapes"] * quantum,
            coefficients=asset["coefficients"],
            phenotype_names=tuple(str(name) for name in asset["phenotype_names"]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedSkeleton:
    """Bones of one pose: rotations from the neutral stance, and where bones start."""

    rotations: Float[np.ndarray, "bones 3 3"]
    heads_mm: Float[np.ndarray, "bones 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedSkeletons:
    """Bones of many poses, such as the frames of a motion."""

    rotations: Float[np.ndarray, "frames bones 3 3"]
    heads_mm: Float[np.ndarray, "frames bones 3"]

    def frame(self, index: int) -> PosedSkeleton:
        """One of the poses."""
        return PosedSkeleton(rotations=self.rotations[index], heads_mm=self.heads_mm[index])


class Body:
    """One shape of the body model, ready to be posed.

    Attributes:
        model: The mesh and skeleton shared by all shapes.
        rest_vertices_mm: The shape at rest.
        rest_heads_mm: Where its bones start at rest, (bones, 3).
        offsets_mm: From each bone's parent to the bone in the neutral stance, (bones, 3).
        landmarks_mm: Each landmark from its bone's head in the neutral stance.
    """

    def __init__(self, model: BodyModel, **phenotypes: float) -> None:
        self.model = model
        self.rest_vertices_mm, rest = model.rest_shape(**phenotypes)
        self.index = {name: i for i, name in enumerate(model.bone_names)}
        self.rest_heads_mm = np.stack([rest[name] for name in model.bone_names])
        self._neutral = _neutral_rotations(model.bone_names, rest)
        self.offsets_mm = np.zeros_like(self.rest_heads_mm)
        for bone, parent in enumerate(model.bone_parents):
            if parent >= 0:
                rest_offset = self.rest_heads_mm[bone] - self.rest_heads_mm[parent]
                self.offsets_mm[bone] = self._neutral[parent] @ rest_offset
        self.landmarks_mm = {
            name: self._neutral[self.index[bone]] @ (rest[name] - rest[bone])
            for name, bone in LANDMARK_BONES.items()
        }

    def length_mm(self, bone: str) -> float:
        """Distance of a bone's head from its parent's."""
        return float(np.linalg.norm(self.offsets_mm[self.index[bone]]))

    @cached_property
    def leg_mm(self) -> float:
        """Length of a straight leg, thigh and shank together."""
        return self.length_mm("l_shank") + self.length_mm("l_foot")

    @cached_property
    def ankle_height_mm(self) -> float:
        """Height of the ankle above the sole of a flat foot."""
        sole = self.model.weights[:, self.index["l_foot"]] > 0.5
        ankle = self.rest_heads_mm[self.index["l_foot"], 2]
        return float(ankle - self.rest_vertices_mm[sole, 2].min())

    def pose(
        self, local: Mapping[str, Float[np.ndarray, "3 3"]], root_mm: Float[np.ndarray, "3"]
    ) -> PosedSkeleton:
        """Turn the bones of one pose; see `pose_frames`."""
        return self.pose_frames(
            {name: turn[None] for name, turn in local.items()}, root_mm[None]
        ).frame(0)

    def pose_frames(
        self,
        local: Mapping[str, Float[np.ndarray, "frames 3 3"]],
        root_mm: Float[np.ndarray, "frames 3"],
    ) -> PosedSkeletons:
        """Turn the bones: forward kinematics.

        Args:
            local: Rotation of a bone in its parent's frame, for each bone that turns; the
                pelvis's is its orientation. Twist helpers follow their bones.
            root_mm: Position of the pelvis.
        """
        parents = self.model.bone_parents
        rotations = np.empty((len(root_mm), len(parents), 3, 3))
        heads = np.empty((len(root_mm), len(parents), 3))
        for bone, name in enumerate(self.model.bone_names):
            parent = parents[bone]
            turn = local.get(TWIST_HELPERS.get(name, name))
            if turn is not None and name in TWIST_HELPERS:
                turn = turn @ rotation_z(-0.5 * twist_angle(turn))
            if parent < 0:
                rotations[:, bone] = np.eye(3) if turn is None else turn
                heads[:, bone] = root_mm
                continue
            above = rotations[:, parent]
            heads[:, bone] = heads[:, parent] + above @ self.offsets_mm[bone]
            rotations[:, bone] = above if turn is None else above @ turn
        return PosedSkeletons(rotations=rotations, heads_mm=heads)

    def skin(
        self, skeleton: PosedSkeleton | PosedSkeletons
    ) -> Float[np.ndarray, "*frames vertices 3"]:
        """Vertices of the posed body by linear blend skinning, millimetres."""
        matrices = skeleton.rotations @ self._neutral
        shifts = skeleton.heads_mm - apply(matrices, self.rest_heads_mm)
        transforms = np.concatenate([matrices, shifts[..., None]], axis=-1)
        num_bones = len(self._neutral)
        blended = self.model.weights @ transforms.reshape(*shifts.shape[:-2], num_bones, 12)
        blended = blended.reshape(*blended.shape[:-1], 3, 4)
        rotated = np.einsum("...vij,vj->...vi", blended[..., :3], self.rest_vertices_mm)
        return rotated + blended[..., 3]

    def point_mm(
        self, skeleton: PosedSkeleton | PosedSkeletons, name: str
    ) -> Float[np.ndarray, "*frames 3"]:
        """Position of a bone's head or of a landmark."""
        if name in LANDMARK_BONES:
            bone = self.index[LANDMARK_BONES[name]]
            offset = skeleton.rotations[..., bone, :, :] @ self.landmarks_mm[name]
            return skeleton.heads_mm[..., bone, :] + offset
        return skeleton.heads_mm[..., self.index[name], :]

    def hand_height_mm(
        self, skeleton: PosedSkeleton | PosedSkeletons, side: str
    ) -> Float[np.ndarray, "*frames"]:
        """Height of a hand's lowest skin, by its outermost vertices; side is "l" or "r"."""
        bone = self.index[f"{side}_hand"]
        around = self.rest_vertices_mm[self.model.weights[:, bone] > 0.5]
        around = (around - self.rest_heads_mm[bone]) @ self._neutral[bone].T
        outermost = around[np.concatenate([around.argmin(axis=0), around.argmax(axis=0)])]
        down = skeleton.rotations[..., bone, 2, :] @ outermost.T
        return skeleton.heads_mm[..., bone, 2] + down.min(axis=-1)

    def joints_mm(
        self, skeleton: PosedSkeleton | PosedSkeletons
    ) -> Float[np.ndarray, "*frames 17 3"]:
        """The joints of `HUMAN36M_17`, in its order."""
        return np.stack([self.point_mm(skeleton, name) for name in JOINT_BONES], axis=-2)


def _neutral_rotations(
    names: tuple[str, ...], rest: Mapping[str, Float[np.ndarray, "3"]]
) -> Float[np.ndarray, "bones 3 3"]:
    """Rotation of each bone from the asset's rest stance to the neutral stance."""
    neutral = {name: np.eye(3) for name in names}
    for side in ("l", "r"):
        upper = rest[f"{side}_forearm"] - rest[f"{side}_upperarm"]
        fore = rest[f"{side}_hand"] - rest[f"{side}_forearm"]
        # The elbow's axis: at rest it is bent a little forward, and in the neutral stance
        # bending forward is a turn about -x.
        hinge = np.cross(upper, fore)
        target = frame_of(_DOWN, np.array([-1.0, 0.0, 0.0]))
        neutral[f"{side}_upperarm"] = target @ frame_of(upper, hinge).T
        neutral[f"{side}_forearm"] = target @ frame_of(fore, hinge).T
        hand = rest[f"{side}_knuckle"] - rest[f"{side}_hand"]
        turned = neutral[f"{side}_forearm"] @ hand
        neutral[f"{side}_hand"] = shortest_rotation(turned, _DOWN) @ neutral[f"{side}_forearm"]
        thigh = rest[f"{side}_shank"] - rest[f"{side}_thigh"]
        shank = rest[f"{side}_foot"] - rest[f"{side}_shank"]
        neutral[f"{side}_thigh"] = shortest_rotation(thigh, _DOWN)
        neutral[f"{side}_shank"] = shortest_rotation(shank, _DOWN)
    for helper, bone in TWIST_HELPERS.items():
        neutral[helper] = neutral[bone]
    return np.stack([neutral[name] for name in names])
