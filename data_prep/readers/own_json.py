"""People's own data as JSON: what CSV spreads over columns is nested, and brought into rows.

    {"defaults": {"space": "camera", "unit": "mm", "camera": "left"},
     "cameras": [{"camera": "left", "width": 1280, "height": 720, "fx": 900, "fy": 900,
                  "cx": 640, "cy": 360, "R": [[…], […], […]], "t": [x, y, z]}],
     "people": [{"image": "a.jpg", "box": [x, y, width, height],
                 "joints": {"L_Hip": [x, y, z], "Nose": null}, "visible": {"L_Hip": false}}]}

A camera may have "rvec" for "R" and "centre" for "t"; "k" and "p" are [k1, k2, k3] and [p1, p2].
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_prep.readers.files import read_json
from data_prep.readers.own_cameras import (
    CENTRE,
    RADIAL,
    ROTATION,
    ROTATION_VECTOR,
    TANGENTIAL,
    TRANSLATION,
)
from data_prep.readers.own_cameras import COLUMNS as CAMERA_COLUMNS
from data_prep.readers.own_people import BOX, is_column, some_columns
from data_prep.readers.own_tables import Row, Table
from pose3d.geometry.skeleton import did_you_mean

_LISTS: dict[str, dict[str, tuple[str, ...]]] = {
    "cameras": {
        "R": ROTATION,
        "rvec": ROTATION_VECTOR,
        "t": TRANSLATION,
        "centre": CENTRE,
        "k": RADIAL,
        "p": TANGENTIAL,
    },
    "people": {"box": BOX},
}
_AXES = "xyz"


def read_people_json(path: Path) -> dict[str, Table]:
    """The tables "people" and "cameras" of a file; that of cameras is empty if there is none.

    Raises:
        ValueError: Naming file and entry, if the file is not of this layout.
    """
    content = read_json(path)
    expected = 'expected {"cameras": [...], "people": [...]}'
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; {expected}")
    for key in content:
        if key not in ("defaults", "cameras", "people"):
            raise ValueError(
                f"{path}: unknown key {key!r}{did_you_mean(key, ('defaults', *_LISTS))}"
            )
    defaults = content.get("defaults", {})
    if not isinstance(defaults, dict):
        raise ValueError(f"{path}: defaults must be an object of names and values")
    return {
        "cameras": _table(path, content, "cameras", CAMERA_COLUMNS.__contains__, {}),
        "people": _table(path, content, "people", is_column, defaults),
    }


def _table(
    path: Path,
    content: Mapping[str, Any],
    key: str,
    known: Callable[[str], bool],
    defaults: Mapping[str, Any],
) -> Table:
    """One of the file's lists."""
    entries = content.get(key, [])
    if not isinstance(entries, list):
        raise ValueError(f"{path}: {key} must be a list, got a {type(entries).__name__}")
    some = CAMERA_COLUMNS if key == "cameras" else some_columns()
    rows = []
    for number, entry in enumerate(entries):
        place = f"{key}[{number}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, {place}: expected an object, got {entry!r:.40}")
        try:
            cells, paths = _cells({**defaults, **entry}, _LISTS[key])
        except ValueError as error:
            raise ValueError(f"{path}, {place}, {error}") from error
        for column in cells:
            if not known(column):
                name = paths.get(column, column)
                raise ValueError(f"{path}, {place}: unknown key {name!r}{did_you_mean(name, some)}")
        rows.append(Row(file=path, place=place, cells=cells, paths=paths))
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    return Table(file=path, columns=tuple(columns), rows=rows)


def _cells(
    entry: Mapping[str, Any], lists: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Cells by column, and where those stand that are nested."""
    cells: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for key, value in entry.items():
        if key.startswith("_"):
            continue
        if key in lists:
            if value is not None:
                _spread(lists[key], _flat(value), key, cells, paths)
        elif key == "joints":
            for name, position in _object(value, key).items():
                if position is not None:
                    columns = tuple(f"{name}_{axis}" for axis in _AXES)
                    numbers = _flat(position)
                    if len(numbers) == 2:
                        columns = columns[:2]
                    _spread(columns, numbers, f"joints.{name}", cells, paths)
        elif key == "visible":
            for name, is_visible in _object(value, key).items():
                cells[f"{name}_visible"] = is_visible
                paths[f"{name}_visible"] = f"visible.{name}"
        else:
            cells[key] = value
    return cells, paths


def _object(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: expected an object of joints by name, got {value!r:.40}")
    return value


def _flat(value: Any) -> list[Any]:
    """A list, or a list of lists, as one list."""
    if not isinstance(value, list):
        return [value]
    return [number for part in value for number in (part if isinstance(part, list) else [part])]


def _spread(
    columns: tuple[str, ...],
    values: list[Any],
    path: str,
    cells: dict[str, Any],
    paths: dict[str, str],
) -> None:
    """Put the values of a list into their columns."""
    if len(values) != len(columns):
        raise ValueError(f"{path}: expected {len(columns)} numbers, got {len(values)}")
    for number, (column, value) in enumerate(zip(columns, values, strict=True)):
        cells[column] = value
        paths[column] = f"{path}[{number}]"
