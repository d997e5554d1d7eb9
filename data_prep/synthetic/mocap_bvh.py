"""BVH files: a hierarchy of joints and their channels, frame by frame.

Source: the format as Meredith & Maddock (2001), Motion Capture File Formats Explained, University
of Sheffield CS-01-11, section 4, describe it. A joint's position channels replace its offset, as
exporters that write six channels for every joint mean them.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.mocap_text import Lines
from data_prep.synthetic.rotations import Matrix, apply, rotation_x, rotation_y, rotation_z

END = " end"
"""Follows a joint's name in that of its end site."""
_ABOUT = {"Xrotation": rotation_x, "Yrotation": rotation_y, "Zrotation": rotation_z}
_ALONG = {"Xposition": 0, "Yposition": 1, "Zposition": 2}


@dataclass(kw_only=True, eq=False)
class BvhJoint:
    """One joint or end site of a hierarchy."""

    name: str
    parent: int
    """Index of the parent, always smaller than the joint's own; -1 for the root."""
    offset: Float[np.ndarray, "3"]
    channels: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class BvhFile:
    """A BVH file's hierarchy and channels, in its own units and degrees."""

    joints: list[BvhJoint]
    values: Float[np.ndarray, "frames channels"]
    frames_per_s: float

    def points(self) -> dict[str, Float[np.ndarray, "frames 3"]]:
        """Position of every joint and end site in every frame, the file's units: forward
        kinematics."""
        rotations: list[Matrix] = []
        positions: list[np.ndarray] = []
        column = 0
        for joint in self.joints:
            stop = column + len(joint.channels)
            move, turn = _local(joint, self.values[:, column:stop])
            column = stop
            if joint.parent < 0:
                rotations.append(turn)
                positions.append(move)
                continue
            above = rotations[joint.parent]
            rotations.append(above @ turn)
            positions.append(positions[joint.parent] + apply(above, move))
        return {joint.name: at for joint, at in zip(self.joints, positions, strict=True)}


def read_bvh(path: Path) -> BvhFile:
    """Read a BVH file.

    Raises:
        ValueError: If the file breaks the format; file and line are named.
    """
    lines = Lines(path, alone="{}")
    lines.expect("HIERARCHY")
    joints = _hierarchy(lines)
    lines.expect("MOTION")
    count = lines.number("Frames:")
    frame_time_s = lines.number("Frame Time:")
    if count < 1 or count != int(count) or not 1e-5 < frame_time_s < 10.0:
        lines.fail(f"expected frames and seconds per frame, got {count} and {frame_time_s}")
    width = sum(len(joint.channels) for joint in joints)
    values = np.empty((int(count), width))
    for frame in range(int(count)):
        words = lines.next(f"frame {frame + 1} of {count:.0f}").split()
        if len(words) != width:
            lines.fail(f"expected the {width} channels of frame {frame + 1}, got {len(words)}")
        values[frame] = lines.floats(words)
    return BvhFile(joints=joints, values=values, frames_per_s=1.0 / frame_time_s)


def _local(
    joint: BvhJoint, values: Float[np.ndarray, "frames channels"]
) -> tuple[Float[np.ndarray, "frames 3"], Matrix]:
    """Translation and rotation in the parent's frame."""
    move = np.tile(joint.offset, (len(values), 1))
    turn = np.broadcast_to(np.eye(3), (len(values), 3, 3))
    for name, column in zip(joint.channels, values.T, strict=True):
        if name in _ALONG:
            move[:, _ALONG[name]] = column
        else:  # in the order of the channels, the first outermost
            turn = turn @ _ABOUT[name](np.radians(column))
    return move, turn


def _hierarchy(lines: Lines) -> list[BvhJoint]:
    """The joints, parents first, in the order in which their channels come."""
    joints: list[BvhJoint] = []
    open_joints: list[int] = []
    while True:
        line = lines.next("the hierarchy's closing brace")
        keyword, *rest = line.split()
        if keyword == "}" and open_joints:
            open_joints.pop()
            if not open_joints:
                return joints
        elif keyword in ("ROOT", "JOINT", "End"):
            if (keyword == "ROOT") == bool(open_joints):
                lines.fail(f"expected one ROOT with JOINTs inside it, got {line[:40]!r}")
            joints.append(_joint(lines, keyword, " ".join(rest), joints, open_joints))
            open_joints.append(len(joints) - 1)
        elif keyword == "CHANNELS" and open_joints:
            joints[open_joints[-1]].channels = _channels(lines, rest)
        else:
            lines.fail(f"expected ROOT, JOINT, End Site, CHANNELS or }}, got {line[:40]!r}")


def _joint(
    lines: Lines, keyword: str, name: str, joints: list[BvhJoint], open_joints: list[int]
) -> BvhJoint:
    """A joint up to its offset."""
    parent = open_joints[-1] if open_joints else -1
    if keyword == "End":
        name = joints[parent].name + END
    if any(joint.name == name for joint in joints):
        name = f"{name} {len(joints)}"
    lines.expect("{")
    words = lines.next("OFFSET").split()
    if words[0] != "OFFSET" or len(words) != 4:
        lines.fail(f"expected OFFSET and three numbers, got {' '.join(words)[:40]!r}")
    return BvhJoint(name=name, parent=parent, offset=lines.floats(words[1:]))


def _channels(lines: Lines, words: list[str]) -> list[str]:
    names = words[1:]
    if not words or words[0] != str(len(names)):
        lines.fail(
            f"expected CHANNELS, their number and as many names, got {' '.join(words)[:60]!r}"
        )
    for name in names:
        if name not in _ABOUT and name not in _ALONG:
            lines.fail(f"unknown channel {name!r}, expected {', '.join([*_ALONG, *_ABOUT])}")
    return names
