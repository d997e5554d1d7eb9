"""Read a file of weights written by ``torch.save`` without running code from it."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model")
"""Names under which people keep the weights in a file that holds more."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The dictionary of tensors in a file, to the CPU.

    It may lie under ``state_dict`` or ``model``; where all names start with ``module.``, as
    ``DataParallel`` writes them, that is left out. Files of torch before 1.6 can be read as well,
    but have no checksums: damage to them shows only where it makes them unreadable.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is damaged, asks to run code, or holds anything but plain dense tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    try:
        _check_archive(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes make an unpickler raise anything
        raise ValueError(f"{path} is not a readable weights file: {_reason(error)}") from error
    for name in WRAPPERS:
        if isinstance(contents, Mapping) and isinstance(contents.get(name), Mapping):
            contents = contents[name]
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path} must hold a dictionary of tensors, got {type(contents).__name__}")
    foreign = [str(name) for name, value in contents.items() if not _is_plain(name, value)]
    if foreign:
        raise ValueError(f"{path} must hold plain tensors by name; others: {shortened(foreign)}")
    prefix = "module." if all(name.startswith("module.") for name in contents) else ""
    return {name.removeprefix(prefix): value.detach() for name, value in contents.items()}


def shortened(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _is_plain(name: Any, value: Any) -> bool:
    """Whether a value has a name and numbers that can be read."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    return value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized


def _check_archive(path: Path) -> None:
    """Raise where an archive's own checksums do not match, which torch does not look at."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        part = archive.testzip()
    if part is not None:
        raise ValueError(f"damaged, the checksum of {part} does not match")


def _reason(error: Exception) -> str:
    """What was wrong, without torch's advice to trust the file and run its code."""
    text = " ".join(str(error).split())
    asked = re.search(r"nsupported (?:global: )?GLOBAL (\S+)", text)
    if asked:
        return f"it asks for {asked[1]}, and code from a file is never run"
    if not text or "weights_only" in text or isinstance(error, KeyError):
        return "damaged, or of another kind"
    return text.partition(". ")[0]
