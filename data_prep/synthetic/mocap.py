"""Motion capture from files: NPZ, BVH and AMC with its ASF, one or a folder of them."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.mocap_acclaim import read_amc, read_asf
from data_prep.synthetic.mocap_bvh import BvhJoint, read_bvh
from data_prep.synthetic.mocap_clips import (
    ANKLE_HEIGHT_PER_LEG,
    ANKLES,
    Clip,
    Clips,
    Joints,
    leg_length_mm,
)
from data_prep.synthetic.mocap_npz import read_npz
from data_prep.synthetic.mocap_rigs import Points, human36m_joints
from data_prep.synthetic.rotations import apply, unit
from pose3d.geometry.skeleton import HUMAN36M_17

AMC_FRAMES_PER_S = 120.0
"""CMU's usual rate; the files do not say theirs."""
TYPICAL_LEG_MM = 860.0
"""Thigh and shank of an adult together."""
UNITS_MM = (1.0, 10.0, 25.4, 25.4 / 0.45, 304.8, 1000.0)
"""Units in which rigs are written: millimetre, centimetre, inch, CMU's, foot, metre."""
FLOOR_PERCENTILE = 5.0
UPRIGHT_TRUNK_DEG = 12.0
WIDE_ARM_SPAN = 0.8
SPAN_STEP = 0.15
"""A rest stance has a wider span, and the next frame's is smaller by more than a step."""
_SUFFIXES = (".bvh", ".amc")
_LEAST_UPRIGHT_FRAMES = 12


def load_clips(path: Path) -> Clips:
    """Read every clip of a file or a folder.

    A first frame with arms spread that are down in the next is dropped: many files begin with the
    rig's rest stance. Rigs are brought to millimetres (by the length of the legs where the file
    does not give a unit) and to z up (by where the head is above the feet), and every clip is put
    on its floor: the low percentile of its lowest ankle is where an ankle stands.

    Args:
        path: An NPZ file (see `mocap_npz`), a BVH or AMC file, or a folder with BVH and AMC files
            at any depth. The skeleton of an AMC file is the ASF file beside it that has its name,
            or its name's part before the last "_", or that is the only one.

    Raises:
        ValueError: If a file is damaged or unsuitable, or if there is none.
        FileNotFoundError: If the path does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist, expected NPZ, BVH, AMC or a folder of them"
        )
    if path.suffix.lower() == ".npz":
        raw = read_npz(path)
    else:
        files = [path]
        if path.is_dir():
            files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _SUFFIXES)
        if not files:
            raise ValueError(f"{path} holds no .bvh and no .amc file")
        raw = [_read_rig(file, path) for file in files]
    return Clips(_with_upright_stance([_stand(clip) for clip in raw]))


def _read_rig(file: Path, top: Path) -> Clip:
    """One BVH or AMC file; the floor is still where the file has it."""
    points: Points
    if file.suffix.lower() == ".bvh":
        bvh = read_bvh(file)
        points, frames_per_s, rig = bvh.points(), bvh.frames_per_s, _bvh_rig(bvh.joints)
        joints = human36m_joints(points, where=str(file))
        scale = _unit_mm(leg_length_mm(joints), UNITS_MM, file)
    elif file.suffix.lower() == ".amc":
        skeleton = read_asf(_skeleton_of(file))
        points, frames_per_s = read_amc(file, skeleton).points_mm(), AMC_FRAMES_PER_S
        rig = str(skeleton.path)
        joints = human36m_joints(points, where=str(file))
        units = (1.0, *(unit_mm / skeleton.mm_per_unit for unit_mm in UNITS_MM))
        scale = _unit_mm(leg_length_mm(joints), units, file)
    else:
        raise ValueError(f"{file} is no motion capture, expected .npz, .bvh, .amc or a folder")
    name = file.stem if top == file else str(file.relative_to(top).with_suffix(""))
    words = file.stem.split("_")
    label = " ".join(word for word in words if not word.isdigit())
    return Clip(
        joints_mm=_z_up(scale * joints),
        frames_per_s=frames_per_s,
        name=name,
        action=label or file.parent.name or file.stem,
        subject=words[0] if words[0].isdigit() else file.parent.name,
        rig=rig,
        recording=name,
    )


def _bvh_rig(joints: list[BvhJoint]) -> str:
    """Files with the same bones are of one rig."""
    return "bvh " + " ".join(f"{j.name}:{np.linalg.norm(j.offset):.3g}" for j in joints)


def _skeleton_of(file: Path) -> Path:
    """The ASF file beside an AMC file."""
    near = sorted(f for f in file.parent.iterdir() if f.suffix.lower() == ".asf")
    for stem in (file.stem, file.stem.rpartition("_")[0]):
        for candidate in near:
            if candidate.stem == stem:
                return candidate
    if len(near) == 1:
        return near[0]
    raise ValueError(
        f"{file} needs its skeleton: expected {file.stem}.asf beside it, or one ASF file alone, "
        f"found {len(near)}; put it there under that name"
    )


def _unit_mm(leg: float, units_mm: tuple[float, ...], file: Path) -> float:
    """The first unit that makes the legs a person's, by a factor of 1.45 at most."""
    for limit in (1.2, 1.45):
        for unit_mm in units_mm:
            if TYPICAL_LEG_MM / limit <= leg * unit_mm <= TYPICAL_LEG_MM * limit:
                return unit_mm
    raise ValueError(
        f"{file}: thigh and shank are {leg:.4g} units long, which are a person's "
        f"{TYPICAL_LEG_MM:.0f} mm in no known unit (mm, cm, m, inch, foot, CMU's); scale the file"
    )


