"""Divide a split's takes into shards."""

from dataclasses import dataclass

from data_prep.synthetic.slots import Sequence

MAX_PART = 500
"""A take with more records is divided."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some images of a take: numbers [start, stop) among them."""

    sequence: Sequence
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The records of one shard."""

    split: str
    number: int
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The shard's file."""
        return f"shard-{self.split}-{self.number:05d}.h5"

    @property
    def count(self) -> int:
        """How many records it has."""
        return sum(part.stop - part.start for part in self.parts)


def divide(sequences: list[Sequence], *, shard_size: int) -> list[Chunk]:
    """Divide a split into shards of whole takes, as far as these are not too long.

    Args:
        sequences: The split's takes, in order.
        shard_size: A shard gets whole takes up to about this many records.
    """
    parts = [
        Part(sequence=sequence, start=start, stop=min(start + MAX_PART, sequence.num_records))
        for sequence in sequences
        for start in range(0, sequence.num_records, MAX_PART)
    ]
    groups: list[list[Part]] = []
    room = 0
    for part in parts:
        room -= part.stop - part.start
        if room < 0:
            groups.append([])
            room = shard_size - (part.stop - part.start)
        groups[-1].append(part)
    return [
        Chunk(split=group[0].sequence.split, number=number, parts=tuple(group))
        for number, group in enumerate(groups)
    ]
