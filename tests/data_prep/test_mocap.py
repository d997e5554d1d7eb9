"""Clips of motion capture: the NPZ layout, floors, what can be used, and how clips are divided."""

import numpy as np
import pytest

from data_prep.synthetic.mocap import load_clips
from data_prep.synthetic.mocap_clips import Clip, Clips, split_clips
from pose3d.geometry.skeleton import HUMAN36M_17

STANDING_MM = np.array(
    [
        *([0, 0, 860], [-90, 0, 860], [-90, -10, 460], [-90, 0, 75]),
        *([90, 0, 860], [90, -10, 460], [90, 0, 75]),
        *([0, 10, 1100], [0, 0, 1350], [0, -30, 1470], [0, -20, 1580]),
        *([180, 0, 1350], [220, 20, 1070], [230, -60, 830]),
        *([-180, 0, 1350], [-220, 20, 1070], [-230, -60, 830]),
    ],
    dtype=float,
)
WRISTS = [HUMAN36M_17.index(name) for name in ("L_Wrist", "R_Wrist")]


def swaying(num_frames, seed=0, shift_mm=(0.0, 0.0, 0.0)):
    """Somebody who stands and moves the hands a little."""
    joints = np.tile(STANDING_MM, (num_frames, 1, 1)) + shift_mm
    phase = np.random.default_rng(seed).uniform(0, 6)
    joints[:, WRISTS, 1] -= 50 * np.sin(np.arange(num_frames) / 5 + phase)[:, None]
    return joints


def clip(name, *, seed=0, action="wave", recording=None, joints_mm=None, rate=12.0):
    return Clip(
        joints_mm=swaying(36, seed) if joints_mm is None else joints_mm,
        frames_per_s=rate,
        name=name,
        action=action,
        subject=name[:2],
        rig="hand-made",
        recording=recording or name,
    )


def write_npz(path, parts, **changes):
    """Parts (clip name, action, room joints) in the file's axes: y down, z forward."""
    room = np.concatenate([joints for _, _, joints in parts])
    y_down = np.stack([room[..., 0], -room[..., 2], room[..., 1]], axis=-1)
    arrays = {
        "poses": (y_down - y_down[:, :1]).astype(np.float32),
        "root_world": y_down[:, 0].astype(np.float32),
        "clip": np.concatenate([[name] * len(joints) for name, _, joints in parts]),
        "action": np.concatenate([[action] * len(joints) for _, action, joints in parts]),
        "fps": np.float32(12.0),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def test_an_npz_file_gives_its_clips_in_room_axes(tmp_path):
    shifted = swaying(30, 1, shift_mm=(400.0, -900.0, 0.0))
    path = write_npz(
        tmp_path / "m.npz", [("01_01", "wave", swaying(20)), ("02_03", "wash", shifted)]
    )
    clips = load_clips(path)
    assert clips.names == ("01_01", "02_03")
    assert clips.actions == ("wash", "wave")
    assert [c.num_frames for c in clips] == [20, 30]
    assert (clips["02_03"].subject, clips[1].action, clips[1].frames_per_s) == ("02", "wash", 12.0)
    difference = clips["02_03"].joints_mm - shifted
    np.testing.assert_allclose(difference - difference[0, 0], 0.0, atol=1e-3)
    np.testing.assert_allclose(difference[..., :2], 0.0, atol=1e-3)  # only the floor may move


@pytest.mark.parametrize("floor_mm", [-700.0, 0.0, 55.0])
def test_feet_stand_on_the_floor_wherever_the_file_has_it(tmp_path, floor_mm):
    """A raised leg and a jump do not move the floor."""
    joints = swaying(60)
    joints[20:35, 3, 2] += 400.0
    joints[40:56, :, 2] += 300.0
    joints[..., 2] += floor_mm
    placed = load_clips(write_npz(tmp_path / "m.npz", [("01_01", "jump", joints)]))[0].joints_mm
    ankles = placed[:, [3, 6], 2]
    leg_mm = np.hypot(400.0, 10.0) + np.hypot(385.0, 10.0)
    assert ankles[:20] == pytest.approx(0.0875 * leg_mm, abs=2.0)
    assert ankles[25, 0] - ankles[25, 1] == pytest.approx(400.0, abs=1e-2)


def test_a_rest_stance_before_the_first_frame_is_dropped(tmp_path):
    joints = swaying(30)
    joints[0, [11, 12, 13, 14, 15, 16]] = [
        *([180, 0, 1350], [450, 0, 1350], [700, 0, 1350]),
        *([-180, 0, 1350], [-450, 0, 1350], [-700, 0, 1350]),
    ]
    spread = np.tile(joints[:1], (30, 1, 1))
    path = write_npz(tmp_path / "m.npz", [("01_01", "wave", joints), ("01_02", "T", spread)])
    assert [c.num_frames for c in load_clips(path)] == [29, 30]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poses": None}, "has no array 'poses'"),
        ({"fps": None}, "array 'fps' must be one number"),
        ({"root_world": np.zeros((19, 3))}, r"'root_world' must have shape \(frames, 3\)"),
        ({"poses": np.full((20, 17, 3), np.nan)}, "'poses' must hold finite numbers"),
        ({"clip": np.array([{}] * 20, dtype=object)}, "Python objects, which are never unpickled"),
    ],
)
def test_damaged_npz_files_are_refused_by_name(tmp_path, change, message):
    path = write_npz(tmp_path / "broken.npz", [("01_01", "wave", swaying(20))], **change)
    with pytest.raises(ValueError, match=message) as caught:
        load_clips(path)
    assert "broken.npz" in str(caught.value)