def _z_up(joints_mm: Joints) -> Joints:
    """Turn the axis along which the head is above the ankles to z; y-up stays right-handed."""
    head = joints_mm[:, HUMAN36M_17.index("Head")]
    above = unit(head - joints_mm[:, ANKLES].mean(axis=1)).mean(axis=0)
    axis = int(np.abs(above).argmax())
    up = np.zeros(3)
    up[axis] = np.sign(above[axis])
    across = np.roll(np.abs(up), 1 if axis == 2 else 2)  # x for y up, as files mean it, and for z
    return apply(np.stack([across, np.cross(up, across), up]), joints_mm)


def _stand(clip: Clip) -> Clip:
    """Drop a first frame that is the rest stance, and put the floor at z = 0."""
    joints_mm = clip.joints_mm
    if len(joints_mm) > 3:
        span = _arm_span(joints_mm[:2])
        if span[0] > WIDE_ARM_SPAN and span[0] - span[1] > SPAN_STEP:
            joints_mm = joints_mm[1:]
    standing = np.percentile(joints_mm[:, ANKLES, 2].min(axis=1), FLOOR_PERCENTILE)
    floor = standing - ANKLE_HEIGHT_PER_LEG * leg_length_mm(joints_mm)
    return replace(clip, joints_mm=joints_mm - [0.0, 0.0, floor])


def _arm_span(joints_mm: Joints) -> Float[np.ndarray, " frames"]:
    """Distance between the wrists relative to the arms' length; 1 with arms spread."""
    chain = [HUMAN36M_17.index(f"L_{name}") for name in ("Wrist", "Elbow", "Shoulder")]
    chain += [HUMAN36M_17.index(f"R_{name}") for name in ("Shoulder", "Elbow", "Wrist")]
    arms = joints_mm[:, chain]
    lengths = np.linalg.norm(np.diff(arms, axis=1), axis=-1).sum(axis=1)
    return np.linalg.norm(arms[:, -1] - arms[:, 0], axis=-1) / lengths


def _with_upright_stance(clips: Collection[Clip]) -> list[Clip]:
    """Give every clip the mean stance of its rig in all clips where that stands upright."""
    by_rig: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for clip in clips:
        by_rig[clip.rig].append(_upright_frames(clip.joints_mm))
    stances: dict[str, Float[np.ndarray, "17 3"] | None] = {}
    for rig, parts in by_rig.items():
        frames = np.concatenate(parts)
        stances[rig] = np.median(frames, axis=0) if len(frames) >= _LEAST_UPRIGHT_FRAMES else None
    return [replace(clip, upright_mm=stances[clip.rig]) for clip in clips]


def _upright_frames(joints_mm: Joints) -> Joints:
    """Frames with the trunk upright: from the pelvis, x to the person's left, y backward."""
    name = HUMAN36M_17.index
    relative = joints_mm - joints_mm[:, :1]
    trunk = unit(relative[:, name("Neck")])
    relative = relative[trunk[:, 2] > np.cos(np.radians(UPRIGHT_TRUNK_DEG))]
    left = (relative[:, name("L_Hip")] - relative[:, name("R_Hip")]) * [1.0, 1.0, 0.0]
    x = unit(left)
    z = np.broadcast_to([0.0, 0.0, 1.0], x.shape)
    axes = np.stack([x, np.cross(z, x), z], axis=1)
    return np.einsum("fij,fkj->fki", axes, relative)
