"""BVH and Acclaim files: chains of bones against SciPy and closed forms, and damaged files."""

import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.synthetic.mocap import load_clips
from data_prep.synthetic.mocap_acclaim import read_amc, read_asf
from data_prep.synthetic.mocap_bvh import read_bvh
from pose3d.geometry.skeleton import HUMAN36M_17

BVH = """HIERARCHY
ROOT Hips
{
\tOFFSET 0 0 0
\tCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
\tJOINT LeftUpLeg {
\t\tOFFSET 9 -2 0
\t\tCHANNELS 3 Yrotation Zrotation Xrotation
\t\tJOINT LeftLeg
\t\t{
\t\t\tOFFSET 0 -42 1
\t\t\tCHANNELS 3 Xrotation Yrotation Zrotation
\t\t\tJOINT LeftFoot
\t\t\t{
\t\t\t\tOFFSET 0 -44 -1
\t\t\t\tCHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
\t\t\t\tEnd Site
\t\t\t\t{
\t\t\t\t\tOFFSET 0 -5 12
\t\t\t\t}
\t\t\t}
\t\t}
\t}
}
MOTION
Frames: 2
Frame Time: 0.0333333
"""
FRAMES = np.array(
    [
        [*(3, 95, -7), *(10, 20, 30), *(-15, 25, 35), *(40, -5, 12), *(0, -44, -1), *(7, 8, 9)],
        [*(5, 93, -2), *(-170, 60, 5), *(80, -25, 3), *(4, 55, -12), *(1, -40, 2), *(0, 0, 90)],
    ],
    dtype=float,
)


def write_bvh(path, head=BVH, frames=FRAMES):
    path.write_text(head + "\n".join(" ".join(map(str, row)) for row in frames) + "\n")
    return path


def test_a_chain_of_any_channel_order_agrees_with_scipy(tmp_path):
    points = read_bvh(write_bvh(tmp_path / "leg.bvh")).points()
    for frame, row in enumerate(FRAMES):
        hips = Rotation.from_euler("ZXY", row[3:6], degrees=True)
        thigh = hips * Rotation.from_euler("YZX", row[6:9], degrees=True)
        shank = thigh * Rotation.from_euler("XYZ", row[9:12], degrees=True)
        foot = shank * Rotation.from_euler("ZYX", row[15:18], degrees=True)
        hip = row[:3] + hips.apply([9, -2, 0])
        knee = hip + thigh.apply([0, -42, 1])
        ankle = knee + shank.apply(row[12:15])  # position channels replace the offset
        toe = ankle + foot.apply([0, -5, 12])
        for name, at in (
            ("LeftUpLeg", hip),
            ("LeftLeg", knee),
            ("LeftFoot", ankle),
            ("LeftFoot end", toe),
        ):
            np.testing.assert_allclose(points[name][frame], at, atol=1e-9, err_msg=name)


def test_the_rate_is_that_of_the_frame_time(tmp_path):
    assert read_bvh(write_bvh(tmp_path / "leg.bvh")).frames_per_s == pytest.approx(30.0, abs=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "HIERACHY", "expected HIERARCHY"),
        ("OFFSET 0 -42 1", "OFFSET 0 -42", "expected OFFSET and three numbers"),
        ("OFFSET 0 -42 1", "OFFSET 0 x 1", "expected numbers"),
        ("CHANNELS 3 Yrotation", "CHANNELS 4 Yrotation", "expected CHANNELS, their number"),
        ("3 Yrotation Zrotation", "3 Yrotation Wrotation", "unknown channel 'Wrotation'"),
        ("Frames: 2", "Frames: many", "expected numbers"),
        ("Frame Time: 0.0333333", "Frame Time: 0", "expected frames and seconds"),
    ],
)
def test_a_damaged_bvh_file_is_refused_with_file_and_line(tmp_path, old, new, message):
    head = BVH.replace(old, new)
    assert head != BVH
    line = 1 + head[: head.index(new)].count("\n")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_bvh(write_bvh(tmp_path / "broken.bvh", head=head))
    assert f"broken.bvh, line {line}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bvh_file_that_ends_early_is_refused(tmp_path):
    path = write_bvh(tmp_path / "short.bvh", head=BVH.replace("Frames: 2", "Frames: 3"))
    last = len(path.read_text().splitlines())
    with pytest.raises(
        ValueError, match=f"short.bvh ends after line {last}, expected frame 3 of 3"
    ):
        read_bvh(path)


