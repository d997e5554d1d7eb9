"""How a person looks: skin, hair or cap, face, and what is worn, as layers over the body's mesh.

A place on the body has a part, its place on the mean body at rest, and how far along its limb it
lies (0 at the shoulder or hip, 1 at elbow or knee, 2 at wrist or ankle). From these follows the
layer that is seen there, sample by sample, so that a hem is not bound to the mesh's triangles.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.synthetic.patterns import (
    PATTERN_SIZE,
    TEXELS_PER_MM,
    cloth_colour,
    cloth_pattern,
    hair_colour,
    skin_colour,
    two_colours,
    varied,
    wood_pattern,
)

TORSO, ARM, LEG, FOOT, HAND, HEAD = range(6)
SKIN, TOP, BOTTOM, SHOES, HAIR, OVER, SOCKS, DARK, LIPS, LOGO, BELT, CAP = range(12)
FIRST_MATERIAL = 16
"""Parts and layers from here on are materials of furniture."""
NUM_MATERIALS = 24
NUM_LAYERS = FIRST_MATERIAL + NUM_MATERIALS


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """Everything that decides how a person and the furniture are coloured."""

    colours: Float[np.ndarray, "layers 256 3"]
    """Colours of each layer's greys, in [0, 1]."""
    patterns: UInt8[np.ndarray, "layers size size"]
    sleeve: float
    """Where sleeves end along the arm; below 0: a bare chest."""
    leg: float
    """Where trousers end along the leg."""
    hem: float
    """Where the upper garment ends along the leg; below 0: at the waist."""
    waist_mm: float
    """Height of the waist over the hips."""
    neckline_mm: float
    """Depth of the neckline under the neck."""
    opening_mm: float
    """Half the width of an open jacket's front; below 0 where there is none."""
    jacket_sleeve: float
    sock: float
    """Where socks begin along the leg."""
    has_belt: bool
    hairline: float
    """Where hair begins between the middle of the head and its top; above 1: none."""
    hair_length_mm: float
    """How far hair falls below the middle of the head."""
    has_cap: bool
    beard_mm: float
    """Height of a beard over the chin; 0 where there is none."""
    has_glasses: bool
    logo_mm: tuple[float, float, float]
    """Middle (to the left, over the chest) and size of a print on the chest; size 0: none."""
    loose_top_mm: float
    loose_bottom_mm: float
    hair_volume_mm: float


def draw_look(rng: np.random.Generator, *, femininity: float) -> Look:
    """Draw how somebody looks.

    Args:
        rng: All randomness comes from here.
        femininity: The body's gender, 0 to 1: skirts and long hair are the more frequent the
            higher, beards the lower.
    """
    u = rng.uniform
    is_bare = rng.random() < 0.05 * (1.0 - femininity)
    has_skirt = rng.random() < 0.3 * femininity
    has_dress = has_skirt and rng.random() < 0.4
    has_tails, tails = rng.random() < 0.35, float(u(0.02, 0.35))
    shorts = float(u(0.55, 1.15))
    leg = shorts if has_skirt or rng.random() < 0.28 else float(u(1.75, 1.97))
    sleeve = float(rng.choice([u(0.1, 0.3), u(0.45, 0.8), u(0.9, 1.3), u(1.75, 1.98)], p=_SLEEVES))
    has_jacket = not is_bare and rng.random() < 0.2
    is_bald = rng.random() < 0.12 * (1.0 - femininity)
    has_long_hair = rng.random() < 0.1 + 0.6 * femininity and not is_bald
    has_logo = not is_bare and rng.random() < 0.2
    return Look(
        colours=_colours(rng, is_bare=is_bare, is_barefoot=rng.random() < 0.1),
        patterns=_patterns(rng),
        sleeve=-1.0 if is_bare else sleeve,
        leg=leg,
        hem=-1.0 if is_bare or not (has_dress or has_tails) else leg if has_dress else tails,
        waist_mm=float(u(55.0, 105.0)),
        neckline_mm=float(u(0.0, 40.0) if rng.random() < 0.7 else u(40.0, 130.0)),
        opening_mm=float(u(0.0, 70.0)) if has_jacket else -1.0,
        jacket_sleeve=float(u(1.6, 1.98)) if rng.random() < 0.85 else 0.05,
        sock=float(u(1.55, 1.95)) if rng.random() < 0.5 else 2.0,
        has_belt=rng.random() < 0.3,
        hairline=2.0 if is_bald else float(u(0.4, 0.62)),
        hair_length_mm=float(u(80.0, 330.0) if has_long_hair else u(0.0, 40.0)),
        has_cap=rng.random() < 0.12,
        beard_mm=float(u(15.0, 60.0)) if rng.random() < 0.3 * (1.0 - femininity) else 0.0,
        has_glasses=rng.random() < 0.15,
        logo_mm=(float(u(-40.0, 40.0)), float(u(60.0, 160.0)), float(u(60.0, 260.0)) * has_logo),
        loose_top_mm=float(u(0.0, 18.0) + 8.0 * has_jacket),
        loose_bottom_mm=float(u(0.0, 24.0)),
        hair_volume_mm=float(u(4.0, 22.0)),
    )


