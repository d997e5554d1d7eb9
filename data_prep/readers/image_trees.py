"""Human3.6M's images as people have them on disk, for labels that come without images.

    images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg   (PoseNet, RLE)
    S1/Directions-1/imageSequence/54138969/img_000001.jpg                       (h36m-fetch)
    S1/Images/Directions 1.54138969/frame_000000.jpg                            (metro)
    S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg             (mmpose)
    S1/Videos/Directions 1.54138969.mp4                                         (the release)

The tree is told by its folders. Numbers count from 1, metro's from 0; what the first images of
the sequences are called has the last word.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int

from data_prep.human36m import action_number, find_sequence
from data_prep.pictures import ImageFiles, Pictures, VideoFrames, video_facts
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

SequenceKey = tuple[int, int, int, str]
"""Subject, action number (2 to 16), subaction and the camera's name."""

_INNER_FOLDERS = ("", "images", "processed", "extracted", "h36m", "Human36M", "Human36M/images")
_IMAGE_NAME = re.compile(
    r"(?P<start>|[^.].*?\D|[^.\d])(?P<number>\d+)(?P<end>\.(?:jpe?g|png))", re.I
)
_NUM_LOOKED_AT = 12
"""Sequences whose first images tell from where numbers count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeKind:
    """How a tree names its images."""

    name: str
    example: str
    first_number: int
    """The first image's number."""
    scan: Callable[[Path], Iterator[tuple[SequenceKey, str]]]
    """Sequences of a folder, each with its folder or video, relative to the folder; picklable."""
    is_video: bool = False
    is_undistorted: bool = False
    """Whether the lens's distortion has been taken off the images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceImages:
    """The images of one performance before one camera; small enough to be sent to a process.

    Attributes:
        folder: The tree's folder.
        name: The sequence's folder, or its video, relative to the tree's.
        frame: Frames that have an image, from 0, ascending; None for a video.
        first_number: What frame 0 is called.
        start: What stands before the number in the images' names.
        end: What stands behind it.
        num_digits: Digits of the number.
    """

    folder: Path
    name: str
    frame: Int[np.ndarray, " n"] | None
    first_number: int = 0
    start: str = ""
    end: str = ""
    num_digits: int = 0

    def match(self, frame: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " k"], Pictures]:
        """Which of these frames have an image, and the images.

        Args:
            frame: Frame numbers from 0, ascending.

        Returns:
            Positions in `frame`, and as many images; a video's frames reach as far as its header
            states.

        Raises:
            ValueError: If a video cannot be opened.
        """
        if self.frame is None:
            num_frames = video_facts(self.folder / self.name).num_frames or len(frame)
            rows = np.flatnonzero(frame < num_frames)
            video = VideoFrames(folder=self.folder, name=self.name, position=frame[rows])
            return rows, video
        rows = np.flatnonzero(np.isin(frame, self.frame))
        names = tuple(
            f"{self.name}/{self.start}{number + self.first_number:0{self.num_digits}d}{self.end}"
            for number in frame[rows]
        )
        return rows, ImageFiles(folder=self.folder, names=names)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTree:
    """A folder of sequences.

    Attributes:
        folder: What the sequences' names are relative to.
        kind: How the tree names its images.
        sequences: Each sequence's folder or video.
        first_number: What frame 0 is called.
    """

    folder: Path
    kind: TreeKind
    sequences: dict[SequenceKey, str]
    first_number: int

    @property
    def notes(self) -> list[str]:
        """The tree in words, and what follows from its lens."""
        counted = "" if self.kind.is_video else f", numbers from {self.first_number}"
        notes = [
            f"images: {len(self.sequences)} sequences like {self.kind.example} in {self.folder}"
            f"{counted}"
        ]
        if self.kind.is_undistorted:
            notes.append("the images are undistorted, so cameras have no distortion")
        return notes

    def find(
        self, subject: int, action: int, subaction: int, camera_name: str
    ) -> SequenceImages | None:
        """List the images of a sequence; None if the tree has no such sequence.

        Raises:
            ValueError: If the images' names have different forms, or numbers of digits.
        """
        name = self.sequences.get((subject, action, subaction, camera_name))
        if name is None:
            return None
        if self.kind.is_video:
            return SequenceImages(folder=self.folder, name=name, frame=None)
        return _list_images(self.folder, name, first_number=self.first_number)


def open_image_tree(folder: Path | str, *, kinds: Sequence[TreeKind] | None = None) -> ImageTree:
    """Find out what tree a folder holds, or holds in `images`, `processed` or the like.

    Args:
        folder: The folder.
        kinds: Trees to look for, in this order; `TREE_KINDS` if None.

    Raises:
        ValueError: If it is none of the trees.
    """
    kinds = TREE_KINDS if kinds is None else kinds
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"image folder {folder} is missing")
    for inner in _INNER_FOLDERS:
        root = folder / inner
        for kind in kinds if root.is_dir() else ():
            sequences = dict(sorted(kind.scan(root)))
            if sequences:
                first = 0 if kind.is_video else _first_number(root, kind, sequences)
                return ImageTree(folder=root, kind=kind, sequences=sequences, first_number=first)
    known = "; ".join(kind.example for kind in kinds)
    raise ValueError(f"{folder} holds no images of Human3.6M; expected one of: {known}")


def _first_number(root: Path, kind: TreeKind, sequences: dict[SequenceKey, str]) -> int:
    """From where numbers count: the lowest number of some sequences, if it is 0 or 1."""
    names = list(sequences.values())
    lowest = []
    for name in names[:: max(len(names) // _NUM_LOOKED_AT, 1)]:
        images = _list_images(root, name, first_number=0)
        if images.frame is not None and len(images.frame):
            lowest.append(int(images.frame[0]))
    return min(lowest) if lowest and min(lowest) in (0, 1) else kind.first_number


def _list_images(folder: Path, name: str, *, first_number: int) -> SequenceImages:
    """Parse the names of a folder's images; other files are passed over."""
    matches = [_IMAGE_NAME.fullmatch(file) for file in os.listdir(folder / name)]
    parts = [match.groups() for match in matches if match]
    numbers = [number for _, number, _ in parts]
    lengths = {len(number) for number in numbers}
    is_padded = any(number.startswith("0") and len(number) > 1 for number in numbers)
    forms = sorted({(start, end) for start, _, end in parts})
    if len(forms) > 1 or (is_padded and len(lengths) > 1):
        examples = ", ".join(sorted("".join(part) for part in parts)[:: max(len(parts) - 1, 1)])
        raise ValueError(
            f"{folder / name} has images whose names differ in more than the number ({examples}); "
            "leave one set of images in it"
        )
    start, end = forms[0] if forms else ("", "")
    return SequenceImages(
        folder=folder,
        name=name,
        frame=np.sort(np.array(numbers, dtype=np.int64)) - first_number,
        first_number=first_number,
        start=start,
        end=end,
        num_digits=lengths.pop() if len(lengths) == 1 else 1,
    )


