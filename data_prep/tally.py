"""Quantiles of any number of values in a fixed amount of memory, from any number of processes."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

LENGTH_EDGES_MM = np.arange(0, 1000.5, 0.5)
"""Bins of 0.5 mm for bones."""
ERROR_EDGES_PX = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 321)])
"""Bins of 6 % for errors in the image."""


@dataclass(kw_only=True, eq=False)
class Tally:
    """How often values of several kinds fall between edges.

    Attributes:
        edges: Ascending; values beyond them fall into the outermost bins.
        counts: Values by kind and bin.
        largest: Largest value of each kind; NaN if there is none.
    """

    edges: Float[np.ndarray, " edges"]
    counts: Int[np.ndarray, "kinds bins"]
    largest: Float[np.ndarray, " kinds"] = field(init=False)

    def __post_init__(self) -> None:
        self.largest = np.full(len(self.counts), np.nan)

    @classmethod
    def empty(cls, edges: Float[np.ndarray, " edges"], num_kinds: int) -> "Tally":
        """A tally of nothing."""
        return cls(edges=edges, counts=np.zeros((num_kinds, len(edges) - 1), np.int64))

    def add(self, values: Float[np.ndarray, "n kinds"]) -> "Tally":
        """Count values; NaN counts for nothing."""
        for kind, column in enumerate(values.T):
            known = column[~np.isnan(column)]
            if not len(known):
                continue
            bins = np.searchsorted(self.edges, known, side="right") - 1
            bins = np.clip(bins, 0, len(self.edges) - 2)
            self.counts[kind] += np.bincount(bins, minlength=len(self.edges) - 1)
            self.largest[kind] = np.fmax(self.largest[kind], known.max())
        return self

    def merge(self, other: "Tally") -> "Tally":
        """Count what another tally has counted."""
        self.counts += other.counts
        self.largest = np.fmax(self.largest, other.largest)
        return self

    @property
    def number(self) -> Int[np.ndarray, " kinds"]:
        """Values of each kind."""
        return self.counts.sum(1)

    def quantile(self, share: float) -> Float[np.ndarray, " kinds"]:
        """Middle of the bin that this share of the values reaches; NaN where there are none."""
        reached = self.counts.cumsum(1)
        rank = np.maximum(np.ceil(share * reached[:, -1:]), 1)
        bins = (reached < rank).sum(1)
        middles = np.append((self.edges[1:] + self.edges[:-1]) / 2, np.nan)
        return np.fmin(middles[bins], self.largest)

    def spread(self, share: float = 0.95) -> Float[np.ndarray, " kinds"]:
        """Half of what the middle share of the values spans."""
        return (self.quantile((1 + share) / 2) - self.quantile((1 - share) / 2)) / 2
