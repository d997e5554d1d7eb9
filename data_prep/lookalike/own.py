"""Write a world as people's own data: people.csv and cameras.csv, or people.json."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from data_prep.human36m import action_name
from data_prep.lookalike.images import write_images
from data_prep.lookalike.world import Performance, World, unit_name
from data_prep.readers.own_cameras import MM_PER_UNIT
from data_prep.readers.own_people import SPACES
from pose3d.geometry.skeleton import HUMAN36M_17

_AXES = "xyz"


def write_own_csv(
    world: World,
    folder: Path,
    *,
    space: str = "world",
    unit: str = "mm",
    delimiter: str = ",",
) -> None:
    """Write people.csv, cameras.csv and images/.

    Args:
        world: Who was recorded; subjects 9 and 11 make the test set.
        folder: The tree's folder.
        space: One of `data_prep.readers.own_people.SPACES`.
        unit: Of all lengths: mm, cm or m.
        delimiter: Between cells; with a semicolon numbers have decimal commas.

    Raises:
        ValueError: If space or unit is unknown.
        OSError: If a file cannot be written.
    """
    people, cameras = _tables(world, folder, space=space, unit=unit)
    lines = [{**_spread(person), **_joint_cells(person)} for person in people]
    _write_csv(folder / "people.csv", lines, delimiter=delimiter)
    _write_csv(folder / "cameras.csv", [_spread(c) for c in cameras], delimiter=delimiter)


def write_own_json(world: World, folder: Path, *, space: str = "world", unit: str = "mm") -> None:
    """Write people.json and images/; arguments and errors as for `write_own_csv`."""
    people, cameras = _tables(world, folder, space=space, unit=unit)
    content: dict[str, Any] = {"defaults": {"space": space, "unit": unit}, "cameras": cameras}
    content["people"] = [
        {key: value for key, value in person.items() if key not in ("space", "unit")}
        for person in people
    ]
    (folder / "people.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _tables(
    world: World, folder: Path, *, space: str, unit: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """People and cameras as JSON has them; writes the images."""
    if space not in SPACES:
        raise ValueError(f"space must be one of {', '.join(SPACES)}, got {space!r}")
    if unit not in MM_PER_UNIT:
        raise ValueError(f"unit must be one of {', '.join(MM_PER_UNIT)}, got {unit!r}")
    people: list[dict[str, Any]] = []
    cameras = [
        _camera(world, subject, name, unit=unit)
        for subject in world.subjects
        for name in world.camera_names
    ]
    for performance in world.performances:
        for name in world.camera_names:
            view = unit_name(performance, name)
            frames = range(len(performance))
            files = [f"images/{view}/{view}_{frame:06d}.jpg" for frame in frames]
            write_images(
                world,
                performance,
                name,
                frames,
                folder=folder / "images" / view,
                name=f"{view}_{{:06d}}.jpg",
                first=0,
            )
            values = _values(world, performance, name, space=space) / _divisor(space, unit)
            root_mm = _values(world, performance, name, space="camera")[:, HUMAN36M_17.root, 2]
            for frame in frames:
                person = {
                    "image": files[frame],
                    "camera": _camera_name(world, performance.subject, name),
                    "subject": performance.subject,
                    "action": action_name(performance.action),
                    "take": performance.subaction,
                    "frame": frame,
                    "split": "test" if performance.is_test else "train",
                    "space": space,
                    "unit": unit,
                    "joints": dict(
                        zip(HUMAN36M_17.joint_names, values[frame].tolist(), strict=True)
                    ),
                }
                if space == "image+relative-depth":
                    person["root_depth"] = float(root_mm[frame]) / MM_PER_UNIT[unit]
                people.append(person)
    return people, cameras


def _camera_name(world: World, subject: int, name: str) -> str:
    """A camera stands elsewhere for every subject, and a table has one line for each."""
    return f"{name}-S{subject}" if len(world.subjects) > 1 else name


def _camera(world: World, subject: int, name: str, *, unit: str) -> dict[str, Any]:
    camera = world.camera(subject, name)
    width, height = world.image_size_px(subject, name)
    return {
        "camera": _camera_name(world, subject, name),
        "width": width,
        "height": height,
        **dict(zip(("fx", "fy"), camera.focal_px.tolist(), strict=True)),
        **dict(zip(("cx", "cy"), camera.principal_point_px.tolist(), strict=True)),
        "model": "human36m",
        "k": camera.radial.tolist(),
        "p": camera.tangential.tolist(),
        "unit": unit,
        "R": camera.rotation.tolist(),
        "centre": (camera.centre_world_mm / MM_PER_UNIT[unit]).tolist(),
    }


def _values(
    world: World, performance: Performance, name: str, *, space: str
) -> Float[np.ndarray, "n 17 c"]:
    """Joints in a space, millimetres and pixels."""
    if space == "world":
        return performance.joints_world_mm
    camera = world.camera(performance.subject, name)
    joints = camera.world_to_camera(torch.from_numpy(performance.joints_world_mm))
    if space == "camera":
        return joints.numpy()
    pixels = camera.camera_to_image(joints).numpy()
    if space == "image":
        return pixels
    depth_mm = joints[..., 2:].numpy()
    if space == "image+relative-depth":
        depth_mm = depth_mm - depth_mm[:, HUMAN36M_17.root, None]
    return np.concatenate([pixels, depth_mm], axis=-1)


def _divisor(space: str, unit: str) -> Float[np.ndarray, " c"]:
    """What takes millimetres to the unit, by axis."""
    mm = MM_PER_UNIT[unit]
    by_space = {"world": [mm] * 3, "camera": [mm] * 3, "image": [1.0, 1.0]}
    return np.array(by_space.get(space, [1.0, 1.0, mm]))


def _spread(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Nested lists as columns."""
    cells: dict[str, Any] = {}
    for key, value in entry.items():
        match key:
            case "joints":
                continue
            case "R":
                rows = enumerate(value, start=1)
                cells |= {f"r{i}{j}": v for i, r in rows for j, v in enumerate(r, start=1)}
            case "k" | "p":
                cells |= {f"{key}{number}": v for number, v in enumerate(value, start=1)}
            case "centre":
                cells |= {f"centre_{axis}": v for axis, v in zip(_AXES, value, strict=True)}
            case _:
                cells[key] = value
    return cells


def _joint_cells(person: Mapping[str, Any]) -> dict[str, Any]:
    """Joints as columns."""
    return {
        f"{name}_{axis}": value
        for name, values in person["joints"].items()
        for axis, value in zip(_AXES, values, strict=False)
    }


def _write_csv(path: Path, lines: Sequence[Mapping[str, Any]], *, delimiter: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(column for line in lines for column in line))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        for line in lines:
            writer.writerow(
                {
                    key: str(value).replace(".", ",")
                    if delimiter == ";" and isinstance(value, float)
                    else value
                    for key, value in line.items()
                }
            )