def test_a_truncated_npz_file_and_a_missing_path_are_refused(tmp_path):
    path = write_npz(tmp_path / "m.npz", [("01_01", "wave", swaying(20))])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"m.npz is not a readable NPZ file"):
        load_clips(path)
    with pytest.raises(FileNotFoundError, match=r"none.bvh does not exist"):
        load_clips(tmp_path / "none.bvh")
    with pytest.raises(ValueError, match=r"holds no .bvh and no .amc file"):
        load_clips(tmp_path)


def test_clips_are_found_by_number_and_by_name():
    clips = Clips([clip("01_01"), clip("01_02", seed=1)])
    assert clips[1] is clips["01_02"]
    assert clips.named(["01_02"]).names == ("01_02",)
    with pytest.raises(KeyError, match="did you mean '01_02'"):
        clips["01_2"]
    with pytest.raises(ValueError, match="found twice: 01_01"):
        Clips([clip("01_01"), clip("01_01")])


def climbing():
    joints = swaying(36)
    joints[10:30] += [0.0, 0.0, 500.0]
    return joints


def jumping():
    joints = swaying(36)
    joints[10:16] += [0.0, 0.0, 500.0]
    return joints


def whirling():
    joints = swaying(36)
    joints[::2, WRISTS, 0] = -joints[::2, WRISTS, 0]  # from side to side, three times a second
    joints[::2, WRISTS, 0] *= 3.0
    return joints


def backward():
    joints = swaying(36)
    for elbow, wrist in ((12, 13), (15, 16)):
        joints[:, elbow, 1], joints[:, wrist, 1] = -120.0, 250.0
    return joints


@pytest.mark.parametrize(
    ("joints", "fault"),
    [
        (swaying(36), None),
        (jumping(), None),
        (climbing(), "feet off the floor in 56%"),
        (whirling(), "moves a joint at"),
        (backward(), "bends an elbow backward in 100%"),
        (swaying(8), "lasts 0.58 s"),
    ],
    ids=["stands", "jumps", "climbs", "whirls", "backward", "short"],
)
def test_what_an_empty_room_cannot_show_has_a_fault(joints, fault):
    found = clip("01_01", joints_mm=joints).fault()
    assert (found is None) if fault is None else (fault in found)


def test_usable_clips_leave_out_faults_copies_and_excluded_actions():
    clips = Clips(
        [
            clip("01_01"),
            clip("01_02", joints_mm=climbing()),
            clip("01_03", joints_mm=swaying(36, shift_mm=(300.0, 0.0, 0.0))),
            clip("01_04", seed=4, action="laugh"),
        ]
    )
    assert clips.usable().names == ("01_01", "01_04")
    assert clips.usable(exclude_actions=["laugh"]).names == ("01_01",)
    faults = clips.faults(exclude_actions=["laugh"])
    assert list(faults) == ["01_02", "01_03", "01_04"]
    assert "feet off the floor" in faults["01_02"]
    assert faults["01_03"] == "is a copy of 01_01"
    assert faults["01_04"] == "is of an excluded action"
    assert clips.usable(most_raised_share=1.0).names == ("01_01", "01_02", "01_04")
    with pytest.raises(ValueError, match=r"cannot exclude actions \['sing'\]"):
        clips.usable(exclude_actions=["sing"])
    with pytest.raises(ValueError, match=r"none of the 4 clips can be used; 01_01, for one, lasts"):
        clips.usable(least_duration_s=100.0)


def many_clips():
    parts = [
        clip(f"0{s}_{t:02d}/{piece}", seed=10 * s + t, action=action, recording=f"0{s}_{t:02d}")
        for s, action in ((1, "walk"), (2, "wash"), (3, "sing"))
        for t in range(1 if action == "sing" else 10)
        for piece in (1, 2)
    ]
    twin = clip("09_01", seed=13, action="walk")  # the same motion as 01_03
    return Clips([*parts, twin])


@pytest.mark.parametrize("seed", range(8))
def test_no_recording_is_on_both_sides_of_a_split(seed):
    clips = many_clips()
    split = split_clips(clips, seed)
    assert sorted(split.train + split.test) == sorted(clips.names)
    recordings = [{clips[name].recording for name in side} for side in (split.train, split.test)]
    assert not recordings[0] & recordings[1]
    assert ("09_01" in split.train) == ("01_03/1" in split.train)
    assert {clips[name].action for name in split.test} == {"walk", "wash"}
    assert len(recordings[1] - {"09_01"}) == 4  # a fifth of ten recordings, twice


def test_a_split_depends_on_the_seed_and_on_nothing_else():
    clips = many_clips()
    again = Clips([clips[i] for i in np.random.default_rng(0).permutation(len(clips))])
    assert set(split_clips(clips, 3).test) == set(split_clips(again, 3).test)
    assert len({split_clips(clips, seed).test for seed in range(10)}) > 5


def test_recordings_of_as_many_actions_are_divided_all_the_same():
    clips = Clips([clip(f"01_{n:02d}", seed=n, action=f"action {n}") for n in range(10)])
    split = split_clips(clips, 0)
    assert len(split.test) == 2  # a fifth
    assert sorted(split.train + split.test) == sorted(clips.names)


def test_a_split_with_nothing_to_test_on_is_refused():
    pieces = [clip("01_01/1", recording="01_01"), clip("01_01/2", seed=1, recording="01_01")]
    with pytest.raises(ValueError, match=r"2 clips of one recording cannot be .* \(--test 0\)"):
        split_clips(Clips(pieces), 0)
    with pytest.raises(ValueError, match="test_share must be in"):
        split_clips(many_clips(), 0, test_share=1.0)
