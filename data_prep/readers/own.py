"""Read people's own data: a table of people and a table of cameras, as CSV or JSON.

    SOURCE/people.csv      one line per person and image
    SOURCE/cameras.csv     one line per camera
    SOURCE/…               the images

or SOURCE/people.json, {"cameras": [...], "people": [...], "defaults": {...}}. The columns stand in
`data_prep.readers.own_cameras.COLUMNS`, `data_prep.readers.own_people.COLUMNS` and, for each joint,
NAME_x, NAME_y, NAME_z, NAME_visible; what they mean in `data_prep.readers.own_people`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.readers.files import sha256
from data_prep.readers.own_cameras import COLUMNS as CAMERA_COLUMNS
from data_prep.readers.own_cameras import read_cameras
from data_prep.readers.own_geometry import check_units, check_view
from data_prep.readers.own_json import read_people_json
from data_prep.readers.own_people import (
    BOX,
    OwnPerson,
    has_thorax,
    is_column,
    joint_columns,
    read_people,
    some_columns,
)
from data_prep.readers.own_tables import Table, read_csv
from data_prep.readers.own_takes import own_take
from data_prep.takes import LazyTake, Rejection
from pose3d.geometry.skeleton import HUMAN36M_17, HUMAN36M_18

BLOCK_SIZE = 500
NO_CAMERA = "unknown"


class OwnReader:
    """A table of people and one of cameras; a `Reader`.

    Args:
        people: The people.
        cameras: The cameras.
        files: What both were read from.
        images: Folder that images are relative to.
        layout: "csv" or "json".

    Raises:
        ValueError: Naming file, line and column, if a camera is wrong, no row can be read, or the
            source as a whole cannot be meant as it stands.
    """

    is_human36m = False
    default_protocol = "full"

    def __init__(
        self, people: Table, cameras: Table, *, files: Sequence[Path], images: Path, layout: str
    ) -> None:
        self._files, self._images = files, images
        self.description = f"{layout} ({', '.join(path.name for path in files)})"
        self.notes: list[str] = []
        self.missing: list[str] = []
        try:
            joints, unused = joint_columns(people.columns)
        except ValueError as error:
            raise ValueError(f"{people.file}: {error}") from error
        if not joints:
            raise ValueError(f"{people.file} has no joint columns, like L_Hip_x, L_Hip_y, L_Hip_z")
        self._cameras = read_cameras(cameras)
        self.skeleton = (HUMAN36M_18 if has_thorax(joints) else HUMAN36M_17).name
        self.box_kind = "annotation" if BOX[0] in people.columns else "none"
        self._people, self._faults = read_people(people.rows, joints, self._cameras)
        if not self._people and not self._faults:
            raise ValueError(f"{people.file} has no people")
        if not self._people:
            raise ValueError(f"{self._faults[0].name}: {self._faults[0].reason}")
        check_units(self._people)
        check_view(self._people, self._cameras)
        self._tell(people, joints, unused)

    def _tell(self, people: Table, joints: Mapping[int, str], unused: Sequence[str]) -> None:
        """Notes for a person."""
        names = ", ".join(HUMAN36M_18.joint_names[joint] for joint in sorted(joints))
        spaces = Counter(person.space for person in self._people)
        counted = ", ".join(f"{count} in space {space}" for space, count in spaces.items())
        self.notes.append(f"{people.file.name}: {counted}; joints {names}")
        if unused:
            self.notes.append(f"{people.file.name}: not used: {', '.join(unused)}")
        self.notes += [camera.note for camera in self._cameras.values() if camera.note]
        if "split" not in people.columns:
            self.notes.append(f"{people.file.name}: no column split, so all records train")
        nominal = sum(
            person.space == "image+relative-depth" and np.isnan(person.root_depth_mm)
            for person in self._people
        )
        if nominal:
            self.notes.append(
                f"{people.file.name}: {nominal} records have depths from the pelvis but no "
                "root_depth; they are put at 5000 mm, which trains u, v, d rightly, but their x "
                "and y in millimetres mean nothing"
            )

    def identity(self) -> dict[str, Any]:
        """Digests of the tables."""
        return {"files": {path.name: sha256(path) for path in self._files}}

    def units(self) -> list[LazyTake]:
        """Blocks of at most 500 people of one subject, action, take and camera."""
        groups: dict[tuple, list[OwnPerson]] = {}
        for person in self._people:
            key = (person.split, person.subject, person.action, person.take, person.camera)
            groups.setdefault(key, []).append(person)
        units: list[LazyTake] = []
        taken: Counter[str] = Counter()
        for key, people in groups.items():
            for start in range(0, len(people), BLOCK_SIZE):
                spoilt = tuple(self._faults) if not units else ()
                block = tuple(people[start : start + BLOCK_SIZE])
                units.append(self._unit(key, block, spoilt, taken))
        return units

    def _unit(
        self,
        key: tuple[str, int, str, int, str],
        people: tuple[OwnPerson, ...],
        faults: tuple[Rejection, ...],
        taken: Counter[str],
    ) -> LazyTake:
        split, subject, action, take, camera = key
        name = f"s_{subject:02d}_act_{_plain(action)}_subact_{take:02d}_ca_{_plain(camera)}"
        taken[name] += 1
        return LazyTake(
            name=f"{name}_{taken[name]:04d}",
            subject=subject,
            action=action,
            subaction=take,
            camera_name=camera or NO_CAMERA,
            split=split,
            count=len(people) + len(faults),
            read=partial(
                own_take,
                people,
                self._cameras.get(camera),
                camera_name=camera or NO_CAMERA,
                faults=faults,
                images=self._images,
                skeleton=self.skeleton,
            ),
        )


class CsvReader(OwnReader):
    """people.csv and cameras.csv; a `Reader`.

    Args:
        source: Folder with people.csv, or a file of its kind.
        cameras: The table of cameras; cameras.csv beside the people if None, and none at all if
            there is no such file.
        images: Folder that images are relative to; that of the people if None.

    Raises:
        ValueError: As `OwnReader` does, or if a table is missing or has other columns.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        cameras: Path | str | None = None,
        images: Path | str | None = None,
    ) -> None:
        path = _file_of(Path(source), "people.csv")
        camera_path = path.with_name("cameras.csv") if cameras is None else Path(cameras)
        table = read_csv(path, known=is_column, name="table of people", some=some_columns())
        files = [path]
        if cameras is not None or camera_path.is_file():
            camera_table = read_csv(
                camera_path,
                known=CAMERA_COLUMNS.__contains__,
                name="table of cameras",
                some=CAMERA_COLUMNS,
            )
            files.append(camera_path)
        else:
            camera_table = Table(file=camera_path, columns=(), rows=[])
        super().__init__(
            table,
            camera_table,
            files=files,
            images=path.parent if images is None else Path(images),
            layout="csv",
        )


class JsonReader(OwnReader):
    """people.json with cameras and people; a `Reader`.

    Args:
        source: Folder with people.json, or a file of its kind.
        images: Folder that images are relative to; that of the file if None.

    Raises:
        ValueError: As `OwnReader` does, or if the file is missing or not of this layout.
    """

    def __init__(self, source: Path | str, *, images: Path | str | None = None) -> None:
        path = _file_of(Path(source), "people.json")
        tables = read_people_json(path)
        super().__init__(
            tables["people"],
            tables["cameras"],
            files=[path],
            images=path.parent if images is None else Path(images),
            layout="json",
        )


def _file_of(source: Path, name: str) -> Path:
    """A file, or the one of this name in a folder.

    Raises:
        ValueError: If it is missing.
    """
    path = source / name if source.is_dir() else source
    if not path.is_file():
        raise ValueError(f"{path} is missing; name a file like {name}, or the folder that has it")
    return path


def _plain(text: str) -> str:
    """A name as it may stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-") or "0"
