"""The seven subjects: shapes of their bodies, which vary a little from take to take."""

import numpy as np

from data_prep.human36m import TEST_SUBJECTS, TRAIN_SUBJECTS

SPLIT_SUBJECTS: dict[str, tuple[int, ...]] = {"train": TRAIN_SUBJECTS, "test": TEST_SUBJECTS}
"""Human3.6M's customary split."""

PHENOTYPES: dict[int, dict[str, float]] = {
    subject: dict(zip(("gender", "muscle", "weight", "height", "proportions"), row, strict=True))
    for subject, row in {
        1: (0.95, 0.45, 0.35, 0.45, 0.2),
        5: (0.85, 0.35, 0.62, 0.38, 0.5),
        6: (0.05, 0.70, 0.50, 0.45, 0.1),
        7: (0.15, 0.30, 0.25, 0.55, 0.4),
        8: (0.0, 0.55, 0.78, 0.40, 0.6),
        9: (0.1, 0.60, 0.60, 0.42, 0.3),
        11: (0.2, 0.40, 0.40, 0.50, 0.2),
    }.items()
}
"""Phenotypes of the body model by subject; gender is 0 for male, 1 for female."""

_DEVIATIONS = {
    "gender": 0.05,
    "muscle": 0.10,
    "weight": 0.10,
    "height": 0.02,
    "proportions": 0.06,
}
"""How far a take's shape is from its subject's: flesh more than bones."""


def draw_phenotypes(subject: int, rng: np.random.Generator) -> dict[str, float]:
    """Draw the phenotypes of a subject for one take.

    Raises:
        ValueError: If there is no such subject.
    """
    if subject not in PHENOTYPES:
        raise ValueError(f"subject must be one of {list(PHENOTYPES)}, got {subject}")
    return {
        name: float(np.clip(value + rng.normal(0.0, _DEVIATIONS[name]), 0.0, 1.0))
        for name, value in PHENOTYPES[subject].items()
    }
