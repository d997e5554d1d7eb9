"""What layouts of 2-D labels have in common: annotation files, images, and who is left out."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.readers.files import read_json, sha256
from data_prep.readers.flat import FlatPeople, flat_units
from data_prep.takes import LazyTake, Rejection
from pose3d.geometry.skeleton import HUMAN36M_18

SPLITS = ("auto", "train", "test")
_NUM_JOINTS = HUMAN36M_18.num_joints


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FlatPerson:
    """One annotation, parsed; joints in the order of `HUMAN36M_18`, NaN where there is no label.

    Attributes:
        number: Position of the annotation in its file.
        label: What tells the person apart within the image, e.g. "annotation 183126".
        file: The image.
        image_size_px: Width and height, pixels; 0, 0 where only the image itself tells.
        joints_px: Joints in the image, pixels.
        visible: Whether each is seen.
        box_xywh_px: Person box: left, top, width, height, pixels.
    """

    number: int
    label: str
    file: str
    image_size_px: tuple[int, int]
    joints_px: np.ndarray
    visible: np.ndarray
    box_xywh_px: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatTable:
    """The annotations of one file.

    Attributes:
        people: Those that could be read.
        faults: Name of each annotation that could not be, and what is wrong with it.
        left_out: Why annotations were left out on purpose, and how many.
        notes: What a person should be told.
        num_annotations: Annotations in the file.
    """

    people: list[FlatPerson]
    faults: list[tuple[str, str]]
    left_out: Counter[str]
    notes: list[str]
    num_annotations: int


class FlatReader(ABC):
    """A layout of 2-D labels in JSON files; a `Reader` once a layout says how one is parsed.

    Args:
        source: Folder with annotations and images, or an annotation file.
        images: Folder of the images; found if None.
        annotations: Names or paths of the annotation files; found if empty.
        split: "train", "test", or "auto": a file with "val" or "test" in its name tests.
        min_joints: People with fewer labelled joints are left out.

    Raises:
        ValueError: If a file is missing or not of the layout.
    """

    skeleton = HUMAN36M_18.name
    box_kind = "annotation"
    is_human36m = False
    default_protocol = "full"
    layout: str
    """Name of the layout, and of the camera of its records."""
    patterns: tuple[str, ...]
    """Names of annotation files, relative to the source."""

    def __init__(
        self,
        source: Path | str,
        *,
        images: Path | str | None = None,
        annotations: Sequence[str] = (),
        split: str = "auto",
        min_joints: int = 1,
    ) -> None:
        self._source = Path(source)
        self._images = None if images is None else Path(images)
        self._min_joints = min_joints
        paths = find_annotations(self._source, annotations, patterns=self.patterns)
        self._splits = {path: split_of(path, asked=split) for path in paths}
        self.description = f"{self.layout}-json ({', '.join(path.name for path in paths)})"
        self.notes: list[str] = []
        self.missing: list[str] = []
        self._parts: list[tuple[FlatPeople, list[Rejection]]] = []
        first_number = 0
        for path in paths:
            table = self._parse(read_json(path, name="annotation file"), path)
            self._parts.append(self._chosen(table, path, first_number=first_number))
            first_number += table.num_annotations

    @abstractmethod
    def _parse(self, content: Any, path: Path) -> FlatTable:
        """The people of one file's content.

        Raises:
            ValueError: If it is not of this layout.
        """

    def _chosen(
        self, table: FlatTable, path: Path, *, first_number: int
    ) -> tuple[FlatPeople, list[Rejection]]:
        """The people of one file who take part."""
        split, left_out, kept = self._splits[path], table.left_out, []
        for person in table.people:
            count = int(np.isfinite(person.joints_px).all(-1).sum())
            if count == 0:
                left_out["without a label of any joint that is used"] += 1
            elif count < self._min_joints:
                left_out[f"with fewer than {self._min_joints} labelled joints"] += 1
            else:
                kept.append(person)
        told = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        if not kept and not table.faults:
            raise ValueError(f"{path} holds nobody with labelled joints{told and f': {told}'}")
        folder, files = find_images(
            [person.file for person in kept], path, source=self._source, images=self._images
        )
        self.notes += [f"{path.name}: {note}" for note in table.notes]
        self.notes.append(f"{path.name}: {len(kept)} people, {split} set, images in {folder}")
        if told:
            self.notes.append(f"{path.name}: left out {told}")
        people = FlatPeople(
            folder=folder,
            split=split,
            files=files,
            labels=tuple(person.label for person in kept),
            number=np.array([person.number for person in kept], np.int64) + first_number,
            image_size_px=np.array([p.image_size_px for p in kept], np.int64).reshape(-1, 2),
            joints_px=np.array([p.joints_px for p in kept]).reshape(-1, _NUM_JOINTS, 2),
            visible=np.array([p.visible for p in kept], bool).reshape(-1, _NUM_JOINTS),
            box_xywh_px=np.array([p.box_xywh_px for p in kept], np.float64).reshape(-1, 4),
        )
        faults = [Rejection(name=name, reason=why, split=split) for name, why in table.faults]
        return people, faults

    def identity(self) -> dict[str, Any]:
        """Digests of the annotation files, and the options."""
        return {
            "annotations": [
                {"name": path.name, "sha256": sha256(path), "split": split}
                for path, split in self._splits.items()
            ],
            "min_joints": self._min_joints,
        }

    def units(self) -> list[LazyTake]:
        """Blocks of people, file after file."""
        units: list[LazyTake] = []
        for people, faults in self._parts:
            units += flat_units(
                people,
                faults,
                action=self.layout.upper(),
                camera_name=self.layout,
                first_block=len(units),
            )
        return units


def find_annotations(
    source: Path, names: Sequence[str], *, patterns: Sequence[str]
) -> tuple[Path, ...]:
    """The annotation files of a source, the training set's first.

    Raises:
        ValueError: If the source or a named file is missing, or nothing fits a pattern.
    """
    if source.is_file():
        return (source,)
    if not source.is_dir():
        raise ValueError(f"no file or folder {source}")
    if names:
        return tuple(_named_annotation(source, name) for name in names)
    found = {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}
    if not found:
        raise ValueError(
            f"{source} holds none of {', '.join(patterns)}; name the file as SOURCE, or with "
            "--annotation"
        )
    return tuple(sorted(found, key=lambda path: (split_of(path, asked="auto") == "test", path)))


def _named_annotation(source: Path, name: str) -> Path:
    """An annotation file by name, in the source's usual folders, or by path."""
    tried = [source / folder / name for folder in ("annotations", "annot", ".")] + [Path(name)]
    for path in tried:
        if path.is_file():
            return path
    raise ValueError(f"annotation file {tried[0]} is missing")


