"""Files of any layout: JSON, digests, and what a set of files is known by."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pose3d.data.store import INT32_MAX

RECORD_ERRORS = (KeyError, TypeError, AttributeError, ValueError, OverflowError)
"""What parsing a record of JSON may raise; the last for numbers like 1e400 or NaN."""


def fault_of(error: Exception) -> str:
    """What is wrong with a record whose parsing raised one of `RECORD_ERRORS`."""
    if isinstance(error, (ValueError, OverflowError)):
        return str(error)
    return f"is not of this layout ({type(error).__name__}: {error})"


def read_json(path: Path, *, name: str = "file") -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        name: What it is called in messages.

    Raises:
        ValueError: Naming the file, if it is missing or not whole JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{name} {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} {path} is not readable JSON ({error}); it is damaged or cut off: fetch it "
            "again"
        ) from error


def sha256(path: Path) -> str:
    """Digest of a file.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(paths: Iterable[Path], *, folder: Path) -> str:
    """SHA-256 over names (relative to the folder) and sizes: what many large files are known by.

    Raises:
        OSError: If a file is not there.
    """
    lines = sorted(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def float_array(
    values: Mapping, key: str, shape: tuple[int, ...], *, finite: bool = True
) -> Float[np.ndarray, "..."]:
    """An entry as an array of this shape; null becomes NaN.

    Raises:
        KeyError, TypeError: If there is no such entry, or it holds no numbers.
        ValueError: If it has another shape, or is not finite where it must be.
    """
    array = np.array(values[key], dtype=np.float64)
    if array.size == np.prod(shape):
        array = array.reshape(shape)
    if array.shape != shape:
        raise ValueError(f"{key} has shape {array.shape}, expected {shape}")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{key} is not finite: {array.tolist()}")
    return array


def person_box(annotation: Mapping) -> Float[np.ndarray, " 4"]:
    """The entry `bbox`: left, top, width, height, pixels.

    Raises:
        KeyError, TypeError: If there is none, or it holds no numbers.
        ValueError: If it has another shape or no area, or is not finite.
    """
    box = float_array(annotation, "bbox", (4,))
    if not (box[2:] > 0).all():
        raise ValueError(f"bbox {box.tolist()} has no area; expected x, y, width, height in pixels")
    return box


def image_size(image: Mapping) -> tuple[int, int]:
    """Width and height that a record states, pixels.

    Raises:
        KeyError, TypeError: If it does not state them as numbers.
        ValueError: If no image is of this size.
    """
    width, height = int(image["width"]), int(image["height"])
    if not (0 < width <= INT32_MAX and 0 < height <= INT32_MAX):
        raise ValueError(f"is of an image of {width}×{height} px, expected sizes above 0")
    return width, height


def read_boxes(path: Path) -> dict[int | bytes, list[float]]:
    """Boxes (left, top, width, height, pixels) by an image's id, or its file name in UTF-8.

    Raises:
        ValueError: Naming the file, if it is missing or of another layout.
    """
    content = read_json(path, name="file of boxes")
    try:
        found: dict[int | bytes, list[float]] = {}
        for entry in content:
            key, box = entry["image_id"], [float(value) for value in entry["bbox"]]
            if len(box) != 4 or not min(box[2:]) > 0:
                raise ValueError(f"bbox {box} of image {key} has no area")
            found[key.encode() if isinstance(key, str) else int(key)] = box
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not of this layout ({type(error).__name__}: {error}); expected a list of "
            '{"image_id": …, "bbox": [x, y, width, height]}'
        ) from error
    return found