def test_a_frame_with_a_number_missing_is_refused(tmp_path):
    path = write_bvh(tmp_path / "short.bvh", frames=[FRAMES[0], FRAMES[1][:-1]])
    last = len(path.read_text().splitlines())
    with pytest.raises(ValueError, match=f"line {last}: expected the 18 channels of frame 2, got"):
        read_bvh(path)


ASF = """# made by hand
:version 1.10
:name VICON
:units
  mass 1.0
  length 0.5
  angle deg
:documentation
  two bones
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name lfemur
    direction 0.6 -0.8 0
    length 7
    axis 0 0 20 XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
    id 2
    name ltibia
    direction 0 -1 0
    length 8
    axis 10 -20 30 XYZ
    dof rx
    limits (-10.0 170.0)
  end
:hierarchy
  begin
    root lfemur
    lfemur ltibia
  end
"""
AMC = """#!OML:ASF
:FULLY-SPECIFIED
:DEGREES
1
root 1 17 -2 5 10 15
lfemur -30 12 7
ltibia 40
2
root 2 17 -3 0 100 0
lfemur 0 0 0
ltibia 0
"""


def write_acclaim(folder, asf=ASF, amc=AMC):
    (folder / "07.asf").write_text(asf)
    (folder / "07_01.amc").write_text(amc)
    return folder / "07_01.amc"


def fixed_axes(x, y, z):
    return Rotation.from_euler("xyz", [x, y, z], degrees=True)  # lower case: about fixed axes


def test_a_chain_of_acclaim_bones_agrees_with_scipy(tmp_path):
    amc = write_acclaim(tmp_path)
    points = read_amc(amc, read_asf(tmp_path / "07.asf")).points_mm()
    unit_mm = 25.4 / 0.5
    for frame, (position, root, thigh, knee) in enumerate(
        [((1, 17, -2), (5, 10, 15), (-30, 12, 7), 40), ((2, 17, -3), (0, 100, 0), (0, 0, 0), 0)]
    ):
        body = fixed_axes(*root)
        axis = fixed_axes(0, 0, 20)
        upper = body * axis * fixed_axes(*thigh) * axis.inv()
        axis = fixed_axes(10, -20, 30)
        lower = upper * axis * fixed_axes(knee, 0, 0) * axis.inv()
        end = np.array(position) + upper.apply([4.2, -5.6, 0])
        np.testing.assert_allclose(points["lfemur"][frame], unit_mm * np.array(position))
        np.testing.assert_allclose(points["ltibia"][frame], unit_mm * end)
        end = end + lower.apply([0, -8, 0])
        np.testing.assert_allclose(points["ltibia end"][frame], unit_mm * end)


