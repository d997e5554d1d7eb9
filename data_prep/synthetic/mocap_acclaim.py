"""Acclaim's pair of files: a skeleton (ASF) and its motion (AMC).

Source: the formats as Lander (1998), Working with Motion Capture File Formats, Game Developer, and
the CMU Graphics Lab's page on them describe them. A bone turns by C M C^-1 in the frame of its
parent's, where C is the turn that the skeleton calls the bone's axis and M that of the motion; the
bone's direction is in the axes of the skeleton at rest. The axis order "XYZ" turns about x first.
An AMC file does not say its rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.mocap_bvh import END
from data_prep.synthetic.mocap_text import Lines
from data_prep.synthetic.rotations import (
    Matrix,
    apply,
    rotation_x,
    rotation_y,
    rotation_z,
    transposed,
)

ROOT = "root"
MM_PER_INCH = 25.4
_ABOUT = {"x": rotation_x, "y": rotation_y, "z": rotation_z}
_ROOT_ORDER = ["tx", "ty", "tz", "rx", "ry", "rz"]
_DOFS = ("rx", "ry", "rz", "tx", "ty", "tz", "l")


@dataclass(kw_only=True, eq=False)
class AsfBone:
    """One bone of a skeleton; the root is one of no length."""

    parent: str = ""
    direction: Float[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    length: float = 0.0
    axis: Float[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    axis_order: str = "xyz"
    dofs: list[str] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class AsfFile:
    """A skeleton, parents before children."""

    path: Path
    bones: dict[str, AsfBone] = field(default_factory=lambda: {ROOT: AsfBone(dofs=_ROOT_ORDER)})
    root_position: Float[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    length_unit: float = 1.0
    """Numbers of length are to be divided by it and are inches then; CMU's skeletons have 0.45."""
    is_degrees: bool = True

    @property
    def mm_per_unit(self) -> float:
        """Millimetres in a unit of the skeleton's lengths and the motion's positions."""
        return MM_PER_INCH / self.length_unit


@dataclass(frozen=True, kw_only=True, eq=False)
class AmcFile:
    """A motion of one skeleton: every bone's values, in the order of its degrees of freedom."""

    skeleton: AsfFile
    values: dict[str, Float[np.ndarray, "frames dofs"]]
    is_degrees: bool

    def points_mm(self) -> dict[str, Float[np.ndarray, "frames 3"]]:
        """Where every bone starts, and ends ("bone end"), in every frame: forward kinematics."""
        skeleton = self.skeleton
        count = len(self.values[ROOT])
        rotations: dict[str, Matrix] = {}
        ends: dict[str, np.ndarray] = {}
        points = {}
        for name, bone in skeleton.bones.items():
            move, turn = self._local(name, bone, count)
            if name == ROOT:
                rotations[name] = turn
                points[name] = ends[name] = skeleton.root_position + move
                continue
            rotations[name] = rotations[bone.parent] @ turn
            points[name] = ends[bone.parent]
            ends[name] = points[name] + apply(rotations[name], bone.length * bone.direction)
            points[name + END] = ends[name]
        return {name: skeleton.mm_per_unit * at for name, at in points.items()}

    def _local(
        self, name: str, bone: AsfBone, count: int
    ) -> tuple[Float[np.ndarray, "frames 3"], Matrix]:
        """Translation and turn of a bone in its parent's frame."""
        column = dict(zip(bone.dofs, self.values.get(name, np.zeros((count, 0))).T, strict=False))
        move = np.stack([column.get(f"t{axis}", np.zeros(count)) for axis in "xyz"], axis=-1)
        axis_angles = dict(zip("xyz", bone.axis, strict=True))
        skeleton_unit = np.pi / 180.0 if self.skeleton.is_degrees else 1.0
        motion_unit = np.pi / 180.0 if self.is_degrees else 1.0
        axis_turn, turn = np.eye(3), np.broadcast_to(np.eye(3), (count, 3, 3))
        for axis in bone.axis_order:  # the first turn is the innermost
            axis_turn = _ABOUT[axis](skeleton_unit * axis_angles[axis]) @ axis_turn
            turn = _ABOUT[axis](motion_unit * column.get(f"r{axis}", np.zeros(count))) @ turn
        return move, axis_turn @ turn @ transposed(axis_turn)


def read_asf(path: Path) -> AsfFile:
    """Read a skeleton.

    Raises:
        ValueError: If the file breaks the format; file and line are named.
    """
    lines = Lines(path, comment="#")
    skeleton = AsfFile(path=path)
    readers = {
        ":units": _read_units,
        ":root": _read_root,
        ":bonedata": _read_bones,
        ":hierarchy": _read_hierarchy,
    }
    while (line := lines.peek()) is not None:
        keyword = line.split()[0].lower()
        lines.next("a section")
        if keyword in readers:
            readers[keyword](lines, skeleton)
        elif not keyword.startswith(":"):
            lines.fail(f"expected a section such as :bonedata, got {line[:40]!r}")
        else:  # documentation, version, name, skin
            for _ in _section(lines):
                pass
    if len(skeleton.bones) < 2:
        raise ValueError(f"{path} has no bones, expected :bonedata and :hierarchy of a skeleton")
    orphans = [name for name, bone in skeleton.bones.items() if not bone.parent and name != ROOT]
    if orphans:
        raise ValueError(f"{path}: bones {', '.join(orphans)} are missing in :hierarchy")
    return skeleton