def split_of(path: Path, *, asked: str) -> str:
    """The split of an annotation file: as asked, or by its name.

    Raises:
        ValueError: If another split is asked for than train or test.
    """
    if asked not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {asked!r}")
    if asked != "auto":
        return asked
    name = path.stem.lower()
    return "test" if "val" in name or "test" in name else "train"


def find_images(
    files: Sequence[str], annotation: Path, *, source: Path, images: Path | None
) -> tuple[Path, tuple[str, ...]]:
    """The folder of an annotation file's images, and the files relative to it.

    Looked for is the first image, in the folders where these layouts have it; a folder may also be
    named like the set, e.g. train2017 for person_keypoints_train2017.json.

    Raises:
        ValueError: If the first image is in none of them; the folders are named.
    """
    if not files:
        return images or source, ()
    base = source if source.is_dir() else source.parent
    if base.name in ("annotations", "annot") and source.is_file():
        base = base.parent
    part = annotation.stem.rpartition("_")[2]
    folders = [base / "images" / part, base / part, base / "images", base]
    folders = [images / part, images] if images else folders
    for folder in folders:
        for first in (files[0], Path(files[0]).name):  # some name the file with its folder
            if (folder / first).is_file():
                bare = first != files[0]
                return folder, tuple(Path(file).name if bare else file for file in files)
    listed = ", ".join(str(folder) for folder in folders)
    raise ValueError(
        f"image {files[0]} of {annotation} is in none of {listed}; name the folder with --images"
    )