def test_a_knee_bent_by_a_right_angle_is_where_plain_geometry_has_it(tmp_path):
    asf = ASF.replace("axis 10 -20 30 XYZ", "axis 0 0 0 XYZ").replace("0.6 -0.8 0", "0 -1 0")
    amc = "1\nroot 0 15 0 0 0 0\nlfemur 0 0 0\nltibia 90\n"
    points = read_amc(write_acclaim(tmp_path, asf, amc), read_asf(tmp_path / "07.asf")).points_mm()
    np.testing.assert_allclose(points["ltibia"][0] / 50.8, [0, 8, 0], atol=1e-12)
    np.testing.assert_allclose(points["ltibia end"][0] / 50.8, [0, 8, -8], atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lfemur -30 12 7", "lfemur -30 12", "line 6: expected the 3 values of bone lfemur, got 2"),
        ("ltibia 40", "rtibia 40", "line 7: bone 'rtibia' is not in"),
        ("ltibia 40\n", "", "line 10: bones ltibia are missing in frame 2 or before"),
        ("lfemur 0 0 0", "lfemur 0 nan 0", "line 10: expected finite numbers"),
        ("ltibia 40\n2", "ltibia 40\ntwo", "line 8: bone 'two' is not in"),
    ],
)
def test_a_damaged_amc_file_is_refused_with_file_and_line(tmp_path, old, new, message):
    assert old in AMC
    amc = write_acclaim(tmp_path, amc=AMC.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_amc(amc, read_asf(tmp_path / "07.asf"))
    assert "07_01.amc" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("direction 0 -1 0", "direction 0 -1", "line 30: expected three numbers"),
        ("axis 10 -20 30 XYZ", "axis 10 -20 30 XXZ", "line 32: expected an axis order"),
        ("dof rx\n", "dof wx\n", "line 33: unknown degrees of freedom wx"),
        ("lfemur ltibia", "lfemur tibia", "line 39: expected bones of :bonedata"),
        ("    lfemur ltibia\n", "", "bones ltibia are missing in :hierarchy"),
    ],
)
def test_a_damaged_asf_file_is_refused_with_file_and_line(tmp_path, old, new, message):
    assert old in ASF
    write_acclaim(tmp_path, asf=ASF.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_asf(tmp_path / "07.asf")
    assert "07.asf" in str(caught.value)


# A whole rig, standing: name, parent, offset in centimetres, y up, looking along z.
RIG = {
    "Hips": ("", (0, 0, 0)),
    "RightUpLeg": ("Hips", (-9, -2, 0)),
    "RightLeg": ("RightUpLeg", (0, -42, 0)),
    "RightFoot": ("RightLeg", (0, -44, 0)),
    "LeftUpLeg": ("Hips", (9, -2, 0)),
    "LeftLeg": ("LeftUpLeg", (0, -42, 0)),
    "LeftFoot": ("LeftLeg", (0, -44, 0)),
    "Spine": ("Hips", (0, 10, 0)),
    "Spine1": ("Spine", (0, 14, 0)),
    "Neck": ("Spine1", (0, 28, 0)),
    "Head": ("Neck", (0, 9, 3)),
    "LeftShoulder": ("Spine1", (3, 24, 0)),
    "LeftArm": ("LeftShoulder", (14, 0, 0)),
    "LeftForeArm": ("LeftArm", (28, 0, 0)),
    "LeftHand": ("LeftForeArm", (25, 0, 0)),
    "RightShoulder": ("Spine1", (-3, 24, 0)),
    "RightArm": ("RightShoulder", (-14, 0, 0)),
    "RightForeArm": ("RightArm", (-28, 0, 0)),
    "RightHand": ("RightForeArm", (-25, 0, 0)),
}
STANDING_CM = {  # closed form of the 17 joints, x to the person's left, y backward, z up
    "Pelvis": (0, 0, 0),
    "R_Hip": (-9, 0, 0),
    "R_Knee": (-9, 0, -42),
    "R_Ankle": (-9, 0, -86),
    "L_Hip": (9, 0, 0),
    "L_Knee": (9, 0, -42),
    "L_Ankle": (9, 0, -86),
    "Torso": (0, 0, 26),
    "Neck": (0, 0, 50),
    "Nose": (0, -3, 63),
    "Head": (0, -4, 79),
    "L_Shoulder": (17, 0, 50),
    "L_Elbow": (45, 0, 50),
    "L_Wrist": (70, 0, 50),
    "R_Shoulder": (-17, 0, 50),
    "R_Elbow": (-45, 0, 50),
    "R_Wrist": (-70, 0, 50),
}


def rig_bvh(rename=lambda name: name, unit=1.0, *, to_file_axes=lambda v: v, drop=(), frames=3):
    """The rig as a BVH file of a person who stands, every joint with three channels."""

    def joint(name):
        parent, offset = RIG[name]
        x, y, z = to_file_axes(np.array(offset) * unit)
        channels = "Zrotation Xrotation Yrotation"
        places = "Xposition Yposition Zposition " if not parent else ""
        lines = [f"{'JOINT' if parent else 'ROOT'} {rename(name)}", "{", f"OFFSET {x} {y} {z}"]
        lines.append(f"CHANNELS {6 if places else 3} {places}{channels}")
        children = [child for child, (above, _) in RIG.items() if above == name]
        for child in children:
            if child not in drop:
                lines += joint(child)
        if not children:
            tip = (0, 16, 1) if name == "Head" else (0, -5, 0)
            x, y, z = to_file_axes(np.array(tip) * unit)
            lines += ["End Site", "{", f"OFFSET {x} {y} {z}", "}"]
        return [*lines, "}"]

    lines = ["HIERARCHY", *joint("Hips"), "MOTION", f"Frames: {frames}", "Frame Time: 0.02"]
    count = sum(line.startswith("CHANNELS") for line in lines)
    root = to_file_axes(np.array([5.0, 100.0, 7.0]) * unit)
    row = " ".join(map(str, [*root, *np.zeros(3 * count)]))
    return "\n".join([*lines, *[row] * frames]) + "\n"


DAZ = {"UpLeg": "Thigh", "Leg": "Shin", "Arm": "Shldr", "ForeArm": "ForeArm", "Shoulder": "Collar"}
BLENDER = {"UpLeg": "thigh", "Leg": "shin", "Arm": "upper_arm", "ForeArm": "forearm"}
ANATOMY = {"UpLeg": "Hip", "Leg": "Knee", "Foot": "Ankle", "Arm": "Shoulder", "ForeArm": "Elbow"}
ANATOMY |= {"Hand": "Wrist", "Shoulder": "Collar"}


def renamed(parts, form):
    """Left and right names of a convention."""

    def rename(name):
        for word in ("Left", "Right"):
            if name.startswith(word):
                part = name.removeprefix(word)
                return form.format(word=word, l=word[0].lower(), L=word[0], p=parts.get(part, part))
        return name

    return rename


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"mixamorig:{name}",
        renamed(DAZ, "{l}{p}"),
        renamed(BLENDER, "{p}.{L}"),
        renamed(ANATOMY, "{word}{p}"),
    ],
    ids=["cmu", "mixamo", "daz", "blender", "anatomy"],
)
def test_usual_rigs_become_the_same_17_joints(tmp_path, rename):
    (tmp_path / "stand.bvh").write_text(rig_bvh(rename))
    clip = load_clips(tmp_path / "stand.bvh")[0]
    for joint, at in zip(HUMAN36M_17.joint_names, clip.joints_mm[1], strict=True):
        expected = 10.0 * np.array(STANDING_CM[joint]) + clip.joints_mm[1, 0]
        np.testing.assert_allclose(at, expected, atol=1e-6, err_msg=joint)