_QUIET_SHARES = {SHOES: 0.85, SOCKS: 0.8, BOTTOM: 0.7}
_SLEEVES = (0.15, 0.4, 0.12, 0.33)


def _colours(
    rng: np.random.Generator, *, is_bare: bool, is_barefoot: bool
) -> Float[np.ndarray, "layers 256 3"]:
    """Two related or contrasting colours of every layer."""
    table = np.empty((NUM_LAYERS, 256, 3))
    for layer in range(NUM_LAYERS):
        quiet_share = _QUIET_SHARES.get(layer, 0.5)
        first = cloth_colour(rng, quiet_share=quiet_share)
        second = varied(first, rng, 0.25) if rng.random() < 0.5 else cloth_colour(rng)
        table[layer] = two_colours(first, second)
    skin, hair = skin_colour(rng), hair_colour(rng)
    table[SKIN] = two_colours(skin, 0.86 * skin)
    table[HAIR] = two_colours(hair, 0.6 * hair)
    table[LIPS] = two_colours(skin * [0.85, 0.55, 0.55], skin * [0.8, 0.5, 0.5])
    table[DARK] = two_colours((0.06, 0.05, 0.05), (0.2, 0.17, 0.16))
    table[BELT] = two_colours(varied((0.12, 0.08, 0.05), rng, 0.3), (0.3, 0.25, 0.2))
    for layer, is_worn in ((TOP, not is_bare), (SHOES, not is_barefoot)):
        if not is_worn:
            table[layer] = table[SKIN]
    if is_barefoot:
        table[SOCKS] = table[SKIN]
    for layer in range(FIRST_MATERIAL, NUM_LAYERS):
        if rng.random() < 0.45:
            wood = varied((0.50, 0.34, 0.20), rng, 0.35)
            table[layer] = two_colours(wood, 0.75 * wood)
    return table.astype(np.float32)


def _patterns(rng: np.random.Generator) -> UInt8[np.ndarray, "layers size size"]:
    """Patterns of all layers."""
    loud = (TOP, BOTTOM, OVER, LOGO, CAP)
    makers = [
        wood_pattern(rng)
        if layer >= FIRST_MATERIAL and rng.random() < 0.5
        else cloth_pattern(rng, quiet=layer not in loud or (layer == BOTTOM and rng.random() < 0.7))
        for layer in range(NUM_LAYERS)
    ]
    stack = np.stack(makers)
    y, x = np.mgrid[0:PATTERN_SIZE, 0:PATTERN_SIZE] / PATTERN_SIZE
    middle = rng.uniform(0.3, 0.7, size=2)
    shape = np.hypot(x - middle[0], y - middle[1]) < rng.uniform(0.2, 0.4)
    stack[LOGO] = 255 * (shape ^ (stack[LOGO] > 128))
    return stack


