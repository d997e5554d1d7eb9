"""The seven subjects: shapes, skin, hair, and what they wear; colours of the mesh's faces."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from data_prep.synthetic.body import BodyModel

SPLIT_SUBJECTS: dict[str, tuple[int, ...]] = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
"""Human3.6M's customary split."""

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """Clothes: colours as RGB in [0, 1], and how far sleeves and legs reach.

    `sleeve` counts from the shoulder (0) over the elbow (1) to the wrist (2), `leg` from the hip
    over the knee to the ankle.
    """

    shirt: Colour
    trousers: Colour
    shoes: Colour
    sleeve: float
    leg: float
    pattern: Colour | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A person: phenotypes of the body model, skin and hair, and outfits that vary by take."""

    phenotypes: dict[str, float]
    skin: Colour
    hair: Colour
    long_hair: bool
    outfits: tuple[Outfit, ...]


def _subject(
    phenotypes: tuple[float, float, float, float, float],
    skin: Colour,
    hair: Colour,
    *outfits: Outfit,
    long_hair: bool = False,
) -> Subject:
    names = ("gender", "muscle", "weight", "height", "proportions")
    return Subject(
        phenotypes=dict(zip(names, phenotypes, strict=True)),
        skin=skin,
        hair=hair,
        long_hair=long_hair,
        outfits=outfits,
    )


def _outfit(
    shirt: Colour,
    trousers: Colour,
    shoes: Colour,
    sleeve: float = 0.6,
    leg: float = 1.95,
    pattern: Colour | None = None,
) -> Outfit:
    return Outfit(
        shirt=shirt, trousers=trousers, shoes=shoes, sleeve=sleeve, leg=leg, pattern=pattern
    )


_BLACK, _WHITE, _GREY = (0.09, 0.09, 0.10), (0.85, 0.85, 0.83), (0.45, 0.45, 0.47)
_JEANS, _NAVY, _KHAKI = (0.22, 0.30, 0.45), (0.10, 0.13, 0.26), (0.55, 0.48, 0.34)
_BROWN = (0.30, 0.20, 0.13)

SUBJECTS: dict[int, Subject] = {
    1: _subject(
        (0.95, 0.45, 0.35, 0.45, 0.2),
        (0.86, 0.66, 0.55),
        (0.25, 0.15, 0.08),
        _outfit((0.62, 0.12, 0.16), _JEANS, _WHITE),
        _outfit((0.30, 0.48, 0.55), _BLACK, _BLACK, sleeve=1.9),
        long_hair=True,
    ),
    5: _subject(
        (0.85, 0.35, 0.62, 0.38, 0.5),
        (0.72, 0.52, 0.40),
        (0.08, 0.06, 0.05),
        _outfit((0.80, 0.62, 0.20), _NAVY, _BROWN, sleeve=0.45),
        _outfit((0.42, 0.22, 0.45), _GREY, _WHITE, sleeve=1.2, pattern=(0.75, 0.70, 0.75)),
        long_hair=True,
    ),
    6: _subject(
        (0.05, 0.70, 0.50, 0.45, 0.1),
        (0.80, 0.60, 0.48),
        (0.35, 0.24, 0.12),
        _outfit((0.15, 0.35, 0.20), _KHAKI, _BROWN, sleeve=0.7),
        _outfit(_WHITE, _JEANS, _GREY, pattern=(0.15, 0.20, 0.45)),
    ),
    7: _subject(
        (0.15, 0.30, 0.25, 0.55, 0.4),
        (0.42, 0.28, 0.20),
        (0.05, 0.04, 0.04),
        _outfit((0.20, 0.35, 0.70), _BLACK, _WHITE, sleeve=0.55),
        _outfit((0.70, 0.70, 0.68), (0.35, 0.12, 0.12), _BLACK, sleeve=1.9, leg=0.95),
    ),
    8: _subject(
        (0.0, 0.55, 0.78, 0.40, 0.6),
        (0.88, 0.70, 0.60),
        (0.50, 0.40, 0.28),
        _outfit(_BLACK, _GREY, _BLACK, sleeve=1.9),
        _outfit((0.75, 0.38, 0.15), _NAVY, _WHITE, pattern=(0.30, 0.15, 0.10)),
    ),
    9: _subject(
        (0.1, 0.60, 0.60, 0.42, 0.3),
        (0.78, 0.58, 0.47),
        (0.16, 0.11, 0.08),
        _outfit((0.12, 0.42, 0.42), _JEANS, _BROWN, sleeve=0.65),
        _outfit((0.55, 0.55, 0.60), _BLACK, _GREY, sleeve=1.9, pattern=(0.20, 0.20, 0.25)),
    ),
    11: _subject(
        (0.2, 0.40, 0.40, 0.50, 0.2),
        (0.62, 0.43, 0.32),
        (0.06, 0.05, 0.05),
        _outfit((0.78, 0.76, 0.70), _KHAKI, _WHITE, sleeve=0.6, leg=0.9),
        _outfit((0.50, 0.10, 0.30), (0.18, 0.18, 0.20), _BROWN, sleeve=1.3),
    ),
}


class FaceRegions:
    """Where each face of the mesh lies on the body, from the mean shape at rest."""

    def __init__(self, model: BodyModel) -> None:
        num_vertices = len(model.weights)
        rest = model.mean_mm[:num_vertices]
        names = (*model.bone_names, *model.landmark_names)
        self._points = dict(zip(names, model.mean_mm[num_vertices:], strict=True))
        self.centres_mm: Float[np.ndarray, "faces 3"] = rest[model.faces].mean(axis=1)
        weights = model.weights[model.faces].mean(axis=1)
        self._bones = np.array(model.bone_names)[weights.argmax(axis=1)]

    def _is_of(self, *stems: str) -> Bool[np.ndarray, " faces"]:
        """Faces that follow bones, named without the side, more than others."""
        names = [
            stem if stem in self._points else f"{side}_{stem}" for stem in stems for side in "lr"
        ]
        return np.isin(self._bones, names)

    def _along(self, start: str, middle: str, end: str) -> Float[np.ndarray, " faces"]:
        """Place along a limb: 0 at its start, 1 at its middle joint, 2 at its end; both sides."""
        side = np.where(self.centres_mm[:, 0] > 0, 1.0, -1.0)
        centres = self.centres_mm * np.stack([side, np.ones_like(side), np.ones_like(side)], 1)
        places = []
        for first, second in ((start, middle), (middle, end)):
            a, b = self._points[f"l_{first}"], self._points[f"l_{second}"]
            places.append((centres - a) @ (b - a) / ((b - a) @ (b - a)))
        return np.where(places[1] > 0, 1.0 + places[1], np.minimum(places[0], 1.0))

    @cached_property
    def sleeve(self) -> Float[np.ndarray, " faces"]:
        """Place along the arm, below 0 off the arms."""
        on_arm = self._is_of("shoulder_twist", "upperarm", "forearm", "hand")
        return np.where(on_arm, self._along("upperarm", "forearm", "hand"), -1.0)

    @cached_property
    def leg(self) -> Float[np.ndarray, " faces"]:
        """Place along the leg, below 0 off the legs."""
        on_leg = self._is_of("thigh", "shank", "hip_twist")
        return np.where(on_leg, np.maximum(self._along("thigh", "shank", "foot"), 0.0), -1.0)

    @cached_property
    def is_shoe(self) -> Bool[np.ndarray, " faces"]:
        """Feet up to the ankle."""
        return self._is_of("foot") | (self.leg > 1.97)

    @cached_property
    def is_trousers(self) -> Bool[np.ndarray, " faces"]:
        """From the waist down, whatever the length of the legs."""
        waist = self._points["pelvis"][2] + 75.0
        low = self.centres_mm[:, 2] < waist
        return (self.leg >= 0) | (low & self._is_of("pelvis", "spine"))

    @cached_property
    def is_face(self) -> Bool[np.ndarray, " faces"]:
        """Skin of head and neck."""
        return self._is_of("head", "neck")

    def hair(self, *, long_hair: bool) -> Bool[np.ndarray, " faces"]:
        """The part of the head that hair covers."""
        top, middle = self._points["head_top"], self._points["head"]
        _, y, z = self.centres_mm.T
        crown = z > middle[2] + 0.52 * (top[2] - middle[2])
        behind = (y > middle[1] + 25.0) & (z > middle[2] - (130.0 if long_hair else 15.0))
        return self.is_face & (crown & (y > middle[1] - 85.0) | behind)


def face_colours(
    regions: FaceRegions, subject: Subject, *, rng: np.random.Generator
) -> Float[np.ndarray, "faces 3"]:
    """Colours of all faces for one record: an outfit of the subject, slightly changed.

    Returns:
        RGB reflectances in [0, 1].
    """
    outfit = subject.outfits[int(rng.integers(len(subject.outfits)))]
    colours = np.empty((len(regions.centres_mm), 3))
    colours[:] = _varied(outfit.shirt, rng, 0.10)
    if outfit.pattern is not None:
        width = rng.uniform(45.0, 80.0)
        colours[(regions.centres_mm[:, 2] / width) % 1.0 < 0.4] = _varied(outfit.pattern, rng, 0.08)
    skin = _varied(subject.skin, rng, 0.03)
    colours[regions.sleeve > outfit.sleeve] = skin
    colours[regions.is_trousers] = _varied(outfit.trousers, rng, 0.08)
    colours[regions.leg > outfit.leg] = skin
    colours[regions.is_shoe] = _varied(outfit.shoes, rng, 0.06)
    colours[regions.is_face] = skin
    colours[regions.hair(long_hair=subject.long_hair)] = _varied(subject.hair, rng, 0.04)
    grain = rng.normal(1.0, 0.035, size=(len(colours), 1))
    return np.clip(colours * grain, 0.02, 1.0)


def _varied(colour: Colour, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """A colour made a little lighter or darker and of a slightly other hue."""
    shade = rng.normal(1.0, deviation) + rng.normal(0.0, 0.5 * deviation, size=3)
    return np.clip(np.asarray(colour) * shade + rng.normal(0.0, 0.3 * deviation), 0.02, 1.0)
