"""What samples of a predicted distribution say of a label, per record and joint, in millimetres.

Samples and labels are joints in the camera's axes less the root, millimetres. Whatever is averaged
over records and joints later (see `calibration` and `ranking`) follows from these statistics, so
that the samples of a whole test set never lie in memory together.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

LEVELS = np.linspace(0, 1, 21)
"""Shares q of the samples whose radii are kept: 0, 0.05 … 1."""
NUM_PAIRINGS = 10
"""Pairs (X, X′) that each sample is part of, in the energy score's mean distance of two samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleStatistics:
    """Statistics of every joint's samples; those that need a label are NaN where there is none.

    Attributes:
        centre_mm: Component-wise median of the samples.
        covariance_mm2: Covariance of the samples.
        radii_mm: Radius about the centre within which each share of `LEVELS` of the samples lies.
        distance_mm: Of the label from the centre.
        pit: Probability integral transform of the label per axis, F_a(y_a): its rank among the
            samples, (number below + ½) / (number + 1): uniform where the samples are right.
        crps_mm: Continuous ranked probability score per axis, E|X − y| − ½ E|X − X′|.
        energy_score_mm: E‖X − y‖ − ½ E‖X − X′‖.
    """

    centre_mm: Float[np.ndarray, "records joints 3"]
    covariance_mm2: Float[np.ndarray, "records joints 3 3"]
    radii_mm: Float[np.ndarray, "records joints levels"]
    distance_mm: Float[np.ndarray, "records joints"]
    pit: Float[np.ndarray, "records joints 3"]
    crps_mm: Float[np.ndarray, "records joints 3"]
    energy_score_mm: Float[np.ndarray, "records joints"]

    @classmethod
    def of(
        cls,
        samples_mm: Float[np.ndarray, "samples records joints 3"],
        target_mm: Float[np.ndarray, "records joints 3"],
        labelled: Bool[np.ndarray, "records joints"],
    ) -> "SampleStatistics":
        """From samples and labels.

        The two means over pairs are without bias: over all pairs of different samples in the CRPS,
        over `NUM_PAIRINGS` fixed partners of each sample in the energy score.

        Args:
            samples_mm: Root-relative samples of every joint, independent along the first axis.
            target_mm: Root-relative labels; anything where there is none.
            labelled: Which joints have a label.

        Raises:
            ValueError: If there are not more than `NUM_PAIRINGS` samples, or one is not finite.
        """
        number = len(samples_mm)
        if number <= NUM_PAIRINGS:
            raise ValueError(
                f"expected more than {NUM_PAIRINGS} samples of each joint, got {number}"
            )
        samples = samples_mm.astype(np.float64)
        if not np.isfinite(samples).all():
            raise ValueError("a sample is not finite")
        target = np.where(labelled[..., None], target_mm, np.nan).astype(np.float64)
        centre = np.median(samples, axis=0)
        centred = samples - samples.mean(0)
        covariance = np.einsum("srja,srjb->rjab", centred, centred) / (number - 1)
        radii = np.quantile(np.linalg.norm(samples - centre, axis=-1), LEVELS, axis=0)
        unknown = np.where(labelled[..., None], 0, np.nan)
        below = (samples < target).sum(0) + 0.5 * (1 + (samples == target).sum(0))
        return cls(
            centre_mm=centre,
            covariance_mm2=covariance,
            radii_mm=np.moveaxis(radii, 0, -1),
            distance_mm=np.linalg.norm(target - centre, axis=-1),
            pit=below / (number + 1) + unknown,
            crps_mm=np.abs(samples - target).mean(0) - mean_difference(samples) / 2,
            energy_score_mm=energy_score(samples, target),
        )

    @classmethod
    def joined(cls, parts: Sequence["SampleStatistics"]) -> "SampleStatistics":
        """Of all records of several parts, in their order."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    @property
    def r50_mm(self) -> Float[np.ndarray, "records joints"]:
        """Radius about the centre that holds half of the distribution."""
        return self.radii_mm[..., np.abs(LEVELS - 0.5).argmin()]

    @property
    def r90_mm(self) -> Float[np.ndarray, "records joints"]:
        """Radius about the centre that holds nine tenths of the distribution."""
        return self.radii_mm[..., np.abs(LEVELS - 0.9).argmin()]


def mean_difference(
    samples: Float[np.ndarray, "samples ..."],
) -> Float[np.ndarray, "..."]:
    """Mean |X − X′| over all pairs of different samples, along the first axis.

    Source:
        Gini's mean difference by order statistics; the fair CRPS of Ferro (2014) has its half.
    """
    number = len(samples)
    rank = 2 * np.arange(1, number + 1) - number - 1
    return np.tensordot(rank, np.sort(samples, axis=0), axes=1) * 2 / (number * (number - 1))


def energy_score(
    samples: Float[np.ndarray, "samples *rest axes"], target: Float[np.ndarray, "*rest axes"]
) -> Float[np.ndarray, "*rest"]:
    """E‖X − y‖ − ½ E‖X − X′‖, in the unit of the samples.

    Source:
        Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation (2007).
    """
    to_target = np.linalg.norm(samples - target, axis=-1).mean(0)
    apart = [
        np.linalg.norm(samples - np.roll(samples, shift, axis=0), axis=-1).mean(0)
        for shift in range(1, NUM_PAIRINGS + 1)
    ]
    return to_target - np.mean(apart, axis=0) / 2
