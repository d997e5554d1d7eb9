"""Large buffers on the CPU that are used again instead of going back to the system each time.

A buffer of megabytes that is freed and allocated anew costs a page fault for every 4 KiB of it,
which takes longer than what a small kernel computes there. A CUDA device has an allocator that
keeps its memory, and gets none of this.
"""

import math
from collections import deque

import torch
from torch import Tensor

MIN_BYTES = 2**17
"""Smaller buffers come from a heap that stays with the process."""

MAX_BYTES = 2**26
"""Larger ones would hold memory for the sake of a small part of what is computed in them."""

_BUFFERS: deque[Tensor] = deque(maxlen=4)
"""Flat ones, in use or not; the one added longest ago is forgotten first."""


def workspace(like: Tensor, *shape: int) -> Tensor:
    """Memory of dtype and device of another tensor, whose values are whatever was there before.

    A buffer is given out while nothing but this module refers to its memory: no tensor, view or
    graph, in whatever way they came to an end. At most four are kept, of at most 64 MiB each.

    Args:
        like: Tensor whose dtype and device the memory is to have.
        *shape: Of what is returned.
    """
    numel = math.prod(shape)
    size = numel * like.element_size()
    # A tensor of inference mode must not be written to outside it; a subclass (a fake tensor, one
    # of a tracer) is not memory at all.
    ordinary = type(like) is Tensor and like.device.type == "cpu" and not like.is_inference()
    if not (ordinary and MIN_BYTES <= size <= MAX_BYTES):
        return like.new_empty(shape)
    for _ in range(len(_BUFFERS)):
        try:  # Taking one out is atomic: no other thread looks at the same.
            buffer = _BUFFERS.popleft()
        except IndexError:
            break
        fits = buffer.dtype == like.dtype and numel <= buffer.numel() <= 2 * numel
        found = _shaped(buffer, shape) if fits and _is_unused(buffer) else None
        _BUFFERS.append(buffer)
        if found is not None:
            return found
    buffer = like.new_empty(numel)
    found = _shaped(buffer, shape)
    _BUFFERS.append(buffer)
    return found


def _shaped(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return buffer.as_strided(shape, strides, 0)


def _is_unused(buffer: Tensor) -> bool:
    """Whether there is no other tensor of the same memory, seen from Python or not."""
    # One is the buffer's, one that of the object asked here.
    return torch._C._storage_Use_Count(buffer.untyped_storage()._cdata) <= 2