def layers_at(
    look: Look,
    part: Int[np.ndarray, " n"],
    place_mm: Float[np.ndarray, "n 3"],
    limb: Float[np.ndarray, " n"],
    landmarks: dict[str, Float[np.ndarray, "3"]],
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 2"]]:
    """Which layer is seen at places of the body or of furniture, and where in its pattern.

    Args:
        look: What is worn.
        part: Part of the body, or from `FIRST_MATERIAL` on a material.
        place_mm: On the mean body at rest; for furniture, the place in its surface's pattern.
        limb: Place along the limb, for arms and legs.
        landmarks: Named points of the mean body at rest, millimetres.

    Returns:
        Layers, and places in their patterns in texels.
    """
    layer = _BASE.take(part)
    texels = np.float32(TEXELS_PER_MM) * place_mm[:, :2]
    on_body = np.flatnonzero(part < FIRST_MATERIAL)
    texels[on_body, 1] = np.float32(TEXELS_PER_MM) * place_mm[on_body, 2]
    for of_part, colour in ((TORSO, _torso), (ARM, _arm), (LEG, _leg), (HEAD, _head)):
        rows = np.flatnonzero(part == of_part)
        if len(rows):
            layer[rows] = colour(look, place_mm[rows], limb[rows], landmarks)
            if of_part in (ARM, LEG):
                length_mm, across = (290.0, 1) if of_part == ARM else (440.0, 0)
                texels[rows, 1] = (-TEXELS_PER_MM * length_mm) * limb[rows]
                texels[rows, 0] = TEXELS_PER_MM * place_mm[rows, across]
    return layer, _print(look, layer, place_mm, texels, landmarks)


_BASE = np.arange(NUM_LAYERS)
_BASE[[TORSO, ARM, LEG, FOOT, HAND, HEAD]] = TOP, TOP, BOTTOM, SHOES, SKIN, SKIN


def _torso(look: Look, place: np.ndarray, limb: np.ndarray, landmarks: dict) -> np.ndarray:
    x, y, z = place.T
    layer = np.full(len(place), TOP)
    if look.opening_mm >= 0:
        layer[(np.abs(x) > look.opening_mm + 0.15 * np.maximum(z - 500.0, 0.0)) | (y > 0)] = OVER
    neck = landmarks["neck"]
    above = z - (neck[2] - 55.0 - look.neckline_mm)
    layer[(above > 0) & (np.abs(x) < 50.0 + 0.4 * above) & (y < neck[1])] = SKIN
    waist = landmarks["pelvis"][2] + look.waist_mm
    if look.hem < 0:
        layer[z < waist] = BOTTOM
        if look.has_belt:
            layer[(z < waist) & (z > waist - 32.0)] = BELT
    fall = landmarks["head"][2] - look.hair_length_mm
    layer[(z > fall) & (y > neck[1] + 25.0) & (np.abs(x) < 90.0)] = HAIR
    return layer


def _arm(look: Look, place: np.ndarray, limb: np.ndarray, landmarks: dict) -> np.ndarray:
    layer = np.where(limb > look.sleeve, SKIN, TOP)
    if look.opening_mm >= 0:
        layer[limb <= look.jacket_sleeve] = OVER
    return layer


def _leg(look: Look, place: np.ndarray, limb: np.ndarray, landmarks: dict) -> np.ndarray:
    layer = np.where(limb > look.leg, SKIN, BOTTOM)
    layer[limb <= look.hem] = OVER if look.opening_mm >= 0 else TOP
    layer[limb > max(look.sock, look.leg)] = SOCKS
    layer[limb > 1.97] = SHOES
    return layer


def _head(look: Look, place: np.ndarray, limb: np.ndarray, landmarks: dict) -> np.ndarray:
    x, y, z = place.T
    nose, middle, top = landmarks["nose_tip"], landmarks["head"], landmarks["head_top"]
    layer = np.full(len(place), SKIN)
    front = y < nose[1] + 75.0
    x, above = np.abs(x), z - nose[2]
    if look.beard_mm > 0:
        chin = (above < look.beard_mm - 70.0) & (y < nose[1] + 110.0)
        layer[chin & (above > -105.0) & ~((x < 10.0) & (above > -30.0))] = HAIR
    layer[front & (x < 25.0) & (above > -40.0) & (above < -27.0)] = LIPS
    layer[front & (x > 18.0) & (x < 47.0) & (above > 28.0) & (above < 41.0)] = DARK
    layer[front & (x > 14.0) & (x < 54.0) & (above > 48.0) & (above < 57.0)] = HAIR
    if look.has_glasses:
        layer[(y < nose[1] + 100.0) & (above > 29.0) & (above < 41.0)] = DARK
    crown = z > middle[2] + look.hairline * (top[2] - middle[2])
    behind = (y > middle[1] + 25.0) & (z > middle[2] - look.hair_length_mm)
    if look.hairline <= 1:
        layer[(crown & (y > middle[1] - 85.0)) | behind] = HAIR
    if look.has_cap:
        layer[above > 62.0] = CAP
    return layer


def _print(
    look: Look, layer: np.ndarray, place: np.ndarray, texels: np.ndarray, landmarks: dict
) -> np.ndarray:
    """Put a print on the chest; changes `layer`, returns the places in patterns."""
    across, below, size = look.logo_mm
    if size == 0.0:
        return texels
    worn = OVER if look.opening_mm >= 0 else TOP
    middle = np.array([across, landmarks["neck"][2] - 60.0 - below])
    inside = (layer == worn) & (place[:, 1] < 0)
    inside &= (np.abs(place[:, [0, 2]] - middle) < size / 2).all(axis=1)
    rows = np.flatnonzero(inside)
    layer[rows] = LOGO
    texels[rows] = PATTERN_SIZE * ((place[rows][:, [0, 2]] - middle) / size + 0.5)
    return texels