@pytest.mark.parametrize("unit", [0.01, 1.0 / 2.54, 1.0, 10.0, 0.45 / 2.54])
def test_units_are_recognised_by_the_legs(tmp_path, unit):
    (tmp_path / "stand.bvh").write_text(rig_bvh(unit=unit))
    assert load_clips(tmp_path / "stand.bvh")[0].leg_mm == pytest.approx(860.0)


def test_legs_of_no_known_unit_are_refused(tmp_path):
    (tmp_path / "stand.bvh").write_text(rig_bvh(unit=100.0))
    with pytest.raises(ValueError, match=r"stand.bvh: thigh and shank are 8600 units long"):
        load_clips(tmp_path / "stand.bvh")


def test_a_file_with_z_up_stands_like_one_with_y_up(tmp_path):
    (tmp_path / "y.bvh").write_text(rig_bvh())
    (tmp_path / "z.bvh").write_text(rig_bvh(to_file_axes=lambda v: np.array([v[0], -v[2], v[1]])))
    clips = load_clips(tmp_path)
    np.testing.assert_allclose(clips["y"].joints_mm, clips["z"].joints_mm, atol=1e-9)


def test_left_stays_left(tmp_path):
    """Seen from above, nose, left and up are right-handed in the room."""
    (tmp_path / "stand.bvh").write_text(rig_bvh())
    joints = load_clips(tmp_path / "stand.bvh")[0].joints_mm[0]
    name = HUMAN36M_17.index
    left = joints[name("L_Hip")] - joints[name("R_Hip")]
    front = joints[name("Nose")] - joints[name("Neck")]
    assert np.cross(front, left)[2] > 0


