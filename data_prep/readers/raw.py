"""Read Human3.6M's original archives: CDF poses, h264 videos, metadata.xml, and masks for boxes.

Where files lie: see `data_prep.readers.raw_tree`. Poses of D3_Positions_mono are in the camera
frame, those of D3_Positions in the world; with the cameras of metadata.xml they are the same.
D3_Positions_mono_universal is one skeleton with the same limb lengths for everybody: its joints do
not lie where the images show them.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.human36m import SUBJECTS, UNUSABLE_VIDEO, action_name
from data_prep.readers.files import digest_of_files, sha256
from data_prep.readers.metadata import NUM_ACTIONS, NUM_SUBACTIONS, read_metadata
from data_prep.readers.raw_takes import RawSequence, read_take
from data_prep.readers.raw_tree import KINDS, POSE_KINDS, find_metadata, find_tree
from data_prep.takes import LazyTake, human36m_unit_name
from pose3d.data.store import HUMAN36M_FIRST_ACTION
from pose3d.geometry.skeleton import HUMAN36M_17

POSES = ("auto", *POSE_KINDS)
MAX_NAMED = 3
"""Absent sequences that a note names; a dry run lists all."""


class RawReader:
    """Human3.6M as its makers distribute it; a `Reader` and a `MaskReader`.

    Args:
        source: The folder of S1, S5 and so on, native or as h36m-fetch unpacks it, or what holds
            such a folder as "extracted".
        metadata: metadata.xml; looked for in and beside the source if None.
        poses: "mono" for D3_Positions_mono, "world" for D3_Positions, "universal" for
            D3_Positions_mono_universal, "auto" for mono where it is there, else world; where both
            are there, "auto" compares them.

    Raises:
        ValueError: If the source is not of this layout, or metadata.xml is missing or damaged.
    """

    skeleton = HUMAN36M_17.name
    is_human36m = True
    default_protocol = "rle-2"

    def __init__(
        self, source: Path | str, *, metadata: Path | None = None, poses: str = "auto"
    ) -> None:
        if poses not in POSES:
            raise ValueError(f"poses must be one of {', '.join(POSES)}, got {poses!r}")
        self.box_kind = "none"
        self.description = f"raw (CDF and video of Human3.6M, poses: {poses})"
        self._poses = poses
        self._tree = find_tree(Path(source))
        self._cameras = self._tree.cameras()
        self._metadata = read_metadata(find_metadata(Path(source), metadata))
        self._list()

    def use_masks(self) -> None:
        """Make boxes of the masks of MySegmentsMat/ground_truth_bb.

        Raises:
            ValueError: If no subject has such a folder.
        """
        if not any(kinds["masks"].exists for kinds in self._tree.folders.values()):
            raise ValueError(
                f"no S*/{KINDS['masks'].folders[0]} in {self._tree.root}; unpack the archives "
                "Segments_mat_gt_bb_S*.tgz, or choose another --box"
            )
        self.box_kind = "mask"
        self._list()

    def identity(self) -> dict[str, Any]:
        """Names and sizes of the files, the digest of metadata.xml, and which poses are read."""
        paths = {
            self._tree.root / path for _, found in self._found for path in found.files.values()
        }
        return {
            "files": digest_of_files(paths, folder=self._tree.root),
            "metadata": sha256(self._metadata.path),
            "poses": self._poses,
        }

    def units(self) -> list[LazyTake]:
        """One take per subject, action, subaction and camera of which all files are there."""
        return [
            LazyTake(
                name=human36m_unit_name(*key),
                subject=key[0],
                action=action_name(key[1]),
                subaction=key[2],
                camera_name=found.camera_name,
                split=None,
                count=found.num_poses,
                read=partial(read_take, found),
            )
            for key, found in self._found
        ]

    def _list(self) -> None:
        """Find the files of every sequence, and say what is missing."""
        self.notes = [f"metadata: {self._metadata.path}"]
        self.missing: list[str] = []
        self._found: list[tuple[tuple[int, int, int, int], RawSequence]] = []
        if absent := [name for name in self._metadata.camera_names if name not in self._cameras]:
            self.notes.append(f"no files of the cameras {', '.join(absent)}")
        for subject, kinds in self._tree.folders.items():
            if not any(kinds[kind].exists for kind in POSE_KINDS):
                self._no_poses(subject)
                continue
            gone = []
            for key in _performances(subject):
                try:
                    base = self._metadata.file_name(key)
                    if not self._performance(key, base):
                        gone.append(base)
                except ValueError as error:  # of metadata.xml
                    self.missing.append(str(error))
            if gone:
                more = ", ..." if len(gone) > MAX_NAMED else ""
                self.notes.append(
                    f"S{subject}: no files of {len(gone)} sequences "
                    f"({', '.join(gone[:MAX_NAMED])}{more})"
                )
        self.missing = list(dict.fromkeys(self.missing))  # four cameras may lack one file

    def _no_poses(self, subject: int) -> None:
        """A subject's folder without poses."""
        if subject in SUBJECTS:
            folder = self._tree.folders[subject]["mono"].path
            self.missing.append(f"folder {self._tree.root / folder} with poses is missing")
        else:
            self.notes.append(f"left out S{subject}: its poses are not public")

    def _performance(self, key: tuple[int, int, int], base: str) -> bool:
        """Find the sequences of all cameras; whether any file of the performance is there.

        Raises:
            ValueError: If metadata.xml lacks something.
        """
        kinds = self._tree.folders[key[0]]
        cameras = [
            (number, name)
            for number, name in enumerate(self._metadata.camera_names, start=1)
            if name in self._cameras
        ]
        if not any(
            folder.find(base, name if KINDS[kind].has_camera else "")
            for kind, folder in kinds.items()
            for _, name in cameras
        ):
            return False
        for number, name in cameras:
            if (*key, name) == UNUSABLE_VIDEO:
                self.notes.append(
                    f"left out S{key[0]} {base}.{name}: the release has no usable video of it"
                )
            elif (found := self._sequence(key, base, name)) is not None:
                self._found.append(((*key, number), found))
        return True

    def _sequence(
        self, key: tuple[int, int, int], base: str, camera_name: str
    ) -> RawSequence | None:
        """The files of one camera; None, and a line of what is missing, if one is not there."""
        kinds, metadata = self._tree.folders[key[0]], self._metadata
        files = {
            kind: path
            for kind, folder in kinds.items()
            if (path := folder.find(base, camera_name if KINDS[kind].has_camera else ""))
        }
        wanted = {"video", "masks"} if self.box_kind == "mask" else {"video"}
        if self._poses != "auto":
            wanted.add(self._poses)
        elif not {"mono", "world"} & set(files):
            wanted.add("mono")
        for kind in sorted(wanted - set(files)):
            name = f"{base}.{camera_name}" if KINDS[kind].has_camera else base
            path = self._tree.root / kinds[kind].path / f"{name}{KINDS[kind].suffix}"
            self.missing.append(f"{path} is missing")
        if not wanted <= set(files):
            return None
        used = wanted | ({"mono", "world", "labels"} if self._poses == "auto" else {"labels"})
        return RawSequence(
            root=self._tree.root,
            name=f"S{key[0]} {base}.{camera_name}",
            files={kind: path for kind, path in files.items() if kind in used},
            camera=metadata.camera(key[0], camera_name),
            camera_name=camera_name,
            image_size_px=metadata.image_size_px(key[0], camera_name),
            num_poses=metadata.num_poses(key),
        )


def _performances(subject: int) -> Iterator[tuple[int, int, int]]:
    """Subject, action and subaction of all performances of a subject."""
    for action in range(HUMAN36M_FIRST_ACTION, NUM_ACTIONS + 1):
        for subaction in range(1, NUM_SUBACTIONS + 1):
            yield subject, action, subaction
