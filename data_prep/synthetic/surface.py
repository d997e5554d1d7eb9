"""The body's mesh as clothes see it: parts, places along limbs, and room for cloth and hair."""

from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from data_prep.synthetic.body import BodyModel
from data_prep.synthetic.wardrobe import ARM, FOOT, HAND, HEAD, LEG, TORSO, Look

_PARTS = {
    "pelvis": TORSO,
    "spine": TORSO,
    "chest": TORSO,
    "clavicle": TORSO,
    "neck": HEAD,
    "head": HEAD,
    "shoulder_twist": ARM,
    "upperarm": ARM,
    "forearm": ARM,
    "hand": HAND,
    "hip_twist": LEG,
    "thigh": LEG,
    "shank": LEG,
    "foot": FOOT,
}


class BodySurface:
    """What is the same for all shapes of a body model.

    Attributes:
        faces: Triangles of the mesh.
        parts: Part of each face, see `wardrobe`.
        bones: Bone that each face follows most.
        places_mm: Each vertex on the mean body at rest.
        limb: How far along its limb each vertex lies: 0 shoulder or hip, 2 wrist or ankle.
        landmarks: Bones' heads, landmarks, and the tip of the nose of the mean body at rest.
    """

    def __init__(self, model: BodyModel) -> None:
        self.faces = model.faces
        num_vertices = len(model.weights)
        self.places_mm = model.mean_mm[:num_vertices]
        names = (*model.bone_names, *model.landmark_names)
        self.landmarks: dict[str, Float[np.ndarray, "3"]] = dict(
            zip(names, model.mean_mm[num_vertices:], strict=True)
        )
        bone_parts = np.array(
            [_PARTS[name.removeprefix("l_").removeprefix("r_")] for name in model.bone_names]
        )
        self._part_weights = np.stack(
            [model.weights[:, bone_parts == part].sum(axis=1) for part in range(HEAD + 1)], axis=1
        )
        self.parts: Int[np.ndarray, " faces"] = (
            self._part_weights[model.faces].mean(axis=1).argmax(axis=1)
        )
        self.bones: Int[np.ndarray, " faces"] = (
            model.weights[model.faces].mean(axis=1).argmax(axis=1)
        )
        vertex_parts = self._part_weights.argmax(axis=1)
        head = np.flatnonzero(vertex_parts == HEAD)
        tip = head[np.argmin(self.places_mm[head, 1])]
        self.landmarks["nose_tip"] = self.places_mm[tip]
        is_low = self.places_mm[:, 2] < self.landmarks["pelvis"][2] + 40.0
        is_leg = np.isin(vertex_parts, (LEG, FOOT)) | ((vertex_parts == TORSO) & is_low)
        arm, leg = self._along("upperarm", "forearm", "hand"), self._along("thigh", "shank", "foot")
        self.limb: Float[np.ndarray, " vertices"] = np.where(is_leg, leg, arm)

    def _along(self, start: str, middle: str, end: str) -> Float[np.ndarray, " vertices"]:
        """Place along a limb: 0 at its start, 1 at its middle joint, 2 at its end; both sides."""
        mirrored = self.places_mm.copy()
        mirrored[:, 0] = np.abs(mirrored[:, 0])
        places = []
        for first, second in ((start, middle), (middle, end)):
            a, b = self.landmarks[f"l_{first}"], self.landmarks[f"l_{second}"]
            places.append((mirrored - a) @ (b - a) / ((b - a) @ (b - a)))
        return np.where(places[1] > 0, 1.0 + places[1], np.clip(places[0], 0.0, 1.0))

    @cached_property
    def _faces_of_vertex(self) -> sparse.csr_matrix:
        """Sums values of faces up at their vertices."""
        count = len(self.faces)
        rows, columns = self.faces.ravel(), np.repeat(np.arange(count), 3)
        shape = (len(self.places_mm), count)
        return sparse.csr_matrix((np.ones(3 * count), (rows, columns)), shape=shape)

    def normals(self, vertices_mm: Float[np.ndarray, "vertices 3"]) -> np.ndarray:
        """Outward unit normals of the vertices of a posed body."""
        a, b, c = (vertices_mm[self.faces[:, i]] for i in range(3))
        u, v = (b - a).T, (c - a).T
        areas = np.stack(
            [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]], -1
        )
        summed = self._faces_of_vertex @ areas
        return summed / np.maximum(np.sqrt((summed**2).sum(axis=1, keepdims=True)), 1e-9)

    def room_for_clothes(
        self, rest_vertices_mm: Float[np.ndarray, "vertices 3"], look: Look
    ) -> Float[np.ndarray, "vertices 3"]:
        """A body's vertices at rest, moved outward to where cloth, shoes and hair are."""
        share = self._part_weights
        sleeve = look.jacket_sleeve if look.opening_mm >= 0 else look.sleeve
        outward = look.loose_top_mm * (look.sleeve >= 0) * share[:, TORSO]
        outward += look.loose_top_mm * share[:, ARM] * (self.limb < sleeve)
        # Wider towards the hem.
        flare = np.clip(self.limb / max(look.leg, 0.1), 0.0, 1.0)
        outward += look.loose_bottom_mm * share[:, LEG] * flare * (self.limb < look.leg)
        outward += 4.0 * share[:, FOOT] * (self.places_mm[:, 2] > self._sole_mm + 20.0)
        nose, middle, top = (self.landmarks[n] for n in ("nose_tip", "head", "head_top"))
        _, y, z = self.places_mm.T
        above = z - nose[2]
        crown = z > middle[2] + look.hairline * (top[2] - middle[2])
        is_hair = (crown | ((y > middle[1] + 25.0) & (above > -10.0))) & (look.hairline <= 1)
        outward += look.hair_volume_mm * share[:, HEAD] * is_hair
        moved = rest_vertices_mm + outward[:, None] * self.normals(rest_vertices_mm)
        if look.has_cap:
            rim = (above > 55.0) & (above < 85.0) & (y < nose[1] + 45.0) & (share[:, HEAD] > 0.5)
            moved[rim] += [0.0, -55.0, -8.0]
        return moved

    @cached_property
    def _sole_mm(self) -> float:
        return float(self.places_mm[:, 2].min())