def read_amc(path: Path, skeleton: AsfFile) -> AmcFile:
    """Read a motion.

    Raises:
        ValueError: If the file breaks the format or does not fit the skeleton; file and line are
            named.
    """
    lines = Lines(path, comment="#")
    is_degrees = skeleton.is_degrees
    while (line := lines.peek()) is not None and line.startswith(":"):
        lines.next("a setting")
        if line.upper() in (":DEGREES", ":RADIANS"):
            is_degrees = line.upper() == ":DEGREES"
    rows: dict[str, list[np.ndarray]] = {name: [] for name in skeleton.bones}
    count = 0
    while lines.peek() is not None:
        number = lines.next("a frame's number")
        count += 1
        if not number.isdigit():
            lines.fail(f"expected the number of frame {count}, got {number[:40]!r}")
        _read_frame(lines, skeleton, rows, count)
    if not count:
        raise ValueError(f"{path} has no frames, expected a frame's number and its bones")
    values = {name: np.stack(frames) for name, frames in rows.items() if frames}
    return AmcFile(skeleton=skeleton, values=values, is_degrees=is_degrees)


def _read_frame(
    lines: Lines, skeleton: AsfFile, rows: dict[str, list[np.ndarray]], count: int
) -> None:
    """One frame: a line for every bone that moves."""
    while (line := lines.peek()) is not None and not line.isdigit():
        lines.next("a bone")
        name, *words = line.split()
        if name not in rows:
            lines.fail(f"bone {name!r} is not in {skeleton.path}, which has {', '.join(rows)}")
        expected = len(skeleton.bones[name].dofs)
        if len(words) != expected:
            lines.fail(f"expected the {expected} values of bone {name}, got {len(words)}")
        if len(rows[name]) == count:
            lines.fail(f"bone {name} comes twice in frame {count}")
        rows[name].append(lines.floats(words))
    short = [bone for bone, frames in rows.items() if len(frames) not in (0, count)]
    if short or len(rows[ROOT]) != count:
        lines.fail(f"bones {', '.join(short) or ROOT} are missing in frame {count} or before")


def _section(lines: Lines) -> Iterator[list[str]]:
    """The words of one line after another, up to the next section."""
    while (line := lines.peek()) is not None and not line.startswith(":"):
        yield lines.next("a line").split()


def _read_units(lines: Lines, skeleton: AsfFile) -> None:
    for words in _section(lines):
        if words[0].lower() == "length" and len(words) == 2:
            skeleton.length_unit = float(lines.floats(words[1:])[0])
            if skeleton.length_unit <= 0:
                lines.fail(f"expected a length unit above 0, got {skeleton.length_unit}")
        elif words[0].lower() == "angle":
            skeleton.is_degrees = words[1:2] != ["rad"]


def _read_root(lines: Lines, skeleton: AsfFile) -> None:
    root = skeleton.bones[ROOT]
    for keyword, *words in _section(lines):
        if keyword.lower() == "order":
            root.dofs = _dofs(lines, words)
        elif keyword.lower() == "axis":
            root.axis_order = _axis_order(lines, words[0] if words else "")
        elif keyword.lower() == "position":
            skeleton.root_position = _triple(lines, words)
        elif keyword.lower() == "orientation":
            root.axis = _triple(lines, words)


def _read_bones(lines: Lines, skeleton: AsfFile) -> None:
    while (line := lines.peek()) is not None and not line.startswith(":"):
        lines.expect("begin")
        name, bone = "", AsfBone()
        while (line := lines.next("the bone's end")).lower() != "end":
            keyword, *words = line.split()
            if keyword == "name" and words:
                name = words[0]
            elif keyword == "direction":
                bone.direction = _triple(lines, words)
            elif keyword == "length":
                bone.length = float(lines.floats(words[:1] or ["missing"])[0])
            elif keyword == "axis":
                bone.axis = _triple(lines, words[:3])
                bone.axis_order = _axis_order(lines, words[3] if len(words) > 3 else "XYZ")
            elif keyword == "dof":
                bone.dofs = _dofs(lines, words)
        if not name or name in skeleton.bones:
            lines.fail(f"expected a bone with a name of its own before this line, got {name!r}")
        skeleton.bones[name] = bone


def _read_hierarchy(lines: Lines, skeleton: AsfFile) -> None:
    """Set the parents, and put parents before children."""
    lines.expect("begin")
    order = [ROOT]
    while (line := lines.next("the hierarchy's end")).lower() != "end":
        parent, *children = line.split()
        if parent not in order:
            lines.fail(f"bone {parent!r} has children before it is one itself")
        for child in children:
            if child not in skeleton.bones or child in order:
                lines.fail(f"expected bones of :bonedata, each once, got {child!r}")
            skeleton.bones[child].parent = parent
            order.append(child)
    missing = {name: bone for name, bone in skeleton.bones.items() if name not in order}
    skeleton.bones = {name: skeleton.bones[name] for name in order} | missing


def _dofs(lines: Lines, words: list[str]) -> list[str]:
    dofs = [word.lower() for word in words]
    unknown = [word for word in dofs if word not in _DOFS]
    if unknown:
        lines.fail(f"unknown degrees of freedom {', '.join(unknown)}, expected {', '.join(_DOFS)}")
    return dofs


def _axis_order(lines: Lines, word: str) -> str:
    if sorted(word.lower()) != ["x", "y", "z"]:
        lines.fail(f"expected an axis order such as XYZ, got {word!r}")
    return word.lower()


def _triple(lines: Lines, words: list[str]) -> Float[np.ndarray, "3"]:
    if len(words) != 3:
        lines.fail(f"expected three numbers, got {' '.join(words)[:40]!r}")
    return lines.floats(words)
