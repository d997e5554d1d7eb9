"""Write the images of a world as people have them on disk; see `data_prep.readers.image_trees`."""

from collections.abc import Callable
from pathlib import Path

from data_prep.lookalike.h36m_fetch import performance_folder
from data_prep.lookalike.images import write_images
from data_prep.lookalike.mmpose import sequence_name
from data_prep.lookalike.video import film
from data_prep.lookalike.world import Performance, World, unit_name

VIDEO_SURPLUS = 2
"""Frames that videos have more than there are poses."""
_Place = Callable[[Performance, str], tuple[str, str]]
"""Folder of a camera's images of a performance, and their names but for the number."""


def _mmpose(performance: Performance, camera_name: str) -> tuple[str, str]:
    name = sequence_name(performance, camera_name)
    return f"S{performance.subject}/{name}", f"{name}_{{:06d}}.jpg"


def _posenet(performance: Performance, camera_name: str) -> tuple[str, str]:
    name = unit_name(performance, camera_name)
    return f"images/{name}", f"{name}_{{:06d}}.jpg"


def _metro(performance: Performance, camera_name: str) -> tuple[str, str]:
    folder = f"S{performance.subject}/Images/{performance.file_name}.{camera_name}"
    return folder, "frame_{:06d}.jpg"


def _fetch(inner: str) -> _Place:
    def place(performance: Performance, camera_name: str) -> tuple[str, str]:
        return f"{performance_folder(performance)}/{inner}/{camera_name}", "img_{:06d}.jpg"

    return place


PLACES: dict[str, tuple[_Place, int]] = {
    "posenet": (_posenet, 1),
    "h36m-fetch": (_fetch("imageSequence"), 1),
    "h36m-fetch, undistorted": (_fetch("imageSequence-undistorted"), 1),
    "metro": (_metro, 0),
    "mmpose": (_mmpose, 1),
}
"""Where each tree has its images, and the number of frame 0."""


def write_image_tree(
    world: World, folder: Path, *, kind: str, every: int = 1, first: int | None = None
) -> None:
    """Write the images of all performances.

    Args:
        world: What was recorded.
        folder: The tree's folder.
        kind: One of `PLACES`, or "videos".
        every: Write frames whose number from 0 is a multiple of this.
        first: The number of frame 0, if not the tree's own.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If videos are asked for and PyAV is missing.
    """
    for performance in world.performances:
        for camera_name in world.camera_names:
            if kind == "videos":
                _write_video(world, performance, camera_name, folder)
                continue
            place, number = PLACES[kind]
            inner, name = place(performance, camera_name)
            write_images(
                world,
                performance,
                camera_name,
                range(0, len(performance), every),
                folder=folder / inner,
                name=name,
                first=number if first is None else first,
            )


def _write_video(world: World, performance: Performance, camera_name: str, folder: Path) -> None:
    """One video with a few frames more than poses, like the release's."""
    path = folder / f"S{performance.subject}/Videos/{performance.file_name}.{camera_name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    film(path, world, performance, camera_name, count=len(performance) + VIDEO_SURPLUS)
