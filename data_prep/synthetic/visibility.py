"""Which joints are seen: what the depth buffer shows at a joint that lies inside the body.

A joint is never on the surface, so that something is always in front of it: at least the flesh and
cloth around itself. It is seen where the surface at its pixel is its own flesh: skin that follows a
bone which meets at the joint, no farther in front of it than that flesh is thick (`FLESH_MM`).
Another limb, the far side of the trunk or a piece of furniture hides it.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from data_prep.synthetic.raster import Tile
from pose3d.geometry.skeleton import HUMAN36M_17

FLESH_MM: dict[str, float] = {
    "Pelvis": 205.0,
    "Hip": 150.0,
    "Knee": 95.0,
    "Ankle": 100.0,
    "Torso": 225.0,
    "Neck": 120.0,
    "Nose": 155.0,
    "Head": 140.0,
    "Shoulder": 110.0,
    "Elbow": 85.0,
    "Wrist": 60.0,
}
"""Thickness of the flesh around a joint, by joint without its side: the farthest skin around the
seven subjects' joints at rest, across the limb, and 25 mm for cloth."""

OWN_BONES: dict[str, tuple[str, ...]] = {
    "Pelvis": ("pelvis", "spine", "hip_twist", "thigh"),
    "Hip": ("pelvis", "spine", "*_hip_twist", "*_thigh"),
    "Knee": ("*_hip_twist", "*_thigh", "*_shank"),
    "Ankle": ("*_shank", "*_foot"),
    "Torso": ("pelvis", "spine", "chest"),
    "Neck": ("chest", "neck", "head", "clavicle", "shoulder_twist"),
    "Nose": ("head", "neck"),
    "Head": ("head",),
    "Shoulder": ("chest", "*_clavicle", "*_shoulder_twist", "*_upperarm"),
    "Elbow": ("*_shoulder_twist", "*_upperarm", "*_forearm"),
    "Wrist": ("*_forearm", "*_hand"),
}
"""Bones whose skin is a joint's own flesh; "*" is the joint's side, no side means both."""


class Sight:
    """Judges joints of one body model.

    Args:
        bone_names: The model's bones.
    """

    def __init__(self, bone_names: tuple[str, ...]) -> None:
        kinds = [name.removeprefix("L_").removeprefix("R_") for name in HUMAN36M_17.joint_names]
        self._flesh_mm = np.array([FLESH_MM[kind] for kind in kinds])
        # The last column stands for furniture.
        self._is_own = np.zeros((len(kinds), len(bone_names) + 1), bool)
        for joint, (kind, full) in enumerate(zip(kinds, HUMAN36M_17.joint_names, strict=True)):
            side = full[0].lower()
            wanted = {name.replace("*", side) for name in OWN_BONES[kind]}
            self._is_own[joint, :-1] = [
                bone in wanted or bone.removeprefix("l_").removeprefix("r_") in wanted
                for bone in bone_names
            ]

    def seen(
        self,
        tile: Tile,
        bones: Int[np.ndarray, " triangles"],
        joints_px: Float[np.ndarray, "17 2"],
        depths_mm: Float[np.ndarray, " 17"],
        before_mm: Float[np.ndarray, " 17"],
    ) -> Bool[np.ndarray, " 17"]:
        """Joints that nothing hides.

        Args:
            tile: What is seen of person and seat.
            bones: Bone that each of the tile's triangles follows most; -1 for the seat.
            joints_px: Joints in the picture that the tile is part of.
            depths_mm: Their camera z.
            before_mm: Camera z of other furniture at the joints; infinite where there is none.
        """
        triangle, surface_mm = tile.look_at(joints_px)
        is_own = self._is_own[np.arange(len(triangle)), bones[triangle]]
        is_near = surface_mm > depths_mm - self._flesh_mm
        is_free = before_mm > np.minimum(surface_mm, depths_mm)
        return is_free & ((triangle < 0) | (is_own & is_near))
