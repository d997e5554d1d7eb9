"""Whether a source still holds the frames that the protocols choose by their numbers."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from data_prep.human36m import PROTOCOLS

MIN_SHARE = 0.9


def protocol_of_frames(found: Iterable[tuple[int, Int[np.ndarray, " n"]]]) -> str:
    """The protocol for a source if none is asked for.

    Args:
        found: Subject and frame numbers from 0 of every sequence.

    Returns:
        "rle-2" if the frames that it chooses are there, whether the others are or not; else
        "full", since the source has been thinned out by another rule.
    """
    protocol = PROTOCOLS["rle-2"]
    wanted, there = {"train": 0, "test": 0}, {"train": 0, "test": 0}
    for subject, frame in found:
        split = protocol.split_of(subject)
        if split is None or not len(frame):
            continue
        every = protocol.every(split)
        wanted[split] += int(frame.max()) // every + 1
        there[split] += len(np.unique(frame[frame % every == 0]))
    is_whole = all(there[split] >= MIN_SHARE * wanted[split] for split in wanted)
    return "rle-2" if is_whole else "full"
