"""Where the files of Human3.6M's archives lie, unpacked by hand or by h36m-fetch.

    native                                       h36m-fetch
    S1/MyPoseFeatures/D3_Positions/              extracted/S1/Poses_D3_Positions/
    S1/MyPoseFeatures/D3_Positions_mono/         extracted/S1/Poses_D3_Positions_mono/
    S1/MyPoseFeatures/D3_Positions_mono_universal/   …/Poses_D3_Positions_mono_universal/
    S1/MyPoseFeatures/D2_Positions/              extracted/S1/Poses_D2_Positions/
    S1/Videos/                                   extracted/S1/Videos/
    S1/MySegmentsMat/ground_truth_bb/            extracted/S1/Segments_mat_gt_bb/

Files are called "Directions 1.54138969.cdf", in D3_Positions "Directions 1.cdf"; those that begin
with _ALL belong to no action.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.human36m import plain_file_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of file.

    Attributes:
        folders: Where it may lie within a subject's folder.
        suffix: How its names end.
        has_camera: Whether there is one file per camera.
    """

    folders: tuple[str, ...]
    suffix: str
    has_camera: bool = True


def _poses(name: str, *, has_camera: bool = True) -> Kind:
    folders = (f"MyPoseFeatures/{name}", f"Poses_{name}", name)
    return Kind(folders=folders, suffix=".cdf", has_camera=has_camera)


KINDS = {
    "world": _poses("D3_Positions", has_camera=False),
    "mono": _poses("D3_Positions_mono"),
    "universal": _poses("D3_Positions_mono_universal"),
    "labels": _poses("D2_Positions"),
    "video": Kind(folders=("Videos",), suffix=".mp4"),
    "masks": Kind(
        folders=("MySegmentsMat/ground_truth_bb", "Segments_mat_gt_bb", "ground_truth_bb"),
        suffix=".mat",
    ),
}
POSE_KINDS = ("mono", "world", "universal")
METADATA_PLACES = ("", "Release-v1.2", "code-v1.2", "code-v1.2/Release-v1.2")
_SUBJECT = re.compile(r"[Ss]0?(\d{1,2})")


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """The files of one kind of one subject.

    Attributes:
        path: Relative to the tree.
        exists: Whether it is there.
        files: Names of files by base name and camera; both as they are and as
            `plain_file_name` has the base name, so that S1's renamed files are found.
    """

    path: Path
    exists: bool
    files: dict[tuple[str, str], str]

    def find(self, base: str, camera: str) -> Path | None:
        """A sequence's file relative to the tree; None where there is none."""
        name = self.files.get((base, camera)) or self.files.get((plain_file_name(base), camera))
        return self.path / name if name else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """All files by subject and kind.

    Attributes:
        root: The folder of the subjects' folders.
        folders: By subject, ascending, and name of kind.
    """

    root: Path
    folders: dict[int, dict[str, Folder]]

    def cameras(self) -> set[str]:
        """Names of the cameras that any file belongs to."""
        return {
            camera
            for folders in self.folders.values()
            for folder in folders.values()
            for _, camera in folder.files
            if camera
        }


def find_tree(source: Path) -> Tree:
    """Look for the subjects' folders and list their files.

    Args:
        source: The folder of S1, S5 and so on, or the one that holds it as "extracted".

    Raises:
        ValueError: If there is none.
    """
    for root in (source, source / "extracted"):
        folders = {
            subject: {name: _list(root, path, kind) for name, kind in KINDS.items()}
            for subject, path in sorted(_subject_folders(root))
        }
        folders = {
            subject: kinds
            for subject, kinds in folders.items()
            if any(folder.exists for folder in kinds.values())
        }
        if folders:
            return Tree(root=root, folders=folders)
    archives = any(source.glob("*.tgz"))
    raise ValueError(
        f"{source} holds no folder S1, S5, ... with MyPoseFeatures/D3_Positions_mono and Videos "
        "(or Poses_D3_Positions_mono and Videos, as h36m-fetch unpacks them); "
        + ("unpack its archives" if archives else "name the folder that the archives unpack into")
    )


def _subject_folders(root: Path) -> Iterator[tuple[int, Path]]:
    """Number and folder of every subject."""
    for path in root.iterdir() if root.is_dir() else ():
        match = _SUBJECT.fullmatch(path.name)
        if match and path.is_dir():
            yield int(match.group(1)), path


def _list(root: Path, subject: Path, kind: Kind) -> Folder:
    """The files of a kind; those of no action are left out."""
    places = [subject / name for name in kind.folders]
    path = next((place for place in places if place.is_dir()), places[0])
    files: dict[tuple[str, str], str] = {}
    exact: dict[tuple[str, str], str] = {}
    for name in sorted(entry.name for entry in path.iterdir()) if path.is_dir() else ():
        stem, suffix = name[: -len(kind.suffix)], name[-len(kind.suffix) :]
        if suffix.lower() != kind.suffix or name.startswith(("_ALL", ".")):
            continue
        base, _, camera = stem.rpartition(".") if kind.has_camera else (stem, "", "")
        exact[base, camera] = name
        files.setdefault((plain_file_name(base), camera), name)
    return Folder(path=path.relative_to(root), exists=path.is_dir(), files={**files, **exact})


def find_metadata(source: Path, given: Path | None) -> Path:
    """The metadata.xml in or beside a tree.

    Args:
        source: The tree as it was named.
        given: The file, or the folder that it lies in, if it was named; else None.

    Raises:
        ValueError: If it is not found.
    """
    if given is not None:
        found = given / "metadata.xml" if given.is_dir() else given
        if not found.is_file():
            raise ValueError(f"metadata {found} is missing")
        return found
    source = source.absolute()
    for folder in (source, source.parent):
        for place in METADATA_PLACES:
            if (path := folder / place / "metadata.xml").is_file():
                return path
    raise ValueError(
        f"no metadata.xml in {source}, in its Release-v1.2/ or code-v1.2/, or beside it; it alone "
        "tells which file holds what: take it out of code-v1.2.zip, or name it with --metadata"
    )
