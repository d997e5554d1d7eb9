"""Plain arrays in one npz file: written atomically, read without unpickling."""

import lzma
import os
import struct
import tempfile
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

_DAMAGE = (
    *(ValueError, TypeError, OSError, EOFError, KeyError, RuntimeError),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, OverflowError),
    *(MemoryError, struct.error, lzma.LZMAError, RecursionError),
)
"""What NumPy and zipfile raise on damaged files: in the archive, the packing, an array's header."""


def write_npz(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> Path:
    """Write a compressed npz beside its place and move it there, so that no half file remains."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read every array of an npz without unpickling.

    Raises:
        ValueError: If the file is no npz, is damaged or holds pickled objects.
        FileNotFoundError: If there is no such file.
    """
    with open(path, "rb") as stream:
        try:
            content = np.load(stream, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with content:
                return {name: content[name] for name in content.files}
        except _DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path}: not a readable npz of plain arrays ({reason})") from error
