"""Rows of the arrays of a large .npz file, read without the rest of it.

Nothing is unpickled: arrays of Python objects are refused.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayFacts:
    """What an array's header states."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool = False
    """Whether columns follow one another in the file: rows then cost the whole array."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))


def array_facts(path: Path, name: str) -> ArrayFacts:
    """Shape and type of an array.

    Raises:
        ValueError: Naming the file, if it is missing, damaged or without such an array.
    """
    with _member(path, name) as (_, facts):
        return facts


def read_rows(path: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Rows of an array, from `start` up to but not including `stop`.

    Raises:
        ValueError: Naming the file, if it is missing, damaged or without such rows.
    """
    with _member(path, name) as (stream, facts):
        if facts.is_fortran:
            return _by_columns(stream, facts)[start:stop]
        stream.seek(start * facts.row_bytes, 1)
        return _next_rows(stream, facts, stop - start)


def row_blocks(path: Path, name: str, *, num_rows: int = 65536) -> Iterator[np.ndarray]:
    """All rows of an array, so many at a time.

    Raises:
        ValueError: As `read_rows`.
    """
    with _member(path, name) as (stream, facts):
        if facts.is_fortran:
            yield _by_columns(stream, facts)
            return
        for start in range(0, facts.shape[0], num_rows):
            yield _next_rows(stream, facts, min(num_rows, facts.shape[0] - start))


def _next_rows(stream: IO[bytes], facts: ArrayFacts, count: int) -> np.ndarray:
    data = stream.read(count * facts.row_bytes)
    if len(data) != count * facts.row_bytes:
        raise ValueError("it ends too early")
    return np.frombuffer(data, facts.dtype).reshape(count, *facts.shape[1:])


def _by_columns(stream: IO[bytes], facts: ArrayFacts) -> np.ndarray:
    """All rows of an array that lies in the file column by column."""
    turned = ArrayFacts(shape=facts.shape[::-1], dtype=facts.dtype)
    return _next_rows(stream, turned, turned.shape[0]).transpose()


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], ArrayFacts]]:
    """The bytes of an array after its header; what goes wrong with them names the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            known = [member.removesuffix(".npy") for member in archive.namelist()]
            if name not in known:
                raise ValueError(f"it has no array {name}, only {', '.join(sorted(known))}")
            with archive.open(f"{name}.npy") as stream:
                yield stream, _header(stream, name)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read: {reason}; if it is damaged or cut off, fetch or make it again"
        ) from error


def _header(stream: IO[bytes], name: str) -> ArrayFacts:
    """Read an array's header, up to its first byte."""
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"array {name} is of the unknown version {version}")
    shape, is_fortran, dtype = read(stream)
    if dtype.hasobject or not shape:
        raise ValueError(f"array {name} is not plain rows of numbers or texts")
    return ArrayFacts(shape=tuple(shape), dtype=dtype, is_fortran=is_fortran)