def _subject_folders(root: Path) -> Iterator[tuple[int, Path]]:
    """Folders S1, S5 and so on."""
    for path in root.iterdir():
        if (match := re.fullmatch(r"S(\d+)", path.name)) and path.is_dir():
            yield int(match[1]), path


def _key_of_file_name(subject: int, name: str) -> SequenceKey | None:
    """The sequence of "Directions 1.54138969"; None for `_ALL` and what the subject has not."""
    base, _, camera = name.rpartition(".")
    if camera not in HUMAN36M_CAMERA_NAMES:
        return None
    try:
        fact = find_sequence(subject, base)
    except ValueError:
        return None
    return subject, fact.action, fact.subaction, camera


def _scan_posenet(root: Path) -> Iterator[tuple[SequenceKey, str]]:
    pattern = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)")
    for path in root.iterdir():
        if (match := pattern.fullmatch(path.name)) and path.is_dir():
            subject, action, subaction, camera = map(int, match.groups())
            if 1 <= camera <= len(HUMAN36M_CAMERA_NAMES):
                name = HUMAN36M_CAMERA_NAMES[camera - 1]
                yield (subject, action, subaction, name), path.name


def _scan_fetch(root: Path, *, inner: str) -> Iterator[tuple[SequenceKey, str]]:
    """Scan h36m-fetch's tree, whose names state action and subaction."""
    for subject, folder in _subject_folders(root):
        for path in folder.glob(f"*-*/{inner}/*"):
            action, _, subaction = path.parent.parent.name.rpartition("-")
            if path.name not in HUMAN36M_CAMERA_NAMES or not subaction.isdecimal():
                continue
            try:
                number = action_number(action)
            except ValueError:
                continue  # a folder of something else
            key = (subject, number, int(subaction), path.name)
            yield key, path.relative_to(root).as_posix()


def _scan_named(
    root: Path, *, pattern: str, ending: str = "", with_subject: bool = False
) -> Iterator[tuple[SequenceKey, str]]:
    """Scan for folders or files that bear the names of the release's files."""
    for subject, folder in _subject_folders(root):
        for path in folder.glob(pattern):
            name = path.name.removesuffix(ending)
            if with_subject:
                name = name.removeprefix(f"S{subject}_")
            key = _key_of_file_name(subject, name)
            if key is not None and path.is_dir() == (not ending):
                yield key, path.relative_to(root).as_posix()


TREE_KINDS = (
    TreeKind(
        name="posenet",
        example="s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg",
        first_number=1,
        scan=_scan_posenet,
    ),
    TreeKind(
        name="h36m-fetch",
        example="S1/Directions-1/imageSequence/54138969/img_000001.jpg",
        first_number=1,
        scan=partial(_scan_fetch, inner="imageSequence"),
    ),
    TreeKind(
        name="h36m-fetch, undistorted",
        example="S1/Directions-1/imageSequence-undistorted/54138969/img_000001.jpg",
        first_number=1,
        scan=partial(_scan_fetch, inner="imageSequence-undistorted"),
        is_undistorted=True,
    ),
    TreeKind(
        name="metro",
        example="S1/Images/Directions 1.54138969/frame_000000.jpg",
        first_number=0,
        scan=partial(_scan_named, pattern="Images/*.*"),
    ),
    TreeKind(
        name="mmpose",
        example="S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg",
        first_number=1,
        scan=partial(_scan_named, pattern="*.*", with_subject=True),
    ),
    TreeKind(
        name="videos",
        example="S1/Videos/Directions 1.54138969.mp4",
        first_number=0,
        scan=partial(_scan_named, pattern="Videos/*.mp4", ending=".mp4"),
        is_video=True,
    ),
)
"""The trees, in the order in which they are looked for."""
