"""Two-dimensional labels of people in single images become takes without depth.

Each person is one record. Joints are those of `HUMAN36M_18`; u and v of a labelled joint have
weight 1, d has weight 0 throughout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from data_prep.people import flat_take_geometry
from data_prep.pictures import Image, read_image
from data_prep.readers.joint_names import fill_midpoints, fill_unlabelled
from data_prep.takes import LazyTake, Rejection, Take
from pose3d.geometry.skeleton import HUMAN36M_18

BLOCK_SIZE = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagesOfPeople:
    """Image files that show several people each; a `Pictures` with one image per person.

    Attributes:
        folder: What the files are relative to.
        files: The file of each person's image; decoded once where the next person has the same.
        labels: What tells the person apart, e.g. "annotation 183126".
    """

    folder: Path
    files: Sequence[str]
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def names(self) -> Sequence[str]:
        """File and person, e.g. "000000391895.jpg#annotation 183126"."""
        return tuple(f"{file}#{label}" for file, label in zip(self.files, self.labels, strict=True))

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "ImagesOfPeople":
        """The images of these positions."""
        return replace(
            self,
            files=tuple(self.files[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
        )

    def missing(self) -> dict[int, str]:
        """Files that are not there."""
        absent = {file for file in set(self.files) if not (self.folder / file).is_file()}
        return {
            row: f"image {self.folder / file} is missing"
            for row, file in enumerate(self.files)
            if file in absent
        }

    def frames(self) -> Iterator[Image | ValueError]:
        """Decode file after file."""
        last: str | None = None
        image: Image | ValueError
        for file in self.files:
            if file != last:
                last = file
                try:
                    image = read_image(self.folder / file)
                except ValueError as error:
                    image = error
            yield image


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatPeople:
    """People with labels in the image; n of them.

    Attributes:
        folder: What the files are relative to.
        split: "train" or "test".
        files: The image of each.
        labels: What tells each apart within its image.
        number: Running number of each in the source, unique.
        image_size_px: Width and height, pixels; 0, 0 where only the image itself tells.
        joints_px: Joints of `HUMAN36M_18` in the image, pixels; NaN where there is no label.
        visible: Whether each is seen.
        box_xywh_px: Person boxes: left, top, width, height, pixels; NaN where there is none.
    """

    folder: Path
    split: str
    files: Sequence[str]
    labels: Sequence[str]
    number: Int[np.ndarray, " n"]
    image_size_px: Int[np.ndarray, "n 2"]
    joints_px: Float[np.ndarray, "n 18 2"]
    visible: Bool[np.ndarray, "n 18"]
    box_xywh_px: Float[np.ndarray, "n 4"]

    def __len__(self) -> int:
        return len(self.files)

    def chosen(self, rows: Int[np.ndarray, " k"]) -> "FlatPeople":
        """The people of these positions."""
        arrays = ("number", "image_size_px", "joints_px", "visible", "box_xywh_px")
        return replace(
            self,
            files=tuple(self.files[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            **{name: getattr(self, name)[rows] for name in arrays},
        )


def flat_units(
    people: FlatPeople,
    rejections: Sequence[Rejection],
    *,
    action: str,
    camera_name: str,
    first_block: int = 0,
) -> list[LazyTake]:
    """Blocks of at most 500 people; people of one image follow one another."""
    place = {file: row for row, file in reversed(list(enumerate(people.files)))}
    order = np.array(sorted(range(len(people)), key=lambda row: place[people.files[row]]), int)
    units = []
    for block, start in enumerate(range(0, max(len(order), 1), BLOCK_SIZE)):
        part = people.chosen(order[start : start + BLOCK_SIZE])
        spoilt = tuple(rejections) if block == 0 else ()
        units.append(
            LazyTake(
                name=f"{camera_name}_{first_block + block:05d}",
                subject=0,
                action=action,
                subaction=1,
                camera_name=camera_name,
                split=people.split,
                count=len(part) + len(spoilt),
                read=partial(flat_take, part, spoilt, camera_name=camera_name),
            )
        )
    return units


def flat_take(
    people: FlatPeople, rejections: tuple[Rejection, ...] = (), *, camera_name: str
) -> Take:
    """The take of these people: a nominal camera, one plane, no weight on depth."""
    joints_px, visible = fill_midpoints(people.joints_px, people.visible)
    labelled = np.isfinite(joints_px).all(-1)
    size_px = image_sizes(people)
    joints, camera = flat_take_geometry(fill_unlabelled(joints_px), size_px.astype(np.float64))
    weight = np.zeros((*labelled.shape, 3))
    weight[..., :2] = labelled[..., None]
    return Take(
        skeleton=HUMAN36M_18.name,
        joints_camera_mm=joints,
        camera=camera,
        camera_name=camera_name,
        image_size_px=size_px,
        frame=people.number,
        pictures=ImagesOfPeople(folder=people.folder, files=people.files, labels=people.labels),
        weight=weight,
        visibility=visible & labelled,
        box_xywh_px=people.box_xywh_px,
        rejections=rejections,
    )


def image_sizes(people: FlatPeople) -> Int[np.ndarray, "n 2"]:
    """Width and height of each image, pixels; looked up in the image where labels do not tell.

    An image that cannot be read gets 1, 1: its record is left out when the image is needed.
    """
    sizes = people.image_size_px.copy()
    last, found = "", (1, 1)
    for row in np.flatnonzero((sizes == 0).any(1)).tolist():
        if people.files[row] != last:
            last = people.files[row]
            try:
                height, width = read_image(people.folder / last).shape[:2]
                found = (width, height)
            except ValueError:
                found = (1, 1)
        sizes[row] = found
    return sizes