def test_joints_that_cannot_be_found_are_listed(tmp_path):
    (tmp_path / "arms.bvh").write_text(rig_bvh(drop=("LeftForeArm", "Head")))
    with pytest.raises(ValueError, match=r"known as L_Elbow, L_Wrist, Head; the rig has Hips"):
        load_clips(tmp_path / "arms.bvh")


CMU_BONES = {  # where each bone of CMU's skeletons ends, and from which it goes on
    **{f"{side}hipjoint": (f"{side.upper()}_Hip", "root") for side in "lr"},
    **{f"{side}femur": (f"{side.upper()}_Knee", f"{side}hipjoint") for side in "lr"},
    **{f"{side}tibia": (f"{side.upper()}_Ankle", f"{side}femur") for side in "lr"},
    **{"lowerback": ("Torso", "root"), "thorax": ("Neck", "lowerback")},
    **{"lowerneck": ("Nose", "thorax"), "head": ("Head", "lowerneck")},
    **{f"{side}clavicle": (f"{side.upper()}_Shoulder", "thorax") for side in "lr"},
    **{f"{side}humerus": (f"{side.upper()}_Elbow", f"{side}clavicle") for side in "lr"},
    **{f"{side}radius": (f"{side.upper()}_Wrist", f"{side}humerus") for side in "lr"},
    **{f"{side}foot": (None, f"{side}tibia") for side in "lr"},
    **{f"{side}hand": (None, f"{side}radius") for side in "lr"},
}


def cmu_asf():
    """The skeleton of a person who stands, in CMU's units and axes: y up, z forward."""
    ends = {"root": np.zeros(3)}
    data, children = [], []
    for name, (joint, parent) in CMU_BONES.items():
        x, y, z = np.array(STANDING_CM[joint or "Pelvis"]) * 10.0 * 0.45 / 25.4
        way = np.array([x, z, -y]) - ends[parent] if joint else np.array([0.0, -1.0, 0.0])
        ends[name] = ends[parent] + way
        length = np.linalg.norm(way)
        direction = " ".join(map(str, way / length))
        data += ["begin", f"name {name}", f"direction {direction}", f"length {length}", "end"]
        children.append(f"{parent} {name}")
    head = [":units", "length 0.45", "angle deg", ":root", "order TX TY TZ RX RY RZ", ":bonedata"]
    return "\n".join([*head, *data, ":hierarchy", "begin", *children, "end"]) + "\n"


@pytest.mark.parametrize("skeletons", [("07_02_walk",), ("any",), ("07_02", "other")])
def test_a_motion_of_cmu_finds_its_skeleton_and_becomes_the_17_joints(tmp_path, skeletons):
    (tmp_path / "07_02_walk.amc").write_text(
        ":DEGREES\n1\nroot 1 17 2 0 0 0\n2\nroot 1 17 3 0 0 0\n"
    )
    for name in skeletons:
        (tmp_path / f"{name}.asf").write_text(cmu_asf() if name != "other" else "no skeleton")
    clip = load_clips(tmp_path)[0]
    assert (clip.name, clip.action, clip.subject) == ("07_02_walk", "walk", "07")
    assert (clip.num_frames, clip.frames_per_s) == (2, 120.0)
    for joint, at in zip(HUMAN36M_17.joint_names, clip.joints_mm[1], strict=True):
        expected = 10.0 * np.array(STANDING_CM[joint]) + clip.joints_mm[1, 0]
        np.testing.assert_allclose(at, expected, atol=1e-6, err_msg=joint)
    moved = clip.joints_mm[1] - clip.joints_mm[0]
    np.testing.assert_allclose(moved, np.tile([0.0, -25.4 / 0.45, 0.0], (17, 1)), atol=1e-9)


@pytest.mark.parametrize("skeletons", [(), ("01", "02")])
def test_a_motion_without_its_skeleton_is_refused(tmp_path, skeletons):
    path = write_acclaim(tmp_path)
    (tmp_path / "07.asf").unlink()
    for name in skeletons:
        (tmp_path / f"{name}.asf").write_text(ASF)
    message = f"07_01.amc needs its skeleton: .*, found {len(skeletons)}; put it there under"
    with pytest.raises(ValueError, match=message):
        load_clips(path)
