"""Read person boxes from Human3.6M's masks: MATLAB v7.3 files of MySegmentsMat/ground_truth_bb."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Int, Shaped

VARIABLE = "Masks"


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskBoxes:
    """The boxes of one file's masks; a `LaterBoxes`.

    Attributes:
        path: The file: HDF5 with a dataset `Masks` of n references to masks, which HDF5 sees
            transposed, (width, height).
        image_size_px: Width and height that every mask must have.
        position: Number of each frame in the file, from 0.
    """

    path: Path
    image_size_px: tuple[int, int]
    position: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.position)

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "MaskBoxes":
        """The boxes of these positions."""
        return replace(self, position=self.position[rows])

    def read(self) -> Float[np.ndarray, "n 4"]:
        """Read the masks of these frames alone.

        Returns:
            Left, top, width, height, pixels, see `mask_box`; NaN for an empty or absent mask.

        Raises:
            ValueError: Naming the file, if it is missing, damaged, or its masks have another size.
        """
        boxes = np.full((len(self), 4), np.nan)
        for row, mask in enumerate(self._masks()):
            if mask is None:
                continue
            if mask.shape != self.image_size_px:
                raise ValueError(
                    f"mask {self.position[row]} of {self.path} has {mask.shape[0]}×"
                    f"{mask.shape[-1]} px, its images have {self.image_size_px[0]}×"
                    f"{self.image_size_px[1]} px; both must be of one sequence and camera"
                )
            boxes[row] = mask_box(mask)
        return boxes

    def _masks(self) -> Iterator[Shaped[np.ndarray, "..."] | None]:
        """The mask of every frame, None where the file has fewer."""
        if not self.path.is_file():
            raise ValueError(f"mask file {self.path} is missing")
        try:
            with h5py.File(self.path, "r") as file:
                references = file[VARIABLE][()].ravel()
                for position in self.position:
                    mask = file[references[position]] if position < len(references) else None
                    if mask is None or mask.attrs.get("MATLAB_empty", 0):
                        yield None
                    else:
                        yield mask[()]
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"mask file {self.path} cannot be read as MATLAB v7.3 with masks named {VARIABLE} "
                f"({' '.join(str(error).split())}); fetch it again, or choose --box joints"
            ) from error


def mask_box(mask: Shaped[np.ndarray, "width height"]) -> Float[np.ndarray, " 4"]:
    """The box of a mask: first column and row of ones, and how many there are to the last.

    The width is that of metro's code, max − min + 1; SPIN and learnable-triangulation give the same
    as an exclusive end, max + 1.

    Returns:
        Left, top, width, height, pixels; NaN for an empty mask.
    """
    columns, rows = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(columns):
        return np.full(4, np.nan)
    low = np.array([columns[0], rows[0]], np.float64)
    return np.concatenate([low, [columns[-1], rows[-1]] - low + 1])
