"""Read one sequence of Human3.6M's archives: poses, their number, the video's, boxes of masks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from data_prep.human36m import RAW_17
from data_prep.people import check_millimetres
from data_prep.pictures import VideoFrames, video_facts
from data_prep.readers.cdf import read_poses
from data_prep.readers.masks import MaskBoxes
from data_prep.readers.raw_tree import POSE_KINDS
from data_prep.takes import Take
from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import HUMAN36M_17

MAX_EXTRA_FRAMES = 4
"""A video of the release has so many frames more than there are poses."""
MAX_DISAGREEMENT_MM = 5.0
"""Between D3_Positions and D3_Positions_mono; what float32 leaves is below 0.01 mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawSequence:
    """What one camera saw of one performance: where its files are, and what metadata.xml states.

    Attributes:
        root: What file names are relative to.
        name: For messages, e.g. "S1 Eating 2.54138969".
        files: File by name of kind, as far as they are used.
        camera: The camera, with its lens.
        camera_name: E.g. "54138969".
        image_size_px: Width and height.
        num_poses: Poses that metadata.xml states.
    """

    root: Path
    name: str
    files: dict[str, Path]
    camera: Camera
    camera_name: str
    image_size_px: tuple[int, int]
    num_poses: int


def read_take(sequence: RawSequence) -> Take:
    """Read a sequence's labels, as many as there are frames in its video.

    Raises:
        ValueError: Naming the file, if one cannot be read or files do not belong together.
    """
    joints, notes = _read_joints(sequence)
    video = sequence.root / sequence.files["video"]
    facts = video_facts(video)
    if facts.size_px != sequence.image_size_px:
        raise ValueError(
            f"video {video} has {facts.size_px[0]}×{facts.size_px[1]} px, metadata.xml states "
            f"{sequence.image_size_px[0]}×{sequence.image_size_px[1]} px; both must be of the "
            "same release, and frames not resized"
        )
    count, length_notes = _common_length(sequence, len(joints), facts.num_frames)
    labels = None
    if "labels" in sequence.files:
        path = sequence.root / sequence.files["labels"]
        labels = read_poses(path, num_axes=2)[:count, RAW_17]
        if len(labels) < count:
            notes.append(f"{sequence.name}: {path} holds {len(labels)} of {count} poses; not used")
            labels = None
    frame = np.arange(count)
    masks = sequence.files.get("masks")
    return Take(
        skeleton=HUMAN36M_17.name,
        joints_camera_mm=joints[:count],
        camera=sequence.camera,
        camera_name=sequence.camera_name,
        image_size_px=np.tile(sequence.image_size_px, (count, 1)),
        frame=frame,
        pictures=VideoFrames(
            folder=sequence.root, name=sequence.files["video"].as_posix(), position=frame
        ),
        later_boxes=None
        if masks is None
        else MaskBoxes(
            path=sequence.root / masks, image_size_px=sequence.image_size_px, position=frame
        ),
        source_px=labels,
        notes=(*notes, *length_notes),
    )


def _read_joints(sequence: RawSequence) -> tuple[Float[np.ndarray, "n 17 3"], list[str]]:
    """The 17 joints in the camera frame, and what should be said about them.

    Raises:
        ValueError: If a file cannot be read, is not in millimetres, or two do not agree.
    """
    read = {}
    for kind in POSE_KINDS:
        if kind in sequence.files:
            path = sequence.root / sequence.files[kind]
            joints = read_poses(path, num_axes=3)[:, RAW_17]
            check_millimetres(joints, name=f"pose file {path}")
            if kind == "world":
                joints = sequence.camera.world_to_camera(torch.from_numpy(joints)).numpy()
            read[kind] = joints
    kind = next(kind for kind in POSE_KINDS if kind in read)
    notes = []
    if "mono" in read and "world" in read:
        _compare(sequence, read["mono"], read["world"])
    if kind == "universal":
        notes.append(
            f"{sequence.name}: poses of the universal skeleton, whose limbs are not the subject's"
        )
    return read[kind], notes


def _compare(
    sequence: RawSequence, mono: Float[np.ndarray, "n 17 3"], world: Float[np.ndarray, "m 17 3"]
) -> None:
    """Hold the first pose of the camera frame against that of the world."""
    if not (len(mono) and len(world)):
        return
    distance_mm = np.linalg.norm(mono[0] - world[0], axis=-1).max()
    if not distance_mm <= MAX_DISAGREEMENT_MM:
        raise ValueError(
            f"{sequence.root / sequence.files['mono']} and {sequence.files['world']} differ by "
            f"{distance_mm:.1f} mm in frame 0, seen with the camera of metadata.xml: a file is of "
            "another sequence, camera or kind; fetch both again, or choose with --poses"
        )


def _common_length(sequence: RawSequence, num_poses: int, num_frames: int) -> tuple[int, list[str]]:
    """Frames of which there are both pose and image, counted from the first; and what differs."""
    notes = []
    if num_poses != sequence.num_poses:
        notes.append(
            f"{sequence.name}: its file holds {num_poses} poses, metadata.xml states "
            f"{sequence.num_poses}"
        )
    if not num_frames:  # the header does not say
        return num_poses, notes
    if num_frames < num_poses:
        notes.append(
            f"{sequence.name}: the video has {num_frames} frames, fewer than the {num_poses} "
            "poses; the last poses are left out"
        )
    elif num_frames > num_poses + MAX_EXTRA_FRAMES:
        notes.append(
            f"{sequence.name}: the video has {num_frames} frames, many more than the {num_poses} "
            "poses; the last frames are left out"
        )
    return min(num_poses, num_frames), notes
