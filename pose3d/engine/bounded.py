"""Which records the residual guard bounded: kept on the device at every step, fetched now and then.

A record whose joints are bounded again and again has, most likely, a wrong label.
"""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


class BoundedRecords:
    """Bounded joints by record, counted without making the host wait for a GPU at every step."""

    def __init__(self) -> None:
        self._rows: list[Int64[Tensor, " batch"]] = []
        self._joints: list[Int64[Tensor, " batch"]] = []

    def note(
        self, index: Int64[Tensor, " batch"], bounded: Bool[Tensor, "batch joints"] | None
    ) -> None:
        """Keep what a step bounded.

        Args:
            index: Row of each record in its store, on the host.
            bounded: Joints whose residual was bounded; None where the likelihood bounds nothing.
        """
        if bounded is not None:
            self._rows.append(index)
            self._joints.append(bounded.sum(-1))

    def move_to(self, joints_by_row: dict[int, int]) -> None:
        """Add the steps noted since the last call to the counts, and forget them.

        Args:
            joints_by_row: Bounded joints by row in the store; rows without any do not appear.
        """
        if not self._rows:
            return
        rows, joints = torch.cat(self._rows), torch.cat(self._joints).cpu()
        self._rows, self._joints = [], []
        is_bounded = joints > 0
        for row, count in zip(rows[is_bounded].tolist(), joints[is_bounded].tolist(), strict=True):
            joints_by_row[row] = joints_by_row.get(row, 0) + count
